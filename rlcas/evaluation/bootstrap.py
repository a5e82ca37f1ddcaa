"""Confidence intervals of test metrics by bootstrap over the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rlcas.metrics import weighted_macro_areas
from rlcas.seeding import rng_for
from rlcas.types import Float64, Int64

# A constant and not the run's seed: for the same labels, all metrics and classifiers have the same resamples.
SEED = 0
RESAMPLES = 1000
LEVEL = 0.95


def bootstrap_interval(
    figure: Callable[[Float64, Int64], float], probabilities_NC: Float64, labels_N: Int64
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a metric over bootstrap samples of the images.

    Samples are drawn within each class, which keeps the class sizes: no sample lacks a rare class.

    Args:
        figure: metric of probabilities [N, C] and labels [N].
        probabilities_NC: [N, C] class probabilities.
        labels_N: [N] int64 true classes.
    """
    values = np.array([figure(probabilities_NC[drawn], labels_N[drawn]) for drawn in _samples(labels_N)])
    return _middle(values)


def bootstrap_area_intervals(probabilities_NC: Float64, labels_N: Int64) -> dict[str, tuple[float, float]]:
    """Return the intervals of `auc` and `average_precision` as `bootstrap_interval` does, with one sort of the images.

    The arguments are those of `bootstrap_interval`.
    """
    weights_BN = np.stack([np.bincount(drawn, minlength=len(labels_N)) for drawn in _samples(labels_N)])
    draws = weighted_macro_areas(probabilities_NC, labels_N, weights_BN.astype(np.float32))
    return {name: _middle(values_B) for name, values_B in draws.items()}


def _samples(labels_N: Int64) -> Iterator[Int64]:
    rng = rng_for(SEED, "bootstrap")
    members = [np.flatnonzero(labels_N == c) for c in np.unique(labels_N)]
    for _ in range(RESAMPLES):
        yield np.concatenate([rng.choice(indices, len(indices)) for indices in members])


def _middle(values: Float64) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
