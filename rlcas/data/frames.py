"""Which frame of a file is unpacked, and how large it may be."""

from __future__ import annotations

from pathlib import Path

from rlcas.config.data import Frame
from rlcas.errors import UserError

MAX_PIXELS = 178_956_970
"""Pixels of an image: Pillow's limit, twice its MAX_IMAGE_PIXELS, for what other libraries unpack."""
TO_CHOOSE = "or choose one with --dataset.frame first, middle or its number from 1"


def check_size(path: Path, num_pixels: int) -> None:
    """Check the size that a file's header claims, before any pixel is unpacked.

    Raises:
        UserError: the image is too large.
    """
    if num_pixels > MAX_PIXELS:
        raise UserError(
            f"{path} claims to have {num_pixels} pixels, {MAX_PIXELS} at most: save a smaller image"
        )


def chosen_frame(path: Path, num_frames: int, frame: Frame) -> int:
    """Return the index, from 0, of the frame that `dataset.frame` names; an only frame needs no choice.

    Args:
        path: the file, for messages.
        num_frames: number of its frames or pages; 1 if `frame` is None.
        frame: the setting.

    Raises:
        UserError: the file has several frames, but fewer than the number.
    """
    if num_frames <= 1 or frame is None or frame == "first":
        return 0
    if frame == "middle":
        return num_frames // 2
    if frame > num_frames:
        raise UserError(
            f"dataset.frame is {frame}, but {path} has {num_frames} frames: "
            f"choose 1 to {num_frames}, first or middle"
        )
    return frame - 1


def chosen_page(path: Path, num_pages: int, frame: Frame) -> int:
    """Return the index, from 0, of the page that `dataset.frame` names.

    Args:
        path: the file, for messages.
        num_pages: number of its pages.
        frame: the setting.

    Raises:
        UserError: the file has several pages, and `frame` names none of them.
    """
    if num_pages > 1 and frame is None:
        raise UserError(f"{path} has {num_pages} pages: save each page as a file, {TO_CHOOSE}")
    return chosen_frame(path, num_pages, frame)
