import gzip
import io
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import nibabel
import numpy as np
import pytest

from sslbt.data import nifti
from sslbt.data.formats import decode, is_nifti
from sslbt.data.nifti import read_nifti
from sslbt.data.slices import Slice, check_pixels
from sslbt.errors import UserError

RNG = np.random.default_rng(0)
LENGTHS = {"sagittal": 18, "coronal": 20, "axial": 23}  # voxels from left, posterior and inferior on
VOXELS = RNG.permutation(18 * 20 * 23).reshape(18, 20, 23).astype(np.int16)  # [x, y, z], each number once
THIN, THICK = 1.0, 5.0
WAYS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}  # world axis and sign


def affine_of(codes: str, spacing: tuple[float, float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Of a volume whose array axes run towards `codes`; its lowest corner is at world (-30, -50, -70)."""
    affine = np.diag([0.0, 0, 0, 1])
    affine[:3, 3] = -30, -50, -70
    for axis, code in enumerate(codes):
        world, sign = WAYS[code]
        affine[world, axis] = sign * spacing[world]
        if sign < 0:
            affine[world, 3] += spacing[world] * (shape[axis] - 1)
    return affine


def stored(codes: str, voxels: np.ndarray = VOXELS) -> np.ndarray:
    """The array in which [x, y, z] voxels are kept in the order of `codes`."""
    turned = voxels.transpose([WAYS[code][0] for code in codes])
    return turned[tuple(slice(None, None, WAYS[code][1]) for code in codes)]


def save(array: np.ndarray, affine: np.ndarray | None, kind: type = nibabel.Nifti1Image, **changed: object) -> bytes:
    """The array as nibabel writes it, then fields of the header `changed`, whether that makes sense or not."""
    data = kind(array, affine, dtype=array.dtype).to_bytes()
    header = kind.header_class(data[: kind.header_class.sizeof_hdr], check=False)
    for key, value in changed.items():
        header[key] = value
    return header.binaryblock + data[len(header.binaryblock) :]


def volume(codes: str = "RAS", thick: str = "axial", kind: type = nibabel.Nifti1Image) -> bytes:
    spacing = tuple(THICK if plane == thick else THIN for plane in LENGTHS)
    array = stored(codes)
    return save(array, affine_of(codes, spacing, array.shape), kind)


def read(data: bytes, name: str = "a.nii") -> list[Slice]:
    return list(read_nifti(data, name))


def refused(data: bytes) -> str:
    """The sentence an unusable file gets, less the file's name, which has to be in front."""
    with pytest.raises(UserError, match=r"^here/7\.nii: ") as caught:
        read(data, "here/7.nii")
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix("here/7.nii: ")


@contextmanager
def memory_below(limit: float) -> Iterator[None]:
    """Fails if more bytes than `limit` are allocated at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def same(found: list[Slice], expected: list[Slice]) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a.pixels, b.pixels) and (a.plane, a.number) == (b.plane, b.number)
        for a, b in zip(found, expected, strict=True)
    )


def test_the_ending_tells_nifti() -> None:
    assert all(map(is_nifti, ("a.nii", "a.nii.gz", "A.NII", "b/a.Nii.GZ")))
    assert not any(map(is_nifti, ("a.gz", "a.nii.zip", "nii", "a.mat")))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SLA", "ASL", "IPR"])
@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_a_voxel_is_where_a_radiologist_looks_for_it(codes: str, plane: str) -> None:
    data = volume(codes, plane)
    image = nibabel.Nifti1Image.from_bytes(data)
    found = read(data)
    spacing = [THICK if p == plane else THIN for p in LENGTHS]
    for at in ((0, 0, 0), (1, 2, 3), (*(n - 1 for n in image.shape),), (4, 11, 9)):
        world = (image.affine @ [*at, 1])[:3]  # mm to the patient's right, anterior, superior
        x, y, z = (round((w - low) / mm) for w, low, mm in zip(world, (-30, -50, -70), spacing, strict=True))
        left, back, low = (n - 1 for n in LENGTHS.values())  # the last column or row, where the picture's top is first
        number, row, column = {
            "axial": (z, back - y, left - x),
            "coronal": (y, low - z, left - x),
            "sagittal": (x, low - z, back - y),
        }[plane]
        assert found[number].pixels[row, column] == image.dataobj[at]
    assert [s.number for s in found] == list(range(1, LENGTHS[plane] + 1))
    assert {s.plane for s in found} == {plane}
    assert {s.patient for s in found} == {""}


def test_every_order_of_axes_gives_the_same_slices() -> None:
    expected = read(volume())
    orders = [codes for codes in product("RLAPSI", repeat=3) if len({WAYS[code][0] for code in codes}) == 3]
    assert len(orders) == 48
    for codes in orders:
        assert same(read(volume("".join(codes))), expected)


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((1, 1, 1), "axial"),
        ((1.005, 1, 1), "axial"),
        ((1, 1.005, 0.998), "axial"),
        ((1.02, 1, 1), "sagittal"),
        ((1, 1.02, 1), "coronal"),
        ((0.5, 6, 0.5), "coronal"),
        ((0.4, 0.9, 5), "axial"),
    ],
)
def test_slices_are_cut_across_the_thickest_voxels(spacing: tuple[float, float, float], plane: str) -> None:
    for codes in ("RAS", "PIR"):
        array = stored(codes)
        found = read(save(array, affine_of(codes, spacing, array.shape)))
        assert found[0].plane == plane
        assert len(found) == LENGTHS[plane]


def test_an_oblique_volume_is_cut_along_its_own_axes() -> None:
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[0.94, -0.34], [0.34, 0.94]]  # 20 degrees, as a head is nodded
    array = stored("LPS")
    affine = tilt @ affine_of("LPS", (1, 1, 5), array.shape)
    assert same(read(save(array, affine)), read(volume()))


def test_packed_newer_and_longer_headers_change_nothing() -> None:
    expected = read(volume())
    assert same(read(gzip.compress(volume())), expected)
    assert same(read(volume(kind=nibabel.Nifti2Image)), expected)
    assert same(read(gzip.compress(volume(kind=nibabel.Nifti2Image))), expected)
    image = nibabel.Nifti1Image.from_bytes(volume())
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note of some length" * 9))
    assert same(read(image.to_bytes()), expected)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_big_endian_comes_out_native(kind: type) -> None:
    array = stored("LAS").astype(">i2")
    header = kind.header_class(endianness=">")
    header.set_data_dtype(">i2")
    data = kind(array, affine_of("LAS", (1, 1, 5), array.shape), header).to_bytes()
    assert data[:1] == b"\0"
    assert same(read(data), read(volume()))
    assert read(data)[0].pixels.dtype.isnative


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_the_files_own_numbers_are_kept(dtype: str) -> None:
    array = stored("RAS", (VOXELS % 100).astype(dtype))
    found = read(save(array, np.diag([1, 1, 5, 1])))
    assert found[3].pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found[3].pixels, array[::-1, ::-1, 3].T)
    check_pixels(found[3].pixels, "a")


def test_slope_and_intercept_are_applied() -> None:
    data = save(VOXELS, np.diag([1, 1, 5, 1]), scl_slope=0.5, scl_inter=-100)
    np.testing.assert_allclose(read(data)[3].pixels, VOXELS[::-1, ::-1, 3].T * 0.5 - 100)
    for slope in (0, np.nan):  # "no scaling", says the format
        data = save(VOXELS, np.diag([1, 1, 5, 1]), scl_slope=slope, scl_inter=7)
        np.testing.assert_array_equal(read(data)[3].pixels, VOXELS[::-1, ::-1, 3].T)


def test_two_dimensions_are_one_slice() -> None:
    for array in (VOXELS[:, :, 4], VOXELS[:, :, 4, None]):
        (found,) = read(save(array, np.diag([1, 1, 1, 1])))
        np.testing.assert_array_equal(found.pixels, VOXELS[::-1, ::-1, 4].T)
        assert (found.plane, found.number) == ("axial", 0)


def test_the_only_slice_is_taken_however_thin() -> None:
    (found,) = read(save(VOXELS[:, 3:4], np.diag([1, 1, 5, 1])))
    np.testing.assert_array_equal(found.pixels, VOXELS[::-1, 3, ::-1].T)
    assert (found.plane, found.number) == ("coronal", 0)


def test_a_fourth_dimension_of_one_is_ignored_and_a_longer_one_refused() -> None:
    affine = np.diag([1, 1, 5, 1])
    assert same(read(save(VOXELS[..., None], affine)), read(volume()))
    assert "a series of volumes" in refused(save(np.stack([VOXELS, VOXELS], -1), affine))
    assert "a series of volumes" in refused(save(VOXELS[:, :, :, None, None].repeat(2, 4), affine))


@pytest.mark.parametrize("dtype", ["c8", "c16", [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=str)
def test_colours_and_complex_numbers_are_refused(dtype: object) -> None:
    assert "colours or complex" in refused(save(np.zeros((18, 20, 23), dtype), np.eye(4)))


def test_a_file_that_says_nothing_of_directions_has_no_plane() -> None:
    found = read(save(VOXELS, None))
    assert {s.plane for s in found} == {""}
    assert len(found) == LENGTHS["axial"]


def test_the_quaternion_alone_says_the_plane() -> None:
    image = nibabel.Nifti1Image(stored("PIR"), None)
    image.set_qform(affine_of("PIR", (1, 1, 5), image.shape), 1)
    assert image.header["sform_code"] == 0
    assert same(read(image.to_bytes()), read(volume()))


def test_what_can_be_mended_is_mended_silently(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    image = nibabel.Nifti1Image(VOXELS, None)
    image.set_qform(np.diag([1, 1, 5, 1]), 1)
    data = bytearray(image.to_bytes())
    data[76:80] = bytes(4)  # pixdim[0], which many programs leave empty
    assert same(read(bytes(data)), read(volume()))
    bright = read(save(VOXELS.astype("f4"), np.diag([1, 1, 5, 1]), scl_slope=3e38))
    assert not np.isfinite(bright[0].pixels).all()
    assert not caplog.records
    assert not recwarn.list


def test_directions_that_are_none_are_refused() -> None:
    assert "damaged" in refused(save(VOXELS, np.diag([1, 1, 5, 1]), srow_x=0, srow_y=0, srow_z=0))
    assert "damaged" in refused(save(VOXELS, np.diag([1, 1, 5, 1]), srow_x=np.nan))


def test_a_header_that_claims_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = save(VOXELS, None, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    more = save(VOXELS, None, dim=[3, 18, 20, 24, 1, 1, 1, 1])
    late = save(VOXELS, None, vox_offset=1e30)
    for pack in (bytes, gzip.compress):
        packed = [pack(data) for data in (huge, more, late)]
        with memory_below(1e6):
            assert "up to 2 GiB" in refused(packed[0])
            assert "cut off after 16560 of 17280 bytes" in refused(packed[1])
            assert "up to 2 GiB" in refused(packed[2])
    assert "a volume of 0 bytes" in refused(save(VOXELS, None, dim=[3, 0, 20, 23, 1, 1, 1, 1]))
    monkeypatch.setattr(nifti, "MAX_BYTES", 352 + VOXELS.nbytes)
    assert read(volume())
    monkeypatch.setattr(nifti, "MAX_BYTES", 352 + VOXELS.nbytes - 1)
    assert "up to 2 GiB" in refused(volume())


def test_a_bomb_is_unpacked_no_further_than_its_header_says() -> None:
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(2**20)
    bomb = packer.compress(volume()) + b"".join(packer.compress(zeros) for _ in range(50)) + packer.flush()
    expected = read(volume())
    with memory_below(2e6):
        assert same(read(bomb), expected)


def test_where_one_picture_is_wanted_nothing_is_unpacked() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(volume()) + b"".join(packer.compress(bytes(2**20)) for _ in range(50)) + packer.flush()
    with memory_below(2e5), pytest.raises(UserError, match=r"a\.nii\.gz: NIfTI holds several slices; score the file"):
        decode(bomb, "a.nii.gz")


@pytest.mark.parametrize(("pack", "volumes"), [(bytes, 0.2), (gzip.compress, 1.2)], ids=["plain", "gzip"])
def test_memory_stays_at_the_volume(pack: Callable[[bytes], bytes], volumes: float) -> None:
    array = (np.arange(100 * 200 * 200) % 1000).astype(np.int16).reshape(200, 200, 100)
    data = pack(save(array, affine_of("ASL", (5, 1, 1), array.shape), scl_slope=2, scl_inter=0))
    with memory_below(volumes * array.nbytes):
        assert sum(found.pixels.dtype == np.float64 for found in read_nifti(data, "a")) == 100


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_no_cut_is_read_as_a_whole_file(kind: type, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(volume(kind=kind))
    for length in {*range(0, 600, 7), *range(0, len(whole), len(whole) // 50), len(whole) - 1}:
        assert refused(whole[:length])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_wrong_bytes_give_slices_or_one_sentence(
    kind: type, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    whole, chance = volume(kind=kind), random.Random(0)
    refusals = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(560)] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        try:
            assert all(s.pixels.ndim == 2 for s in read(bytes(data)))
        except UserError:
            refusals += 1
    assert 100 < refusals < 1400
    assert not caplog.records
    assert not recwarn.list


def test_a_wrong_byte_of_a_packed_file_is_noticed() -> None:
    whole = gzip.compress(volume())
    for at in range(10, len(whole), len(whole) // 200):
        wrong = bytearray(whole)
        wrong[at] ^= 1
        assert refused(bytes(wrong))


@pytest.mark.parametrize("size", [0, 1, 2, 348, 352, 540, 5000])
def test_noise_is_refused(size: int) -> None:
    noise = RNG.bytes(size)
    assert refused(noise)
    assert refused(gzip.compress(noise))
    assert refused(nifti.GZIP + noise)
    assert refused(b"\x5c\x01\0\0" + noise)


def test_the_header_of_a_pair_of_files_is_refused() -> None:
    out = io.BytesIO()
    pair = nibabel.Nifti1Pair(VOXELS, np.eye(4))
    pair.header.write_to(out)
    assert "together as .nii" in refused(out.getvalue() + VOXELS.tobytes())
