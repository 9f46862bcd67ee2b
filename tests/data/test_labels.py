from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbt.data.labels import choose_labels, labels_of
from sslbt.data.splits import LEFT_OUT, Split
from sslbt.errors import UserError

CLASSES = ("meningioma", "glioma", "pituitary")


@st.composite
def splits(draw: st.DrawFn, families: int = 8, longest: int = 9) -> Split:
    """One to three classes of one to so many families of one to so many slices, in any order of rows.

    A family may lie outside of training, may have slices of another class, and slices that nobody has labelled.
    """
    rows = []
    for label in range(draw(st.integers(1, 3))):
        for number, count in enumerate(draw(st.lists(st.integers(1, longest), min_size=1, max_size=families))):
            part = draw(st.sampled_from(["train", "train", "validation", "test"])) if number else "train"
            family = "F00" if part == "train" and draw(st.integers(0, 4)) == 4 else f"F{label}{number}"
            bare = draw(st.sampled_from([0, 0, 1, count])) if number else 0
            rows += [(family, label if i >= bare else -1, part) for i in range(count)]
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(rows))
    table = pd.DataFrame([rows[i] for i in order], columns=["family", "label", "part"])
    table.loc[(table.label < 0) & (table.part != "train"), "part"] = LEFT_OUT
    table.insert(0, "file", [f"{i}.mat" for i in order])
    return Split("patient", table)


def labelled(split: Split) -> pd.DataFrame:
    """What may be chosen."""
    return split.table[(split.table.part == "train") & (split.table.label >= 0)]


def split_of(*families: tuple[str, int, int], part: str = "train") -> Split:
    """Families given as (name, label, slices)."""
    rows = [(f"{name}-{i}.mat", name, label, part) for name, label, count in families for i in range(count)]
    return Split("patient", pd.DataFrame(rows, columns=["file", "family", "label", "part"]))


def choose(split: Split, labels: object, seed: int = 0) -> list[int]:
    return list(choose_labels(split, str(labels), seed, CLASSES))


@settings(max_examples=40, deadline=None)
@given(splits(families=5, longest=6), st.integers(0, 5))
def test_every_budget_is_in_the_next_and_as_fair_as_can_be(split: Split, seed: int) -> None:
    train = labelled(split)
    smaller: set[int] = set()
    for count in range(train.label.nunique(), len(train) + 1):
        rows = choose(split, count, seed)
        assert len(rows) == count
        assert smaller < set(rows)
        check_fair(train, rows)
        smaller = set(rows)
    assert smaller == set(train.index) == set(choose(split, "all", seed))


def check_fair(train: pd.DataFrame, rows: list[int]) -> None:
    """Only what is labelled and to be trained on, each once; classes take turns, and within each the families."""
    assert rows == sorted(set(rows))
    assert set(rows) <= set(train.index)
    turns(train.label, rows)
    for _, of_class in train.groupby("label"):
        turns(of_class.family, [row for row in rows if row in of_class.index])


def turns(groups: pd.Series, rows: list[int]) -> None:
    """Nobody has two more than another who still has something to give."""
    taken = Counter(groups[rows])
    for group, available in groups.value_counts().items():
        assert taken[group] == available or taken[group] >= max(taken.values(), default=0) - 1


@settings(max_examples=300, deadline=None)
@given(splits(families=20, longest=20), st.data(), st.integers(0, 5))
def test_any_two_budgets_are_nested(split: Split, data: st.DataObject, seed: int) -> None:
    train = labelled(split)
    budgets = st.integers(train.label.nunique(), len(train))
    small, large = sorted([data.draw(budgets, "a budget"), data.draw(budgets, "another")])
    fewer, more, everything = (choose(split, labels, seed) for labels in (small, large, "all"))
    assert set(fewer) <= set(more) <= set(everything)
    assert (len(fewer), len(more)) == (small, large)
    assert everything == list(train.index)
    check_fair(train, fewer)
    check_fair(train, more)


