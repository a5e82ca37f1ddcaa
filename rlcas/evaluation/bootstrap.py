"""Confidence intervals of test metrics by bootstrap over the test images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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
    rng = rng_for(SEED, "bootstrap")
    members = [np.flatnonzero(labels_N == c) for c in np.unique(labels_N)]
    values = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(indices, len(indices)) for indices in members])
        values[i] = figure(probabilities_NC[drawn], labels_N[drawn])
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
