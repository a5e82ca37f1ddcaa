"""Whether synthetic images are copies of training images, over features [N, D].

A mirrored training image counts as a training image. A synthetic image is a copy if its distance to its nearest
training image is

1. below the 1st percentile of the distances of held-out real images to theirs, or
2. below half the distance of that training image to its own nearest other one, or
3. zero.

The first rule fails if held-out images are near-duplicates of training images themselves (a third of BreastMNIST's
are): they lower the percentile. The second rule needs no held-out images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float64, Int64
from synth.quality.neighbours import Features, nearest

COPY_PERCENTILE = 1.0
COPY_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorisation:
    """Comparison of each of N synthetic images with its nearest training image."""

    nearest_N: Int64
    """Number of the nearest training image."""
    mirrored_N: NDArray[np.bool_]
    """Whether the nearest one is its mirror image."""
    distances_N: Float64
    """Distance to it."""
    copies_N: NDArray[np.bool_]
    """Whether the synthetic image is a copy, by any rule."""
    authentic_N: NDArray[np.bool_]
    """Whether it is farther from that training image than that one from its nearest other one (Alaa et al. 2022)."""
    threshold: float
    """The percentile of the first rule."""
    held_out_distance: float
    """Median of the distances of held-out real images to their nearest training image."""
    held_out_copy_rate: float
    """Share of held-out real images that rules 1 and 2 take for copies, each by the percentile of the others."""


def memorisation(
    synthetic_ND: Features, train_MD: Features, mirrored_MD: Features, held_out_KD: Features
) -> Memorisation:
    """Compare synthetic images with their nearest training images.

    Args:
        synthetic_ND: features of the synthetic images.
        train_MD: of the training images.
        mirrored_MD: of the training images mirrored left to right, in the same order.
        held_out_KD: of real images that are not among the training images; at least one.
    """
    # An image and its mirror image are of one group: neither is the other's nearest other image.
    references, groups = np.concatenate([train_MD, mirrored_MD]), np.tile(np.arange(len(train_MD)), 2)
    rows_N, distances_N, spacing_N = _nearest_and_spacing(synthetic_ND, references, groups)
    _, held_out_K, held_out_spacing_K = _nearest_and_spacing(held_out_KD, references, groups)
    threshold = _percentile(held_out_K)
    # By the percentile of the others, as below their own percentile lies 1 % of any set by construction.
    held_out_copies_K = (held_out_K < others_percentiles(held_out_K)) | (
        held_out_K < COPY_SHARE * held_out_spacing_K
    )
    return Memorisation(
        nearest_N=groups[rows_N],
        mirrored_N=rows_N >= len(train_MD),
        distances_N=distances_N,
        # Both thresholds can be 0, if held-out or training images have exact duplicates: hence the third rule.
        copies_N=(distances_N < threshold) | (distances_N < COPY_SHARE * spacing_N) | (distances_N == 0),
        authentic_N=distances_N > spacing_N,
        threshold=threshold,
        held_out_distance=float(np.median(held_out_K)),
        held_out_copy_rate=float(held_out_copies_K.mean()),
    )


def others_percentiles(distances_K: Float64) -> Float64:
    """Return [K] the 1st percentile of all the other distances; 0 for a single distance."""
    if len(distances_K) < 2:
        return np.zeros(len(distances_K))
    percentiles_K = np.full(len(distances_K), _percentile(distances_K[distances_K.argsort()[:-1]]))
    # Leaving out any distance but one of the lowest gives the same percentile, so only those are computed one by one.
    lowest = distances_K.argsort()[: math.ceil(len(distances_K) * COPY_PERCENTILE / 100) + 1]
    percentiles_K[lowest] = [_percentile(np.delete(distances_K, i)) for i in lowest]
    return percentiles_K


def _nearest_and_spacing(
    from_ND: Features, references_MD: Features, groups_M: Int64
) -> tuple[Int64, Float64, Float64]:
    """Return [N] row and distance of the nearest reference, and its own distance to the nearest of another group."""
    rows_N, distances_N = nearest(from_ND, references_MD)
    # Many images share their nearest reference, whose spacing is computed once.
    anchors, anchor_of_N = np.unique(rows_N, return_inverse=True)
    _, spacing = nearest(references_MD[anchors], references_MD, groups_N=groups_M[anchors], groups_M=groups_M)
    return rows_N, distances_N, spacing[anchor_of_N]


def _percentile(distances_K: Float64) -> float:
    return float(np.percentile(distances_K, COPY_PERCENTILE))
