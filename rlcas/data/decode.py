"""Decoding of an image file: PNG, JPEG, BMP and TIFF with Pillow or what it lacks, DICOM with pydicom."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rlcas.config.data import Frame
from rlcas.data.frames import chosen_page
from rlcas.data.source import Pixels, Window
from rlcas.data.wide import (
    WIDE_MODES,
    correct_order,
    decode_bytes,
    decode_tiff,
    gray_tiff,
    is_narrowed,
    is_signed_8,
    is_split,
    is_tiff,
)
from rlcas.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", *DICOM_SUFFIXES)
LISTED_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".webp")
"""Those of images that a table may name; folders have GIF and WebP rather as previews."""
GRAY_MODES = ("1", "L", "LA", "La")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")
"""Formats of Pillow that are read, whatever the suffix says: it narrows others of 16 bits without a word."""

FORMS = {"JPEG2000": "JPEG 2000", "PPM": "PPM, PGM or PBM"}
"""Pillow's names of other formats -> the usual ones."""
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, SyntaxError),
    *(ArithmeticError, struct.error, zlib.error, Image.DecompressionBombError, MemoryError),
)
"""What Pillow and pydicom have been seen to raise for damaged files and for unknown formats."""


class DecodedFiles(Sequence[Pixels]):
    """The images of some files, each decoded on every access."""

    def __init__(self, paths: Sequence[Path], window: Window | None, frame: Frame = None) -> None:
        self._paths = paths
        self._window = window
        self._frame = frame

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """Return file `index` as [H, W] or [H, W, 3]."""
        return decode(self._paths[index], self._window, self._frame)


def decode(path: Path, window: Window | None, frame: Frame = None) -> Pixels:
    """Return the file's pixels, [H, W] or [H, W, 3]: uint8, or wider values to which no window is applied yet.

    Args:
        path: the file; DICOM is known by its suffix or, if the suffix is none of an image, by its content.
        window: values shown as black and white; None: a DICOM file's own, if it has any, and the pixels are then uint8.
        frame: which frame or page, if the file has several.

    Raises:
        UserError: the file cannot be read, holds floating-point values, or has several frames and `frame` names none.
    """
    try:
        if is_dicom(path):
            from rlcas.data.dicom import decode_dicom

            return decode_dicom(path, window, frame)
        return _picture(path, frame)
    # Before UNREADABLE, which has ValueError, the base of UserError.
    except UserError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # MemoryError has no message
        raise UserError(f"{path} cannot be read as an image ({reason}): replace or remove it") from error


def is_image_file(path: Path) -> bool:
    """Return whether a file's suffix is one of an image, or, for other suffixes, its content DICOM."""
    return path.is_file() and (path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path))


def is_listed_image(path: str) -> bool:
    """Return whether a table's text may name an image: by its suffix, or as a DICOM file that exists."""
    # os.path's returns False for a text that is too long for a name.
    return path.lower().endswith(LISTED_SUFFIXES) or (os.path.isfile(path) and is_dicom(Path(path)))  # noqa: PTH113


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix, or by its content if the suffix is none of an image.

    DICOMDIR, the table of contents of a medium, is none.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or path.name.upper() == "DICOMDIR":
        return suffix in DICOM_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _picture(path: Path, frame: Frame) -> Pixels:
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        # Pillow does not know every form of TIFF.
        if not is_tiff(path):
            _refuse_other_form(path)
            raise
        return decode_tiff(path, frame)
    with image:
        # By this name Pillow would map the file into memory, without regard to sides that a TIFF's tag exchanges.
        image.filename = ""
        # Frames of an animation are changes, which cannot be put together from bytes.
        image.seek(_page(path, image, None if image.format == "PNG" and is_narrowed(image) else frame))
        if not is_narrowed(image):
            return _pixels(path, image)
        return decode_bytes(image, path) if is_split(image) else decode_tiff(path, frame)


def _refuse_other_form(path: Path) -> None:
    """Refuse a whole file of a form that is not read, or that its name hides.

    Raises:
        UserError: it is one; the message says how to save it.
    """
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        raise UserError(f"{path} is DICOM: rename it to {path.stem}.dcm")
    if form := _other_form(path, head):
        raise UserError(f"{path} is {form}, which is not read: save it as PNG")


def _other_form(path: Path, head: bytes) -> str | None:
    """Return the name of the form in which Pillow, which knows many, would read a file; None: it knows none."""
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"avi"):
        return "HEIC or AVIF"
    try:
        with Image.open(path) as image:
            form = image.format or ""
    except UNREADABLE:
        return None
    # Pillow takes almost anything for TGA, which has no mark at its start.
    return (
        None if form in FORMATS or (form == "TGA" and path.suffix.lower() != ".tga") else FORMS.get(form, form)
    )


def _page(path: Path, image: Image.Image, frame: Frame) -> int:
    # The first picture of a camera's MPO is the photograph, and others are its previews.
    if image.format == "MPO":
        return 0
    # Not every format of Pillow has the attribute.
    return chosen_page(path, getattr(image, "n_frames", 1), frame)


def _pixels(path: Path, image: Image.Image) -> Pixels:
    if image.mode == "LAB":
        raise UserError(f"{path} has CIELAB pixels: save it as RGB")
    correct_order(image)
    tags: Mapping[int, Any] = dict(image.tag_v2) if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    # A photograph may be stored turned, with a tag that says how.
    upright = ImageOps.exif_transpose(image)
    # Left wide: the window decides what is black and white, and not Pillow's conversion to 8 bits.
    if upright.mode in WIDE_MODES or is_signed_8(tags):
        return gray_tiff(np.asarray(upright), tags)
    if upright.mode in GRAY_MODES:
        return np.asarray(upright.convert("L"))
    # Pillow wants palettes with transparency to become RGBA first.
    return np.asarray((upright.convert("RGBA") if upright.mode == "P" else upright).convert("RGB"))
