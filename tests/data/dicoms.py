"""DICOM files made for the tests that read them, and what reading gives."""

import io
import struct
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import Dataset, dcmwrite, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from sslbt.data.dicom import read_dicom
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


def recoded(data: bytes, syntax: str, folder: Path) -> bytes:
    """The same file in another transfer syntax, compressed by gdcm."""
    before, after = folder / "before.dcm", folder / "after.dcm"
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
