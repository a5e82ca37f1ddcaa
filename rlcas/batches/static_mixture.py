"""Constant compositions: how many images of each class are added to every mini-batch of a run."""

from __future__ import annotations

import numpy as np

from rlcas.batches.composition import batch_starts, replaces_real
from rlcas.config import CompareRunConfig, RunConfig
from rlcas.types import Float64, Int64


def static_counts(config: CompareRunConfig, train_counts_C: Int64) -> Int64:
    """Return [C] int64: the constant composition of a row of the comparison.

    The images of a batch are apportioned among the classes by `compare.synthetic_balance`.

    Args:
        config: the comparison's settings.
        train_counts_C: [C] real training images.
    """
    uniform = config.compare.synthetic_balance == "uniform"
    shares_C = np.ones(len(train_counts_C)) if uniform else train_counts_C.astype(np.float64)
    return constant_counts(config, train_counts_C, shares_C, config.compare.synthetic_ratio)


def constant_counts(config: RunConfig, train_counts_C: Int64, shares_C: Float64, ratio: float) -> Int64:
    """Return [C] int64: the images of each class in every batch, if an epoch adds `ratio` for each real one.

    Each batch has at least one. Under `sampler.batch_mode` fixed_total they replace real ones, so that
    ratio / (1 + ratio) of a batch is synthetic.

    Args:
        config: the run's settings.
        train_counts_C: [C] real training images.
        shares_C: [C] weights by which the images are apportioned among the classes.
        ratio: added images for each real one.
    """
    num_images = int(train_counts_C.sum())
    num_steps = len(batch_starts(num_images, config.classifier.batch_size))
    added = ratio * num_images / num_steps
    if replaces_real(config, len(train_counts_C)):
        added /= 1 + ratio
    return apportion(shares_C, max(1, round(added)))


def apportion(shares_C: Float64, total: int) -> Int64:
    """Return [C] int64 that sum to `total`: each class's share in whole images, by the largest-remainder method.

    Every class with a positive share gets at least one image if `total` suffices for that: classes whose quota is
    below one get one, and the rest is divided among the others. Of equal remainders the smaller share is rounded up
    first, then the lower index.

    Args:
        shares_C: [C] weights, 0 or more. A class of share 0 gets no image; if all are 0, so are all counts.
        total: images to divide.
    """
    counts_C, dividing_C = np.zeros(len(shares_C), np.int64), shares_C > 0
    # Classes below one image get one, which lowers the quotas of the others: again until none falls below one.
    while dividing_C.any():
        quotas_C = _quotas(shares_C, dividing_C, total - int(counts_C.sum()))
        small_C = dividing_C & (quotas_C < 1)
        if total < np.count_nonzero(shares_C) or not small_C.any():
            return counts_C + _rounded(quotas_C, shares_C)
        counts_C[small_C], dividing_C = 1, dividing_C & ~small_C
    return counts_C


def _quotas(shares_C: Float64, dividing_C: np.ndarray, total: int) -> Float64:
    """Return [C]: `total` divided among some classes by their shares."""
    weights_C = np.where(dividing_C, shares_C, 0.0)
    return total * weights_C / weights_C.sum()


def _rounded(quotas_C: Float64, shares_C: Float64) -> Int64:
    """Return [C] int64 of the same sum, which is whole: each rounded down, and up by the largest remainders."""
    counts_C = np.floor(quotas_C).astype(np.int64)
    missing = round(quotas_C.sum()) - int(counts_C.sum())  # whole but for round-off
    # The last key of lexsort is the first criterion: the largest remainder, then the smaller share.
    by_remainder = np.lexsort((shares_C, counts_C - quotas_C))
    counts_C[by_remainder[:missing]] += 1
    return counts_C
