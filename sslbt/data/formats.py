"""From the bytes of one file to its slices, whatever the format: each format has a file of its own.

Torch-free, so that the scoring service can use it.
"""

from collections.abc import Iterator

import numpy as np

from sslbt.data.slices import Slice, check_pixels
from sslbt.errors import UserError

SUFFIXES = (".mat", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".ima", ".nii", ".nii.gz")
HEAD = 132  # bytes that tell a DICOM file, which often has no ending of its own
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"  # of MATLAB v7.3, which puts 512 bytes of its own before


def is_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes say that it is DICOM (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


def is_nifti(name: str) -> bool:
    """Whether a file's name says that it is NIfTI in one file, packed or not."""
    return name.lower().endswith((".nii", ".nii.gz"))


def read(data: bytes, name: str) -> Iterator[Slice]:
    """Every slice of one file, with what the file says of it; pixels are not yet checked.

    Args:
        data: the whole file.
        name: what to call the file in an error; NIfTI is known by its ending, all else by its first bytes.

    Raises:
        UserError: the bytes hold no readable slice.
    """
    # Each format's library is imported when the first such file comes: a service starts faster.
    if is_dicom(data[:HEAD]):
        from sslbt.data.dicom import read_dicom

        return read_dicom(data, name)
    if is_nifti(name):
        from sslbt.data.nifti import read_nifti

        return read_nifti(data, name)
    if _is_matlab(data):
        from sslbt.data.matlab import read_mat

        return iter([read_mat(data, name)])
    if data.startswith(b"MATLAB 5"):
        raise UserError(f"{name}: MATLAB v5 file; save it with -v7.3, as the figshare dataset does")
    from sslbt.data.raster import read_raster

    return read_raster(data, name)


def pictures(data: bytes, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels (height, width) of every slice of one file, unchecked; what else it says is not looked at.

    Raises:
        UserError: the bytes hold no readable slice.
    """
    if _is_matlab(data):
        from sslbt.data.matlab import read_image

        yield name, read_image(data, name)
    else:
        for found in read(data, name):
            yield slice_name(name, found.number), found.pixels


def decode(data: bytes, name: str) -> np.ndarray:
    """Pixels (height, width) of a file with one slice, checked.

    Raises:
        UserError: no readable slice, several, NIfTI, or its pixels can't be used.
    """
    if is_nifti(name):  # a volume is unpacked as a whole: two megabytes may become two gigabytes
        raise UserError(f"{name}: NIfTI holds several slices; score the file as a batch, or give them one by one")
    slice_, pixels = next(pictures(data, name))
    if slice_ != name:
        raise UserError(f"{name}: holds several slices; score the file as a batch, or give them one by one")
    return check_pixels(pixels, name)


def slice_name(file: str, number: int) -> str:
    """What a slice is called in tables: its file and, where that holds several, which one it is."""
    return f"{file}#{number}" if number else file


def _is_matlab(data: bytes) -> bool:
    return HDF5_MAGIC in (data[:8], data[512:520])
