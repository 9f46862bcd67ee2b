"""DICOM files in every clothing come out as the same pixels."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from dicoms import (
    AXIAL,
    CORONAL,
    GREY,
    KINDS,
    LOSSLESS,
    RNG,
    SAGITTAL,
    bundled,
    image,
    item,
    lossless_jpeg,
    packed,
    pixels_of,
    read,
    refused,
    save,
    segment,
)
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from sslbt.data.formats import is_dicom


def test_four_letters_tell_dicom() -> None:
    assert is_dicom(bundled("MR_small.dcm")[:132])
    assert not is_dicom(bundled("no_meta.dcm"))
    assert not is_dicom(b"DICM")


@pytest.mark.parametrize(
    "way", ["", "_RLE", "_implicit", "_bigendian", "_expb", "_padded", "_jp2klossless", "_jpeg_ls_lossless"]
)
def test_one_picture_in_every_clothing(
    way: str, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    (found,) = read(bundled(f"MR_small{way}.dcm"))
    stored = np.frombuffer(dcmread(io.BytesIO(bundled("MR_small.dcm"))).PixelData, "<i2").reshape(64, 64)
    np.testing.assert_array_equal(found.pixels, stored)
    assert found.pixels.dtype == np.int16
    assert (found.patient, found.plane, found.number, found.label) == ("4MR1", "axial", 0, "")
    assert not recwarn.list
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("syntax", ["", *LOSSLESS])
def test_lossless_is_lossless(kind: str, syntax: str, pack: Callable[[bytes, str], bytes]) -> None:
    stored, bits = KINDS[kind]
    data = save(image(stored, bits))
    found = pixels_of(pack(data, syntax) if syntax else data)
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == stored.dtype


@pytest.mark.parametrize("precision", range(8, 17))
def test_lossless_jpeg_of_any_precision(precision: int) -> None:
    for top in (2**precision - 1, 200):
        stored = RNG.integers(0, top, (40, 53)).astype(np.uint16)
        stored[:, 20:30] = 7
        np.testing.assert_array_equal(pixels_of(packed(lossless_jpeg(stored, precision), stored, precision)), stored)


def test_the_sign_is_the_highest_stored_bit() -> None:
    stored, bits = KINDS["i12"]
    assert stored.min() < 0
    for data in (save(image(stored & 0xFFF, bits)), packed(lossless_jpeg(stored & 0xFFF, 12))):
        file = dcmread(io.BytesIO(data))
        file.PixelRepresentation = 1
        np.testing.assert_array_equal(pixels_of(save(file, file.file_meta.TransferSyntaxUID)), stored)


def test_bits_that_are_not_stored_are_nothing() -> None:
    np.testing.assert_array_equal(pixels_of(save(image(GREY | 0xA000, 12))), GREY)
    np.testing.assert_array_equal(pixels_of(packed(lossless_jpeg(GREY | 0xA000, 16))), GREY)


def test_comments_in_a_stream_are_skipped() -> None:
    jfif = segment(0xE0, b"JFIF\0\x09\x01\0\0\x01\0\x01\0\0")  # of a version at which gdcm ends the process
    stream = lossless_jpeg(GREY, 12, jfif + segment(0xFE, b"made by a test"))
    np.testing.assert_array_equal(pixels_of(packed(stream)), GREY)


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGExtendedProcess2_4"])
def test_lossy_is_close(syntax: str, pack: Callable[[bytes, str], bytes]) -> None:
    stored, bits = KINDS["u8"]
    data = pack(save(image(stored, bits)), syntax)
    assert dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID.is_compressed
    assert abs(pixels_of(data).astype(int) - stored).max() <= 3


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_twelve_bits_of_lossy_jpeg(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = pixels_of(bundled(name))
    other = pixels_of(bundled("JPEG2000.dcm"))  # the same scan, lossy in another way
    assert found.shape == other.shape == (1024, 256)
    assert (found[420, 140], found[230, 120]) == (244, 95)  # as pydicom's own tests have it
    assert np.corrcoef(found.ravel(), other.ravel())[0, 1] > 0.9
    assert "Unsupported" not in capfd.readouterr().err  # gdcm tries other depths first if it is told a wrong one


def test_floating_point() -> None:
    stored = GREY.astype(np.float32) / 7
    file = image(GREY, BitsAllocated=32, BitsStored=None, HighBit=None, PixelRepresentation=None)
    del file.PixelData
    file.FloatPixelData = stored.tobytes()
    found = pixels_of(save(file))
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == np.float32


def test_bright_is_bright() -> None:
    np.testing.assert_array_equal(pixels_of(save(image())), GREY)
    inverse = pixels_of(save(image(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(inverse - inverse.min(), GREY.max() - GREY.astype(float))


def test_slope_and_intercept_come_first() -> None:
    scale = {"RescaleSlope": "-2.5", "RescaleIntercept": "100"}
    np.testing.assert_allclose(pixels_of(save(image(**scale))), -2.5 * GREY.astype(float) + 100)
    inverse = pixels_of(save(image(PhotometricInterpretation="MONOCHROME1", **scale)))
    np.testing.assert_allclose(inverse - inverse.min(), 2.5 * (GREY - float(GREY.min())))


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_table_of_modality_values(vr: str) -> None:
    values = np.arange(5000, 5300, 2, dtype=np.uint16)
    table = item(LUTDescriptor=[150, 0, 16], ModalityLUTType="US")
    table.add_new("LUTData", vr, values.tolist() if vr == "US" else values.tobytes())
    stored = GREY // 10
    file = image(stored, PixelRepresentation=0)
    file.ModalityLUTSequence = [table]
    assert stored.max() > 149
    np.testing.assert_array_equal(pixels_of(save(file)), 5000 + 2 * stored.clip(max=149))


@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("padding", "limit"), [(4000, None), (0, None), (4000, 4090), (4090, 4000)])
def test_padding_is_dark(shown: str, padding: int, limit: int | None) -> None:
    stored = GREY + 1
    frame = np.zeros(stored.shape, bool)
    frame[:5] = frame[:, -7:] = True
    stored[frame] = padding
    if limit is not None:
        stored[2] = (padding + limit) // 2
        stored[3] = limit
    found = pixels_of(
        save(image(stored, PixelPaddingValue=padding, PixelPaddingRangeLimit=limit, PhotometricInterpretation=shown))
    )
    expected = -stored.astype(float) if shown == "MONOCHROME1" else stored
    np.testing.assert_array_equal(found[~frame], expected[~frame])
    assert (found[frame] == expected[~frame].min()).all()


def test_nothing_but_padding_stays_as_it_is() -> None:
    found = pixels_of(save(image(np.full((20, 20), 7, np.uint16), PixelPaddingValue=7)))
    assert (found == 7).all()


@pytest.mark.parametrize("syntax", ["", "RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "JPEGLosslessProcess14_1"])
def test_frames_are_numbered(syntax: str, pack: Callable[[bytes, str], bytes]) -> None:
    stored = np.stack([GREY, GREY[::-1], GREY // 2])
    data = save(image(stored))
    found = read(pack(data, syntax) if syntax else data)
    np.testing.assert_array_equal([s.pixels for s in found], stored)
    assert [(s.number, s.patient, s.plane) for s in found] == [(n, "P1", "axial") for n in (1, 2, 3)]


def test_frames_in_several_fragments_without_a_table_of_them() -> None:
    stored = np.stack([GREY, GREY[::-1]])
    file = image(stored)
    streams = [lossless_jpeg(frame, 16) for frame in stored]
    file.PixelData = encapsulate(streams, fragments_per_frame=3, has_bot=False)
    file["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal([s.pixels for s in read(save(file, uid.JPEGLosslessSV1))], stored)


def test_frames_with_an_extended_table_of_them(pack: Callable[[bytes, str], bytes]) -> None:
    stored = np.stack([GREY // 500, GREY])  # of different lengths
    file = dcmread(io.BytesIO(pack(save(image(stored)), "RLELossless")))
    streams = list(generate_frames(file.PixelData, number_of_frames=2))
    file.PixelData, file.ExtendedOffsetTable, file.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    np.testing.assert_array_equal([s.pixels for s in read(save(file, uid.RLELossless))], stored)


def test_frames_beyond_the_claimed_ones_are_left_out() -> None:
    stored = np.stack([GREY, GREY[::-1], GREY])
    file = image(stored, NumberOfFrames=2)
    assert len(read(save(file))) == 2
    file.PixelData = encapsulate([lossless_jpeg(frame, 16) for frame in stored], has_bot=False)
    file["PixelData"].is_undefined_length = True
    assert len(read(save(file, uid.JPEGLossless))) == 2


def test_frames_of_an_enhanced_image_have_their_own_scale_and_plane() -> None:
    file = image(np.stack([GREY] * 3), ImageOrientationPatient=None)

    def scale(slope: float) -> list[Dataset]:
        return [item(RescaleSlope=slope, RescaleIntercept=5, RescaleType="US")]

    def plane(cosines: list[float]) -> list[Dataset]:
        return [item(ImageOrientationPatient=cosines)]

    file.SharedFunctionalGroupsSequence = [
        item(PixelValueTransformationSequence=scale(3), PlaneOrientationSequence=plane(CORONAL))
    ]
    file.PerFrameFunctionalGroupsSequence = [
        item(PixelValueTransformationSequence=scale(2)),
        item(PlaneOrientationSequence=plane(SAGITTAL)),
    ]
    found = read(save(file))
    for one, slope in zip(found, (2, 3, 3), strict=True):
        np.testing.assert_array_equal(one.pixels, slope * GREY.astype(float) + 5)
    assert [s.plane for s in found] == ["coronal", "sagittal", "coronal"]


@pytest.mark.parametrize(
    ("cosines", "plane"),
    [
        (AXIAL, "axial"),
        (SAGITTAL, "sagittal"),
        (CORONAL, "coronal"),
        ([-1, 0, 0, 0, -1, 0], "axial"),
        ([0.97, 0.17, -0.17, -0.12, 0.95, 0.28], "axial"),
        ([0.98, 0, 0.2, 0, 0.34, -0.94], "coronal"),
        (None, ""),
        ([0, 0, 0, 0, 0, 0], ""),
        ([1, 0, 0], ""),
    ],
)
def test_the_plane(cosines: list[float] | None, plane: str) -> None:
    assert read(save(image(ImageOrientationPatient=cosines)))[0].plane == plane


@pytest.mark.parametrize(
    ("stated", "patient"),
    [("P1", "P1"), ("  0042 ", "0042"), ("", ""), ("   ", ""), (None, ""), ("Zoë ../7", "Zoë ../7")],
)
def test_the_patient(stated: str | None, patient: str) -> None:
    assert read(save(image(PatientID=stated, SpecificCharacterSet="ISO_IR 192")))[0].patient == patient


def test_a_patient_number_that_is_no_text_is_refused() -> None:
    assert "(PatientID) is no text" in refused(save(image(PatientID="P1")).replace(b"P1", b"P\x07"))
