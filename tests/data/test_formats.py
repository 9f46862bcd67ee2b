import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from sslbt.data import formats, matlab, raster, slices
from sslbt.data.formats import decode
from sslbt.data.matlab import USERBLOCK, read_folds, read_mat
from sslbt.data.slices import check_pixels
from sslbt.errors import UserError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (20, 31)).astype(np.uint16)
GREY = (DEEP >> 8).astype(np.uint8)


def encode(pixels: np.ndarray, form: str, mode: str | None = None, **how: object) -> bytes:
    picture = Image.fromarray(pixels)
    out = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(out, form, **how)
    return out.getvalue()


def mat(fill: Callable[[h5py.File], object] | None = None, **changed: object) -> bytes:
    """A file as MATLAB writes it: 512 bytes of its own, then HDF5 with columns as rows. None leaves a field out."""
    fields = {
        "PID": np.array([[ord(c)] for c in "MR017260F"], np.uint16),
        "image": DEEP.astype(np.int16).T,
        "label": np.array([[2.0]]),
        **changed,
    }
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=512) as f:
        for name, value in fields.items():
            if value is not None:
                f[f"cjdata/{name}"] = value
        if fill:
            fill(f)
    return USERBLOCK + out.getvalue()[512:]


def refused(data: bytes, read: Callable[[bytes, str], object] = read_mat) -> str:
    """The sentence an unusable file gets, less the file's name, which has to be in front."""
    with pytest.raises(UserError, match=r"^here/7\.mat: ") as caught:
        read(data, "here/7.mat")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("here/7.mat: ")


def pixels_if_any(data: bytes) -> np.ndarray | None:
    try:
        return decode(data, "here/7.mat")
    except UserError as error:
        sentence = str(error)
    assert sentence.startswith("here/7.mat: ")
    return None


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


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_survive(form: str) -> None:
    np.testing.assert_array_equal(decode(encode(DEEP, form), "a"), DEEP)


def test_big_endian_and_compressed_tiff() -> None:
    big = io.BytesIO()
    Image.frombytes("I;16B", DEEP.shape[::-1], DEEP.astype(">u2").tobytes()).save(big, "TIFF")
    np.testing.assert_array_equal(decode(big.getvalue(), "a"), DEEP)
    np.testing.assert_array_equal(decode(encode(DEEP, "TIFF", compression="tiff_lzw"), "a"), DEEP)


def test_floating_point_tiff() -> None:
    pixels = DEEP.astype(np.float32) / 7
    np.testing.assert_array_equal(decode(encode(pixels, "TIFF"), "a"), pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_stored_as_colour_is_grey_again(mode: str) -> None:
    np.testing.assert_array_equal(decode(encode(GREY, "PNG", mode), "a"), GREY)


# What has colours is no MRI slice, but many a slice is stored as if it had.

SMOOTH = (np.add.outer(np.arange(200), np.arange(240)) / 2 + 20).astype(np.uint8)
STEPS = np.kron(RNG.integers(0, 256, (10, 12)), np.ones((20, 20))).astype(np.uint8)  # edges, which JPEG blurs
RED, YELLOW, DULL = (255, 0, 0), (255, 255, 0), (150, 110, 90)


def stained(share: float, colour: tuple[int, int, int]) -> np.ndarray:
    """A grey slice with a square in a colour that covers this share of it."""
    pixels = np.repeat(SMOOTH[..., None], 3, axis=2)
    side = round((share * SMOOTH.size) ** 0.5)
    pixels[50 : 50 + side, 70 : 70 + side] = colour
    return pixels


@pytest.mark.parametrize("grey", [SMOOTH, STEPS, SMOOTH // 16 + 7], ids=["smooth", "steps", "faint"])
@pytest.mark.parametrize(
    ("form", "mode", "how", "loss"),
    [
        ("JPEG", "RGB", {"quality": 75}, 30),
        ("JPEG", "RGB", {"quality": 75, "subsampling": 0}, 30),
        ("JPEG", "CMYK", {"quality": 75}, 40),
        ("PNG", "P", {}, 0),
        ("PNG", "RGBA", {}, 0),
        ("TIFF", "CMYK", {}, 0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_grey_is_grey_however_it_is_stored(grey: np.ndarray, form: str, mode: str, how: dict, loss: int) -> None:
    found = decode(encode(grey, form, mode, **how), "a").astype(int)
    assert abs(found - grey).max() <= loss


def test_grey_of_a_camera_whose_channels_have_noise_of_their_own() -> None:
    noisy = (np.repeat(SMOOTH[..., None], 3, axis=2) + RNG.normal(0, 4, (*SMOOTH.shape, 3))).clip(0, 255)
    assert decode(encode(noisy.astype(np.uint8), "JPEG", quality=75), "a").shape == SMOOTH.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_coloured_arrow_on_a_grey_slice_turns_grey(form: str) -> None:
    colour = stained(0.003, YELLOW)
    luma = colour @ [0.299, 0.587, 0.114]  # ITU-R 601
    found = decode(encode(colour, form), "a")
    assert np.median(abs(found - luma)) <= 1
    if form == "PNG":
        assert abs(found - luma).max() <= 1


@pytest.mark.parametrize(
    ("colour", "form", "mode"),
    [
        (stained(0.01, RED), "PNG", "RGB"),
        (stained(0.01, RED), "PNG", "P"),
        (stained(0.01, RED), "PNG", "RGBA"),
        (stained(0.02, YELLOW), "JPEG", "CMYK"),
        (stained(0.02, DULL), "JPEG", "RGB"),
        ((SMOOTH[..., None] * np.array([1, 0.8, 0.6])).astype(np.uint8), "TIFF", "RGB"),  # sepia
        (np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]], 2), "PNG", "RGB"),
        (np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]], 2) // 20, "PNG", "RGB"),  # in the dark
        (RNG.integers(0, 256, (20, 31, 3)).astype(np.uint8), "PNG", "RGB"),
        *[(picture, "JPEG", "RGB") for picture in load_sample_images().images],  # a temple, a flower
    ],
)
def test_a_picture_in_colours_is_refused(colour: np.ndarray, form: str, mode: str) -> None:
    sentence = refused(encode(colour, form, mode), decode)
    assert sentence == "a picture in colours; MRI slices are grey, export the slice without colours"


def test_sixteen_bits_have_no_colours_to_look_for() -> None:
    assert decode(encode(DEEP, "PNG"), "a").dtype == np.uint16


def test_one_bit_is_black_and_white() -> None:
    found = decode(encode(GREY > 127, "PNG"), "a")
    np.testing.assert_array_equal(found > 0, GREY > 127)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_read_within_its_loss(mode: str) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) + 50
    found = decode(encode(smooth, "JPEG", mode, quality=95), "a").astype(int)
    assert found.shape == smooth.shape
    assert abs(found - smooth).max() <= 6


