import base64
import io
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from reader import Page

from sslbt.data.audit import audit
from sslbt.data.cache import Cache
from sslbt.data.splits import Split, make_split
from sslbt.report import data as module
from sslbt.report.data import data_report
from sslbt.report.page import picture

PNG = "data:image/png;base64,"
HARMLESS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "section",
        "div",
        "h1",
        "h2",
        "h3",
        "p",
        "strong",
        "ul",
    ),
    *("li", "dl", "dt", "dd", "table", "thead", "tbody", "tfoot", "tr", "th", "td", "img", "figure", "figcaption"),
}
KNOWN = {"class", "src", "alt", "width", "scope", "lang", "charset", "name", "content", "http-equiv"}
EVIL = ("<img src=x onerror=alert(1)>", "\"'><script>alert(2)</script>", "{{ 7 * 7 }}&lt;{% raw %}")


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Charts, which take long to draw, are only collected."""
    collected: list[Figure] = []
    monkeypatch.setattr("sslbt.report.page.picture", lambda figure: collected.append(figure) or PNG)
    return collected


WARNINGS = "Worth a second look"


def slices(patient: str, label: str, count: int = 1, **more: object) -> list[dict]:
    """Rows of a table: slices of one patient."""
    default = {"family": patient, "fold": 0, "height": 512, "width": 512, "plane": "", "low": 0.0, "high": 900.0}
    default["tumour"] = np.nan
    return [default | {"patient": patient, "class": label} | more for _ in range(count)]


def made(rows: Sequence[dict], refused: Sequence[tuple[str, str]] = (), **more: object) -> Cache:
    """A cache of these slices; file names are numbered unless they are given."""
    names = [f"{number}.png" for number in range(len(rows))]
    table = pd.DataFrame(list(rows))
    table["file"] = table["file"].where(table["file"].notna(), names) if "file" in table else names
    table["path"], table["sha256"] = table.file, table.file
    classes = tuple(dict.fromkeys(row["class"] for row in rows if row["class"]))
    table["label"] = [classes.index(name) if name else -1 for name in table["class"]]
    pixels = np.random.default_rng(0).integers(0, 256, (len(rows), 32, 32), np.uint8)
    similar = pd.DataFrame(columns=["first", "second", "likeness"]).astype({"first": int, "second": int})
    parts = {"digest": "d1g35t", "synthetic": False, "similar": similar} | more
    left_out = pd.DataFrame(refused, columns=["path", "reason"])
    return Cache(pixels, table, classes=classes, refused=left_out, folder=Path("nowhere"), **parts)


def healthy() -> list[dict]:
    """Two classes of six patients each, three slices a patient."""
    return [row for number in range(12) for row in slices(f"P{number}", ("glioma", "none")[number % 2], 3)]


def by_hand(cache: Cache, parts: Sequence[str]) -> Split:
    return Split("by hand", cache.table[["file", "patient", "family", "label"]].assign(part=list(parts)))


def page(cache: Cache, split: str | Sequence[str] = "patient", source: str = "/data/lab") -> Page:
    """The page for a split, by its name or by hand."""
    parts = make_split(cache.table, split, cache.classes) if isinstance(split, str) else by_hand(cache, split)
    return Page(data_report(cache, parts, audit(cache, parts), source))


def test_counts_are_those_of_a_hand_count() -> None:
    rows = [
        *slices("A1", "glioma", 3, family="A"),  # rows 0 to 2
        *slices("A2", "glioma", 1, family="A"),  # 3
        *slices("B", "glioma", 2, height=256, width=128, tumour=0.02),  # 4, 5
        *slices("C", "none", 2, high=255.0),  # 6, 7
        *slices("D", "none", 1, high=200.0, low=7.0),  # 8
        *slices("C", "", 1),  # 9
        *slices("E", "", 2),  # 10, 11
    ]
    parts = ["train"] * 4 + ["validation", "test"] + ["test"] * 2 + ["train", "left out", "train", "train"]
    shown = page(made(rows), parts)
    assert dict(zip(shown.said("Data report: lab", "dt"), shown.said("Data report: lab", "dd"), strict=True)) == {
        "data": "d1g35t",
        "split": f"by hand {by_hand(made(rows), parts).hash}",
        "from": "/data/lab",
        "slices": "12",
        "patients": "6",
        "families": "5",
        "classes": "2",
        "labelled": "9",
        "unlabelled": "3",
        "tumours outlined": "2",
        "refused": "0",
    }
    assert shown.tables["Classes"] == [
        ["class", "slices", "patients", "families", "per patient"],
        ["glioma", "6", "3", "2", "2 (1 to 3)"],
        ["none", "3", "2", "2", "1.5 (1 to 2)"],
        ["unlabelled", "3", "2", "2", "1.5 (1 to 2)"],
        ["all", "12", "6", "5", "2 (1 to 3)"],
    ]
    assert shown.tables["Parts of the split"] == [
        ["class", "train", "validation", "test", "left out"],
        ["glioma", "4 (1)", "1 (1)", "1 (1)", "0"],
        ["none", "1 (1)", "0", "2 (1)", "0"],
        ["unlabelled", "2 (1)", "0", "0", "1 (1)"],
    ]
    assert shown.tables["Sizes"] == [
        ["size", "slices", "glioma", "none", "unlabelled"],
        ["512 × 512", "10", "4", "3", "3"],
        ["256 × 128", "2", "2", "0", "0"],
    ]
    assert shown.tables["Intensities"][1:] == [
        ["glioma", "look like 12 bit (0 to 4,095)", "0", "900"],
        ["none", "look like 8 bit (0 to 255)", "0 (0 to 7)", "255 (200 to 255)"],
        ["unlabelled", "look like 12 bit (0 to 4,095)", "0", "900"],
    ]
    assert shown.tables["Patients counted as one family"][1:] == [["A", "A1, A2", "glioma", "4"]]
    assert "Nobody has confirmed" in shown.said("Patients counted as one family", "p")[0]
    assert shown.tables["Families in several parts"][1:] == [["B", "test validation", "2"]]


def check_harmless(shown: Page) -> None:
    """No script, form, link or handler, and no picture but those inside the page."""
    assert {tag for tag, _ in shown.tags} <= HARMLESS
    for _, attributes in shown.tags:
        assert attributes.keys() <= KNOWN
        assert (attributes.get("src") or PNG).startswith(PNG)


def test_nothing_is_loaded_and_nothing_runs() -> None:
    shown = page(made(healthy(), synthetic=True))
    check_harmless(shown)
    policies = [attributes["content"] for _, attributes in shown.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    style = shown.said("", "style")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("source", EVIL)
def test_hostile_names_are_text(source: str) -> None:
    rows = healthy()
    for row, name in zip(rows[:9:3], EVIL, strict=True):  # of the first three patients
        row |= {"file": f"{name}.png", "patient": name, "family": "one", "class": name, "plane": name}
    similar = pd.DataFrame({"first": [0, 3, 6], "second": [10, 10, 10], "likeness": [1.0, 1.0, 1.0]})
    refused = [(f"{name}.dcm", f"{name}.dcm: {name}") for name in EVIL] + [(f"{EVIL[0]}#{n}", EVIL[1]) for n in (1, 2)]
    shown = page(made(rows, refused, similar=similar, digest=EVIL[0]), ["train", "test", "train"] * 12, source)
    check_harmless(shown)
    assert [f"{source}.dcm", source] in shown.tables["Files and single slices"]
    assert [EVIL[1], EVIL[0], "1", "2"] in shown.tables["Slices of volumes, by reason"]
    assert source in [row[0] for row in shown.tables["Planes"]]
    assert source in [row[0] for row in shown.tables["Classes"]]
    assert f"{source}.png" in shown.said(source, "figcaption")
    pairs = shown.tables["Pictures of different patients that show the same"]
    assert any(row[1].startswith(f"{source}.png, patient {source}") for row in pairs)
    assert source in shown.said(f"Data report: {PurePath(source).name}", "dd")


def test_sound_data_give_no_warning() -> None:
    shown = page(made(healthy()))
    assert shown.said(WARNINGS, "li") == []
    assert shown.said("Refused", "p") == ["Nothing: every slice that was found is used."]
    assert shown.said("Planes", "p") == ["The files don't record the plane of their slices."]
    assert shown.said("Leakage audit", "li") == [
        "no picture, nor a copy of it, is in two parts",
        "no patient family is in two parts",
    ]
    assert "None: " in shown.said("Patients counted as one family", "p")[0]
    assert "banner" not in [attributes.get("class") for _, attributes in shown.tags]


def test_slices_of_unknown_patients_count_as_patients_of_their_own() -> None:
    unknown = [row for n in range(25) for row in slices("", ("glioma", "none")[n % 2], family=f"u{n}.png")]
    shown = page(made([*unknown, *slices("A", "glioma", 3)]), "none")
    numbers = dict(zip(shown.said("Data report: lab", "dt"), shown.said("Data report: lab", "dd"), strict=True))
    assert (numbers["slices"], numbers["patients"], numbers["families"]) == ("28", "26", "26")
    assert shown.tables["Classes"][-1] == ["all", "28", "26", "26", "1 (1 to 3)"]
    (warning,) = shown.said(WARNINGS, "li")
    assert warning.startswith("whose they are is not known of 25 of 28 slices: each file of them counts as a patient")


def many_singles(count: int) -> list[dict]:
    return [row for number in range(count) for row in slices(f"P{number}", ("glioma", "none")[number % 2])]


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([*healthy(), *slices("Q", "rare", 3)], "class rare is of one patient family only"),
        ([*healthy(), *(r for n in range(4) for r in slices(f"Q{n}", "rare"))], "class rare is of 4 patient families"),
        ([*healthy(), *slices("P0", "glioma", 2)], "class glioma: patient P0 has 25% of its slices (5 of 20)"),
        (many_singles(21), "every patient has exactly one slice: is the patient pattern right?"),
        (
            [*healthy(), *(r for n in range(199) for r in slices(f"Q{n}", "glioma"))],
            "classes are out of balance: 217 slices of glioma, 18 of none",
        ),
        ([*healthy(), *slices("P3", "", 2)], "2 of 38 slices are unlabelled"),
        (
            [row | {"high": 255.0 + 9 * (row["class"] == "none")} for row in healthy()],
            "intensities of glioma look like 8",
        ),
    ],
)
def test_what_looks_wrong_is_said(rows: list[dict], part: str) -> None:
    said = page(made(rows), "none").said(WARNINGS, "li")
    assert any(part in warning for warning in said), said


@pytest.mark.parametrize(
    "rows",
    [
        many_singles(20),  # few slices: one each may be so
        [*healthy(), *(r for n in range(162) for r in slices(f"Q{n}", "glioma"))],  # 10 to 1 exactly
        [*healthy()[:30], *slices("P10", "glioma", 3), *slices("P11", "none", 3)],  # as healthy
        [row | {"high": 255.0} for row in healthy()],
    ],
)
def test_what_is_just_right_is_not_warned_of(rows: list[dict]) -> None:
    assert page(made(rows), "none").said(WARNINGS, "li") == []


def test_exactly_a_fifth_is_no_large_share() -> None:
    five = [row for number in range(5) for row in slices(f"P{number}", "glioma", 2)]
    assert page(made(five), "none").said(WARNINGS, "li") == []


def test_leaks_are_shown_first_and_with_their_pictures() -> None:
    similar = pd.DataFrame({"first": [0, 3], "second": [9, 6], "likeness": [1.0, 0.95]})
    parts = ["train"] * 6 + ["test"] * 6 + ["train"] * 24
    parts[9] = "train"
    shown = page(made(healthy(), similar=similar), parts)
    leak = "3.png (patient P1, train) and 6.png (patient P2, test) are almost the same picture"
    assert shown.said(WARNINGS, "li")[0] == leak
    assert shown.said("Leakage audit", "li")[0] == leak
    assert shown.tables["Pictures of different patients that show the same"][1:] == [
        ["", "3.png, patient P1, train", "", "6.png, patient P2, test", "yes", "0.95"],
        ["", "0.png, patient P0, train", "", "9.png, patient P3, train", "no", "1"],
    ]
    assert shown.tables["Families in several parts"][1:] == [["P3", "test train", "3"]]


def test_a_split_that_leaks_by_its_nature_is_warned_of() -> None:
    rows = [row for number in range(60) for row in slices(f"P{number}", ("glioma", "none")[number % 2], 3)]
    assert "split=slices puts slices of one patient on both sides" in page(made(rows), "slices").said(WARNINGS, "li")[0]


def test_refused_files_are_listed_and_empty_slices_of_volumes_counted() -> None:
    empty = [(f"v{v}.nii#{n}", f"v{v}.nii#{n}: all pixels are equal") for v in range(2) for n in range(3)]
    others = [("a/b.png", "a/b.png: damaged"), ("v0.nii#9", "v0.nii#9: not finite"), ("c#1x.png", "another reason")]
    shown = page(made(healthy(), [*empty, *others]))
    assert shown.tables["Slices of volumes, by reason"][1:] == [["all pixels are equal", "v0.nii", "2", "6"]]
    assert shown.tables["Files and single slices"][1:] == [
        ["a/b.png", "damaged"],
        ["v0.nii#9", "not finite"],
        ["c#1x.png", "another reason"],
    ]
    assert "9" in shown.said("Data report: lab", "dd")


def test_long_tables_say_what_they_leave_out() -> None:
    rows = [row | {"height": 100 + number} for number, row in enumerate(healthy())]
    shown = page(made(rows, [(f"{n}.png", f"{n}.png: damaged") for n in range(1234)]))
    assert len(shown.tables["Files and single slices"]) == 1 + 200
    assert shown.said("Files and single slices", "p") == ["and 1,034 more files"]
    assert len(shown.tables["Sizes"]) == 1 + 10
    assert shown.said("Sizes", "p")[-1] == "and 26 more sizes"


def test_planes_are_counted_where_they_are_known() -> None:
    rows = [row | {"plane": ("axial", "axial", "")[number % 3]} for number, row in enumerate(healthy())]
    assert page(made(rows)).tables["Planes"] == [
        ["plane", "slices", "glioma", "none"],
        ["axial", "24", "12", "12"],
        ["not recorded", "12", "6", "6"],
    ]


def test_one_class_alone() -> None:
    shown = page(made([row for row in healthy() if row["class"] == "glioma"]), "none")
    assert shown.tables["Classes"][1:] == [["glioma", "18", "6", "6", "3"]]
    assert shown.tables["Parts of the split"] == [["class", "test"], ["glioma", "18 (6)"]]
    assert shown.tables["Sizes"] == [["size", "slices"], ["512 × 512", "18"]]


def test_a_class_of_the_classifier_that_the_data_lack() -> None:
    shown = page(made(healthy()).with_classes(("pituitary", "glioma", "none")))
    assert shown.tables["Classes"][1] == ["pituitary", "0", "0", "0", "–"]
    assert shown.said(WARNINGS, "li") == []
    assert shown.said("pituitary", "h3") == []


def test_the_montage_takes_middle_slices_of_different_patients() -> None:
    rows = [row for number in range(20) for row in slices(f"P{number}", "glioma", 5)]
    shown = page(made(rows + slices("Q", "none", 3)), "none")
    names = shown.said("glioma", "figcaption")
    numbers = [int(name.removesuffix(".png")) for name in names]
    assert len(numbers) == 8
    assert len({number // 5 for number in numbers}) == 8
    assert {number % 5 for number in numbers} == {2}
    assert {0, 19} <= {number // 5 for number in numbers}
    assert shown.said("none", "figcaption") == ["100.png", "101.png", "102.png"]


def test_phantoms_are_called_phantoms() -> None:
    shown = page(made(healthy(), synthetic=True))
    assert any("drawn by the software" in text for text in shown.said("Data report: lab", "p"))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1, "look like fractions (0 to 1)"),
        (0, 255, "look like 8 bit (0 to 255)"),
        (3, 256, "look like 12 bit (0 to 4,095)"),
        (0, 4096, "look like 16 bit (0 to 65,535)"),
        (0, 65536, "are larger than 16 bit"),
        (-1024, 3071, "go below 0 (-1,024 to 3,071)"),
    ],
)
def test_ranges_in_words(low: float, high: float, words: str) -> None:
    assert module._range(pd.DataFrame({"low": [low, high], "high": [high, high]})) == words


def test_the_chart_counts_patients_by_their_slices(figures: list[Figure]) -> None:
    rows = [row for number, count in enumerate((1, 1, 3, 3, 3, 5)) for row in slices(f"P{number}", "glioma", count)]
    page(made(rows), "none")
    bars = figures[0].axes[0].patches
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars] == [
        (pytest.approx(count), patients) for count, patients in enumerate((2, 0, 3, 0, 1), 1)
    ]


def test_every_patient_is_in_the_chart_of_a_wide_range(figures: list[Figure]) -> None:
    page(made(slices("P", "glioma", 121) + slices("Q", "glioma", 1)), "none")
    assert sum(bar.get_height() for bar in figures[0].axes[0].patches) == 2


def test_a_figure_becomes_a_picture_inside_the_page() -> None:
    drawn = Image.open(io.BytesIO(base64.b64decode(picture(Figure(figsize=(2, 1))).removeprefix(PNG))))
    assert (drawn.format, drawn.size) == ("PNG", (384, 192))


def test_equal_data_give_an_equal_page() -> None:
    cache = made(many_singles(4))
    split = make_split(cache.table, "none", cache.classes)
    first, second = (data_report(cache, split, audit(cache, split), "x") for _ in range(2))
    assert first == second
