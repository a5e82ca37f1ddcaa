"""`phantom`: breast-ultrasound phantoms of eight lesion subtypes, computed from the seed.

A stand-in with the long tail of the paper's private Breast-LT-8, for trying things out: the subtypes look as the
BI-RADS descriptors say (shape, margin, echo pattern, posterior features); no patient's image is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlcas.config import PhantomConfig
from rlcas.data.source import RawSplit, Source, SplitName
from rlcas.data.speckle import OVERSAMPLING, b_mode
from rlcas.data.split import part_sizes
from rlcas.errors import UserError
from rlcas.seeding import rng_for
from rlcas.types import Float64, Int64, Uint8

NUM_STREAKS, STREAK_DB = 6, 1.6
NUM_SPIKES, SPIKE_WIDTH = 9, 0.11
# Both ends are the same direction, so that np.interp needs no period.
DIRECTIONS_D: Float64 = np.linspace(-np.pi, np.pi, 257)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtype:
    """The mean look of a lesion subtype; every image varies it at random."""

    name: str
    aspect: float
    """Height divided by width: below 1 is wider than tall."""
    lobes: float = 0.0
    """Height of 3 to 5 smooth lobes, as a share of the radius."""
    spikes: float = 0.0
    """Height of the spicules, as a share of the radius."""
    margin: float = 0.02
    """Width of the margin, as a share of the image's side: small is sharp."""
    echo_db: float
    """Backscatter relative to the surrounding tissue."""
    rim_db: float = 0.0
    """Backscatter of the capsule or halo relative to the surrounding tissue."""
    core_db: float = 0.0
    """Backscatter of a nodule or cleft inside, relative to the lesion."""
    specks: int = 0
    """Number of micro-calcifications."""
    behind_db: float = 0.0
    """Gain behind the middle of the lesion: shadowing below 0, enhancement above."""


SUBTYPES: tuple[Subtype, ...] = (
    Subtype(name="fibroadenoma", aspect=0.65, echo_db=-13, rim_db=3, behind_db=3),
    Subtype(name="invasive ductal carcinoma", aspect=1.15, spikes=0.4, margin=0.03, echo_db=-17, behind_db=-12),
    Subtype(name="adenosis", aspect=0.85, margin=0.07, echo_db=-9),
    Subtype(name="intraductal papilloma", aspect=0.8, echo_db=-26, core_db=20, behind_db=5),
    Subtype(name="ductal carcinoma in situ", aspect=0.75, margin=0.05, echo_db=-15, specks=7),
    Subtype(
        name="mucinous carcinoma", aspect=0.95, lobes=0.15, margin=0.03, echo_db=-7, rim_db=-6, behind_db=9
    ),
    Subtype(name="phyllodes tumour", aspect=0.65, echo_db=-13, rim_db=3, core_db=-10, behind_db=3),
    Subtype(
        name="invasive lobular carcinoma",
        aspect=1.15,
        spikes=0.4,
        margin=0.03,
        echo_db=-17,
        core_db=12,
        behind_db=-12,
    ),
)
"""In the long tail's order, the most frequent first."""


def open_phantoms(phantom: PhantomConfig, split: tuple[float, float, float], seed: int) -> Source:
    """Return phantoms in three splits; image `index` of a class depends on (seed, class, index) and size alone.

    Raises:
        UserError: `num_images` is too small for one image of each class in every split.
    """
    counts_SC = phantom_counts(phantom.num_images, phantom.imbalance, split)
    # Where a split's images of a class begin in the class's numbering: no image is in two splits.
    starts_SC = np.cumsum(counts_SC, axis=0) - counts_SC
    names: tuple[SplitName, ...] = ("train", "val", "test")
    splits = {
        name: _open_split(name, counts_SC[i], starts_SC[i], phantom.size_px, seed)
        for i, name in enumerate(names)
    }
    class_names = tuple(subtype.name for subtype in SUBTYPES)
    return Source(name="phantom", where="phantom", splits=splits, class_names=class_names)


