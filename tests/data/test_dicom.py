import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from sslbt.data import dicom
from sslbt.data.dicom import read_dicom
from sslbt.data.formats import is_dicom
from sslbt.data.slices import Slice
from sslbt.errors import UserError

RNG = np.random.default_rng(0)
AXIAL, SAGITTAL, CORONAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
WAVES = 900 + 700 * np.outer(np.sin(np.arange(40) / 5), np.cos(np.arange(53) / 7))
GREY = (WAVES + RNG.integers(0, 40, (40, 53))).astype(np.uint16)  # 12 bits
KINDS = {  # pixels and bits stored
    "u8": ((GREY / 8).astype(np.uint8), 8),
    "u12": (GREY, 12),
    "i12": (GREY.astype(np.int16) - 1000, 12),
    "u16": (GREY * 30, 16),
    "i16": ((GREY * 20.0 - 20000).astype(np.int16), 16),
}
LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]


def bundled(name: str) -> bytes:
    """A file that comes with pydicom."""
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


def save(file: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    file.ensure_file_meta()
    file.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    dcmwrite(out, file, enforce_file_format=True)
    return out.getvalue()


def image(pixels: np.ndarray = GREY, bits: int = 0, **changed: object) -> Dataset:
    """An MR image of one frame or several; None takes an attribute out."""
    frames, (rows, columns) = pixels.shape[:-2], pixels.shape[-2:]
    file = Dataset()
    fields = {
        "SOPClassUID": uid.MRImageStorage,
        "SOPInstanceUID": "1.2.3",
        "PatientID": "P1",
        "ImageOrientationPatient": AXIAL,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": frames[0] if frames else None,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": pixels.itemsize * 8,
        "BitsStored": bits or pixels.itemsize * 8,
        "HighBit": (bits or pixels.itemsize * 8) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + bytes(pixels.nbytes % 2),
        **changed,
    }
    for keyword, value in fields.items():
        if value is not None:
            setattr(file, keyword, value)
    file["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return file


def item(**fields: object) -> Dataset:
    found = Dataset()
    for keyword, value in fields.items():
        setattr(found, keyword, value)
    return found


def packed(
    stream: bytes, pixels: np.ndarray = GREY, bits: int = 12, syntax: str = uid.JPEGLossless, **changed
) -> bytes:
    """A file whose pixels are such a stream, whatever it holds."""
    file = image(pixels, bits, **changed)
    file.PixelData = encapsulate([stream])
    file["PixelData"].is_undefined_length = True
    return save(file, syntax)


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[bytes, str], bytes]:
    """The same file in another transfer syntax, compressed by gdcm."""

    def change(data: bytes, syntax: str) -> bytes:
        before, after = tmp_path / "before.dcm", tmp_path / "after.dcm"
        before.write_bytes(data)
        reader, writer, work = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(before))
        assert reader.Read()
        work.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        work.SetInput(reader.GetImage())
        assert work.Change()
        writer.SetFileName(str(after))
        writer.SetFile(reader.GetFile())
        writer.SetImage(work.GetOutput())
        assert writer.Write()
        return after.read_bytes()

    return change


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def lossless_jpeg(pixels: np.ndarray, precision: int, tables: bytes = b"") -> bytes:
    """ITU-T T.81, annex H, predictor 1, in its plainest form: each category's code is its number in five bits."""
    values = pixels.astype(int)
    left = np.roll(values, 1, axis=1)
    left[1:, 0] = values[:-1, 0]
    left[0, 0] = 2 ** (precision - 1)
    bits = ""
    for difference in ((values - left + 2**15) % 2**16 - 2**15).ravel().tolist():
        length = abs(difference).bit_length()
        bits += f"{length:05b}" + (f"{difference - (difference < 0) & (1 << length) - 1:0{length}b}" if length else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = segment(0xC3, struct.pack(">BHHB", precision, *pixels.shape, 1) + b"\x01\x11\0")
    codes = segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]))
    return b"\xff\xd8" + tables + frame + codes + segment(0xDA, bytes([1, 1, 0, 1, 0, 0])) + scan + b"\xff\xd9"


def read(data: bytes) -> list[Slice]:
    return list(read_dicom(data, "a.dcm"))


def pixels_of(data: bytes) -> np.ndarray:
    (found,) = read(data)
    assert found.pixels.dtype.isnative
    assert found.number == 0
    return found.pixels


def refused(data: bytes) -> str:
    """The sentence an unusable file gets, less the file's name, which has to be in front."""
    with pytest.raises(UserError, match=r"^here/7\.dcm: ") as caught:
        list(read_dicom(data, "here/7.dcm"))
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix("here/7.dcm: ")


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


