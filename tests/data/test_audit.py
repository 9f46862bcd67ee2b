from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslbt.config import Finetune, Prepare
from sslbt.data import reading
from sslbt.data.audit import Audit, audit
from sslbt.data.cache import Cache, prepare
from sslbt.data.source import Source
from sslbt.data.splits import LEFT_OUT, PARTS, Split, make_split
from sslbt.errors import UserError
from sslbt.steps.common import look_at_data, open_data

Slice = tuple[str, str, int]  # family, part, fold
Pair = tuple[int, int, float]


def audited(slices: list[Slice], pairs: list[Pair] = (), name: str = "patient") -> Audit:  # type: ignore[assignment]
    """What is found in slices 0.mat, 1.mat, ... of patients called as their families."""
    table = pd.DataFrame(slices, columns=["family", "part", "fold"])
    table["file"] = [f"{number}.mat" for number in range(len(table))]
    table["patient"], table["label"] = table.family, 0
    similar = pd.DataFrame(pairs, columns=["first", "second", "likeness"])
    pixels, own = np.zeros((0, 256, 256), np.uint8), table.drop(columns="part")
    cache = Cache(pixels, own, pd.DataFrame(), similar, "", False, (), folder=Path("nowhere"))
    return audit(cache, Split(name, table[["file", "patient", "family", "label", "part"]]))


CLEAN: list[Slice] = [("A", "train", 1), ("A", "train", 1), ("B", "validation", 2), ("C", "test", 3), ("D", "test", 0)]


def test_where_nothing_leaks_nothing_is_found() -> None:
    found = audited(CLEAN)
    assert not any(found.facts.values())
    assert found.findings == ["no picture, nor a copy of it, is in two parts", "no patient family is in two parts"]
    assert not found.stops
    assert not len(found.crossing)
    assert not len(found.pairs)
    assert not len(found.leaks)


def test_families_in_two_parts_are_named_and_counted() -> None:
    found = audited([*CLEAN, ("A", "test", 0), ("B", "train", 2), ("C", "test", 3)], name="slices")
    rows = list(found.crossing.itertuples(index=False, name=None))
    assert rows == [("A", "test train", 3), ("B", "train validation", 2)]
    assert (found.facts["crossing_families"], found.facts["crossing_slices"]) == (2, 5)
    assert "patient families in two parts: 2, with 5 slices" in found.findings
    assert not found.stops


def test_slices_that_are_left_out_are_in_no_part() -> None:
    found = audited([*CLEAN, ("A", LEFT_OUT, 0), ("C", LEFT_OUT, 0)], [(0, 5, 1.0), (3, 5, 1.0), (5, 6, 1.0)])
    assert not len(found.crossing)
    assert not len(found.leaks)
    assert not found.stops
    assert "pictures of different patients that show the same, within one part: 3 pairs" in found.findings


@pytest.mark.parametrize(("first", "second"), list(combinations(PARTS, 2)))
@pytest.mark.parametrize("name", ["patient", "patient:3", "official:2", "none", "slices"])
def test_a_picture_in_two_parts_stops_every_split_but_that_by_slices(first: str, second: str, name: str) -> None:
    found = audited([("A", first, 0), ("B", second, 0), ("C", second, 0)], [(0, 1, 1.0), (1, 2, 0.95)], name)
    assert found.stops == (name != "slices")
    assert list(found.pairs.leak) == [True, False]
    (leak,) = found.leaks.itertuples(index=False)
    assert (leak.first_file, leak.first_patient, leak.first_part) == ("0.mat", "A", first)
    assert (leak.second_file, leak.second_patient, leak.second_part) == ("1.mat", "B", second)
    assert (found.facts["similar_pairs"], found.facts["leaking_pairs"]) == (2, 1)
    assert found.findings[0] == f"0.mat (patient A, {first}) and 1.mat (patient B, {second}) are the same picture"
    assert "pictures of different patients that show the same, within one part: 1 pairs" in found.findings