def phantom_counts(num_images: int, imbalance: float, split: Sequence[float]) -> Int64:
    """Return [3, C] int64: images of each split and class, decreasing exponentially to 1/imbalance of the first class.

    In train, the first class has `imbalance` times the images of the last, rounded; every split has every class.

    Raises:
        UserError: `num_images` is too small for that.
    """
    profile_C = imbalance ** (-np.arange(len(SUBTYPES)) / (len(SUBTYPES) - 1))
    num_train, *others = part_sizes(num_images, split)
    last = max(1, round(num_train * profile_C[-1] / profile_C.sum()))
    # From the last class, so that first : last is the imbalance but for rounding.
    first = round(imbalance * last)
    # The classes between first and last need one image each: C - 2.
    if min(num_train - first - last + 2, *others) < len(SUBTYPES):
        raise UserError(
            f"dataset.phantom.num_images {num_images} is too few for {len(SUBTYPES)} classes in every split at "
            f"dataset.phantom.imbalance {imbalance:g}: raise the first or lower the second"
        )
    middle = part_sizes(num_train - first - last, profile_C[1:-1])
    return np.stack([np.array([first, *middle, last]), *(part_sizes(total, profile_C) for total in others)])


def _open_split(name: SplitName, counts_C: Int64, starts_C: Int64, size_px: int, seed: int) -> RawSplit:
    labels_N = np.repeat(np.arange(len(counts_C)), counts_C)
    indices_N = np.concatenate(
        [start + np.arange(count) for start, count in zip(starts_C, counts_C, strict=True)]
    )
    return RawSplit(
        labels_N=labels_N,
        names=[f"{name} {i}" for i in range(len(labels_N))],
        open_images=functools.cache(
            lambda: [
                draw_phantom(seed, int(c), int(i), size_px) for c, i in zip(labels_N, indices_N, strict=True)
            ]
        ),
    )


def draw_phantom(seed: int, class_id: int, index: int, size_px: int) -> Uint8:
    """Return a phantom: uint8 [size_px, size_px].

    Args:
        seed: of the data set.
        class_id: index in SUBTYPES.
        index: number of the image within its class.
        size_px: side of the image.
    """
    # An image's numbers all come from this generator: another order of the calls gives other images.
    rng = rng_for(seed, "phantom", class_id, index)
    grid = OVERSAMPLING * size_px
    centers = (np.arange(grid) + 0.5) / grid
    depth_G1, across_1G = centers[:, None], centers[None]
    tissue_GG = _tissue(depth_G1, across_1G, rng)
    echo_GG, behind_GG = _lesion(SUBTYPES[class_id], depth_G1, across_1G, tissue_GG, rng)
    # Attenuation over the depth and receiver gain, in dB.
    gain_GG = behind_GG - rng.uniform(2, 9) * depth_G1 + rng.normal(-10, 2)
    return b_mode(echo_GG, gain_GG, rng)


def _tissue(depth_G1: Float64, across_1G: Float64, rng: np.random.Generator) -> Float64:
    """Return [G, G] backscatter in dB: skin, subcutaneous fat, glandular tissue, pectoral muscle."""
    skin_to = rng.uniform(0.04, 0.07)
    fat_to_1G = _wavy(across_1G, rng.uniform(0.16, 0.3), 0.03, rng)
    gland_to_1G = _wavy(across_1G, rng.uniform(0.82, 0.98), 0.02, rng)
    fat_db, gland_db, muscle_db = rng.normal((-9, 0, -8), (1.5, 1, 1.5))
    echo_GG = np.where(depth_G1 < fat_to_1G, fat_db, gland_db) + _streaks(depth_G1, across_1G, rng)
    echo_GG = np.where(depth_G1 > gland_to_1G, muscle_db, echo_GG)
    for fascia_1G in (fat_to_1G, gland_to_1G):
        echo_GG += 6.0 * np.exp(-(((depth_G1 - fascia_1G) / 0.012) ** 2))
    return np.where(depth_G1 < skin_to, 5.0, echo_GG)


def _wavy(across_1G: Float64, depth: float, height: float, rng: np.random.Generator) -> Float64:
    """Return [1, G]: the depth of a border between layers."""
    first, second = rng.uniform(0, 2 * np.pi, 2)
    return depth + height * (
        np.sin(2 * np.pi * across_1G + first) + 0.5 * np.sin(4 * np.pi * across_1G + second)
    )


