"""Sketch extractors: cost against ratio_of_averages, and how well they find a lesion's outline in speckle.

`cost_ratio` is the time per image over that of ratio_of_averages, in the same run. `outline_ap_L` is the average
precision of the maps as scores for pixels of the outline, a mean over ellipses 0.3 to 0.6 times as bright as the
surrounding tissue, under gamma speckle of L looks. PiDiNet is included for each checkpoint named by `--weights`.
"""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path

import numpy as np
import torch
from common import emit, interleaved_medians, parser
from scipy.ndimage import binary_dilation, binary_erosion
from sklearn.metrics import average_precision_score

from rlcas.seeding import rng_for
from rlcas.types import Uint8
from synth.sketch import SKETCHES, SketchExtractor

LOOKS = (2, 4, 12)
OUTLINE_PX = 1
"""Width of the true outline on either side of the border."""


def speckled_ellipse(side_px: int, looks: int, rng: np.random.Generator) -> tuple[Uint8, np.ndarray]:
    """Return an image [side, side] and the mask of its lesion."""
    y, x = (np.mgrid[:side_px, :side_px] + 0.5) / side_px - rng.uniform(0.4, 0.6, 2)[:, None, None]
    turn, semi_axes = rng.uniform(0, math.pi), rng.uniform(0.12, 0.25, 2)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    inside = np.hypot(along / semi_axes[0], across / semi_axes[1]) < 1
    tissue = 100 * (1 + 0.15 * np.cos(2 * math.pi * (rng.uniform(1, 4) * y + rng.uniform())))
    brightness = tissue * np.where(inside, rng.uniform(0.3, 0.6), 1.0)
    speckled = brightness * rng.gamma(looks, 1 / looks, brightness.shape)
    return speckled.clip(0, 255).astype(np.uint8), inside


def outline_precision(
    extractor: SketchExtractor, side_px: int, looks: int, num_images: int, seed: int
) -> float:
    """Return the mean average precision over that many images.

    Args:
        extractor: draws the sketches.
        side_px: side of the images.
        looks: looks of the speckle; fewer are rougher.
        num_images: number of images.
        seed: of the images.
    """
    rng = rng_for(seed, "sketches", side_px, looks)
    precisions = []
    for _ in range(num_images):
        image, inside = speckled_ellipse(side_px, looks, rng)
        grown, shrunk = (grow(inside, iterations=OUTLINE_PX) for grow in (binary_dilation, binary_erosion))
        scores = extractor(image[None, None])[0, 0]
        precisions.append(average_precision_score((grown & ~shrunk).ravel(), scores.ravel()))
    return float(np.mean(precisions))


def measured(
    extractors: dict[str, SketchExtractor], side_px: int, num_images: int, repeats: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return the figures of every extractor at one size.

    Args:
        extractors: extractors by name.
        side_px: side of the images.
        num_images: images for the outline.
        repeats: repetitions for the time.
        seed: of the images.
    """
    rng = rng_for(seed, "sketches", side_px)
    batch = np.stack([speckled_ellipse(side_px, LOOKS[0], rng)[0][None] for _ in range(8)])
    cases = {name: lambda extractor=extractor: extractor(batch) for name, extractor in extractors.items()}
    seconds = interleaved_medians(cases, repeats)
    return {
        f"{name}_{side_px}px": {
            "cost_ratio": seconds[name] / seconds["ratio_of_averages"],
            **{
                f"outline_ap_{looks}": outline_precision(extractor, side_px, looks, num_images, seed)
                for looks in LOOKS
            },
        }
        for name, extractor in extractors.items()
    }


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--weights", type=Path, action="append", default=[], help="a PiDiNet checkpoint")
    arguments.add_argument("--sides", type=int, nargs="+", default=[28, 64, 128, 224])
    arguments.add_argument("--images", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    extractors: dict[str, SketchExtractor] = {
        name: SKETCHES[name]() for name in ("ratio_of_averages", "scharr")
    }
    with contextlib.redirect_stdout(sys.stderr):  # the licence notice
        extractors |= {path.stem: SKETCHES["pidinet"](weights=path) for path in args.weights}
    results: dict[str, dict[str, float]] = {}
    for side_px in args.sides:
        results |= measured(extractors, side_px, args.images, args.repeats, args.seed)
    emit("Sketches: cost, and the outline of a lesion in speckle", results, args.json)


if __name__ == "__main__":
    main()
