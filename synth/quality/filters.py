"""Which synthetic images a filter keeps, from a classifier's probabilities and from distances in its features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float64, Int64
from synth.quality.neighbours import Features, kth_distances, nearest

Limits = tuple[float, float]
FEWEST_REAL = 5
"""A class with fewer real images has too few distances among them for percentiles: it takes those of all classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure of each of N synthetic images, and the limits [N] within which an image is kept."""

    values_N: Float64
    low_N: Float64
    high_N: Float64

    @property
    def gaps_N(self) -> Float64:
        """Return [N]: how far each value is outside its limits, as a share of the upper one; 0 inside."""
        gaps_N = np.maximum(np.maximum(self.low_N - self.values_N, self.values_N - self.high_N), 0.0)
        return gaps_N / np.where(self.high_N > 0, self.high_N, 1.0)


def confidences(probabilities_NC: Float64, labels_N: Int64, limits: Limits) -> Measured:
    """Return the probabilities of the images' own classes, with the limits for all of them."""
    values_N = probabilities_NC[np.arange(len(labels_N)), labels_N]
    low_N, high_N = (np.full(len(labels_N), limit) for limit in limits)
    return Measured(values_N=values_N, low_N=low_N, high_N=high_N)


def distances(
    made_ND: Features, labels_N: Int64, real_MD: Features, labels_M: Int64, percentiles: Limits
) -> Measured:
    """Return the distances to the nearest real image of the class; the limits are percentiles of each class.

    Args:
        made_ND: features of the synthetic images.
        labels_N: their classes.
        real_MD: features of the real training images; every class of `labels_N` has one.
        labels_M: their classes.
        percentiles: of the distances from real images to the nearest other one of their class.
    """
    among_C = {
        c: kth_distances(of_class_MD, 1)
        for c in np.unique(labels_M)
        if len(of_class_MD := real_MD[labels_M == c]) > 1
    }
    # Without two real images of any class there is nothing to measure by: nothing is left out.
    every = np.concatenate([*among_C.values()]) if among_C else np.array([0.0, np.inf])
    values_N, low_N, high_N = np.empty(len(labels_N)), np.empty(len(labels_N)), np.empty(len(labels_N))
    for c in np.unique(labels_N):
        class_N, real = labels_N == c, real_MD[labels_M == c]
        _, values_N[class_N] = nearest(made_ND[class_N], real)
        known = among_C[c] if len(real) >= FEWEST_REAL else every
        low_N[class_N], high_N[class_N] = np.percentile(known, percentiles) if among_C else (0.0, np.inf)
    return Measured(values_N=values_N, low_N=low_N, high_N=high_N)


def kept_by(measured: list[Measured], labels_N: Int64, copies_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return [N]: the images inside all limits; of a class without one, the image that is nearest to them.

    That image is no copy, and where copies alone are inside, it is kept beside them: an image of each class is always
    left, whether copies are left out or not.

    Args:
        measured: the figures of each filter.
        labels_N: the images' classes.
        copies_N: the images marked as copies; no class has nothing else.
    """
    gaps_N = np.sum([one.gaps_N for one in measured], axis=0)
    kept_N = gaps_N == 0
    for c in np.unique(labels_N):
        usable = np.flatnonzero((labels_N == c) & ~copies_N)
        if not kept_N[usable].any():
            kept_N[usable[gaps_N[usable].argmin()]] = True  # of equals the first
    return kept_N
