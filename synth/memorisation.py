"""Whether synthetic images are copies of training images, over features [N, D].

A mirrored training image is a training image too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float64, Int64
from synth.neighbours import Features, nearest

COPY_PERCENTILE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorisation:
    """What each of N synthetic images owes to its nearest training image."""

    nearest_N: Int64
    """Number of that training image."""
    mirrored_N: NDArray[np.bool_]
    """Whether it is nearest when mirrored."""
    distances_N: Float64
    copies_N: NDArray[np.bool_]
    """Nearer than `threshold`."""
    authentic_N: NDArray[np.bool_]
    """Farther from that training image than it is from its own nearest other one (Alaa et al. 2022)."""
    threshold: float
    """The 1st percentile of the distances from held-out real images to their nearest training image."""
    held_out_copy_rate: float
    """Share of held-out real images that the same rule takes for copies, cross-fitted; NaN below two."""


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
    known = np.concatenate([train_MD, mirrored_MD])
    owners = np.tile(np.arange(len(train_MD)), 2)
    rows_N, distances_N = nearest(synthetic_ND, known)
    anchors, anchor_of_N = np.unique(rows_N, return_inverse=True)
    _, apart = nearest(known[anchors], known, owners_N=owners[anchors], owners_M=owners)
    _, held_out_K = nearest(held_out_KD, known)
    threshold = _threshold(held_out_K)
    return Memorisation(
        nearest_N=owners[rows_N],
        mirrored_N=rows_N >= len(train_MD),
        distances_N=distances_N,
        copies_N=distances_N < threshold,
        authentic_N=distances_N > apart[anchor_of_N],
        threshold=threshold,
        held_out_copy_rate=cross_fitted_copy_rate(held_out_K),
    )


def cross_fitted_copy_rate(distances_K: Float64) -> float:
    """Return the share of distances below the 1st percentile of all the others."""
    if len(distances_K) < 2:
        return math.nan
    # Only about the lowest hundredth can be: the others' percentile lies among them.
    lowest = np.argsort(distances_K)[: math.ceil(len(distances_K) * COPY_PERCENTILE / 100) + 1]
    return sum(distances_K[i] < _threshold(np.delete(distances_K, i)) for i in lowest) / len(distances_K)


def _threshold(distances_K: Float64) -> float:
    return float(np.percentile(distances_K, COPY_PERCENTILE))
