"""Whether a classifier of the real images recognises a pool's images, class by class."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from rlcas.types import Float64, Int64

SHARE = 0.25
"""Share of what the classifier achieves on real images that it must achieve on a pool's."""
LEAST = 0.4
"""What it counts as achieving at least: of a class that it hardly knows, it cannot say that images are as good."""


def recognition_probability(
    pool_predicted_N: Int64,
    pool_labels_N: Int64,
    real_predicted_N: Int64,
    real_labels_N: Int64,
    num_classes: int,
) -> Float64:
    """Return [C]: the probability that the pool's images of a class are recognised `SHARE` as well as real ones.

    Measured by Youden's index (1950), the recall of a class minus the share of the other classes' images that are
    taken for it: images without content have 0, even of the class that all of them are taken for. Of real images it
    counts as `LEAST` at least. The shares are those of (k + 1) of (n + 2) images, the indices as if normally
    distributed. A class without real images is compared with the mean of the others.

    Args:
        pool_predicted_N: the classes predicted for the pool's images.
        pool_labels_N: their labels.
        real_predicted_N: the same of real images that the classifier was not trained on.
        real_labels_N: their labels.
        num_classes: C.
    """
    made_C, made_variance_C = _youden(pool_predicted_N, pool_labels_N, num_classes)
    real_C, real_variance_C = _youden(real_predicted_N, real_labels_N, num_classes)
    seen_C = np.bincount(real_labels_N, minlength=num_classes) > 0
    real_C = np.where(seen_C, real_C, real_C[seen_C].mean()).clip(LEAST)
    return norm.cdf((made_C - SHARE * real_C) / np.sqrt(made_variance_C + SHARE**2 * real_variance_C))


def _youden(predicted_N: Int64, labels_N: Int64, num_classes: int) -> tuple[Float64, Float64]:
    """Return each class's index [C] and its variance [C]."""
    taken_CN = predicted_N == np.arange(num_classes)[:, None]
    own_CN = labels_N == np.arange(num_classes)[:, None]
    recall_C, recall_variance_C = _share(taken_CN & own_CN, own_CN)
    false_C, false_variance_C = _share(taken_CN & ~own_CN, ~own_CN)
    return recall_C - false_C, recall_variance_C + false_variance_C


def _share(hits_CN: np.ndarray, of_CN: np.ndarray) -> tuple[Float64, Float64]:
    total_C = of_CN.sum(axis=1) + 2
    share_C = (hits_CN.sum(axis=1) + 1) / total_C
    return share_C, share_C * (1 - share_C) / total_C