def _streaks(depth_G1: Float64, across_1G: Float64, rng: np.random.Generator) -> Float64:
    """Return [G, G] in dB: the uneven, mostly horizontal texture of lobules and ducts, a sum of plane waves."""
    down_K, right_K = rng.uniform(2, 9, NUM_STREAKS), rng.normal(0, 1.6, NUM_STREAKS)
    down_GK = 2 * np.pi * (down_K * depth_G1 + rng.uniform(0, 1, NUM_STREAKS))
    right_KG = 2 * np.pi * right_K[:, None] * across_1G
    # cos(a + b) = cos a cos b - sin a sin b: two products of matrices in place of a tensor [G, G, K].
    waves_GG = np.cos(down_GK) @ np.cos(right_KG) - np.sin(down_GK) @ np.sin(right_KG)
    return STREAK_DB * waves_GG


def _lesion(
    subtype: Subtype, depth_G1: Float64, across_1G: Float64, tissue_GG: Float64, rng: np.random.Generator
) -> tuple[Float64, Float64]:
    """Return the backscatter with the lesion in it, and the gain behind the lesion: [G, G] in dB."""
    # flattening² is height / width, and the area does not depend on it.
    radius, flattening = rng.uniform(0.13, 0.21), np.sqrt(subtype.aspect * np.exp(rng.normal(0, 0.12)))
    down_G1 = (depth_G1 - rng.uniform(0.42, 0.6)) / (radius * flattening)
    right_1G = (across_1G - rng.uniform(0.35, 0.65)) / (radius / flattening)
    # The outline is computed in D directions and interpolated to the G² points.
    outline_GG = np.interp(np.arctan2(down_G1, right_1G), DIRECTIONS_D, _outline_D(subtype, rng))
    # About the distance from the outline, positive inside.
    inside_GG = (outline_GG - np.hypot(down_G1, right_1G)) * radius
    margin = subtype.margin * np.exp(rng.normal(0, 0.25))
    share_GG = _step(4 * inside_GG / margin)
    lesion_GG = subtype.echo_db + rng.normal(0, 1.5) + _contents(subtype, down_G1, right_1G, rng)
    rim_GG = subtype.rim_db * np.exp(-((inside_GG / 0.02) ** 2))
    # The part of the lesion's height that the beam has crossed: 1 behind its middle.
    path_GG = np.cumsum(share_GG, axis=0) / len(depth_G1) / (2 * radius * flattening)
    behind_GG = (subtype.behind_db + rng.normal(0, 1.5)) * path_GG
    return tissue_GG + (lesion_GG - tissue_GG) * share_GG + rim_GG, behind_GG


def _step(value_GG: Float64) -> Float64:
    """Return the logistic function."""
    # By tanh, which cannot overflow.
    return 0.5 * (1 + np.tanh(value_GG / 2))


def _outline_D(subtype: Subtype, rng: np.random.Generator) -> Float64:
    """Return [D]: the radius of the outline in each of DIRECTIONS_D, about 1."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    outline_D = 1 + 0.06 * np.cos(2 * DIRECTIONS_D + phases[0]) + 0.04 * np.cos(3 * DIRECTIONS_D + phases[1])
    outline_D += subtype.lobes * np.cos(rng.integers(3, 6) * DIRECTIONS_D + phases[2])
    directions_K, heights_K = rng.uniform(0, 2 * np.pi, NUM_SPIKES), rng.uniform(0.2, 1, NUM_SPIKES)
    spikes_DK = np.exp((np.cos(DIRECTIONS_D[:, None] - directions_K) - 1) / SPIKE_WIDTH**2)
    return outline_D + subtype.spikes * (heights_K * spikes_DK).sum(axis=1)


def _contents(subtype: Subtype, down_G1: Float64, right_1G: Float64, rng: np.random.Generator) -> Float64:
    """Return [G, G] backscatter of nodule or cleft and of calcifications, relative to the lesion's own."""
    turn = rng.uniform(0, 2 * np.pi)
    off_GG = np.hypot(down_G1 - 0.45 * np.sin(turn), right_1G - 0.45 * np.cos(turn))
    contents_GG = subtype.core_db * _step(12 * (0.38 - off_GG))
    for _ in range(subtype.specks):
        # The root spreads the specks evenly over the area.
        at, turn = 0.75 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        down_G1_off, right_1G_off = down_G1 - at * np.sin(turn), right_1G - at * np.cos(turn)
        contents_GG += 20 * np.exp(-((down_G1_off / 0.12) ** 2)) * np.exp(-((right_1G_off / 0.12) ** 2))
    return contents_GG
