"""NIfTI-1 and NIfTI-2 volumes in one file, packed with gzip or not: one slice a position."""

import gzip
import io
import logging
from collections.abc import Iterator
from math import prod

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, io_orientation

from sslbt.data.slices import Slice
from sslbt.errors import UserError

MAX_BYTES = 2**31  # of a volume, unpacked
PLANES = ("sagittal", "coronal", "axial")  # seen along the axes x, y, z
GZIP = b"\x1f\x8b"
SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")  # what a NIfTI-1 header starts with: its 348 bytes
SILENT = logging.Logger("nibabel", level=logging.CRITICAL + 1)


def read_nifti(data: bytes, name: str) -> Iterator[Slice]:
    """Every slice of a volume, scaled (scl_slope, scl_inter), from left, posterior or inferior on.

    Volumes are cut across their thickest voxels, as they were acquired, and where no side is thicker into axial slices.
    Slices are shown as radiologists see them: superior or, in axial ones, anterior at the top; the patient's right
    or, in sagittal ones, anterior on the left.

    Raises:
        UserError: no NIfTI file, damaged, cut off, larger than 2 GiB, several volumes, colours or complex numbers.
    """
    try:
        with np.errstate(all="ignore"):
            header, volume = _open(data, name)
            affine = header.get_best_affine()
            turned = io_orientation(affine)
            canonical = apply_orientation(volume, turned)  # axes to the patient's right, anterior and superior
            spacing = voxel_sizes(affine)[np.argsort(turned[:, 0])]
        axis = _across(canonical.shape, spacing)
        plane = PLANES[axis] if header["qform_code"] or header["sform_code"] else ""
        # What is left of x, y, z runs along a row and then up the rows, against the picture's directions both times.
        slices = np.moveaxis(canonical, axis, 0)[:, ::-1, ::-1].swapaxes(1, 2)
        for number, pixels in enumerate(slices, 1):
            yield Slice(_scaled(pixels, header), plane=plane, number=number if len(slices) > 1 else 0)
    except UserError:
        raise
    except Exception as error:  # what damage makes nibabel raise is listed nowhere
        raise UserError(f"{name}: damaged NIfTI file, or none; export it again") from error


def _open(data: bytes, name: str) -> tuple[Nifti1Header, np.ndarray]:
    """The header and a view (i, j, k) of the stored numbers; nothing is unpacked that the header doesn't announce."""
    packed = data.startswith(GZIP)
    stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
    start = stream.read(540)
    header = Nifti1Header(start[:348], check=False) if start[:4] in SIZES else Nifti2Header(start, check=False)
    header.check_fix(logger=SILENT)
    if header["magic"] != header.single_magic:
        raise UserError(f"{name}: no NIfTI volume in one file; save header and pixels together as .nii")
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    size = prod(map(int, shape)) * dtype.itemsize
    if dtype.kind not in "iuf":
        raise UserError(f"{name}: holds colours or complex numbers; save a volume of grey values")
    if prod(shape[3:]) != 1:
        raise UserError(f"{name}: holds a series of volumes; save one of them as a file of its own")
    if not 0 < size <= size + offset <= MAX_BYTES:
        raise UserError(f"{name}: a volume of {size} bytes; up to 2 GiB can be read")
    numbers = _unpacked(stream, offset, size) if packed else memoryview(data)[offset : offset + size]
    if len(numbers) < size:
        raise UserError(f"{name}: cut off after {len(numbers)} of {size} bytes; export it again")
    return header, np.ndarray((*shape, 1, 1)[:3], dtype, numbers, order="F")


def _unpacked(stream: io.BufferedIOBase, offset: int, size: int) -> memoryview:
    numbers, end = memoryview(bytearray(size)), 0
    stream.seek(offset)
    while chunk := stream.read(min(size - end, 2**18)):  # all at once, it would be there twice
        numbers[end : end + len(chunk)] = chunk
        end += len(chunk)
    stream.read(2**16)  # to the end, usually, where gzip compares its checksum
    return numbers[:end]


def _across(shape: tuple[int, ...], spacing: np.ndarray) -> int:
    """The axis that slices are numbered along."""
    if 1 in shape:
        return shape.index(1)
    return 2 if spacing[2] > 0.99 * spacing.max() else int(spacing.argmax())


def _scaled(pixels: np.ndarray, header: Nifti1Header) -> np.ndarray:
    slope, inter = header.get_slope_inter()
    if slope is None or (slope, inter) == (1, 0):
        return np.array(pixels, pixels.dtype.newbyteorder("="), order="C")
    with np.errstate(all="ignore"):
        return pixels * float(slope) + float(inter)