@pytest.mark.parametrize("part", PARTS)
def test_a_picture_twice_in_one_part_stops_nothing(part: str) -> None:
    found = audited([("A", part, 0), ("B", part, 0), ("C", "train", 0)], [(0, 1, 1.0)])
    assert not found.stops
    assert not len(found.leaks)
    assert found.findings[0] == "no picture, nor a copy of it, is in two parts"


def test_the_pair_that_is_most_alike_speaks_for_all() -> None:
    slices = [("A", "train", 0), ("B", "train", 0), ("C", "test", 0), ("D", "test", 0)]
    found = audited(slices, [(0, 1, 1.0), (1, 2, 0.9731), (0, 3, 0.95)])
    said = found.findings[0]
    assert said == (
        "1.mat (patient B, train) and 2.mat (patient C, test) are almost the same picture, and 1 more such pairs"
    )


def test_families_across_the_folds_of_the_data_are_counted_and_stop_nothing() -> None:
    slices = [("A", "train", 1), ("A", "train", 2), ("A", "train", 0), ("B", "test", 3), ("B", "test", 3)]
    found = audited([*slices, ("C", "validation", 0), ("C", "validation", 4), ("D", LEFT_OUT, 4), ("D", LEFT_OUT, 5)])
    assert (found.fold_families, found.fold_slices) == (2, 4)  # A and D; 0 is no fold
    assert (found.facts["fold_crossing_families"], found.facts["fold_crossing_slices"]) == (2, 4)
    assert "patient families across the data's own folds: 2, 4 slices" in found.findings
    assert not found.stops


@st.composite
def finds(draw: st.DrawFn) -> tuple[list[Slice], list[Pair], str]:
    slices = st.tuples(st.sampled_from("ABCDEF"), st.sampled_from([*PARTS, LEFT_OUT]), st.integers(0, 3))
    all_of_them = [("Z", "train", 0), *draw(st.lists(slices, min_size=1, max_size=20))]
    rows = st.integers(0, len(all_of_them) - 1)
    pairs = draw(st.lists(st.tuples(rows, rows, st.floats(0.9, 1)), max_size=8))
    return all_of_them, [(a, b, near) for a, b, near in pairs if a < b], draw(st.sampled_from(["patient", "slices"]))


@settings(max_examples=50, deadline=None)
@given(finds())
def test_all_counts_are_those_of_counting_by_hand(case: tuple[list[Slice], list[Pair], str]) -> None:
    slices, pairs, name = case
    found = audited(slices, pairs, name)
    parts: dict[str, list[str]] = {}
    folds: dict[str, list[int]] = {}
    for family, part, fold in slices:
        if part != LEFT_OUT:
            parts.setdefault(family, []).append(part)
        if fold:
            folds.setdefault(family, []).append(fold)
    crossing = {family: len(own) for family, own in parts.items() if len(set(own)) > 1}
    across = {family: len(own) for family, own in folds.items() if len(set(own)) > 1}
    leaks = [
        (a, b) for a, b, _ in pairs if LEFT_OUT not in (slices[a][1], slices[b][1]) and slices[a][1] != slices[b][1]
    ]
    assert dict(zip(found.crossing.family, found.crossing.slices, strict=True)) == crossing
    assert found.facts == {
        "crossing_families": len(crossing),
        "crossing_slices": sum(crossing.values()),
        "similar_pairs": len(pairs),
        "leaking_pairs": len(leaks),
        "fold_crossing_families": len(across),
        "fold_crossing_slices": sum(across.values()),
    }
    assert list(zip(found.leaks["first"], found.leaks["second"], strict=True)) == leaks
    assert found.stops == (bool(leaks) and name == "patient")


# Of real files: six patients of each of two classes, and copies of their slices.


@pytest.fixture
def data(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reading, "FEW", 1000)  # few enough to be read here
    for number in range(12):
        for i in range(6):
            path = tmp_path / "data" / ("glioma", "cyst")[number % 2] / f"P{number}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, i]).integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).resize((128, 128)).save(path)
    return tmp_path / "data"