COLOUR = ["SC_rgb_rle.dcm", "SC_rgb_jpeg.dcm", "SC_rgb_small_odd.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"]
SENTENCES = {
    **dict.fromkeys(COLOUR, "in colours"),
    **dict.fromkeys(["test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm", "reportsi.dcm"], "no pixels"),
    **dict.fromkeys(["no_meta.dcm", "rtstruct.dcm", "README.txt"], "no DICOM file"),
    "MR_truncated.dcm": "damaged",
    "badVR.dcm": "damaged",
    "image_dfl.dcm": "Deflated Explicit VR Little Endian can't be read",
    "meta_missing_tsyntax.dcm": "transfer syntax unknown",
}


@pytest.mark.parametrize(("name", "sentence"), SENTENCES.items())
def test_what_is_no_grey_picture_is_refused(name: str, sentence: str) -> None:
    assert sentence in refused(bundled(name))


def test_three_samples_are_colour_whatever_they_are_called() -> None:
    colour = image(SamplesPerPixel=3, PlanarConfiguration=0, PixelData=GREY.tobytes() * 3)
    assert "in colours" in refused(save(colour))
    file = dcmread(io.BytesIO(bundled("SC_rgb_jls_lossy_line.dcm")))
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    assert "damaged" in refused(save(file, file.file_meta.TransferSyntaxUID))


def test_a_directory_is_refused() -> None:
    file = item(SOPClassUID=uid.MediaStorageDirectoryStorage, SOPInstanceUID="1.2.3", FileSetID="DISC")
    file.DirectoryRecordSequence = [item(DirectoryRecordType="PATIENT", PatientID="P1")]
    assert "a directory" in refused(save(file))


