"""Conversion of the source's pixels to uint8 [N, channels, H, W] of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rlcas.config import DatasetConfig
from rlcas.data.source import Pixels, RawSplit, SplitName, Survey, Window
from rlcas.errors import UserError
from rlcas.types import Uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The form to which every image of a run is converted."""

    channels: int
    height_px: int
    width_px: int
    window: Window | None
    """Values shown as 0 and 255; None if all images have 8 bits."""


def layout_of(
    where: str,
    splits: Mapping[SplitName, RawSplit],
    train: Survey | None,
    dataset: DatasetConfig,
    *,
    trained_window: Window | None = None,
) -> tuple[Layout, tuple[str, ...]]:
    """Return the layout for all images of some splits, and notes on how the images are changed for it.

    Args:
        where: the data, for messages.
        splits: surveyed splits (`rlcas.data.survey`).
        train: the survey of the training images, for the range of wide values; None if they are not surveyed.
        dataset: the settings of the data.
        trained_window: the window of a run, for images that its classifier is tested on.

    Raises:
        UserError: mixed sizes without `dataset.size_px`, mixed gray and RGB without `dataset.channels`, an
            empty `dataset.window`, or wide values with neither a window nor training images to take it from.
    """
    examples: dict[tuple[int, ...], str] = {}
    for split in splits.values():
        for shape, name in zip(split.surveyed.shapes, split.names, strict=True):
            examples.setdefault(shape, name)
    channels, channel_notes = _channels(where, examples, dataset)
    (height_px, width_px), size_notes = _size(where, examples, dataset)
    num_wide = sum(split.surveyed.num_wide for split in splits.values())
    window, window_notes = _window(where, num_wide, train, dataset, trained_window)
    layout = Layout(channels=channels, height_px=height_px, width_px=width_px, window=window)
    return layout, channel_notes + size_notes + window_notes


def _channels(
    where: str, examples: Mapping[tuple[int, ...], str], dataset: DatasetConfig
) -> tuple[int, tuple[str, ...]]:
    by_channels: dict[int, str] = {}
    for shape, name in examples.items():
        by_channels.setdefault(1 if len(shape) == 2 else 3, name)
    if dataset.channels is None:
        if len(by_channels) > 1:
            raise UserError(
                f"{where} mixes gray ({by_channels[1]}) and RGB ({by_channels[3]}): "
                "choose with --dataset.channels 1 or 3"
            )
        return next(iter(by_channels)), ()
    if set(by_channels) == {dataset.channels}:
        return dataset.channels, ()
    made = "made gray (luma)" if dataset.channels == 1 else "made RGB (three equal channels)"
    return dataset.channels, (f"images are {made}: dataset.channels is {dataset.channels}",)


def _size(
    where: str, examples: Mapping[tuple[int, ...], str], dataset: DatasetConfig
) -> tuple[tuple[int, int], tuple[str, ...]]:
    by_size: dict[tuple[int, ...], str] = {}
    for shape, name in examples.items():
        by_size.setdefault(shape[:2], name)
    (height_px, width_px), *others = by_size
    if dataset.size_px is None:
        if others:
            other = others[0]
            raise UserError(
                f"{where} mixes sizes, {height_px}x{width_px} ({by_size[height_px, width_px]}) and "
                f"{other[0]}x{other[1]} ({by_size[other]}): resize them to one with --dataset.size_px 64"
            )
        return (height_px, width_px), ()
    side = dataset.size_px
    if set(by_size) == {(side, side)}:
        return (side, side), ()
    several = f" and {len(others)} more sizes" if others else ""
    distorted = any(height != width for height, width in by_size)
    change = f"{height_px}x{width_px}{several} to {side}x{side}"
    note = f"images are resized whole from {change} (area filter down, bicubic up)"
    return (side, side), (note + ("; the aspect ratio is not kept" if distorted else ""),)


def _window(
    where: str, num_wide: int, train: Survey | None, dataset: DatasetConfig, trained_window: Window | None
) -> tuple[Window | None, tuple[str, ...]]:
    if dataset.window is not None and dataset.window[0] >= dataset.window[1]:
        raise UserError(f"dataset.window {dataset.window} is empty: write black, then a larger white")
    if not num_wide:
        return None, ()
    if dataset.window is not None:
        window, origin = dataset.window, "dataset.window"
    elif trained_window is not None:
        window, origin = trained_window, "the window of the run's training images"
    elif train is not None and train.num_wide:
        window, origin = train.wide_range, "the training images' range"
    else:
        raise UserError(
            f"{where} has images of more than 8 bits but no training images to take the range from: "
            "set --dataset.window=LOW,HIGH (it is in the notes of the training run)"
        )
    low, high = window
    mapped = f"values {low:g}..{high:g} ({origin}) are mapped linearly to 0..255"
    return window, (f"{num_wide} images have more than 8 bits: {mapped}",)


def convert(images: Sequence[Pixels] | Pixels, layout: Layout) -> Uint8:
    """Return uint8 [N, channels, H, W]: windowed, gray or RGB, resized without cropping (aspect ratio not kept)."""
    images_NCHW = np.empty((len(images), layout.channels, layout.height_px, layout.width_px), np.uint8)
    for index, image in enumerate(images):
        images_NCHW[index] = convert_one(image, layout)
    return images_NCHW


def convert_one(image: Pixels, layout: Layout) -> Uint8:
    """Return one image as uint8 [channels, H, W], converted as by `convert`."""
    if image.dtype != np.uint8:
        assert layout.window is not None
        image = windowed(image, layout.window)
    picture = Image.fromarray(image).convert("L" if layout.channels == 1 else "RGB")
    resized = np.asarray(resize(picture, layout.width_px, layout.height_px))
    return resized[None] if layout.channels == 1 else resized.transpose(2, 0, 1)


def windowed(values: Pixels, window: Window) -> Uint8:
    """Return uint8: `window` mapped linearly to 0..255, clipped and rounded; 0 if the window has no width."""
    low, high = window
    if low >= high:
        return np.zeros(values.shape, np.uint8)
    # float64 holds the values of 32-bit images exactly.
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.rint(255.0 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)


def resize(picture: Image.Image, width_px: int, height_px: int) -> Image.Image:
    """Return `picture` resized: with Pillow's BOX (area) along a side that shrinks, BICUBIC along one that grows."""
    shrunk = (min(picture.width, width_px), min(picture.height, height_px))
    # Two steps, because one filter serves both sides of a call, and a side may shrink while the other grows.
    picture = picture.resize(shrunk, Image.Resampling.BOX)
    return picture.resize((width_px, height_px), Image.Resampling.BICUBIC)
