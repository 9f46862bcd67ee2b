"""DICOM images (PS3.3, PS3.5 and PS3.10 of the standard), native or compressed: one slice a frame."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import gdcm
import numpy as np
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_modality_lut, get_decoder
from pydicom.pixels.utils import as_pixel_options

from sslbt.data.formats import is_dicom
from sslbt.data.slices import MAX_PIXELS, Slice
from sslbt.errors import UserError

MAX_FRAMES = 10_000
MAX_BYTES = 2**31  # of all frames of a file, unpacked
MAX_RLE = 2**24  # of a frame; pydicom unpacks it to up to 64 times as much before it looks at the size
PLANES = ("sagittal", "coronal", "axial")  # seen along the patient's axes x, y, z
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# What unpacks which transfer syntax (PS3.5, annex A). A deflated file could unpack to any size, so there is none.
NATIVE, RLE, PILLOW, GDCM = "", "pydicom", "pillow", "gdcm"
UNPACKERS = (
    dict.fromkeys((uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian), NATIVE)
    | {uid.RLELossless: RLE}
    | dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.JPEG2000), PILLOW)
    | dict.fromkeys((uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), GDCM)
    | dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), GDCM)
)
# Markers of a JPEG or JPEG-LS stream (ITU-T T.81, B.1.1.3 and T.87, C.1.1).
LOSSY, TABLES, SCAN = (0xFFC0, 0xFFC1), (0xFFC4, 0xFFDB, 0xFFDD, 0xFFF8), 0xFFDA
FRAMES, COMMENTS = (*LOSSY, 0xFFC3, 0xFFF7), (*range(0xFFE0, 0xFFF0), 0xFFFE)

# What they have to say comes as an exception too.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


def read_dicom(data: bytes, name: str) -> Iterator[Slice]:
    """Every frame of the file, as it is shown: modality values (PS3.3, C.11.1), bright is bright, padding is dark.

    Raises:
        UserError: no grey picture, damaged, compressed in an unknown way, a frame larger than 64 megapixels, or more
            than 10,000 frames or 2 GiB of them.
    """
    if not is_dicom(data):
        raise UserError(f"{name}: no DICOM file, or cut off at the start; export it again")
    try:
        with _quiet():
            file = _read(data, name)
            streams = _streams(file)
        for index, stream in enumerate(streams):
            with _quiet():
                pixels = _shown(_unpack(stream, file, index), file, index)
                plane = _plane(file, index)
            yield Slice(pixels, _patient(file, name), plane=plane, number=index + 1 if len(streams) > 1 else 0)
    except UserError:
        raise
    except Exception as error:  # what damage makes pydicom raise is listed nowhere, and may quote the patient's data
        raise UserError(f"{name}: damaged or unusual DICOM file; export it again, uncompressed") from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom|PIL")  # these alone, since other threads share the filters
        yield


def _read(data: bytes, name: str) -> Dataset:
    """The whole file, if what it says of itself allows to unpack its pixels."""
    stream = io.BytesIO(data)
    read_preamble(stream, force=False)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = uid.UID(meta.get("TransferSyntaxUID") or "")
    if syntax not in UNPACKERS:
        kind = syntax.name if syntax.is_valid else "unknown"
        raise UserError(f"{name}: pixels in the transfer syntax {kind} can't be read; export the file uncompressed")
    file = read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian)
    file.file_meta = FileMetaDataset(meta)
    if not any(keyword in file for keyword in PIXELS):
        raise UserError(f"{name}: no pixels, so it is cut off or a report, a plan or a directory; choose another file")
    if file.SamplesPerPixel != 1 or file.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(f"{name}: a picture in colours, or with a palette; choose the grey original")
    if not 0 < file.Rows * file.Columns <= MAX_PIXELS:
        raise UserError(f"{name}: {file.Rows} x {file.Columns} pixels; up to 64 megapixels can be read")
    frames = _frames(file)
    if not 0 < frames <= MAX_FRAMES or frames * file.Rows * file.Columns * file.BitsAllocated // 8 > MAX_BYTES:
        raise UserError(f"{name}: {frames} frames; up to 10,000 and 2 GiB of them can be read, export fewer at a time")
    return file


def _frames(file: Dataset) -> int:
    return int(file.get("NumberOfFrames") or 1)


def _patient(file: Dataset, name: str) -> str:
    patient = str(file.get("PatientID") or "").strip()
    if not patient.isprintable():
        raise UserError(f"{name}: the patient number (PatientID) is no text; correct it, a split by patient needs it")
    return patient


def _streams(file: Dataset) -> list[bytes]:
    """The compressed frames; nothing for each where they are not compressed."""
    frames = _frames(file)
    if not file.file_meta.TransferSyntaxUID.is_encapsulated:
        return [b""] * frames
    streams = list(islice(generate_frames(file.PixelData, number_of_frames=frames), frames))
    if len(streams) < frames:
        raise ValueError(f"{len(streams)} of {frames} frames")
    return streams


def _unpack(stream: bytes, file: Dataset, index: int) -> np.ndarray:
    """The pixels (height, width) as stored. A stream that says it is larger than the file does isn't unpacked."""
    syntax = file.file_meta.TransferSyntaxUID
    unpacker, decoder = UNPACKERS[syntax], get_decoder(syntax)
    if unpacker == NATIVE:
        pixels, _ = decoder.as_array(file, index=index)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if unpacker == GDCM:
        return _jpeg(stream, file)
    if unpacker == PILLOW:
        with Image.open(io.BytesIO(stream), formats=("JPEG", "JPEG2000")) as picture:
            if picture.size != (file.Columns, file.Rows):
                raise ValueError(f"its pixels are {picture.height} x {picture.width}")
    elif len(stream) > MAX_RLE:
        raise ValueError(f"{len(stream)} bytes for one frame")
    alone = as_pixel_options(file) | {"extended_offsets": None}
    return decoder.as_array(encapsulate([stream]), index=0, decoding_plugin=unpacker, **alone)[0]


