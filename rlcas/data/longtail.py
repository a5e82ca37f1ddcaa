"""Subsampling of a training set to an exponential long tail."""

from __future__ import annotations

import numpy as np

from rlcas.types import Int64

ROUND_OFF = 1e-9
"""Added before rounding down, so that round-off in n_max * factor^-1 does not lose an image."""


def long_tail_counts(counts_C: Int64, imbalance_factor: float) -> Int64:
    """Return [C] int64: n_i = floor(n_max · factor^(−i/(C−1))) for the class of rank i by size, at most its size.

    The profile of long-tailed CIFAR (Cui et al. 2019); every class keeps at least one image.
    """
    # Stable, so that classes of one size keep their order; numpy's default sort promises none.
    largest_first = np.argsort(-counts_C, kind="stable")
    rank_C = np.empty_like(counts_C)
    rank_C[largest_first] = np.arange(len(counts_C))
    profile_C = counts_C.max() * imbalance_factor ** (-rank_C / (len(counts_C) - 1))
    return np.clip(np.floor(profile_C + ROUND_OFF).astype(np.int64), 1, counts_C)


def thinned(labels_N: Int64, kept_C: Int64, rng: np.random.Generator) -> Int64:
    """Return the sorted indices of `kept_C[c]` random images of each class c."""
    kept = [rng.choice(np.flatnonzero(labels_N == c), count, replace=False) for c, count in enumerate(kept_C)]
    return np.sort(np.concatenate(kept)).astype(np.int64)