WHO = "^(P[0-9]+)_"


def files_of(data: Path, part: str) -> list[Path]:
    """The files of a part of the split by patient, of one class."""
    cache, split = split_of(data)
    return [data / path for path in cache.table.path[split.table.part == part] if path.startswith("cyst")]


def split_of(data: Path, name: str = "patient") -> tuple[Cache, Split]:
    cache = prepare(Source(str(data), patient_pattern=WHO))
    return cache, make_split(cache.table, name, cache.classes)


def copy(file: Path, other: Path) -> None:
    """Let a patient have another's picture, mirrored and as JPEG, whatever its name says."""
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other, "JPEG", quality=80)


@pytest.mark.parametrize("name", ["patient", "patient:2", "none"])
def test_other_patients_pictures_are_no_leak(name: str, data: Path) -> None:
    found = audit(*split_of(data, name))
    assert not any(found.facts.values())
    assert not found.stops


def test_a_split_by_slices_crosses_families_and_says_so(data: Path) -> None:
    cache, split = split_of(data, "slices")
    found = audit(cache, split)
    crossing = split.table.groupby("family").part.nunique() > 1
    assert set(found.crossing.family) == set(crossing.index[crossing])
    assert len(found.crossing)
    assert not found.stops
    assert split.warning


def test_official_folds_that_families_cross(slices: Path, home: Path) -> None:
    cache = prepare(Source(str(slices)))
    found = audit(cache, make_split(cache.table, "none", cache.classes))
    own = cache.table.groupby("family").fold.agg(["nunique", "size"])
    across = own[own["nunique"] > 1]
    assert (found.fold_families, found.fold_slices) == (len(across), across["size"].sum())
    assert found.fold_families > 0


class Run(SimpleNamespace):
    """Takes what is logged and keeps the audit."""

    id = "1f"

    def __getattr__(self, name: str):
        return lambda *what: setattr(self, f"last_{name}", what)


def training(data: Path, split: str = "patient") -> Finetune:
    return Finetune.build(data=str(data), patient_pattern=WHO, split=split)


def test_a_copy_in_another_part_stops_training_but_not_looking(data: Path) -> None:
    first, second = files_of(data, "train")[0], files_of(data, "test")[0]
    copy(first, second)
    run = Run()
    with pytest.raises(UserError) as caught:
        open_data(training(data), run)
    sentence = str(caught.value)
    assert f"{first.name} (patient {first.stem[:-2]}, train)" in sentence
    assert f"{second.name} (patient {second.stem[:-2]}, test)" in sentence
    assert "almost the same picture; give both patients one number" in sentence
    assert "\n" not in sentence
    (found,) = run.last_audit
    assert found.facts["leaking_pairs"] == 1
    cfg = Prepare.build(data=str(data), patient_pattern=WHO, split="patient")
    assert look_at_data(cfg, run)[2].stops  # which stops nothing there


def test_once_both_are_one_patient_training_goes_on(data: Path) -> None:
    first, other = files_of(data, "train")[0], files_of(data, "test")[0]
    copy(first, other)
    other.rename(data / "cyst" / f"{first.stem[:-2]}_9.jpg")
    cache, split = open_data(training(data), Run())
    assert not len(cache.similar)
    assert set(split.table.part) == set(PARTS)


def test_a_copy_in_the_same_part_lets_training_go_on(data: Path) -> None:
    first, *others = files_of(data, "train")
    other = next(path for path in others if path.stem[:-2] != first.stem[:-2])
    copy(first, other)
    run = Run()
    cache, _ = open_data(training(data), run)
    assert len(cache.similar) == 1
    assert not run.last_audit[0].stops


def test_a_copy_stops_no_split_by_slices(data: Path) -> None:
    files = sorted((data / "cyst").iterdir())
    copy(files[0], files[-1])
    run = Run()
    open_data(training(data, "slices"), run)
    assert run.last_audit[0].facts["similar_pairs"] == 1
