"""Images of more than 8 bits that Pillow narrows, byte by byte; and TIFF that it does not know, with tifffile."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageOps

from rlcas.config.data import Frame
from rlcas.data.frames import check_size, chosen_page
from rlcas.data.source import Pixels
from rlcas.errors import UserError

WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of one channel of more than 8 bits."""
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
"""Pillow's layout whose upper byte it keeps -> the layout by which it takes the lower one."""
GRAY_ALPHA = "LA;16B"
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS"}
"""Pillow's layouts of big-endian values -> those of this machine."""
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
SIGNED = 2
SHADES = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in TIFF_MAGIC


def is_narrowed(image: Image.Image) -> bool:
    """Return whether Pillow would keep the upper 8 bits alone of an image that is opened, but not yet read."""
    if image.mode in WIDE_MODES:
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8  # type: ignore[attr-defined]
    return image.format == "PNG" and ";16" in _raw_mode(image)


def is_split(image: Image.Image) -> bool:
    """Return whether `decode_bytes` reads an image whose pixels Pillow narrows."""
    return _raw_mode(image) in (*OTHER_BYTES, GRAY_ALPHA)


def decode_bytes(image: Image.Image, path: Path) -> Pixels:
    """Return [H, W] or [H, W, 3] of uint16, without transparency, of an image that Pillow narrows.

    Pillow unpacks one byte of each value, and which one depends on the order of bytes that it is given: so it is read a
    second time in the other order.
    """
    raw_mode = _raw_mode(image)
    if raw_mode == GRAY_ALPHA:
        # Two values of two bytes, as four channels of one.
        high, low, *_ = np.moveaxis(_unpacked(image, "RGBA"), -1, 0)
    else:
        with Image.open(path, formats=(str(image.format),)) as again:
            again.filename = ""  # as in rlcas.data.decode
            again.seek(image.tell())
            low = _unpacked(again, OTHER_BYTES[raw_mode])[..., :3]
        high = _unpacked(image, raw_mode)[..., :3]
    values = high.astype(np.uint16)
    values <<= 8
    values |= low
    return values


def correct_order(image: Image.Image) -> None:
    """Let Pillow read compressed values of a big-endian TIFF as libtiff returns them: in this machine's order."""
    if image.format == "TIFF" and image.tile[0].codec_name == "libtiff":  # type: ignore[attr-defined]
        _set_raw_mode(image, NATIVE.get(_raw_mode(image), _raw_mode(image)))


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout in the file, from an image that is not yet read."""
    arguments = image.tile[0].args  # type: ignore[attr-defined]
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _unpacked(image: Image.Image, raw_mode: str) -> Pixels:
    _set_raw_mode(image, raw_mode)
    return np.asarray(ImageOps.exif_transpose(image))


def _set_raw_mode(image: Image.Image, raw_mode: str) -> None:
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile in image.tile  # type: ignore[attr-defined]
    ]


def decode_tiff(path: Path, frame: Frame) -> Pixels:
    """Return a page's pixels, [H, W] or [H, W, 3], without transparency.

    Raises:
        UserError: the file has floating-point values, several pages of which none is chosen, or pixels of a kind that
            is not read.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages[chosen_page(path, len(file.pages), frame)].aspage()
        _check_kind(path, page)
        check_size(path, page.imagewidth * page.imagelength)
        _check_whole(page)
        try:
            values = page.asarray()
        except (ValueError, KeyError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise UserError(
                f"{path} is TIFF of {page.bitspersample} bits packed by {tifffile.COMPRESSION(page.compression).name}, "
                "which needs imagecodecs: pip install imagecodecs, or save it uncompressed"
            ) from error
        return _upright(_shades(page, values), page.tags.valueof("Orientation", 1))


def _check_kind(path: Path, page: tifffile.TiffPage) -> None:
    """Check what a page's header says of its pixels.

    Raises:
        UserError: they are of a kind that is not read.
    """
    if page.dtype is None or page.dtype.kind in "fc":
        raise floating(path)
    rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
    # The color's channels, and one of transparency at most.
    samples = range(3, 5) if rgb else range(1, 3)
    integers = page.photometric in SHADES and page.dtype.kind in "iu"
    if not integers or page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel not in samples:
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        raise UserError(
            f"{path} has {kind} pixels of {page.samplesperpixel} x {page.bitspersample} bits: "
            "save it as gray or RGB of 8 or 16 bits"
        )


def _check_whole(page: tifffile.TiffPage) -> None:
    """Check that the file has all of a page's values: tifffile would show the others as black.

    Raises:
        ValueError: it has not.
    """
    counts = page.databytecounts
    num_bytes = page.size * page.bitspersample // 8
    too_short = page.compression == tifffile.COMPRESSION.NONE and sum(counts) < num_bytes
    if not num_bytes or too_short or 0 in counts or len(counts) < math.prod(page.chunked):
        raise ValueError(f"it has {sum(counts)} of {num_bytes} bytes of pixels")


def _shades(page: tifffile.TiffPage, values: Pixels) -> Pixels:
    """Return [H, W] or [H, W, 3]: black is low, and a channel of transparency is left out."""
    samples_last = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    if page.photometric == tifffile.PHOTOMETRIC.RGB:
        return _native(samples_last[..., :3])
    gray = samples_last if samples_last.ndim == 2 else samples_last[..., 0]
    return _darkest_first(gray, page.bitspersample, page.photometric)


def _upright(image: Pixels, orientation: int) -> Pixels:
    """Return an image that TIFF's tag Orientation, 1 to 8, describes as turned or mirrored."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    axes = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(image, axes))


def is_signed_8(tags: Mapping[int, Any]) -> bool:
    """Return whether a TIFF has signed values of 8 bits, which Pillow takes for unsigned ones."""
    return _first(tags, BITS_PER_SAMPLE) == 8 and _first(tags, SAMPLE_FORMAT) == SIGNED


def gray_tiff(values: Pixels, tags: Mapping[int, Any]) -> Pixels:
    """Return [H, W]: the values that Pillow has read of a gray TIFF, with the signs and the order that its tags say."""
    bits, signed = _first(tags, BITS_PER_SAMPLE), _first(tags, SAMPLE_FORMAT) == SIGNED
    if is_signed_8(tags):
        values = values.view(np.int8)
    elif bits == 32 and not signed:
        values = values.view(np.uint32)
    return _darkest_first(values, bits, tags.get(PHOTOMETRIC))


def _first(tags: Mapping[int, Any], tag: int) -> int:
    # Absent, both tags that are read so mean 1.
    return int(tags.get(tag, (1,))[0])


def _darkest_first(values: Pixels, bits: int, photometric: int | None) -> Pixels:
    # int8 counts as wide: its values are not those of 8-bit images.
    wide = _native(values).astype(np.int16) if values.dtype == np.int8 else _native(values)
    if photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return wide
    # ~x = -1 - x mirrors the range of a signed integer.
    return ~wide if wide.dtype.kind == "i" else wide.dtype.type(2**bits - 1) - wide


def _native(values: Pixels) -> Pixels:
    """Return the values in this machine's order of bytes, which equal images must share to be found."""
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))


def floating(path: Path) -> UserError:
    """Return the error of an image with floating-point values."""
    return UserError(f"{path} has floating-point pixels: save it with 8 or 16 bits")
