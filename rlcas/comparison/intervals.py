"""Uncertainty of a comparison: intervals over test images and seeds, of rows and of their paired differences.

A figure varies because other patients could have been tested and because other seeds could have trained. The test
images are drawn again within their classes (bootstrap), in one and the same draw for all rows and seeds, so that
what is hard for every row cancels in a difference. Three to five seeds are too few to be drawn again: where their
spread counts, such an interval holds the truth in 75 to 86 % of simulations, not in 95 (`benchmarks/intervals.py`).
Their mean is taken to vary as Student's t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlcas.evaluation.bootstrap import LEVEL, RESAMPLES, SEED
from rlcas.metrics import (
    NUM_ECE_BINS,
    calibration_gaps,
    f1_of,
    image_losses,
    macro,
    precision_of,
    recall_of,
    weighted_macro_areas,
)
from rlcas.seeding import rng_for
from rlcas.types import Float32, Float64, Int64

Draws = Mapping[str, Float64]
"""Name of a figure -> [B + 1]: on the test images as they are, then in each of the B draws of them."""
RAREST = "rarest"
"""Recall of the tested class with the fewest training images: what stands for few-shot recall where no class is."""
GROUPS = ("many", "medium", "few", RAREST)
"""Groups of classes whose mean recall is a figure."""
WITH_DRAWS = (
    *("f1", "recall", "precision", "acc", "auc", "average_precision", "log_loss", "ece"),
    *GROUPS,
)
"""Figures of a row, each in every draw of the images."""
BOUNDS = {"log_loss": np.inf}
"""Largest value of a figure, where it is not 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure, or a difference, with its 95 % interval over test images and seeds.

    In 95 of 100 repetitions with new test images of the same classes and new seeds of the classifiers, such an interval
    holds what the mean over all images and seeds would be. What is done once for all seeds does not vary in it: the
    splits, the pools with their generators, the judge that FreeMask asks, and settings that were searched for with
    one seed. It says nothing of other data sets, and of twenty intervals that are looked at, one misses on average.
    """

    value: float
    """On the test images as they are, mean over the seeds."""
    low: float
    high: float
    num_seeds: int
    """Of one seed the interval is over test images alone."""

    @property
    def sign(self) -> int:
        """Return 1 or -1 where the interval lies above or below 0, and 0 where it holds 0 or is not known."""
        return int(self.low > 0) - int(self.high < 0)


def image_draws(labels_N: Int64, draws: int = RESAMPLES) -> Float32:
    """Return [B + 1, N]: how often each test image counts, once in the first line and then in each of B draws.

    A draw takes as many images of a class as it has, with replacement, so that none loses a rare class.
    """
    # A stream of its own, without the row or the seed: all are compared on the same draws.
    rng = rng_for(SEED, "comparison", "images")
    # float32 holds these whole numbers and their sums exactly, up to 2^24 images.
    weights_BN = np.ones((draws + 1, len(labels_N)), np.float32)
    for c in np.unique(labels_N):
        members = np.flatnonzero(labels_N == c)
        equal = np.full(len(members), 1 / len(members))
        weights_BN[1:, members] = rng.multinomial(len(members), equal, size=draws)
    return weights_BN


def drawn_figures(
    probabilities_NC: Float64,
    labels_N: Int64,
    weights_BN: Float32,
    groups: Mapping[str, Sequence[int]],
    uncorrected_NC: Float64 | None = None,
) -> dict[str, Float64]:
    """Return every figure of `WITH_DRAWS` in each draw, [B + 1], as `rlcas.metrics` defines it.

    All follow from sums that are linear in the images' weights, so that no draw is evaluated by itself.

    Args:
        probabilities_NC: [N, C] float64 of the test images, as predicted.
        labels_N: [N] int64 true classes.
        weights_BN: [B + 1, N] float32 from `image_draws`.
        groups: the classes of each of `GROUPS`; the recall of a group without test images is NaN.
        uncorrected_NC: [N, C] those before the decision offset, of which the figures of
            `rlcas.metrics.BEFORE_OFFSET` are; None where there is no offset.
    """
    before_NC = probabilities_NC if uncorrected_NC is None else uncorrected_NC
    found_BC, predicted_BC, true_BC = _counts(probabilities_NC, labels_N, weights_BN)
    recall_BC = recall_of(found_BC, true_BC)
    return {
        "f1": macro(f1_of(found_BC, predicted_BC, true_BC)),
        "recall": macro(recall_BC),
        "precision": macro(precision_of(found_BC, predicted_BC, true_BC)),
        "acc": found_BC.sum(axis=1) / len(labels_N),
        **weighted_macro_areas(before_NC, labels_N, weights_BN),
        "log_loss": weights_BN @ image_losses(before_NC, labels_N) / len(labels_N),
        "ece": _calibration_errors(probabilities_NC, labels_N, weights_BN),
        **{name: macro(recall_BC[:, list(group)]) for name, group in groups.items()},
    }


def interval(draws: Mapping[int, Float64]) -> Interval:
    """Return the mean over seeds of one figure, seed -> [B + 1], with its 95 % interval."""
    # The same draws of Student's t for all figures over as many seeds.
    value, means_B = mean_draws(draws, rng_for(SEED, "comparison", "seeds", len(draws)))
    low, high = np.quantile(means_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high), num_seeds=len(draws))


def mean_draws(draws: Mapping[int, Float64], rng: np.random.Generator) -> tuple[float, Float64]:
    """Return the mean over seeds of one figure, seed -> [B + 1], and [B] draws of what else it could have been.

    Each draw of the images gives a mean over the seeds; Student's t with S - 1 degrees of freedom, times the seeds'
    standard error, is added to it. The spread of the seeds holds some of the images' own, so that the draws err
    to the wide side where the images are few and the seeds agree.
    """
    # [S, B + 1], by seed: the sums' last bits must not depend on the order in which cells were read.
    draws_SB = np.stack([draws[seed] for seed in sorted(draws)])
    values_S, means_B = draws_SB[:, 0], draws_SB[:, 1:].mean(axis=0)
    if len(values_S) > 1:
        error = values_S.std(ddof=1) / np.sqrt(len(values_S))
        means_B = means_B + error * rng.standard_t(len(values_S) - 1, size=len(means_B))
    return float(values_S.mean()), means_B


def paired_interval(
    row: Mapping[int, Float64], other: Mapping[int, Float64], bound: float = 1.0
) -> Interval | None:
    """Return `row` minus `other` over the seeds that both have, with its 95 % interval; None where they share none.

    The interval is cut at -bound and bound, which two seeds would often pass.

    Args:
        row: seed -> [B + 1] draws of a figure, made from one `image_draws`.
        other: the same of the row to compare with.
        bound: largest value of the figure.
    """
    both = row.keys() & other.keys()
    if not both:
        return None
    # Paired by seed and by image: what is hard for both rows cancels before the quantiles are taken.
    found = interval({seed: row[seed] - other[seed] for seed in both})
    return replace(found, low=max(found.low, -bound), high=min(found.high, bound))


def mean_and_std(values: Mapping[int, float]) -> tuple[float, float]:
    """Return mean and standard deviation over the seeds (of a sample, n - 1); NaN where the seeds are too few."""
    values_S = np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    mean = float(values_S.mean()) if len(values_S) else float("nan")
    return mean, float(values_S.std(ddof=1)) if len(values_S) > 1 else float("nan")


def ranks(figures: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Return the rank of each row under each seed that it has, 1 for the largest figure; ties share their mean.

    Args:
        figures: row -> seed -> figure. A row without one takes no place under that seed.
    """
    found: dict[str, dict[int, float]] = {name: {} for name in figures}
    for seed in sorted({seed for of_row in figures.values() for seed in of_row}):
        present = {name: of_row[seed] for name, of_row in figures.items() if seed in of_row}
        values = np.array(list(present.values()))
        for name, value in present.items():
            # Those above, and the mean place among the equals.
            found[name][seed] = float((values > value).sum() + ((values == value).sum() + 1) / 2)
    return found