def test_an_unknown_transfer_syntax_is_named_only_where_it_is_one() -> None:
    assert "JPIP Referenced can't be read" in refused(packed(b"xx", syntax="1.2.840.10008.1.2.4.94"))
    assert "unknown can't be read" in refused(save(image()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.\n(secret)\n."))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000])
def test_claims_are_checked_before_anything_is_unpacked(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def data(**claims: int) -> bytes:
        return packed(b"\xff\xd8", syntax=syntax, **claims) if uid.UID(syntax).is_compressed else save(image(**claims))

    monkeypatch.setattr(dicom, "_streams", None)  # what would unpack them
    assert "65535 x 65535 pixels" in refused(data(Rows=65535, Columns=65535))
    assert "0 x 53 pixels" in refused(data(Rows=0))
    assert "10001 frames" in refused(data(NumberOfFrames=10001))
    assert "-1 frames" in refused(data(NumberOfFrames=-1))
    assert "600 frames" in refused(data(Rows=1500, Columns=1500, NumberOfFrames=600))  # 2.7 GB
    assert "damaged" in refused(data(Rows=1500, Columns=1500, NumberOfFrames=400))


def test_the_limits_hold_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "MAX_PIXELS", GREY.size)
    monkeypatch.setattr(dicom, "MAX_FRAMES", 2)
    monkeypatch.setattr(dicom, "MAX_BYTES", 2 * GREY.nbytes)
    data = save(image(np.stack([GREY, GREY])))
    assert len(read(data)) == 2
    for limit, value in (("MAX_PIXELS", GREY.size - 1), ("MAX_FRAMES", 1), ("MAX_BYTES", 2 * GREY.nbytes - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(dicom, limit, value)
            assert "can be read" in refused(data)


def test_fewer_frames_than_claimed_are_refused_before_the_first() -> None:
    for data in (save(image(NumberOfFrames=2)), packed(lossless_jpeg(GREY, 12), NumberOfFrames=2)):
        with pytest.raises(UserError, match="damaged"):
            next(read_dicom(data, "a.dcm"))


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14", "JPEGLSLossless", "JPEGExtendedProcess2_4"])
def test_a_jpeg_stream_that_lies_does_not_end_the_process(syntax: str, pack: Callable[[bytes, str], bytes]) -> None:
    stored, bits = KINDS["u8"]
    file = dcmread(io.BytesIO(pack(save(image(stored, bits)), syntax)))
    name = file.file_meta.TransferSyntaxUID
    stream = next(generate_frames(file.PixelData, number_of_frames=1))
    frame = stream.index(struct.pack(">BHHB", 8, 40, 53, 1))
    np.testing.assert_array_equal(pixels_of(packed(stream, stored, bits, name)), pixels_of(save(file, name)))

    def changed(at: int, form: str, *values: int) -> bytes:
        lying = bytearray(stream)
        struct.pack_into(form, lying, at, *values)
        return packed(bytes(lying), stored, bits, name)

    for rows, columns in ((65535, 65535), (20000, 20000), (20, 26), (53, 40), (0, 53), (41, 53)):
        assert "damaged" in refused(changed(frame + 1, ">HH", rows, columns))
    for rows, columns in ((4000, 4000), (20, 26), (53, 40), (41, 53)):
        assert "damaged" in refused(packed(stream, stored, bits, name, Rows=rows, Columns=columns))
    for precision in (0, 2, 7, 9, 16, 36, 115, 255):
        assert "damaged" in refused(changed(frame, ">B", precision))
    for samples in (0, 3, 255):
        assert "damaged" in refused(changed(frame + 5, ">B", samples))
    for marker in (0x00, 0x01, 0xC2, 0xCD, 0xD0, 0xD8, 0xD9, 0xFF):
        assert "damaged" in refused(changed(frame - 3, ">B", marker))
    twice = stream[: frame - 4] + stream[frame - 4 : frame + 9] + stream[frame - 4 :]
    for wrong in (twice, *(stream[:2] + segment(m, b"abc") + stream[2:] for m in (0x00, 0x01, 0xD0, 0xD7, 0xFF))):
        assert "damaged" in refused(packed(wrong, stored, bits, name))


def test_more_bits_stored_than_there_are_is_refused() -> None:
    assert "damaged" in refused(packed(lossless_jpeg(GREY, 12), GREY.astype(np.int16), 17))


def test_lossy_jpeg_has_8_or_12_bits(pack: Callable[[bytes, str], bytes]) -> None:
    data = pack(save(image(GREY, 12)), "JPEGExtendedProcess2_4")  # gdcm makes 16 of it, which nothing else reads
    assert "damaged" in refused(data)


def test_a_jpeg_2000_stream_that_lies_is_refused(pack: Callable[[bytes, str], bytes]) -> None:
    file = dcmread(io.BytesIO(pack(save(image()), "JPEG2000Lossless")))
    stream = next(generate_frames(file.PixelData, number_of_frames=1))
    size = stream.index(struct.pack(">II", 53, 40))
    lying = stream[:size] + struct.pack(">II", 9000, 9000) + stream[size + 8 :]
    np.testing.assert_array_equal(pixels_of(packed(stream, bits=16, syntax=uid.JPEG2000Lossless)), GREY)
    with pytest.raises(UserError, match="damaged") as caught:
        read(packed(lying, bits=16, syntax=uid.JPEG2000Lossless))
    assert "9000 x 9000" in str(caught.value.__cause__)  # rather than what unpacking it would say


def test_a_bomb_of_runs_is_refused() -> None:
    runs = struct.pack("<16L", 2, 64, 64, *[0] * 13) + b"\x81\0" * 2**23  # a GiB of zeros
    tracemalloc.start()
    assert "damaged" in refused(packed(runs, syntax=uid.RLELossless))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(runs)


WHOLE = ["", *LOSSLESS]


@pytest.mark.parametrize("syntax", WHOLE)
def test_no_cut_is_read_as_a_whole_file(syntax: str, pack: Callable[[bytes, str], bytes]) -> None:
    whole = save(image())
    whole = pack(whole, syntax) if syntax else whole
    for length in {*range(0, len(whole) - 20, len(whole) // 60), 132, 133, 200}:
        assert refused(whole[:length])


@pytest.mark.parametrize("syntax", WHOLE)
def test_wrong_bytes_give_pixels_or_one_sentence(
    syntax: str, pack: Callable[[bytes, str], bytes], recwarn: pytest.WarningsRecorder
) -> None:
    whole, chance = save(image()), random.Random(0)
    whole = pack(whole, syntax) if syntax else whole
    pixels, refusals = whole.index(b"\xe0\x7f\x10\0"), 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 4])):
            at = chance.randrange(132, len(whole)) if chance.random() < 0.3 else chance.randrange(132, pixels + 150)
            data[at] = chance.choice([0, 255, chance.randrange(256)])
        try:
            assert all(s.pixels.ndim == 2 for s in read(bytes(data)))
        except UserError:
            refusals += 1
    assert 40 < refusals < 390
    assert not recwarn.list


def test_noise_is_refused() -> None:
    for size in (0, 4, 200, 5000):
        assert refused(RNG.bytes(size))
        assert refused(bytes(128) + b"DICM" + RNG.bytes(size))
        start = save(image())
        assert refused(start[: start.index(b"\x10\0\x20\0")] + RNG.bytes(size))
