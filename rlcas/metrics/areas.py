"""Areas under the curves of one class against the rest: ROC, and precision over recall."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Float32, Float64, Int64

Probabilities = NDArray[np.floating[Any]]


class Areas(NamedTuple):
    """Areas under the curves of each class against the rest, in each of B weightings of the images."""

    auc_BC: Float64
    """Under the ROC curve, a tie counting as half; NaN where no or every image is of the class."""
    average_precision_BC: Float64
    """Under precision over recall; NaN where no or every image is of the class: then it is always 1."""


def weighted_areas(probabilities_NC: Probabilities, labels_N: Int64, weights_BN: Float32) -> Areas:
    """Return the areas of images that count several times; one sort a class serves all weightings.

    Args:
        probabilities_NC: [N, C] class probabilities.
        labels_N: [N] int64 true classes.
        weights_BN: [B, N] float32, how often each image counts: whole numbers.
    """
    pairs = [
        _areas(probabilities_NC[:, c], labels_N == c, weights_BN) for c in range(probabilities_NC.shape[1])
    ]
    auc_CB, average_precision_CB = zip(*pairs, strict=True)
    return Areas(np.stack(auc_CB, axis=1), np.stack(average_precision_CB, axis=1))


def _areas(
    scores_N: Probabilities, positive_N: NDArray[np.bool_], weights_BN: Float32
) -> tuple[Float64, Float64]:
    """Return [B] areas under the ROC curve and [B] average precisions of one class."""
    order_N = np.argsort(-scores_N, kind="stable")
    scores_N, positive_N, weights_BN = scores_N[order_N], positive_N[order_N], weights_BN[:, order_N]
    # Curves bend only at the G distinct scores that positive images have: [start, end) of each in the order.
    group_scores_G = np.unique(scores_N[positive_N])[::-1]
    start_G = np.searchsorted(-scores_N, -group_scores_G, side="left")
    end_G = np.searchsorted(-scores_N, -group_scores_G, side="right")
    # Sums of whole numbers, which float32 holds exactly up to 2^24 images; summed over the stretches between bends.
    edges_S = np.unique(np.concatenate([[0], start_G, end_G[end_G < len(scores_N)]]))
    above_BS = _sums_before(np.add.reduceat(weights_BN, edges_S, axis=1))
    all_start_BG, all_end_BG = (above_BS[:, np.searchsorted(edges_S, place_G)] for place_G in (start_G, end_G))
    positives_BP = _sums_before(weights_BN[:, positive_N])
    true_start_BG, true_end_BG = (
        positives_BP[:, np.cumsum(positive_N)[place_G - 1] * (place_G > 0)] for place_G in (start_G, end_G)
    )
    positives_B = positives_BP[:, -1].astype(np.float64)
    negatives_B = above_BS[:, -1] - positives_B
    gained_BG = (true_end_BG - true_start_BG).astype(np.float64)
    false_above_BG = (all_start_BG - true_start_BG + all_end_BG - true_end_BG) / 2
    lost_B = (gained_BG * false_above_BG).sum(axis=1)
    precision_BG = np.divide(true_end_BG, all_end_BG, out=np.zeros(all_end_BG.shape), where=all_end_BG > 0)
    return (
        1 - ratio(lost_B, positives_B * negatives_B),
        np.where(negatives_B > 0, ratio((gained_BG * precision_BG).sum(axis=1), positives_B), np.nan),
    )


def _sums_before(values_BN: Float32) -> Float32:
    """Return [B, N + 1]: the sum of the values before each place, and of all."""
    sums = np.zeros((values_BN.shape[0], values_BN.shape[1] + 1), np.float32)
    np.cumsum(values_BN, axis=1, out=sums[:, 1:])
    return sums


def area_under_roc(scores_N: Probabilities, positive_N: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve by the Mann-Whitney statistic.

    It is the probability that a positive image scores above a negative one, a tie counting as half.
    """
    num_positive = int(positive_N.sum())
    num_negative = len(positive_N) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    _, tie_N, tie_sizes = np.unique(scores_N, return_inverse=True, return_counts=True)
    # A group of t equal scores that ends at rank r has the mean rank r - (t - 1) / 2.
    mean_ranks = np.cumsum(tie_sizes) - (tie_sizes - 1) / 2
    rank_sum = mean_ranks[tie_N][positive_N].sum()
    # U = the positives' rank sum minus its least value, divided by the number of pairs.
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def ratio(part: Any, whole: Any) -> Float64:
    """Return part / whole, element by element; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
