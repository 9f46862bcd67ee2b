"""Files of the data set: pixels, patient, class, tumour, folds; and what is none."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from forms import DEEP, GREY, RNG, mat, refused

from sslbt.data.formats import decode
from sslbt.data.matlab import read_folds, read_mat


def test_a_file_of_the_dataset_is_read_upright() -> None:
    found = read_mat(mat(), "1.mat")
    np.testing.assert_array_equal(found.pixels, DEEP.astype(np.int16))
    assert (found.label, found.patient) == ("glioma", "MR017260F")
    assert found.pixels.dtype == np.int16
    np.testing.assert_array_equal(decode(mat(), "1.mat"), found.pixels)


def test_hdf5_without_matlabs_first_512_bytes_is_read_too() -> None:
    np.testing.assert_array_equal(decode(mat()[512:], "1.mat"), DEEP.astype(np.int16))


def test_patient_numbers_keep_letters_and_lose_padding() -> None:
    def patient(codes: list[int]) -> str:
        return read_mat(mat(PID=np.array(codes, np.uint16)[:, None]), "1.mat").patient

    assert patient([ord(c) for c in "0042"]) == "0042"
    assert patient([ord(c) for c in " 100360 "] + [0, 0]) == "100360"


@pytest.mark.parametrize(
    "pixels", [DEEP, GREY, GREY > 127, DEEP.astype(np.float32), DEEP.astype(np.float64)], ids=lambda p: str(p.dtype)
)
def test_any_number_type_of_a_mat_file_is_kept(pixels: np.ndarray) -> None:
    found = decode(mat(image=pixels.T), "1.mat")
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


def test_a_matlab_5_file_says_how_to_save_it() -> None:
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM" + bytes(200)
    assert "-v7.3" in refused(header, decode)


@pytest.mark.parametrize("field", ["image", "label"])
def test_a_missing_field_is_named(field: str) -> None:
    assert f"{field} is missing" in refused(mat(**{field: None}))


def test_another_file_in_hdf5_is_refused() -> None:
    out = io.BytesIO()
    with h5py.File(out, "w") as f:
        f["weights"] = np.zeros(3)
    assert "cjdata is missing" in refused(out.getvalue())
    with h5py.File(out, "w") as f:
        f["cjdata"] = np.zeros(3)
    assert "not a file of the dataset" in refused(out.getvalue())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", np.zeros((0, 1))),
        ("label", np.array([b"two"])),
        ("PID", np.array([2**64 - 1], np.uint64)),
        ("PID", np.array([0.5])),
        ("image", np.array([[b"ab"] * 20] * 20)),
        ("image", DEEP.T * 1j),
        ("image", np.zeros((20, 20), [("real", "f4"), ("imag", "f4")])),
        ("image", h5py.Empty("i2")),
    ],
    ids=str,
)
def test_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    assert "not a file of the dataset" in refused(mat(**{field: value}))


def test_a_group_in_the_place_of_a_field_is_refused() -> None:
    assert "not a file of the dataset" in refused(mat(lambda f: f.create_group("cjdata/image"), image=None))


@pytest.mark.parametrize("label", [0.0, 7.0, 1.5, np.nan, np.inf])
def test_a_label_outside_the_classes_is_refused(label: float) -> None:
    assert f"label {label:g} is none of 1" in refused(mat(label=np.array([[label]])))


@pytest.mark.parametrize("codes", [[0xD800], [7]], ids=["half", "bell"])
def test_a_patient_number_that_is_no_text_is_refused(codes: list[int]) -> None:
    assert "(PID) is no text" in refused(mat(PID=np.array(codes, np.uint16)))


@pytest.mark.parametrize("codes", [[0, 0], [32], [], None], ids=["zeros", "blank", "none", "no field"])
def test_a_file_need_not_say_whose_it_is(codes: list[int] | None) -> None:
    assert read_mat(mat(PID=None if codes is None else np.array(codes, np.uint16)), "1.mat").patient == ""


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float64])
def test_a_tumour_mask_is_read_upright(dtype: type) -> None:
    mask = RNG.random(DEEP.shape) < 0.3
    found = read_mat(mat(tumorMask=mask.T.astype(dtype)), "1.mat").mask
    assert found is not None
    assert found.dtype == bool
    np.testing.assert_array_equal(found, mask)


def test_a_tumour_mask_is_packed_as_matlab_does() -> None:
    mask = np.zeros((300, 200), bool)
    mask[120:160, 30:90] = True

    def packed(f: h5py.File) -> None:
        how = {"chunks": (64, 128), "compression": "gzip"}
        f.create_dataset("cjdata/image", data=RNG.integers(0, 900, (200, 300)).astype(np.int16), **how)
        f.create_dataset("cjdata/tumorMask", data=mask.T.astype(np.uint8), **how)

    found = read_mat(mat(packed, image=None), "1.mat")
    np.testing.assert_array_equal(found.mask, mask)
    assert found.pixels.shape == (300, 200)


def test_a_file_need_not_say_where_its_tumour_is() -> None:
    assert read_mat(mat(), "1.mat").mask is None


@pytest.mark.parametrize("shape", [DEEP.shape, (32, 20), (31, 20, 1), (2,)])
def test_a_tumour_mask_of_another_picture_is_refused(shape: tuple[int, ...]) -> None:
    data = mat(tumorMask=np.zeros(shape, np.uint8))
    assert f"tumorMask of shape {shape[::-1]}, image of {DEEP.shape}; correct the mask" in refused(data)


def test_who_asks_for_pixels_alone_is_not_held_up_by_a_mask() -> None:
    for mask in (np.zeros((3, 3), np.uint8), np.array([b"none"])):
        np.testing.assert_array_equal(decode(mat(tumorMask=mask), "1.mat"), DEEP.astype(np.int16))
    assert "not a file of the dataset" in refused(mat(tumorMask=np.array([b"none"])))


def test_a_mask_in_another_file_is_not_fetched(tmp_path: Path) -> None:
    def link(f: h5py.File) -> None:
        f["cjdata/tumorMask"] = h5py.ExternalLink(str(tmp_path / "secret.mat"), "/cjdata/tumorMask")

    assert "tumorMask is missing or a link" in refused(mat(link))


def test_an_uploaded_file_cannot_make_us_read_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mat"
    secret.write_bytes(mat())

    def external(f: h5py.File) -> None:
        f.create_dataset("cjdata/image", (20, 20), "u1", external=[(str(secret), 0, 400)])

    def link(f: h5py.File) -> None:
        f["cjdata/image"] = h5py.ExternalLink(str(secret), "/cjdata/image")

    def virtual(f: h5py.File) -> None:
        layout = h5py.VirtualLayout(DEEP.T.shape, "i2")
        layout[:] = h5py.VirtualSource(str(secret), "cjdata/image", DEEP.T.shape)
        f.create_virtual_dataset("cjdata/image", layout)

    for way in (external, link, virtual):
        assert "not a file of the dataset" in refused(mat(way, image=None), decode)


def folds(value: object) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as f:
        f["cvind"] = value
    return out.getvalue()


def test_folds_lie_as_a_row_or_a_column() -> None:
    numbers = RNG.integers(1, 6, 30)
    np.testing.assert_array_equal(read_folds(folds(numbers[None].astype(float)), "c"), numbers)
    np.testing.assert_array_equal(read_folds(folds(numbers[:, None].astype(np.uint8)), "c"), numbers)


def test_folds_that_are_none_are_refused() -> None:
    group = io.BytesIO()
    with h5py.File(group, "w") as f:
        f.create_group("cvind")
    for data in (b"", folds(1.0)[:700], mat(), folds(np.array([b"one"])), group.getvalue()):
        assert "not the dataset's cvind.mat" in refused(data, read_folds)
