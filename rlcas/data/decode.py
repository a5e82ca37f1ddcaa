"""Decoding of an image file: PNG, JPEG, BMP and TIFF with Pillow, DICOM with pydicom."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rlcas.data.source import Pixels, Window
from rlcas.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", *DICOM_SUFFIXES)
GRAY_MODES = ("1", "L", "LA", "La")
WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")

UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, SyntaxError),
    *(struct.error, Image.DecompressionBombError, MemoryError),
)
"""What Pillow and pydicom have been seen to raise for damaged files and for unknown formats."""


class DecodedFiles(Sequence[Pixels]):
    """The images of some files, each decoded on every access."""

    def __init__(self, paths: Sequence[Path], window: Window | None) -> None:
        self._paths = paths
        self._window = window

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """Return file `index` as [H, W] or [H, W, 3]."""
        return decode(self._paths[index], self._window)


def decode(path: Path, window: Window | None) -> Pixels:
    """Return the file's pixels, [H, W] or [H, W, 3]: uint8, or wider values to which no window is applied yet.

    If `window` is None, a DICOM file's own window is applied, if it has one; the pixels are then uint8.

    Raises:
        UserError: the file cannot be read, has several pages or frames, or holds floating-point values.
    """
    try:
        if path.suffix.lower() in DICOM_SUFFIXES:
            from rlcas.data.dicom import decode_dicom

            return decode_dicom(path, window)
        with Image.open(path) as image:
            return _pixels(path, image)
    # Before UNREADABLE, which has ValueError, the base of UserError.
    except UserError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # MemoryError has no message
        raise UserError(f"{path} cannot be read as an image ({reason}): replace or remove it") from error


def _pixels(path: Path, image: Image.Image) -> Pixels:
    # Not every format of Pillow has the attribute.
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} has {image.n_frames} pages: save each page as a file")  # type: ignore[attr-defined]
    if image.mode == "F":
        raise UserError(f"{path} has floating-point pixels: save it with 8 or 16 bits")
    # A photograph may be stored turned, with a tag that says how.
    upright = ImageOps.exif_transpose(image)
    # Left wide: the window decides what is black and white, and not Pillow's conversion to 8 bits.
    if upright.mode in WIDE_MODES:
        return np.asarray(upright)
    return np.asarray(upright.convert("L" if upright.mode in GRAY_MODES else "RGB"))
