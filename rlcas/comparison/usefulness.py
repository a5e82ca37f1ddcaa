"""What a pool teaches beyond repeated real images: paired differences in area, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcas.comparison.intervals import Interval, image_draws, paired_interval
from rlcas.metrics import macro, weighted_class_areas
from rlcas.types import Float64, Int64

NAMES = {"auc": "AUC", "average_precision": "AP"}
"""Figure -> its name in tables."""
Draws = dict[str, dict[int, Float64]]
"""Figure -> seed -> [B + 1, C]: of each class, on the images as they are and in B draws of them."""


def usefulness_figures(
    pool: Mapping[int, Float64], repeats: Mapping[int, Float64], labels_N: Int64
) -> dict[str, Any]:
    """Return the differences in AUC and average precision, macro and of each class.

    `auc` and `average_precision` have `difference`, `low` and `high` (95 %, over seeds and images, paired in both), and
    the means of the two arms, `pool` and `repeats`. `per_class` has, under the same names, `difference`, `low` and
    `high` of each of C classes: NaN where no or every image is of the class, and of two classes for the AUC of the
    first, which is that of the second.

    Args:
        pool: seed -> [N, C] probabilities of classifiers that were trained with the pool.
        repeats: the same of classifiers that were trained with repeated real images.
        labels_N: [N] true classes.
    """
    weights_BN = image_draws(labels_N)
    mine, theirs = (_draws(arm, labels_N, weights_BN) for arm in (pool, repeats))
    per_class = {
        name: [
            _difference(_column(mine[name], c), _column(theirs[name], c))
            for c in range(next(iter(pool.values())).shape[1])
        ]
        for name in NAMES
    }
    return {**{name: _macro(mine[name], theirs[name]) for name in NAMES}, "per_class": per_class}


def macro_interval(usefulness: Mapping[str, Any] | None, name: str = "auc") -> Interval | None:
    """Return a macro difference of `usefulness_figures`, also as JSON has it; None where there is none."""
    return interval_of(usefulness[name], usefulness["seeds"]) if usefulness else None


def interval_of(found: Mapping[str, float | None], num_seeds: int) -> Interval | None:
    """Return a difference with its interval; None where it is not defined, which in JSON is null."""
    value, low, high = (found[key] for key in ("difference", "low", "high"))
    if value is None or low is None or high is None or math.isnan(value):
        return None
    return Interval(value=value, low=low, high=high, num_seeds=num_seeds)


def _draws(arm: Mapping[int, Float64], labels_N: Int64, weights_BN: Any) -> Draws:
    found: Draws = {name: {} for name in NAMES}
    for seed, probabilities_NC in arm.items():
        for name, areas_BC in weighted_class_areas(probabilities_NC, labels_N, weights_BN).items():
            found[name][seed] = areas_BC
    return found


def _column(draws: Mapping[int, Float64], class_id: int) -> dict[int, Float64]:
    return {seed: areas_BC[:, class_id] for seed, areas_BC in draws.items()}


def _macro(pool: Mapping[int, Float64], repeats: Mapping[int, Float64]) -> dict[str, float]:
    mine, theirs = ({seed: macro(areas_BC) for seed, areas_BC in arm.items()} for arm in (pool, repeats))
    means = {
        name: float(np.mean([of[0] for of in arm.values()]))
        for name, arm in (("pool", mine), ("repeats", theirs))
    }
    return {**_difference(mine, theirs), **means}


def _difference(pool: Mapping[int, Float64], repeats: Mapping[int, Float64]) -> dict[str, float]:
    found = paired_interval(pool, repeats)
    assert found is not None, "both arms have the same seeds"
    return {"difference": found.value, "low": found.low, "high": found.high}
