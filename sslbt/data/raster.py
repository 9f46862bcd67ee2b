"""PNG, JPEG and TIFF, in 1, 8, 16 or 32 bits; a TIFF may hold several slices."""

import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageSequence, UnidentifiedImageError

from sslbt.data.slices import MAX_PIXELS, MAX_SIDE, Slice, first_line
from sslbt.errors import UserError

warnings.filterwarnings("ignore", module="PIL")  # it warns of damage and of size, which are told of here

# A picture is coloured if more than SHARE of its pixels have channels that differ by more than TINT of its range.
# JPEG's loss, a scanner's noise and a coloured arrow or name on a grey slice stay below.
SHARE, TINT = 1 / 200, 1 / 8


def read_raster(data: bytes, name: str) -> Iterator[Slice]:
    """Every picture of the file. Grey ones may be stored as colours: they become what they are (ITU-R 601).

    Raises:
        UserError: no readable picture, or one larger than 64 megapixels, longer than 8,000 or in colours.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as file:
            several = getattr(file, "n_frames", 1) > 1
            for number, picture in enumerate(ImageSequence.Iterator(file), 1):
                # Pillow keeps a pointer a row: a picture of one column takes gigabytes before its pixels are seen.
                if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
                    raise UserError(f"{name}: {picture.height} x {picture.width} pixels is more than can be read")
                yield Slice(_grey(picture, name), number=number if several else 0)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: no .mat, DICOM, NIfTI, PNG, JPEG or TIFF, or cut off at the start; export it again"
        ) from error
    except Exception as error:  # what damage makes Pillow raise is listed nowhere
        raise UserError(f"{name}: damaged PNG, JPEG or TIFF ({first_line(error)}); export it again") from error


def _grey(picture: Image.Image, name: str) -> np.ndarray:
    if picture.mode in ("L", "F") or picture.mode.startswith("I"):
        return np.array(picture)
    if _coloured(picture):
        raise UserError(f"{name}: a picture in colours; MRI slices are grey, export the slice without colours")
    return np.array(picture.convert("L"))


def _coloured(picture: Image.Image) -> bool:
    red, green, blue = picture.convert("RGB").split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    least = ImageChops.darker(ImageChops.darker(red, green), blue)
    span = np.ptp([least.getextrema(), most.getextrema()])
    pixels = np.array(ImageChops.subtract(most, least).histogram())  # by how much their channels differ
    return bool(pixels[int(TINT * span) + 1 :].sum() > SHARE * pixels.sum())