def _jpeg(stream: bytes, file: Dataset) -> np.ndarray:
    """A frame of JPEG, lossless JPEG or JPEG-LS (PS3.5, 8.2.1 and 8.2.3).

    gdcm ends the whole process where a stream's header is damaged or disagrees with what it is told, and pydicom hands
    on what it gets. So the header is checked here, and gdcm gets what it needs of it and no more.
    """
    header, frame, at = b"\xff\xd8", b"", 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        segment = stream[at : at + 2 + length]
        if marker == SCAN:
            break
        if marker in FRAMES and not frame:
            kind, frame = marker, segment
        elif marker not in TABLES + COMMENTS:
            raise ValueError(f"{marker:X} in the header of compressed pixels")
        header += b"" if marker in COMMENTS else segment
        at += 2 + length
    precision, *size = struct.unpack_from(">BHHB", frame, 4)
    unused = file.BitsAllocated - file.BitsStored
    known = (8, 12) if kind in LOSSY else range(8, 17)
    if size != [file.Rows, file.Columns, 1] or precision not in known or precision > file.BitsAllocated or unused < 0:
        raise ValueError(f"compressed pixels of another size, {size} of {precision} bits")
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(header + stream[at:])
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((file.Columns, file.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(file.file_meta.TransferSyntaxUID))))
    bits = precision if kind in LOSSY or precision == 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, bits, bits, bits - 1, 0))
    found = image.GetBuffer().encode("utf-8", "surrogateescape")  # of None, and so an error, where gdcm fails
    pixels = np.frombuffer(found, "u1" if bits == 8 else "u2")
    wide = pixels.reshape(file.Rows, file.Columns).astype(f"{'ui'[file.PixelRepresentation]}{file.BitsAllocated // 8}")
    return wide << unused >> unused  # the sign is the highest of the stored bits


def _shown(pixels: np.ndarray, file: Dataset, index: int) -> np.ndarray:
    padding = file.get("PixelPaddingValue")
    if padding is not None:
        low, high = sorted((padding, file.get("PixelPaddingRangeLimit", padding)))
        padded = (low <= pixels) & (pixels <= high)
    pixels = apply_modality_lut(pixels, _macro(file, index, "PixelValueTransformationSequence"))
    if file.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.negative(pixels, dtype=np.float64)
    if padding is not None and not padded.all():
        pixels[padded] = pixels[~padded].min()
    return pixels


def _plane(file: Dataset, index: int) -> str:
    """From the direction of the slice's normal (PS3.3, C.7.6.2.1.1); nothing where it isn't known."""
    cosines = _macro(file, index, "PlaneOrientationSequence").get("ImageOrientationPatient")
    if np.size(cosines) != 6:
        return ""
    normal = np.abs(np.cross(*np.array(cosines, float).reshape(2, 3)))
    return PLANES[normal.argmax()] if normal.max() > 0 else ""


def _macro(file: Dataset, index: int, sequence: str) -> Dataset:
    """Where a frame's attributes lie: its own functional group, the shared one (PS3.3, C.7.6.16), or the file."""
    for groups, at in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        for group in (file.get(groups) or [])[at : at + 1]:
            if group.get(sequence):
                return group[sequence][0]
    return file