def test_the_content_decides_not_the_name() -> None:
    np.testing.assert_array_equal(decode(encode(GREY, "PNG"), "1.mat"), GREY)


@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP"])
def test_other_picture_formats_are_refused(form: str) -> None:
    assert "no .mat, DICOM, NIfTI, PNG, JPEG or TIFF" in refused(encode(GREY, form), decode)


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("name", ["png", "jpeg", "tiff", "mat"])
def test_no_cut_is_read_as_a_whole_file(name: str) -> None:
    whole = {
        "png": encode(DEEP, "PNG"),
        "jpeg": encode(GREY, "JPEG"),
        "tiff": encode(DEEP, "TIFF"),
        "mat": mat(),
    }[name]
    expected = decode(whole, "a")
    for length in {*range(40), *range(40, len(whole) - 1, 37)}:
        found = pixels_if_any(whole[:length])
        if found is not None:  # what was cut off says nothing of the pixels: an end mark, tags
            np.testing.assert_array_equal(found, expected)
    assert refused(whole[: len(whole) // 2], decode)
    assert refused(b"", decode)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(which=st.sampled_from(["png", "jpeg", "tiff"]), at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_wrong_byte_gives_pixels_or_one_sentence(which: str, at: float, byte: int) -> None:
    data = bytearray({"png": encode(DEEP, "PNG"), "jpeg": encode(GREY, "JPEG"), "tiff": encode(DEEP, "TIFF")}[which])
    data[int(at * len(data))] = byte
    found = pixels_if_any(bytes(data))
    assert found is None or found.ndim == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    for magic in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", formats.HDF5_MAGIC):
        refused(magic + data, decode)
    refused(data)


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


# Where the tumour is.


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_not_finite_is_enough(value: float) -> None:
    pixels = DEEP.astype(np.float32)
    pixels[3, 4] = value
    assert "not finite" in refused(mat(image=pixels.T), decode)
    assert "not finite" in refused(encode(pixels, "TIFF"), decode)


def test_constant_pixels_are_refused() -> None:
    assert "all pixels are equal" in refused(mat(image=np.full((20, 20), 5, np.int16)), decode)
    assert "all pixels are equal" in refused(encode(np.zeros((20, 20), np.uint8), "PNG"), decode)


@pytest.mark.parametrize("shape", [(400,), (1, 20, 20), (20, 20, 3)])
def test_only_two_dimensions(shape: tuple[int, ...]) -> None:
    assert "expected one grey picture" in refused(mat(image=RNG.integers(0, 9, shape).astype(np.int16)), decode)


def test_the_smallest_picture_is_16_by_16() -> None:
    assert decode(encode(GREY[:16, :16], "PNG"), "a").shape == (16, 16)
    assert "15 x 16 pixels" in refused(encode(GREY[:15, :16], "PNG"), decode)
    assert "16 x 15 pixels" in refused(mat(image=DEEP[:16, :15].T), decode)


def test_the_largest_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (slices, raster, matlab):
        monkeypatch.setattr(reader, "MAX_PIXELS", DEEP.size)
    assert decode(encode(DEEP, "PNG"), "a").shape == DEEP.shape
    for reader in (slices, raster, matlab):
        monkeypatch.setattr(reader, "MAX_PIXELS", DEEP.size - 1)
    assert "more than can be read" in refused(encode(DEEP, "PNG"), decode)
    assert "more than can be read" in refused(mat())
    with pytest.raises(UserError, match="20 x 31 pixels"):
        check_pixels(DEEP, "a")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = encode(np.zeros((9000, 9000), np.uint8), "PNG")  # 81 megapixels in a few hundred kilobytes
    assert len(bomb) < 300_000
    assert "9000 x 9000 pixels is more than can be read" in refused(bomb, decode)


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


def test_a_long_picture_is_refused_for_the_square_that_it_would_become() -> None:
    long = np.arange(16 * 8001, dtype=np.uint8).reshape(16, 8001)
    with pytest.raises(UserError, match="16 x 8001 pixels; 16 x 16 to 8000 x 8000 can be read"):
        check_pixels(long, "a")
    assert check_pixels(long[:, :8000], "a").shape == (16, 8000)
