from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslbt.data.identity import Identities, class_order, family, identify, short_names
from sslbt.errors import UserError

Csv = Callable[[str | bytes], str]
NAMED = ["P1_1.png", "P1_2.png", "P2_1.png"]


@pytest.fixture
def csv(tmp_path: Path) -> Csv:
    """Writes annotations; gives their path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "annotations.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def told(
    paths: list[str], annotations: str = "", pattern: str = "", patient: str = "", label: str = ""
) -> list[tuple[str, str]]:
    """Patient and class of each slice, of which nothing is refused; `patient` and `label` are what each file says."""
    found = run(paths, annotations, pattern, patient, label)
    assert found.refused == []
    return list(zip(found.patients, found.classes, strict=True))


def run(
    paths: list[str], annotations: str = "", pattern: str = "", patient: str = "", label: str = "", **more: bool
) -> Identities:
    return identify(pd.DataFrame({"path": paths, "patient": patient, "label": label}), annotations, pattern, **more)


def mistake(*arguments: str | list[str]) -> str:
    """The one line that stops everything."""
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(paths: list[str], *arguments: str, **more: str) -> str:
    """Why the only slice that is refused is."""
    found = run(paths, *arguments, **more)
    (one,) = found.refused
    at = paths.index(one.path)
    assert (found.patients[at], found.classes[at]) == ("", "")
    assert one.reason.startswith(f"{one.path}: ")
    assert not one.expected
    return one.reason


# Each source of a patient's number, the strongest first.
CSV, PATTERN, FILE, FOLDER = "from the csv", "from the pattern", "from the file", "folder"
PATH = ["glioma/folder/from the pattern-1.png", "meningioma/other/x.png"]


@pytest.mark.parametrize("csv_says", [True, False])
@pytest.mark.parametrize("pattern_says", [True, False])
@pytest.mark.parametrize("file_says", [True, False])
def test_a_patient_is_what_the_first_of_csv_pattern_file_and_folder_says(
    csv_says: bool, pattern_says: bool, file_says: bool, csv: Csv
) -> None:
    annotations = csv(f"file,patient\n{PATH[0]},{CSV if csv_says else ''}\n{PATH[1]},\n")
    pattern = r"(from the pattern|\w)" if pattern_says else ""
    expected = CSV if csv_says else PATTERN if pattern_says else FILE if file_says else FOLDER
    assert told(PATH, annotations, pattern, FILE if file_says else "")[0] == (expected, "glioma")


@pytest.mark.parametrize("csv_says", ["from the csv", "", None])
@pytest.mark.parametrize("file_says", [True, False])
def test_a_class_is_what_csv_else_file_else_folder_says(csv_says: str | None, file_says: bool, csv: Csv) -> None:
    column, cell = ("", "") if csv_says is None else (",class", f",{csv_says}")
    annotations = csv(f"file,patient{column}\n{PATH[0]},P1{cell}\n")
    expected = csv_says if csv_says is not None else "from the file" if file_says else "glioma"
    found = run(PATH, annotations, label="from the file" if file_says else "")
    assert (found.patients[0], found.classes[0]) == ("P1", expected)


def test_a_csv_of_classes_alone_leaves_the_patient_to_the_others(csv: Csv) -> None:
    annotations = csv("file,class\nP1_1.png,cyst\nP2_1.png,abscess\n")
    assert told(NAMED, annotations, "^(P[0-9]+)_") == [("P1", "cyst"), ("P1", ""), ("P2", "abscess")]


def test_a_csv_of_patients_alone_leaves_the_class_to_the_others(csv: Csv) -> None:
    annotations = csv("file,patient\na.png,P1\nb.png,P2\n")
    assert told(["glioma/a.png", "cyst/b.png"], annotations) == [("P1", "glioma"), ("P2", "cyst")]


@pytest.mark.parametrize("around", ["", "download/", "my data/v1.0/"])
def test_folders_are_classes_and_within_them_patients(around: str) -> None:
    paths = ["glioma/P1/1.png", "glioma/P1/2.png", "meningioma/P2/axial/1.png", "no tumour/P3/1.png"]
    expected = [("P1", "glioma"), ("P1", "glioma"), ("P2", "meningioma"), ("P3", "no tumour")]
    assert told([around + path for path in paths]) == expected


@pytest.mark.parametrize("around", ["", "download/", "my data/v1.0/"])
def test_one_class_alone_keeps_its_folder(around: str) -> None:
    paths = [f"{around}glioma/{name}" for name in NAMED]
    assert told(paths, pattern="^(P[0-9]+)_") == [("P1", "glioma"), ("P1", "glioma"), ("P2", "glioma")]


def test_one_slice_alone_keeps_its_folder() -> None:
    assert told(["a/b/glioma/P7_1.png"], pattern="^(P[0-9]+)_") == [("P7", "glioma")]


@pytest.mark.parametrize("around", ["", "download/"])
def test_a_picture_beside_the_folders_of_the_classes_has_no_class_and_takes_none_from_others(around: str) -> None:
    paths = [around + path for path in ("glioma/P1_1.png", "meningioma/P2_1.png", "P3_overview.png")]
    assert "P3_overview.png: no class is known; put it into a folder of its class" in refused(paths, "", "(P[0-9]+)_")
    assert run(paths, "", "(P[0-9]+)_").classes[:2] == ["glioma", "meningioma"]


def test_without_folder_csv_or_a_word_in_the_file_no_class_is_known() -> None:
    assert "no class is known" in refused(["1.png"], "", r"\d")
    assert told(["1.mat"], patient="MR1", label="glioma") == [("MR1", "glioma")]


def test_a_slice_of_nobody_is_refused() -> None:
    assert "whose slice is it? Give patient_pattern" in refused(["glioma/1.png", "cyst/P2/1.png"])


def test_a_slice_of_nobody_is_taken_where_that_is_good_enough() -> None:
    found = run(["glioma/1.png", "cyst/P2/1.png"], anonymous=True)
    assert (found.patients, found.classes, found.refused) == (["", "P2"], ["glioma", "cyst"], [])
    (one,) = run(["glioma/1.png", "2.png"], anonymous=True).refused
    assert "2.png: no class is known" in one.reason


def test_a_pattern_is_tried_on_the_name_first_then_on_the_path() -> None:
    paths = ["glioma/case 7/P1_1.png", "cyst/case 8/scan.png"]
    assert told(paths, pattern="(?:P|case )([0-9]+)") == [("1", "glioma"), ("8", "cyst")]
    assert told(paths, pattern="case ([0-9]+)") == [("7", "glioma"), ("8", "cyst")]
    assert told(["7/glioma/12.png", "9/cyst/34.png"], pattern="([0-9]+)") == [("12", "7"), ("34", "9")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^(P[0-9]+)_", "P12"),
        ("^P[0-9]+", "P12"),
        ("^(P)([0-9]+)", "P"),
        (r"(?<=_)\d+", "3"),
        ("(?P<who>[0-9]+)", "12"),
    ],
)
def test_a_pattern_gives_its_first_group_else_all_of_it(pattern: str, expected: str) -> None:
    assert told(["glioma/P12_3.png"], pattern=pattern) == [(expected, "glioma")]


@pytest.mark.parametrize("pattern", ["^Q([0-9]+)", "^(Q[0-9]+)?P", "Q*"], ids=["no match", "no group", "nothing"])
def test_a_pattern_that_finds_nobody_is_said_even_if_the_file_or_folder_knows(pattern: str) -> None:
    assert "finds no patient in its name" in refused(["glioma/x/P12_3.png"], "", pattern, patient="MR1")


@pytest.mark.parametrize("pattern", ["(", "[a-", "*P", "(?P<1>x)"])
def test_a_pattern_that_is_none(pattern: str) -> None:
    assert mistake(NAMED, "", pattern).startswith(f"patient_pattern={pattern}: no regular expression (")


@pytest.mark.parametrize("pattern", [r"(\d+)\.nii\.gz$", r"^v(\d+)", r"glioma/v(\d+)\.nii\.gz$"])
def test_the_number_of_a_slice_in_its_volume_is_never_the_patient(pattern: str) -> None:
    assert told(["glioma/v12.nii.gz#7", "glioma/v12.nii.gz#8"], pattern=pattern) == [("12", "glioma")] * 2
    assert "finds no patient" in refused(["glioma/v12.nii.gz#7"], "", r"(\d+)$")


FORMS = {
    "commas": "file,patient,class\n{0},P1,cyst\n{1},P2,abscess\n",
    "semicolons": "file;patient;class\n{0};P1;cyst\n{1};P2;abscess\n",
    "tabs": "file\tpatient\tclass\n{0}\tP1\tcyst\n{1}\tP2\tabscess\n",
    "mark of Excel": "\ufefffile,patient,class\r\n{0},P1,cyst\r\n{1},P2,abscess\r\n",
    "another order, capitals, more columns": "Age,Class ,FILE,Patient\n40,cyst,{0},P1\n?,abscess,{1},P2",
    "empty columns": "file,patient,class,,\n{0},P1,cyst,,\n{1},P2,abscess,,\n",
    "spaces and quotes": 'file,patient,class\n"{0}" , P1 ,"cyst"\n {1},P2, abscess \n\n',
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folders", [("", ""), ("x/", "y z/"), ("x\\", "y z\\"), (".\\x\\", "./y z/")])
def test_a_csv_is_read_as_programs_write_it(form: str, folders: tuple[str, str], csv: Csv) -> None:
    annotations = csv(FORMS[form].format(f"{folders[0]}a.png", f"{folders[1]}d 1.png"))
    assert told(["x/a.png", "y z/d 1.png"], annotations) == [("P1", "cyst"), ("P2", "abscess")]


def test_names_with_marks_in_them_are_quoted(csv: Csv) -> None:
    annotations = csv('file,patient,class\n"a, 1.png",P1,cyst\n"b ""2"".png",P2,abscess\n')
    assert told(["a, 1.png", 'b "2".png'], annotations) == [("P1", "cyst"), ("P2", "abscess")]


def test_a_short_row_says_nothing_of_the_columns_it_lacks(csv: Csv) -> None:
    assert told(["a.png", "b.png"], csv("file,patient,class\na.png,P1\nb.png,P2,cyst\n")) == [
        ("P1", ""),
        ("P2", "cyst"),
    ]


@pytest.mark.parametrize("patient", ["NA", "null", "007", "1e5", "nan", "true", "2020-01-01"])
def test_what_looks_like_a_number_or_nothing_stays_text(patient: str, csv: Csv) -> None:
    assert told(["a.png"], csv(f"file,patient,class\na.png,{patient},NA\n")) == [(patient, "NA")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,patient,class\na.png,P1,cyst\nlost.png,P2,cyst\n", "lost.png is no file of the data"),
        ("file,patient,class\na.png,P1,cyst\n,,\n", "an empty name is no file of the data"),
        ("file,patient,class\n/data/a.png,P1,cyst\n", "/data/a.png is no file of the data"),
        ("file,patient,class\nA.PNG,P1,cyst\n", "A.PNG is no file of the data"),
        ("file,patient,class\na.png,P1,cyst\na.png,P1,cyst\n", "x/a.png is in two rows; remove one"),
        ("file,patient,class\na.png,P1,cyst\nx/a.png,P2,cyst\n", "x/a.png is in two rows; remove one"),
        ("file,patient,class\nb.png,P1,cyst\n", "b.png is the name of several files; give their paths in the data"),
        ("file,patient,class,class\na.png,P1,cyst,cyst\n", "has the columns file, patient, class, class; it needs"),
        ("file,subject\na.png,P1\n", "has the columns file, subject; it needs file, and patient, class or both"),
        ("name,patient,class\na.png,P1,cyst\n", "has the columns name, patient, class; it needs file"),
        ("", "can't be read as a CSV in UTF-8 (No columns"),
        ("file,patient,class\na.png,P1,cyst,\n", "can't be read as a CSV in UTF-8 (Error tokenizing data"),
        ('file,patient,class\n"a.png,P1,cyst\n', "can't be read as a CSV in UTF-8 ("),
        ("file,patient,class\na.png,Jürgen,cyst\n".encode("latin-1"), "can't be read as a CSV in UTF-8 ("),
        ("file,patient,class\n".encode("utf-16"), "can't be read as a CSV in UTF-8 ("),
    ],
)
def test_a_csv_that_can_not_be_used(content: str | bytes, said: str, csv: Csv) -> None:
    path = csv(content)
    sentence = mistake(["x/a.png", "x/b.png", "y/b.png"], path)
    assert sentence.startswith(f"{path}: {said}")


def test_a_csv_that_is_not_there(tmp_path: Path) -> None:
    assert mistake(NAMED, str(tmp_path)).startswith(f"{tmp_path}: can't be read as a CSV")
    assert "No such file" in mistake(NAMED, str(tmp_path / "typo.csv"))


def test_a_csv_may_lie_at_home(csv: Csv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(csv("file,patient,class\na.png,P1,cyst\n")).parent))
    assert told(["a.png"], "~/annotations.csv") == [("P1", "cyst")]


def test_a_path_in_the_csv_is_of_that_file_alone(csv: Csv) -> None:
    annotations = csv("file,class\na.png,cyst\n")
    assert told(["a.png", "x/a.png"], annotations, patient="MR1") == [("MR1", "cyst"), ("MR1", "")]
    annotations = csv("file,class\na.png,cyst\nx/a.png,glioma\n")
    assert told(["a.png", "x/a.png"], annotations, patient="MR1") == [("MR1", "cyst"), ("MR1", "glioma")]


VOLUMES = ["a/v.nii.gz#1", "a/v.nii.gz#2", "a/v.nii.gz#10", "a/w.nii.gz#2"]


def test_a_row_for_a_volume_is_for_all_its_slices(csv: Csv) -> None:
    for v, w in (("v.nii.gz", "w.nii.gz"), ("a/v.nii.gz", "a\\w.nii.gz")):
        annotations = csv(f"file,patient,class\n{v},P1,cyst\n{w},P2,glioma\n")
        assert told(VOLUMES, annotations) == [("P1", "cyst")] * 3 + [("P2", "glioma")]


@pytest.mark.parametrize("name", ["v.nii.gz#10", "a/v.nii.gz#10", "./a/v.nii.gz#10"])
def test_a_row_for_a_slice_goes_before_that_of_its_volume(name: str, csv: Csv) -> None:
    rows = ["v.nii.gz,P1,cyst", f"{name},,glioma", "w.nii.gz,P2,"]
    for order in (rows, rows[::-1]):
        annotations = csv("\n".join(["file,patient,class", *order]))
        assert told(VOLUMES, annotations) == [("P1", "cyst"), ("P1", "cyst"), ("P1", "glioma"), ("P2", "")]


def test_slices_alone_may_be_labelled(csv: Csv) -> None:
    annotations = csv("file,class\nv.nii.gz#2,cyst\nw.nii.gz#2,glioma\n")
    assert told(VOLUMES, annotations, r"^(\w)") == [("v", ""), ("v", "cyst"), ("v", ""), ("w", "glioma")]


def test_volumes_of_one_name_are_told_apart(csv: Csv) -> None:
    paths = ["a/v.nii.gz#1", "b/v.nii.gz#1", "b/v.nii.gz#2"]
    for name in ("v.nii.gz", "v.nii.gz#1"):
        assert f"{name} is the name of several files" in mistake(paths, csv(f"file,patient,class\n{name},P1,cyst\n"))
    annotations = csv("file,patient,class\na/v.nii.gz,P1,cyst\nb/v.nii.gz,P2,glioma\nv.nii.gz#2,,cyst\n")
    assert told(paths, annotations) == [("P1", "cyst"), ("P2", "glioma"), ("P2", "cyst")]


def test_a_slice_number_that_is_not_there(csv: Csv) -> None:
    assert "v.nii.gz#3 is no file of the data" in mistake(VOLUMES, csv("file,class\nv.nii.gz#3,cyst\n"))


def test_a_mark_in_a_name_is_no_slice_number(csv: Csv) -> None:
    annotations = csv("file,patient,class\na#1.png,P1,cyst\na#2.png,P2,glioma\n")
    assert told(["a#1.png", "a#2.png"], annotations) == [("P1", "cyst"), ("P2", "glioma")]
    assert told(["glioma/a#1.png"], pattern="#(.)") == [("1", "glioma")]


def test_unlabelled_slices_need_a_patient_but_no_class(csv: Csv) -> None:
    annotations = csv("file,patient,class\nP1_1.png,P1,cyst\nP1_2.png,P1,\n")
    assert "P2_1.png: whose slice is it?" in refused(NAMED, annotations)
    assert told(NAMED, annotations, "^(P[0-9]+)_") == [("P1", "cyst"), ("P1", ""), ("P2", "")]


def test_a_folder_is_no_class_where_a_csv_has_classes(csv: Csv) -> None:
    annotations = csv("file,class\na.png,cyst\n")
    assert told(["glioma/P1/a.png", "cyst/P2/b.png"], annotations) == [("P1", "cyst"), ("P2", "")]


@pytest.mark.parametrize("name", ["a/b", "..", ".", "-", " ", "a\nb", "a\tb", "<b>", "a,b", "é" * 61, "a\0b", "💥"])
def test_class_names_that_can_not_be_used(name: str) -> None:
    assert f"class {name!r}: a letter or digit, then" in refused(["1.mat"], patient="MR1", label=name)


@pytest.mark.parametrize(
    "name", ["a", "no tumour", "grade-4", "v1.0", "IDH_wt", "Hirnhautgeschwülste", "髄膜腫", "é" * 60]
)
def test_class_names_that_can_be_used(name: str) -> None:
    assert told([f"{name}/1.png", "other/1.png"], pattern=".")[0] == ("1", name)


@pytest.mark.parametrize("patient", ["a\nb", "a\0b", "\x1b[31m", "a\u2028b"])
def test_patients_that_can_not_be_printed(patient: str) -> None:
    assert "no printable text" in refused(["glioma/1.png"], patient=patient)


def test_one_that_is_refused_leaves_the_others_in_their_place() -> None:
    paths = ["glioma/P1_1.png", "cyst/scan.png", "cyst/P2_1.png", "cyst/P2_2.png"]
    assert "scan.png" in refused(paths, "", "^(P[0-9]+)_")
    assert run(paths, "", "^(P[0-9]+)_").patients == ["P1", "", "P2", "P2"]


def test_classes_are_those_of_the_dataset_in_its_order_then_the_others_by_name() -> None:
    names = ["grade 10", "pituitary", "grade 2", "", "glioma", "cyst", "glioma", "meningioma"]
    assert class_order(names) == ("meningioma", "glioma", "pituitary", "cyst", "grade 2", "grade 10")
    assert class_order(["glioma", "abscess"]) == ("glioma", "abscess")
    assert class_order(["", ""]) == ()


@given(st.lists(st.sampled_from(["", "glioma", "meningioma", "a", "B", "b2", "b10", "ä"])), st.randoms())
def test_the_order_of_the_classes_does_not_depend_on_that_of_the_slices(names: list[str], random) -> None:
    expected = class_order(names)
    assert set(expected) == {*names} - {""}
    random.shuffle(names)
    assert class_order(names) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/1.png", "y/2.png"], ["1.png", "2.png"]),
        (["x/1.png", "y/1.png", "y/2.png"], ["x/1.png", "y/1.png", "y/2.png"]),
        (["x/v.nii#1", "x/v.nii#2"], ["v.nii#1", "v.nii#2"]),
        (["x/v.nii#1", "y/v.nii#1"], ["x/v.nii#1", "y/v.nii#1"]),
        (["top/in/x/1.png", "top/in/y/1.png"], ["x/1.png", "y/1.png"]),
        (["x/y/1.png", "x/1.png"], ["y/1.png", "1.png"]),
        ([], []),
    ],
)
def test_names_are_as_short_as_they_can_be(paths: list[str], expected: list[str]) -> None:
    assert short_names(paths) == expected


@pytest.mark.parametrize(
    ("patient", "expected"),
    [("MR024780D", "MR024780"), ("P0017A", "P0017"), ("7b", "7"), ("100360", "100360"), ("P12_3", "P12_3")]
    + [(same, same) for same in ("NA", "A", "12AB", "MR-A", "", "7ä")],
)
def test_a_family_is_the_number_less_one_letter(patient: str, expected: str) -> None:
    assert family(patient) == expected
