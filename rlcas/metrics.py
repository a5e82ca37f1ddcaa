"""Metrics of a classifier, from its probabilities and the true labels; NumPy alone, quick to import.

The macro averages run over all C classes; a class without examples has recall, precision and F1 of 0, as
in scikit-learn with `labels=range(C)` and `zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlcas.errors import UserError
from rlcas.shots import ShotGroups
from rlcas.types import EpochResult, Float64, Int64

Probabilities = NDArray[np.floating[Any]]

NUM_ECE_BINS = 15
LEAST_PROBABILITY = 1e-4
"""Lower bound of a probability in the log-likelihood, so that a single image cannot dominate its class's mean."""


def confusion(labels_N: Int64, predictions_N: Int64, num_classes: int) -> Int64:
    """Return [C, C] int64: images of true class (row) by predicted class (column)."""
    # One number for each pair (true, predicted): bincount counts all cells at once.
    cells = np.bincount(labels_N * num_classes + predictions_N, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def ratio(part: Int64 | Float64, whole: Int64 | Float64) -> Float64:
    """Return part / whole, element by element; 0 where the whole is 0, as `zero_division=0` in scikit-learn."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def per_class_recall(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: the share of each class's images that is classified correctly; 0 for a class without images."""
    matrix_CC = _confusion(probabilities_NC, labels_N)
    return ratio(matrix_CC.diagonal(), matrix_CC.sum(axis=1))


def per_class_f1(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: F1 = 2 TP / (2 TP + FP + FN) of each class; 0 where all three are."""
    matrix_CC = _confusion(probabilities_NC, labels_N)
    return ratio(2 * matrix_CC.diagonal(), matrix_CC.sum(axis=0) + matrix_CC.sum(axis=1))


def per_class_log_likelihood(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: the mean of log p(own class) over each class's images, in nats; 0 for a class without."""
    own_N = probabilities_NC[np.arange(len(labels_N)), labels_N].astype(np.float64)
    num_classes = probabilities_NC.shape[1]
    sums_C = np.bincount(labels_N, np.log(np.clip(own_N, LEAST_PROBABILITY, 1.0)), num_classes)
    return ratio(sums_C, np.bincount(labels_N, minlength=num_classes))


def accuracy(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the share of images whose most probable class is the true one."""
    return float((probabilities_NC.argmax(axis=1) == labels_N).mean())


def macro_recall(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean over classes of recall."""
    return float(per_class_recall(probabilities_NC, labels_N).mean())


def macro_precision(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean over classes of precision."""
    matrix_CC = _confusion(probabilities_NC, labels_N)
    return float(ratio(matrix_CC.diagonal(), matrix_CC.sum(axis=0)).mean())


def macro_f1(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean over classes of F1."""
    return float(per_class_f1(probabilities_NC, labels_N).mean())


def macro_auc(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean one-against-rest area under the ROC curve; of two classes, that of class 1 alone.

    A class that no image or every image belongs to is left out of the mean; NaN if that leaves no class.
    """
    num_classes = probabilities_NC.shape[1]
    # Of two classes P(label 1) alone, as MedMNIST's evaluator computes it.
    classes = range(1, 2) if num_classes == 2 else range(num_classes)
    areas = [_auc(probabilities_NC[:, c], labels_N == c) for c in classes]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def expected_calibration_error(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return Σ_b n_b/N |accuracy_b - confidence_b| of the top class in 15 equal bins (Guo et al. 2017)."""
    gaps_N, bins_N = calibration_gaps(probabilities_NC, labels_N)
    return float(np.abs(np.bincount(bins_N, gaps_N, NUM_ECE_BINS)).sum() / len(labels_N))


def calibration_gaps(probabilities_NC: Probabilities, labels_N: Int64) -> tuple[Float64, Int64]:
    """Return each image's [correct] - confidence of the top class, and the bin of that confidence, [N] each."""
    confidence_N = probabilities_NC.max(axis=1).astype(np.float64)
    correct_N = probabilities_NC.argmax(axis=1) == labels_N
    # Bins (b/15, (b + 1)/15]: a confidence on a border belongs to the lower one, and 0 to the first.
    bins_N = np.clip(np.ceil(confidence_N * NUM_ECE_BINS) - 1, 0, NUM_ECE_BINS - 1).astype(np.int64)
    return correct_N - confidence_N, bins_N


METRICS: dict[str, Callable[[Probabilities, Int64], float]] = {
    "f1": macro_f1,
    "recall": macro_recall,
    "precision": macro_precision,
    "acc": accuracy,
    "auc": macro_auc,
    "ece": expected_calibration_error,
}

"""Metrics of probabilities [N, C] and labels [N], by name."""
# ECE is better when smaller, and would select the worst-calibrated epoch.
SELECTING = {name: metric for name, metric in METRICS.items() if name != "ece"}
"""Metrics that may be the reward and select epochs: the larger the better."""


class ClassSignal(NamedTuple):
    """A metric of each class, the larger the better: agents may have it as reward and as observation."""

    measure: Callable[[Probabilities, Int64], Float64]
    as_share: Callable[[Float64], Float64]
    """Maps it to [0, 1], for observations."""


def itself(values_C: Float64) -> Float64:
    """Return values that are in [0, 1] already."""
    return values_C


CLASS_SIGNALS: dict[str, ClassSignal] = {
    "recall": ClassSignal(per_class_recall, itself),
    "f1": ClassSignal(per_class_f1, itself),
    "log_likelihood": ClassSignal(per_class_log_likelihood, np.exp),
}


def class_signals(probabilities_NC: Probabilities, labels_N: Int64) -> dict[str, Float64]:
    """Return every metric of `CLASS_SIGNALS`, [C] each; NaN for a class without images."""
    absent_C = np.bincount(labels_N, minlength=probabilities_NC.shape[1]) == 0
    return {
        name: np.where(absent_C, np.nan, signal.measure(probabilities_NC, labels_N))
        for name, signal in CLASS_SIGNALS.items()
    }


def signal_of(result: EpochResult, name: str) -> Float64:
    """Return [C]: the metric that `sampler.signal` names.

    Raises:
        UserError: the trainer does not report it.
    """
    if name not in result.per_class:
        raise UserError(f"sampler.signal {name!r} is unknown: use one of {', '.join(sorted(result.per_class))}")
    return result.per_class[name]


def shot_recalls(recall_C: Float64, shots: ShotGroups) -> dict[str, float]:
    """Return the mean recall of the `many`, `medium` and `few` classes; NaN for an empty group."""
    groups = {"many": shots.many, "medium": shots.medium, "few": shots.few}
    return {
        name: float(recall_C[list(group)].mean()) if group else float("nan") for name, group in groups.items()
    }


def report(probabilities_NC: Probabilities, labels_N: Int64, shots: ShotGroups) -> dict[str, Any]:
    """Return every metric of a set of images: those of the paper's Table 1 and more.

    Args:
        probabilities_NC: [N, C] class probabilities.
        labels_N: [N] int64 true classes.
        shots: the many-, medium- and few-shot classes.

    Returns:
        Every name of `METRICS`, `many`, `medium`, `few`, `per_class_recall` [C], `confusion` [C][C], `n`.
    """
    recall_C = per_class_recall(probabilities_NC, labels_N)
    return {
        **{name: metric(probabilities_NC, labels_N) for name, metric in METRICS.items()},
        **shot_recalls(recall_C, shots),
        "per_class_recall": recall_C.tolist(),
        "confusion": _confusion(probabilities_NC, labels_N).tolist(),
        "n": len(labels_N),
    }


def _confusion(probabilities_NC: Probabilities, labels_N: Int64) -> Int64:
    return confusion(labels_N, probabilities_NC.argmax(axis=1), probabilities_NC.shape[1])


def _auc(scores_N: Probabilities, positive_N: NDArray[np.bool_]) -> float:
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
