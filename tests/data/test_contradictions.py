"""One patient, two labels; one picture, two patients; one name, two files."""

from pathlib import Path

import numpy as np
import pytest
from makers import BY_NAME, GOOD, check_rows, encoded, lay, noise, png, refused, zipped

from sslbt.data.cache import prepare
from sslbt.data.source import Source


def test_a_patient_with_two_labels(home: Path, good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lay(good, {"glioma/P1_2.png": png(11), "glioma/P1_3.png": png(12)})
    sentence = refused(home, good, patient_pattern=BY_NAME)
    reason = "patient P1 has slices of several classes: glioma/P1_2.png (glioma) and cyst/P1_1.png (cyst); correct"
    assert sentence.startswith(f"cyst/P1_1.png: {reason} the labels")
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    own = ["cyst/P1_1.png", "glioma/P1_2.png", "glioma/P1_3.png"]
    assert list(cache.refused.path) == own
    said = capfd.readouterr().err
    for path in own:
        assert f"left out: {path}: {reason}" in said
    check_rows(cache, {name: pixels for name, pixels in GOOD.items() if name not in own})
    assert cache.classes == ("meningioma", "glioma")  # no other cyst is left


def test_a_patient_with_one_label_and_unlabelled_slices_is_no_contradiction(home: Path, good: Path) -> None:
    lay(good, {"more/P1_2.png": png(11)})
    (good.parent / "labels.csv").write_text("file,class\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in GOOD))
    cache = prepare(Source(str(good), str(good.parent / "labels.csv"), BY_NAME))
    assert list(cache.table["class"]) == ["cyst", "glioma", "meningioma", ""]


def test_two_labels_of_one_family_are_none_of_one_patient(home: Path, good: Path) -> None:
    lay(good, {"cyst/P7A_1.png": png(11), "glioma/P7B_1.png": png(12)})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME))
    assert list(cache.table.family[cache.table.patient.isin(["P7A", "P7B"])]) == ["P7", "P7"]


def test_one_picture_of_two_patients_is_kept_and_listed(home: Path, good: Path) -> None:
    same = encoded(GOOD["glioma/P2_1.png"], "PNG")
    lay(good, {"meningioma/P5_1.png": same, "glioma/P2B_1.png": same})  # P2B may be P2, seen again
    cache = prepare(Source(str(good), patient_pattern=BY_NAME))
    assert list(cache.table.patient) == ["P1", "P2B", "P2", "P5", "P9"]
    assert not len(cache.refused)
    assert sorted(zip(cache.similar["first"], cache.similar["second"], strict=True)) == [(1, 3), (2, 3)]
    np.testing.assert_allclose(cache.similar.likeness, 1, atol=1e-3)


def test_pairs_are_rows_of_what_is_kept(home: Path, good: Path) -> None:
    lay(good, {"abscess/P0_1.png": b"", "cyst/P0_1.png": png(0), "glioma/P0_1.png": png(0)})
    lay(good, {"meningioma/P5_1.png": encoded(GOOD["meningioma/P9_1.png"], "PNG")})
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    ((first, second, _),) = cache.similar.itertuples(index=False)
    assert [cache.table.path[first], cache.table.path[second]] == ["meningioma/P5_1.png", "meningioma/P9_1.png"]


def test_one_name_in_two_zips_of_a_folder(home: Path, good: Path) -> None:
    zipped(good / "part 1.zip", {"glioma/P5_1.png": png(21), "glioma/P6_1.png": png(22)})
    zipped(good / "part 2.zip", {"glioma/P5_1.png": png(23), "glioma/P7_1.png": png(24)})
    reason = "glioma/P5_1.png: two files are called so, in different zips"
    assert refused(home, good, patient_pattern=BY_NAME).startswith(reason)
    cache = prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    assert set(cache.refused.path) == {"glioma/P5_1.png"}
    own = [noise(22).astype(np.uint8), noise(24).astype(np.uint8)]
    check_rows(cache, {**GOOD, **dict(zip(["glioma/P6_1.png", "glioma/P7_1.png"], own, strict=True))})