@settings(max_examples=150, deadline=None)
@given(splits(), st.integers(0, 100), st.integers(0, 5))
def test_a_share_is_so_many_of_the_labelled_training_slices(split: Split, share: int, seed: int) -> None:
    train = labelled(split)
    count = round(share * len(train) / 100)
    if count < train.label.nunique():
        with pytest.raises(UserError, match=f"labels={share}%: {count} slices; the training part has {len(train)} "):
            choose(split, f"{share}%", seed)
    else:
        assert choose(split, f"{share}%", seed) == choose(split, count, seed)


@settings(max_examples=100, deadline=None)
@given(splits(), st.integers(0, 5), st.integers(0, 99))
def test_the_choice_depends_on_names_not_on_the_order_of_rows(split: Split, seed: int, order: int) -> None:
    mixed = Split(split.name, split.table.sample(frac=1, random_state=order).reset_index(drop=True))
    train = labelled(split)
    for labels in (max(len(train) // 2, train.label.nunique()), "1p"):
        first, second = (set(s.table.file.iloc[choose(s, labels, seed)]) for s in (split, mixed))
        assert first == second


@settings(max_examples=200, deadline=None)
@given(splits(), st.integers(1, 8), st.integers(0, 5))
def test_so_many_patients_a_class_with_all_their_slices_of_it(split: Split, count: int, seed: int) -> None:
    train, one_class = labelled(split), "|".join(CLASSES)
    if count > train.groupby("label").family.nunique().min():
        with pytest.raises(
            UserError, match=f"labels={count}p: class ({one_class}) has .* patient families to train on"
        ):
            choose(split, f"{count}p", seed)
        return
    rows = choose(split, f"{count}p", seed)
    chosen = train.loc[rows]
    assert (chosen.groupby("label").family.nunique() == count).all()
    pairs = set(zip(chosen.label, chosen.family, strict=True))
    assert rows == [row for row in train.index if (train.label[row], train.family[row]) in pairs]
    assert count == 1 or set(choose(split, f"{count - 1}p", seed)) < set(rows)


LARGE = split_of(*((f"P{number}", number % 3, 3 + number % 7) for number in range(90)))


def test_twelve_are_four_a_class_of_twelve_families() -> None:
    chosen = LARGE.table.iloc[choose(LARGE, 12)]
    assert list(chosen.label.value_counts()) == [4, 4, 4]
    assert chosen.family.nunique() == 12


def test_a_class_that_runs_out_leaves_its_turn_to_the_others() -> None:
    split = split_of(("A", 0, 2), ("B", 1, 9), ("C", 2, 9))
    chosen = split.table.iloc[choose(split, 12)]
    assert list(chosen.label.value_counts().sort_index()) == [2, 5, 5]


def test_a_share_is_of_the_training_slices() -> None:
    table = LARGE.table.copy()
    table.loc[table.index[300:], "part"] = "test"
    split = Split("patient", table)
    assert len(choose(split, "10%")) == 30
    assert choose(split, "10%") == choose(split, 30)
    assert choose(split, "100%") == choose(split, "all") == list(range(300))


def test_the_seed_decides() -> None:
    for labels in ("12", "5p"):
        assert choose(LARGE, labels, 1) == choose(LARGE, labels, 1)
        assert len({tuple(choose(LARGE, labels, seed)) for seed in range(5)}) == 5
    assert choose(LARGE, "all", 1) == choose(LARGE, "all", 2)


def test_the_choice_is_the_same_everywhere_for_ever() -> None:
    chosen = sorted(LARGE.table.file.iloc[choose(LARGE, 6)])
    assert chosen == ["P21-0.mat", "P31-2.mat", "P47-3.mat", "P48-5.mat", "P55-0.mat", "P86-3.mat"]


@pytest.mark.parametrize(
    "labels",
    [
        *("", "%", "p", "x", "-3", "1.5", "p5", "12%p", "12%%", "12 ", "12\n", "²", "ALL", "12.txt"),
        *("9" * 5000, "9" * 400 + "%"),
    ],
)
def test_other_forms_are_refused(labels: str) -> None:
    with pytest.raises(UserError, match="give a number such as 12"):
        choose(LARGE, labels)


@pytest.mark.parametrize("labels", ["0", "2", "0%", f"{len(LARGE.table) + 1}", "101%"])
def test_budgets_that_cannot_be_met_are_refused(labels: str) -> None:
    with pytest.raises(
        UserError, match=rf"labels={labels}: \d+ slices; the training part has {len(LARGE.table)} labelled ones of 3"
    ):
        choose(LARGE, labels)


@pytest.mark.parametrize("labels", ["0p", "31p"])
def test_patients_that_are_not_there_are_refused(labels: str) -> None:
    with pytest.raises(UserError, match=f"labels={labels}: class meningioma has 30 patient families to train on"):
        choose(LARGE, labels)


def test_without_a_training_part_there_is_nothing_to_label() -> None:
    with pytest.raises(UserError, match="the training part has 0 labelled ones of 0 classes"):
        choose(split_of(("A", 0, 9), part="test"), 12)


SMALL = split_of(("A", 0, 2), ("B", 1, 2), ("C", 2, 2))


def from_csv(tmp_path: Path, text: str, name: str = "mine.csv") -> list[int]:
    path = tmp_path / name
    path.write_text(text)
    return choose(SMALL, path)


@pytest.mark.parametrize("name", ["mine.csv", "MINE.CSV"])
def test_a_csv_of_file_and_class(name: str, tmp_path: Path) -> None:
    rows = "C-1.mat,pituitary\nA-0.mat,meningioma\nB-1.mat,glioma\nA-0.mat,meningioma\n"
    assert from_csv(tmp_path, "file,class\n" + rows, name) == [0, 3, 5]
    assert from_csv(tmp_path, "class,note,file\n" + "glioma,,B-0.mat\nmeningioma,x,A-1.mat\npituitary,,C-0.mat\n") == [
        1,
        2,
        4,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "file;class\nA-0.mat;meningioma\nB-1.mat;glioma\nC-0.mat;pituitary\n",
        "\ufefffile;patient;class\r\nA-0.mat;A;meningioma\r\nB-1.mat;B;glioma\r\nC-0.mat;C;pituitary\r\n",
        "File\tClass\nA-0.mat\tmeningioma\nB-1.mat\tglioma\nC-0.mat\tpituitary\n",
    ],
)
def test_a_csv_may_have_gone_through_excel(text: str, tmp_path: Path) -> None:
    assert from_csv(tmp_path, text) == [0, 3, 4]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("D-0.mat,glioma", r"D-0\.mat is not a training slice"),
        ("A-0.mat,glioma", r"A-0\.mat is labelled 'glioma', but the data says 'meningioma'"),
        ("A-0.mat,Meningioma", r"A-0\.mat is labelled 'Meningioma'; the classes are meningioma, glioma, pituitary"),
        ("A-0.mat,", r"A-0\.mat has no class yet; fill it in, or take the line out"),
        ("A-0.mat,glioma\nA-0.mat,meningioma", r"A-0\.mat is labelled 'glioma', but"),
        ("A-0.mat,meningioma\nC-0.mat,pituitary", "no slice is labelled glioma"),
        ("", "no slice is labelled glioma"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(rows: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"mine\.csv: {sentence}"):
        from_csv(tmp_path, f"file,class\n{rows}\n")


def test_a_csv_labels_what_the_data_does_not(tmp_path: Path) -> None:
    table = SMALL.table.assign(label=[0, -1, -1, 1, 2, -1])
    path = tmp_path / "mine.csv"
    path.write_text("file,patient,class\nC-1.mat,C,glioma\nA-0.mat,A,meningioma\nB-0.mat,B,pituitary\n")
    rows, labels = labels_of(Split("patient", table), str(path), 0, CLASSES)
    assert (rows.tolist(), labels.tolist()) == ([0, 2, 5], [0, 2, 1])
    assert labels.dtype == np.int64
    assert table.label.tolist() == [0, -1, -1, 1, 2, -1]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("A-1.mat,", r"A-1\.mat has no class yet"),
        ("A-1.mat,astrocytoma", r"A-1\.mat is labelled 'astrocytoma'; the classes are meningioma, glioma, pituitary"),
        ("A-1.mat,glioma\nA-1.mat,pituitary", r"A-1\.mat is labelled 'glioma' and 'pituitary'; take one out"),
        ("A-1.mat,glioma\nA-0.mat,meningioma", "no slice is labelled pituitary; label at least one of every class"),
    ],
)
def test_labels_of_unlabelled_slices_have_to_fit_too(rows: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"file,class\n{rows}\n")
    with pytest.raises(UserError, match=rf"mine\.csv: {sentence}"):
        labels_of(Split("patient", SMALL.table.assign(label=[0, -1, -1, 1, 2, -1])), str(path), 0, CLASSES)


