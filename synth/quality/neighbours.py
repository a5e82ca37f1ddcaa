"""Nearest neighbours among features [N, D], chunk by chunk, so that memory does not grow with N x M."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float64, Int64

Features = NDArray[np.floating]
CHUNK_ROWS = 512
CHUNK_DISTANCES = 1 << 24
"""Distances held at once: 128 MiB of float64."""


def chunks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Yield slices of rows of a table [num_rows, num_columns], each with at most CHUNK_DISTANCES entries or one row."""
    step = max(1, min(CHUNK_ROWS, CHUNK_DISTANCES // max(num_columns, 1)))
    for first in range(0, num_rows, step):
        yield slice(first, min(first + step, num_rows))


def squared_distances(from_ND: Features, to_MD: Features) -> Iterator[tuple[slice, Float64]]:
    """Yield slices of rows of `from_ND` with their [n, M] squared Euclidean distances.

    Computed as |a|² - 2ab + |b|², a matrix product, they are only as exact as the rounding of the norms: centring
    keeps the norms small, and distances near zero must be computed again by `_exact`.
    """
    centre_D = np.asarray(to_MD, np.float64).mean(axis=0)
    to = np.asarray(to_MD, np.float64) - centre_D
    squares_M = (to**2).sum(axis=1)
    for rows in chunks(len(from_ND), len(to)):
        chunk = np.asarray(from_ND[rows], np.float64) - centre_D
        squared = squares_M - 2.0 * chunk @ to.T + (chunk**2).sum(axis=1)[:, None]
        yield rows, np.maximum(squared, 0.0)  # rounding can make a small one negative


def nearest(
    from_ND: Features,
    to_MD: Features,
    *,
    groups_N: Int64 | None = None,
    groups_M: Int64 | None = None,
) -> tuple[Int64, Float64]:
    """Return [N] the row of the nearest of `to_MD`, and [N] the distance.

    Args:
        from_ND: points.
        to_MD: their possible neighbours.
        groups_N: group of each point. None: no groups.
        groups_M: group of each neighbour; neighbours of the point's own group are skipped.
    """
    found_N, distances_N = np.empty(len(from_ND), np.int64), np.empty(len(from_ND))
    for rows, squared in squared_distances(from_ND, to_MD):
        if groups_N is not None and groups_M is not None:
            squared[groups_N[rows][:, None] == groups_M] = np.inf
        found_N[rows] = squared.argmin(axis=1)
        distances_N[rows] = _exact(from_ND[rows], to_MD[found_N[rows]])
    return found_N, distances_N


def kth_distances(points_ND: Features, k: int) -> Float64:
    """Return [N] the distance from each point to the k-th nearest other one; there must be more than k points."""
    distances_N = np.empty(len(points_ND))
    for rows, squared in squared_distances(points_ND, points_ND):
        numbers = np.arange(rows.start, rows.stop)
        squared[numbers - rows.start, numbers] = np.inf  # no point is its own neighbour
        # The k nearest in any order: the k-th is the farthest of them by exact distance.
        nearest_nk = np.argpartition(squared, k - 1, axis=1)[:, :k]
        distances_N[rows] = _exact(points_ND[rows][:, None], points_ND[nearest_nk]).max(axis=1)
    return distances_N


def _exact(a: Features, b: Features) -> Float64:
    return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=-1)
