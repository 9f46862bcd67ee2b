"""Good data of every form, and what makes them be read again."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers import BY_NAME, GOOD, check_rows, dicom, encoded, lay, left, nifti, noise, pages, png, refused, zipped
from PIL import Image

from sslbt.data import files, reading
from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.errors import UserError

FIVE = ("meningioma", "glioma", "abscess", "grade 2", "grade 10")  # in the order of a prepared dataset
NAMES = [f"{name}/P{patient}_{i}" for patient, name in enumerate(sorted(FIVE), 1) for i in range(2)]
NAMES.sort(key=lambda name: files.natural(name))
FORMS: dict[str, tuple[type, int, Callable[[np.ndarray], bytes]]] = {
    "8 bits.png": (np.uint8, 255, lambda pixels: encoded(pixels, "PNG")),
    "16 bits.png": (np.uint16, 65535, lambda pixels: encoded(pixels, "PNG")),
    "12 bits in 16.png": (np.uint16, 4095, lambda pixels: encoded(pixels, "PNG")),
    "16 bits.tif": (np.uint16, 65535, lambda pixels: encoded(pixels, "TIFF")),
    "fractions.tiff": (np.float32, 7, lambda pixels: encoded(pixels, "TIFF")),
    "12 bits.dcm": (np.uint16, 4095, dicom),
    "12 bits": (np.uint16, 4095, dicom),
    "a slice.nii.gz": (np.int16, 30000, lambda pixels: nifti(pixels[None])),
}


@pytest.mark.parametrize("pack", [lay, lambda place, contents: zipped(place / "download.zip", contents)])
@pytest.mark.parametrize("form", FORMS)
def test_folders_of_five_classes_in_every_form(form: str, pack: Callable, home: Path, tmp_path: Path) -> None:
    dtype, top, encode = FORMS[form]
    ending = "".join(Path(form).suffixes)
    pictures = {
        f"{name}{ending}": noise(seed, (30 + 7 * seed, 45), top).astype(dtype) for seed, name in enumerate(NAMES)
    }
    pack(tmp_path / "in", {name: encode(pixels) for name, pixels in pictures.items()})
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=BY_NAME))
    check_rows(cache, pictures)
    assert cache.classes == FIVE
    for row in cache.table.itertuples():
        assert (row.file, cache.classes[row.label]) == (Path(row.path).name, Path(row.path).parent.name)
        assert (row.patient, row.family, row.fold) == (row.file.partition("_")[0], row.file.partition("_")[0], 0)
        assert row.plane == ("axial" if encode is dicom or "nii" in form else "")
    assert not len(cache.refused)
    assert not len(cache.similar)
    assert not cache.synthetic


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_read_as_pillow_does(mode: str, home: Path, tmp_path: Path) -> None:
    contents = {}
    for seed, name in enumerate(NAMES):
        out = io.BytesIO()
        Image.fromarray(noise(seed).astype(np.uint8)).convert(mode).save(out, "JPEG", quality=80)
        contents[f"{name}.jpg"] = out.getvalue()
    cache = prepare(Source(str(lay(tmp_path / "in", contents)), patient_pattern=BY_NAME))
    check_rows(cache, {name: np.array(Image.open(io.BytesIO(data)).convert("L")) for name, data in contents.items()})


def test_forms_sizes_and_scales_may_be_mixed(home: Path, tmp_path: Path, write_slice) -> None:
    deep = noise(1, (200, 90), 65535).astype(np.uint16)
    pictures = {"cyst/P1_1.png": noise(0, (16, 300)).astype(np.uint8), "cyst/P1_2.tif": deep}
    lay(tmp_path / "in", {"cyst/P1_1.png": encoded(pictures["cyst/P1_1.png"], "PNG")})
    lay(tmp_path / "in", {"cyst/P1_2.tif": encoded(deep, "TIFF"), "cyst/P2_1.dcm": dicom(deep // 16)})
    write_slice(tmp_path / "in" / "cyst" / "P3_1.mat", 2, "MR1")
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=BY_NAME))
    check_rows(
        cache,
        {
            **dict(zip(cache.table.path[:3], [*pictures.values(), deep // 16], strict=True)),
            "cyst/P3_1.mat": cache_of(tmp_path / "in" / "cyst" / "P3_1.mat"),
        },
    )
    assert list(cache.table["class"]) == ["cyst", "cyst", "cyst", "glioma"]  # a .mat says its own
    assert list(cache.table.patient) == ["P1", "P1", "P2", "P3"]


def cache_of(path: Path) -> np.ndarray:
    return reading.read(path.read_bytes(), path.name).__next__().pixels


def test_a_tiff_of_several_pages_is_several_slices_of_a_patient(home: Path, tmp_path: Path) -> None:
    scans = {
        f"{name}/P{n}.tif": noise(n, (60, 40), 65535).astype(np.uint16).reshape(3, 20, 40)
        for n, name in enumerate(("cyst", "glioma"), 1)
    }
    lay(tmp_path / "in", {name: pages(*pictures) for name, pictures in scans.items()})
    cache = prepare(Source(str(tmp_path / "in"), patient_pattern=r"^(P\d+)\.tif$"))
    check_rows(cache, {f"{name}#{i}": pixels for name, own in scans.items() for i, pixels in enumerate(own, 1)})
    assert list(cache.table.file) == ["P1.tif#1", "P1.tif#2", "P1.tif#3", "P2.tif#1", "P2.tif#2", "P2.tif#3"]
    assert list(cache.table.patient) == ["P1"] * 3 + ["P2"] * 3


def test_dicom_with_a_csv_of_classes(home: Path, tmp_path: Path) -> None:
    slices = noise(0, (120, 20), 4095).astype(np.uint16).reshape(6, 20, 20)
    contents = {"DICOM/PA0/IM0": dicom(slices[0], "MR 1"), "DICOM/PA0/IM1": dicom(slices[1], "MR 1")}
    contents |= {"DICOM/PA1/IM0": dicom(slices[2:5], "MR 2"), "DICOM/PA2/1.2.840.7": dicom(slices[5], "MR 3")}
    lay(tmp_path / "in", contents | {"DICOMDIR": dicom(slices[0]), "README": b"a text"})
    rows = ["DICOM/PA0/IM0;cyst", "DICOM\\PA0\\IM1;cyst", "./DICOM/PA1/IM0;glioma", "DICOM/PA1/IM0#2;"]
    (tmp_path / "labels.csv").write_text("\n".join(["file;class", *rows]))
    cache = prepare(Source(str(tmp_path / "in"), str(tmp_path / "labels.csv")))
    names = ["PA0/IM0", "PA0/IM1", "PA1/IM0#1", "PA1/IM0#2", "PA1/IM0#3", "PA2/1.2.840.7"]
    check_rows(cache, {f"DICOM/{name}": pixels for name, pixels in zip(names, slices, strict=True)})
    assert list(cache.table.patient) == ["MR 1"] * 2 + ["MR 2"] * 3 + ["MR 3"]
    assert list(cache.table["class"]) == ["cyst"] * 2 + ["glioma"] * 3 + [""]
    assert list(cache.table.label) == [1, 1, 0, 0, 0, -1]
    assert cache.classes == ("glioma", "cyst")


def volume_of(seed: int) -> np.ndarray:
    """Five slices, of which the first and the last two are empty."""
    slices = np.zeros((5, 30, 24), np.int16)
    slices[1:3] = noise(seed, (60, 24), 900).reshape(2, 30, 24)
    return slices


def test_nifti_with_a_csv_leaves_out_empty_slices_without_a_word(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = {f"BraTS-{n}/t1c.nii.gz": volume_of(n) for n in (2, 10)}
    lay(tmp_path / "in", {name: nifti(slices) for name, slices in volumes.items()})
    (tmp_path / "labels.csv").write_text(
        "file,patient,class\nBraTS-2/t1c.nii.gz,2,cyst\nBraTS-10/t1c.nii.gz,10,\nBraTS-10/t1c.nii.gz#3,,glioma\n"
    )
    cache = prepare(Source(str(tmp_path / "in"), str(tmp_path / "labels.csv")))
    check_rows(cache, {f"{name}#{i}": slices[i - 1] for name, slices in volumes.items() for i in (2, 3)})
    assert list(cache.table.patient) == ["2", "2", "10", "10"]
    assert list(cache.table["class"]) == ["cyst", "cyst", "", "glioma"]
    assert list(cache.refused.path) == [f"{name}#{i}" for name in volumes for i in (1, 4, 5)]
    assert set(cache.refused.reason.str.partition(": ")[2]) == {
        "all pixels are equal; an empty slice can't be classified"
    }
    assert "left out" not in capsys.readouterr().err


def test_a_zip_written_with_backslashes_has_folders_too(home: Path, tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {f"all\\{name}.png".replace("/", "\\"): png(i) for i, name in enumerate(NAMES)})
    cache = prepare(Source(str(place), patient_pattern=BY_NAME))
    assert list(cache.table.path) == [f"all/{name}.png" for name in NAMES]
    assert cache.classes == FIVE


def test_damaged_folds_are_never_left_out(home: Path, slices: Path) -> None:
    (slices / "cvind.mat").write_bytes(b"damaged")
    for on_bad in ("stop", "skip"):
        assert refused(home, slices, on_bad=on_bad).startswith("cvind.mat: not the dataset's cvind.mat")


def test_stop_and_skip_are_prepared_apart(home: Path, good: Path) -> None:
    for on_bad in ("skip", "stop", "skip"):
        assert len(prepare(Source(str(good), patient_pattern=BY_NAME, on_bad=on_bad)).table) == 3
    assert len(left(home)) == 2
    lay(good, {"cyst/P4_1.png": b""})
    prepare(Source(str(good), patient_pattern=BY_NAME, on_bad="skip"))
    with pytest.raises(UserError, match=r"cyst/P4_1\.png"):
        prepare(Source(str(good), patient_pattern=BY_NAME))


def test_annotations_that_change_are_read_again(home: Path, good: Path) -> None:
    table = good.parent / "labels.csv"
    for name in ("cyst", "abscess"):
        table.write_text("file,class\n" + "".join(f"{path},{name}\n" for path in GOOD))
        assert prepare(Source(str(good), str(table), BY_NAME)).classes == (name,)
    assert len(left(home)) == 2
    table.write_text("file,class\nlost.png,cyst\n")
    with pytest.raises(UserError, match=r"lost\.png is no file of the data"):
        prepare(Source(str(good), str(table), BY_NAME, "skip"))
    with pytest.raises(UserError, match=r"typo\.csv: can't be read"):
        prepare(Source(str(good), str(table.with_name("typo.csv")), BY_NAME))
    assert len(left(home)) == 2