def _counts(
    probabilities_NC: Float64, labels_N: Int64, weights_BN: Float32
) -> tuple[Float64, Float64, Float64]:
    """Return the images of each class in each draw that were found, were predicted, and are, [B + 1, C] each."""
    classes_C = np.arange(probabilities_NC.shape[1])
    predicted_NC = probabilities_NC.argmax(axis=1)[:, None] == classes_C
    true_NC = labels_N[:, None] == classes_C
    found, predicted, true = (
        # [B + 1, N] x [N, C]: exact counts in float32; the ratios made of them are in float64.
        (weights_BN @ marks_NC.astype(np.float32)).astype(np.float64)
        for marks_NC in (predicted_NC & true_NC, predicted_NC, true_NC)
    )
    return found, predicted, true


def _calibration_errors(probabilities_NC: Float64, labels_N: Int64, weights_BN: Float32) -> Float64:
    gaps_N, bins_N = calibration_gaps(probabilities_NC, labels_N)
    # [N, E]: each image's gap in the column of its bin, so that a draw's sum over a bin is a product.
    gaps_NE = gaps_N[:, None] * (bins_N[:, None] == np.arange(NUM_ECE_BINS))
    return np.abs(weights_BN @ gaps_NE).sum(axis=1) / len(labels_N)
