"""DICOM files that cannot be used, lie about themselves or are damaged get one sentence."""

import io
import random
import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from dicoms import (
    GREY,
    KINDS,
    LOSSLESS,
    RNG,
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
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames

from sslbt.data import dicom
from sslbt.data.dicom import read_dicom
from sslbt.errors import UserError

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