@settings(max_examples=50, deadline=None)
@given(splits(), st.integers(0, 5))
def test_labels_are_the_datas_where_no_csv_gives_them(split: Split, seed: int) -> None:
    for labels in (str(labelled(split).label.nunique()), "1p", "100%", "all"):
        rows, found = labels_of(split, labels, seed, CLASSES)
        assert rows.tolist() == choose(split, labels, seed)
        assert found.tolist() == split.table.label[rows].tolist()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name,label\na,b\n",
        "file,class,class\nA-0.mat,glioma,meningioma\n",
        "file,class\nA-0.mat,meningioma,\n",
        'file,class\n"open',
        "file,class\n\0\xff",
    ],
)
def test_a_file_that_is_no_such_csv_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"mine\.csv: can't be read as a CSV with the columns file and class"):
        choose(SMALL, path)


@pytest.mark.parametrize("place", ["gone.csv", "~nobody-here/gone.csv", "nul\0.csv"])
def test_a_csv_that_is_not_there_is_refused(place: str) -> None:
    with pytest.raises(UserError, match=f"labels={place}: can't be read"):
        choose(SMALL, place)


@settings(max_examples=100, deadline=None)
@given(split=splits(), more=st.sets(st.integers(0, 99)), order=st.integers(0, 99))
def test_a_csv_picks_what_it_names(
    split: Split, more: set[int], order: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names, strange = ("None", "NA", "grade 2"), ["NA", "nan", "a,b", 'c"d', "é", " 1.0", "-"]
    table = split.table.assign(file=[*strange, *split.table.file[len(strange) :]][: len(split.table)])
    train = labelled(Split("patient", table))
    rows = sorted({*train.drop_duplicates("label").index, *more & set(train.index)})
    given_twice = train.loc[rows * 2].sample(frac=1, random_state=order)
    path = tmp_path_factory.getbasetemp() / "mine.csv"
    given_twice.assign(**{"class": [names[label] for label in given_twice.label]}).to_csv(path, index=False)
    assert list(choose_labels(Split("patient", table), str(path), 0, names)) == rows


@pytest.mark.parametrize("text", ["object", "category", "string[pyarrow]", "string[python]"])
def test_the_kind_of_the_columns_does_not_matter(text: str) -> None:
    for number in ("int8", "Int64", "int64[pyarrow]"):
        table = LARGE.table.astype({"file": text, "family": text, "part": text, "label": number})
        for labels in ("12", "5p", "10%", "all"):
            assert choose(Split("patient", table), labels) == choose(LARGE, labels)


def test_rows_are_whole_numbers_whatever_the_form(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("file,class\nA-0.mat,meningioma\nB-0.mat,glioma\nC-0.mat,pituitary\n")
    for labels in ("3", "50%", "1p", "all", str(path)):
        assert choose_labels(SMALL, labels, 0, CLASSES).dtype == np.int64
