"""A picture of synthetic images, each next to the nearest real image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlcas.storage.atomic import replacing
from rlcas.types import Uint8

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAIRS_A_ROW = 6
LARGEST_TILE_PX = 128
MARGIN_PX, GAP_PX, TEXT_PX, HEADING_PX = 24, 18, 14, 34
GROUND, INK, MUTED, COPY = (252, 252, 251), (29, 36, 48), (102, 112, 128), (192, 30, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A synthetic image and its nearest training image, [channels, H, W] uint8 each."""

    synthetic_CHW: Uint8
    real_CHW: Uint8
    """As compared: mirrored if that is nearer."""
    distance: float
    real_class: str
    mirrored: bool
    copy: bool


def pairs_a_class(num_classes: int) -> int:
    """Return how many pairs of each class are shown: two rows for few classes, a third of a row for many."""
    return next(pairs for most, pairs in ((4, 12), (12, 6), (24, 3), (num_classes, 2)) if num_classes <= most)


def write_contact_sheet(path: Path, pairs_by_class: Mapping[str, Sequence[Pair]], caption: str) -> None:
    """Write a PNG of every class's pairs, in the order given; copies have a red frame.

    Args:
        path: the PNG file.
        pairs_by_class: class name -> its pairs, at most `pairs_a_class`.
        caption: the features of the distances and the numbers of images, for the title.
    """
    from PIL import Image, ImageDraw

    sheet = _Layout.of(pairs_by_class)
    image = Image.new("RGB", (sheet.width_px, sheet.height_px), GROUND)
    draw, font = ImageDraw.Draw(image), _font(TEXT_PX)
    draw.text(
        (MARGIN_PX, MARGIN_PX), "Synthetic images, each with its nearest real one on the right", INK, _font(18)
    )
    subtitle = f"The most copy-like of each class, copies in red; {caption}"
    draw.text(
        (MARGIN_PX, MARGIN_PX + 26), _shortened(subtitle, font, sheet.width_px - 2 * MARGIN_PX), MUTED, font
    )
    for number, (name, pairs) in enumerate(pairs_by_class.items()):
        left, top = sheet.block(number)
        heading = _shortened(name, _font(16), sheet.block_width_px - GAP_PX)
        draw.text((left, top), heading, INK, _font(16))
        for i, pair in enumerate(pairs):
            _draw_pair(image, draw, pair, name, *sheet.pair(left, top, i), sheet.tile_px)
    with replacing(path) as temporary, temporary.open("wb") as file:
        image.save(file, format="PNG", optimize=True)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout: a grid of blocks, one for each class, with a heading and the pairs in rows."""

    num_blocks: int
    pairs_a_row: int
    rows_a_block: int
    tile_px: tuple[int, int]
    """Width and height."""

    @classmethod
    def of(cls, pairs_by_class: Mapping[str, Sequence[Pair]]) -> _Layout:
        most = max(len(pairs) for pairs in pairs_by_class.values())
        pairs_a_row = min(most, PAIRS_A_ROW)
        _, height, width = next(iter(pairs_by_class.values()))[0].synthetic_CHW.shape
        # Nearest-neighbour enlargement by an integer keeps small images sharp.
        factor = max(LARGEST_TILE_PX // max(height, width), 1)
        # Below 1 for images that are larger than a tile.
        factor = min(factor, LARGEST_TILE_PX / max(height, width))
        tile_px = (round(width * factor), round(height * factor))
        return cls(len(pairs_by_class), pairs_a_row, -(-most // pairs_a_row), tile_px)

    @property
    def block_width_px(self) -> int:
        return self.pairs_a_row * (2 * self.tile_px[0] + GAP_PX)

    @property
    def row_height_px(self) -> int:
        return self.tile_px[1] + TEXT_PX + GAP_PX

    @property
    def block_height_px(self) -> int:
        return HEADING_PX + self.rows_a_block * self.row_height_px

    @property
    def blocks_a_row(self) -> int:
        return max(min(PAIRS_A_ROW // self.pairs_a_row, self.num_blocks), 1)

    @property
    def width_px(self) -> int:
        return 2 * MARGIN_PX + self.blocks_a_row * self.block_width_px

    @property
    def height_px(self) -> int:
        return 2 * MARGIN_PX + 2 * HEADING_PX + -(-self.num_blocks // self.blocks_a_row) * self.block_height_px

    def block(self, number: int) -> tuple[int, int]:
        row, column = divmod(number, self.blocks_a_row)
        top = MARGIN_PX + 2 * HEADING_PX + row * self.block_height_px
        return MARGIN_PX + column * self.block_width_px, top

    def pair(self, left: int, top: int, i: int) -> tuple[int, int]:
        row, column = divmod(i, self.pairs_a_row)
        left += column * (2 * self.tile_px[0] + GAP_PX)
        return left, top + HEADING_PX + row * self.row_height_px


def _draw_pair(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    pair: Pair,
    class_name: str,
    left: int,
    top: int,
    tile_px: tuple[int, int],
) -> None:
    width, height = tile_px
    image.paste(_tile(pair.synthetic_CHW, tile_px), (left, top))
    image.paste(_tile(pair.real_CHW, tile_px), (left + width, top))
    if pair.copy:
        draw.rectangle((left - 3, top - 3, left + 2 * width + 2, top + height + 2), outline=COPY, width=3)
    words = ["copy"] * pair.copy + [f"{pair.distance:#.3g}"] + ["mirrored"] * pair.mirrored
    if pair.real_class != class_name:
        words.append(f"of class {pair.real_class}")
    font = _font(TEXT_PX)
    text = _shortened(" · ".join(words), font, 2 * width)
    draw.text((left, top + height + 3), text, COPY if pair.copy else MUTED, font)


def _tile(image_CHW: Uint8, tile_px: tuple[int, int]) -> Image.Image:
    from PIL import Image

    pixels = image_CHW[0] if len(image_CHW) == 1 else np.moveaxis(image_CHW, 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    larger = tile_px[0] > picture.width
    return picture.resize(tile_px, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which has more scripts than Pillow's."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"
