"""Whether synthetic images are copies of training images, over features [N, D].

A mirrored training image is a training image too. An image is a copy that is nearer to its nearest training image

1. than the 1st percentile of the distances of held-out real images to theirs, or
2. than half the distance of that training image to its own nearest other one,

or that is in the very place of a training image.

The first rule is blind where held-out images are near-duplicates of training images themselves (in BreastMNIST a
third of them are): they pull the percentile down. The second asks no held-out image.
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
    """What each of N synthetic images owes to its nearest training image."""

    nearest_N: Int64
    """Number of that training image."""
    mirrored_N: NDArray[np.bool_]
    """Whether it is nearest when mirrored."""
    distances_N: Float64
    copies_N: NDArray[np.bool_]
    """Whether it is a copy, by either rule."""
    authentic_N: NDArray[np.bool_]
    """Farther from that training image than it is from its own nearest other one (Alaa et al. 2022)."""
    threshold: float
    """The percentile of the first rule."""
    held_out_distance: float
    """Median of the distances of held-out real images to their nearest training image."""
    held_out_copy_rate: float
    """Share of held-out real images that the same rules take for copies, each by the percentile of the others."""


def memorisation(
    synthetic_ND: Features, train_MD: Features, mirrored_MD: Features, held_out_KD: Features
) -> Memorisation:
    """Compare synthetic images with their nearest training images.

    Args:
        synthetic_ND: features of the synthetic images.
        train_MD: of the training images.
        mirrored_MD: of the training images mirrored left to right, in the same order.
        held_out_KD: of real images that are not among the training images; one at least.
    """
    known, owners = np.concatenate([train_MD, mirrored_MD]), np.tile(np.arange(len(train_MD)), 2)
    rows_N, distances_N, apart_N = _nearest_and_its_next(synthetic_ND, known, owners)
    _, held_out_K, held_out_apart_K = _nearest_and_its_next(held_out_KD, known, owners)
    threshold = _percentile(held_out_K)
    held_out_copies_K = (held_out_K < others_percentiles(held_out_K)) | (
        held_out_K < COPY_SHARE * held_out_apart_K
    )
    return Memorisation(
        nearest_N=owners[rows_N],
        mirrored_N=rows_N >= len(train_MD),
        distances_N=distances_N,
        copies_N=(distances_N < threshold) | (distances_N < COPY_SHARE * apart_N) | (distances_N == 0),
        authentic_N=distances_N > apart_N,
        threshold=threshold,
        held_out_distance=float(np.median(held_out_K)),
        held_out_copy_rate=float(held_out_copies_K.mean()),
    )


def others_percentiles(distances_K: Float64) -> Float64:
    """Return [K] the 1st percentile of all the other distances; 0 where there is no other."""
    if len(distances_K) < 2:
        return np.zeros(len(distances_K))
    percentiles_K = np.full(len(distances_K), _percentile(distances_K[distances_K.argsort()[:-1]]))
    # Only among the lowest does it matter which one is left out.
    lowest = distances_K.argsort()[: math.ceil(len(distances_K) * COPY_PERCENTILE / 100) + 1]
    percentiles_K[lowest] = [_percentile(np.delete(distances_K, i)) for i in lowest]
    return percentiles_K


def _nearest_and_its_next(
    from_ND: Features, known_MD: Features, owners_M: Int64
) -> tuple[Int64, Float64, Float64]:
    """Return [N] the row of the nearest, its distance, and its own distance to the nearest of another owner."""
    rows_N, distances_N = nearest(from_ND, known_MD)
    anchors, anchor_of_N = np.unique(rows_N, return_inverse=True)
    _, apart = nearest(known_MD[anchors], known_MD, owners_N=owners_M[anchors], owners_M=owners_M)
    return rows_N, distances_N, apart[anchor_of_N]


def _percentile(distances_K: Float64) -> float:
    return float(np.percentile(distances_K, COPY_PERCENTILE))
