"""Metrics of a classifier, from its probabilities and the true labels; NumPy alone, quick to import.

A figure of a class is NaN where it is not defined, and a macro average is over the classes where it is:

- recall over the classes with images, as scikit-learn's `balanced_accuracy_score`;
- F1 and precision over the classes with images or predictions, as scikit-learn's `f1_score` and `precision_score`: a
  class that was predicted and has no image counts as 0, as does the precision of one that has images and was never
  predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlcas.errors import UserError
from rlcas.metrics.areas import Probabilities, area_under_roc, ratio, weighted_areas
from rlcas.shots import ShotGroups
from rlcas.types import EpochResult, Float32, Float64, Int64

Counts = Int64 | Float64

NUM_ECE_BINS = 15
MOST_NAMED = 5
"""Classes that one line names."""
LEAST_PROBABILITY = 1e-4
"""Lower bound of a probability in the log-likelihood, so that a single image cannot dominate its class's mean."""


def confusion(labels_N: Int64, predictions_N: Int64, num_classes: int) -> Int64:
    """Return [C, C] int64: images of true class (row) by predicted class (column)."""
    # One number for each pair (true, predicted): bincount counts all cells at once.
    cells = np.bincount(labels_N * num_classes + predictions_N, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def recall_of(found_XC: Counts, true_XC: Counts) -> Float64:
    """Return [..., C]: TP / (TP + FN) of each class; NaN for a class without images.

    Args:
        found_XC: [..., C] images of each class that were classified as it.
        true_XC: [..., C] images of each class.
    """
    return ratio(found_XC, true_XC)


def precision_of(found_XC: Counts, predicted_XC: Counts, true_XC: Counts) -> Float64:
    """Return [..., C]: TP / (TP + FP) of each class; NaN for a class without images and predictions.

    Args:
        found_XC: [..., C] images of each class that were classified as it.
        predicted_XC: [..., C] images that were classified as each class.
        true_XC: [..., C] images of each class.
    """
    # 0, not 0 / 0, for a class that was never predicted though it has images.
    return ratio(found_XC, np.where(true_XC > 0, np.maximum(predicted_XC, 1), predicted_XC))


def f1_of(found_XC: Counts, predicted_XC: Counts, true_XC: Counts) -> Float64:
    """Return [..., C]: 2 TP / (2 TP + FP + FN) of each class; NaN for a class without images and predictions.

    The arguments are those of `precision_of`.
    """
    return ratio(2 * found_XC, predicted_XC + true_XC)


def macro(values_XC: Float64) -> Float64:
    """Return [...]: the mean over the classes (last axis) for which a figure is defined; NaN where it is for none."""
    defined_XC = ~np.isnan(values_XC)
    return ratio(np.where(defined_XC, values_XC, 0.0).sum(axis=-1), defined_XC.sum(axis=-1))


def per_class_recall(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: the share of each class's images that is classified correctly; NaN for a class without images."""
    found_C, _, true_C = _counts(probabilities_NC, labels_N)
    return recall_of(found_C, true_C)


def per_class_f1(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: F1 = 2 TP / (2 TP + FP + FN) of each class; NaN where all three are 0."""
    return f1_of(*_counts(probabilities_NC, labels_N))


def per_class_precision(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: the share of each class's predictions that is right; NaN without images and predictions of it."""
    return precision_of(*_counts(probabilities_NC, labels_N))


def per_class_log_likelihood(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: the mean of log p(own class) over each class's images, in nats; NaN for a class without."""
    own_N = probabilities_NC[np.arange(len(labels_N)), labels_N].astype(np.float64)
    num_classes = probabilities_NC.shape[1]
    sums_C = np.bincount(labels_N, np.log(np.clip(own_N, LEAST_PROBABILITY, 1.0)), num_classes)
    return ratio(sums_C, np.bincount(labels_N, minlength=num_classes))


def accuracy(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the share of images whose most probable class is the true one."""
    return float((probabilities_NC.argmax(axis=1) == labels_N).mean())


def macro_recall(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean of recall over the classes with images."""
    return float(macro(per_class_recall(probabilities_NC, labels_N)))


def macro_precision(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean of precision over the classes with images or predictions."""
    return float(macro(per_class_precision(probabilities_NC, labels_N)))


def macro_f1(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean of F1 over the classes with images or predictions."""
    return float(macro(per_class_f1(probabilities_NC, labels_N)))


def macro_auc(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean one-against-rest area under the ROC curve; of two classes, that of class 1 alone.

    A class that no image or every image belongs to is left out of the mean; NaN if that leaves no class.
    """
    return float(macro(per_class_auc(probabilities_NC, labels_N)))


def per_class_auc(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: each class's one-against-rest area under the ROC curve; NaN where no or every image is of it.

    Of two classes it is that of class 1 alone, and NaN for class 0.
    """
    num_classes = probabilities_NC.shape[1]
    areas_C = np.array([area_under_roc(probabilities_NC[:, c], labels_N == c) for c in range(num_classes)])
    # Of two classes P(label 1) alone, as MedMNIST's evaluator computes it.
    return np.where(np.arange(2) == 1, areas_C, np.nan) if num_classes == 2 else areas_C


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


def macro_average_precision(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean of average precision over the classes with images, and with images of other classes."""
    return float(macro(per_class_average_precision(probabilities_NC, labels_N)))


def per_class_average_precision(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [C]: each class's Σ_k (R_k − R_k−1) P_k over the thresholds k; NaN where no or every image is of it.

    P_k and R_k are precision and recall of the images above the threshold, as in scikit-learn.
    """
    once_1N = np.ones((1, len(labels_N)), np.float32)
    return weighted_areas(probabilities_NC, labels_N, once_1N).average_precision_BC[0]


def weighted_macro_areas(
    probabilities_NC: Probabilities, labels_N: Int64, weights_BN: Float32
) -> dict[str, Float64]:
    """Return `auc` and `average_precision`, [B] each, of images that count as often as each of B weightings says.

    The arguments are those of `rlcas.metrics.areas.weighted_areas`.
    """
    of_classes = weighted_class_areas(probabilities_NC, labels_N, weights_BN)
    return {name: macro(areas_BC) for name, areas_BC in of_classes.items()}


def weighted_class_areas(
    probabilities_NC: Probabilities, labels_N: Int64, weights_BN: Float32
) -> dict[str, Float64]:
    """Return `auc` and `average_precision` of each class, [B, C] each, as `weighted_macro_areas` averages them.

    The arguments are those of `rlcas.metrics.areas.weighted_areas`.
    """
    areas = weighted_areas(probabilities_NC, labels_N, weights_BN)
    auc_BC = areas.auc_BC
    if probabilities_NC.shape[1] == 2:
        # Of two classes P(label 1) alone, as in `per_class_auc`.
        auc_BC = np.where(np.arange(2) == 1, auc_BC, np.nan)
    return {"auc": auc_BC, "average_precision": areas.average_precision_BC}


def log_loss(probabilities_NC: Probabilities, labels_N: Int64) -> float:
    """Return the mean of -log p(own class) over the images, in nats."""
    return float(image_losses(probabilities_NC, labels_N).mean())


def image_losses(probabilities_NC: Probabilities, labels_N: Int64) -> Float64:
    """Return [N]: -log p(own class) of each image, in nats; a probability of 0 counts as the dtype's epsilon."""
    own_N = probabilities_NC[np.arange(len(labels_N)), labels_N]
    return -np.log(np.clip(own_N, np.finfo(own_N.dtype).eps, 1.0).astype(np.float64))


METRICS: dict[str, Callable[[Probabilities, Int64], float]] = {
    "f1": macro_f1,
    "recall": macro_recall,
    "precision": macro_precision,
    "acc": accuracy,
    "auc": macro_auc,
    "average_precision": macro_average_precision,
    "log_loss": log_loss,
    "ece": expected_calibration_error,
}
"""Metrics of probabilities [N, C] and labels [N], by name."""
AVERAGED: dict[str, Callable[[Probabilities, Int64], Float64]] = {
    "f1": per_class_f1,
    "recall": per_class_recall,
    "precision": per_class_precision,
    "auc": per_class_auc,
    "average_precision": per_class_average_precision,
}
"""What the macro averages in `METRICS` are the means of: probabilities [N, C] and labels [N] -> [C]."""
SMALLER_IS_BETTER = ("log_loss", "ece")
BEFORE_OFFSET = ("auc", "average_precision", "log_loss")
"""Metrics of the probabilities before the decision offset δ, which therefore does not move them."""
SELECTING = {name: metric for name, metric in METRICS.items() if name not in SMALLER_IS_BETTER}
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
    """Return the mean recall of the `many`, `medium` and `few` classes with images; NaN for a group without any."""
    groups = {"many": shots.many, "medium": shots.medium, "few": shots.few}
    return {name: float(macro(recall_C[list(group)])) for name, group in groups.items()}


def report(
    probabilities_NC: Probabilities,
    labels_N: Int64,
    shots: ShotGroups,
    class_names: Sequence[str] | None = None,
    uncorrected_NC: Probabilities | None = None,
) -> dict[str, Any]:
    """Return every metric of a set of images: those of the paper's Table 1 and more.

    Args:
        probabilities_NC: [N, C] class probabilities, as predicted.
        labels_N: [N] int64 true classes.
        shots: the many-, medium- and few-shot classes.
        class_names: C names; numbers where there are none.
        uncorrected_NC: [N, C] those before the decision offset; None where there is no offset.

    Returns:
        Every name of `METRICS`, `many`, `medium`, `few`, `per_class_recall` [C], `confusion` [C][C], `n`; the names of
        the `absent_classes`, which no image is of, and under `averaged_classes` the names of the classes that each
        macro average is over.
    """
    num_classes = probabilities_NC.shape[1]
    names_C = np.array(class_names or [str(c) for c in range(num_classes)], dtype=object)
    recall_C = per_class_recall(probabilities_NC, labels_N)
    before_NC = probabilities_NC if uncorrected_NC is None else uncorrected_NC
    return {
        **{
            name: metric(before_NC if name in BEFORE_OFFSET else probabilities_NC, labels_N)
            for name, metric in METRICS.items()
        },
        **shot_recalls(recall_C, shots),
        "per_class_recall": recall_C.tolist(),
        "confusion": _confusion(probabilities_NC, labels_N).tolist(),
        "n": len(labels_N),
        "absent_classes": names_C[np.bincount(labels_N, minlength=num_classes) == 0].tolist(),
        "averaged_classes": {
            name: names_C[~np.isnan(of_class(probabilities_NC, labels_N))].tolist()
            for name, of_class in AVERAGED.items()
        },
    }


def absence_note(
    unit: str, absent: Sequence[str], averaged: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """Return a sentence on the classes that no image is of; None where there are none.

    Args:
        unit: what a reader calls an image, such as "test image".
        absent: their names.
        averaged: `averaged_classes` of `report`; None before anything is predicted.
    """
    if not absent:
        return None
    # F1 and precision are over the same classes.
    counted = absent if averaged is None else [name for name in absent if name in averaged["f1"]]
    why = "where it is predicted" if averaged is None else "which was predicted"
    return (
        f"no {unit} is of class {_listed(absent)}: macro figures are over the other classes"
        + f"; F1 and precision count {_listed(counted)} as 0, {why}" * bool(counted)
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more


def _counts(probabilities_NC: Probabilities, labels_N: Int64) -> tuple[Int64, Int64, Int64]:
    """Return the images of each class that were found, that were predicted as it, and that are of it, [C] each."""
    matrix_CC = _confusion(probabilities_NC, labels_N)
    return matrix_CC.diagonal(), matrix_CC.sum(axis=0), matrix_CC.sum(axis=1)


def _confusion(probabilities_NC: Probabilities, labels_N: Int64) -> Int64:
    return confusion(labels_N, probabilities_NC.argmax(axis=1), probabilities_NC.shape[1])
