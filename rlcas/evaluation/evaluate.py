"""The test metrics of a saved classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rlcas.classifiers.inference import probabilities
from rlcas.classifiers.offset import with_offset
from rlcas.config import ShotsConfig
from rlcas.errors import UserError
from rlcas.evaluation.bootstrap import bootstrap_area_intervals, bootstrap_interval
from rlcas.metrics import BEFORE_OFFSET, METRICS, report
from rlcas.shots import shot_groups
from rlcas.training.saved_classifier import MODEL_FILE, load_classifier, predicted_logits
from rlcas.types import Float64, ImageSet, Int64

WITH_INTERVALS = ("acc", "f1", "recall", "log_loss")
"""Metrics with a bootstrap interval, beside AUC and average precision."""


class Examination(NamedTuple):
    """The test of a classifier."""

    figures: dict[str, Any]
    """The result of `evaluate`."""
    p_NC: Float64
    """Probabilities of the test images, as predicted."""
    uncorrected_NC: Float64 | None
    """Those before the decision offset; None for a classifier without one."""
    offset: tuple[float, ...] | None
    """The offset δ of each class."""


def evaluate(run_folder: Path, test: ImageSet, shots: ShotsConfig, device: torch.device) -> dict[str, Any]:
    """Return the metrics of the run's classifier on test images.

    Args:
        run_folder: holds model.safetensors.
        test: the test images.
        shots: which classes count as many-, medium- and few-shot.
        device: where the classifier runs.

    Returns:
        `rlcas.metrics.report` of the images, the `intervals` (95 %, bootstrap) of some metrics, and under
        `per_patient` the report of the patients if the images have patient ids.

    Raises:
        UserError: the classifier cannot be read, or does not fit the images or labels.
    """
    return examine(run_folder, test, shots, device).figures


def examine(run_folder: Path, test: ImageSet, shots: ShotsConfig, device: torch.device) -> Examination:
    """Return the result of `evaluate`, and the probabilities that it is computed from.

    Args:
        run_folder: holds model.safetensors.
        test: the test images.
        shots: which classes count as many-, medium- and few-shot.
        device: where the classifier runs.

    Raises:
        UserError: the classifier cannot be read, or does not fit the images or labels.
    """
    classifier = load_classifier(run_folder, device)
    num_classes = len(classifier.meta.class_names)
    if test.labels_N.max() >= num_classes:
        raise UserError(
            f"the test labels go up to {test.labels_N.max()}, but {run_folder / MODEL_FILE} knows "
            f"{num_classes} classes: evaluate it on its own data set"
        )
    # From the classifier's metadata, so that an evaluation needs no training images.
    train_counts_C = np.array(classifier.meta.train_counts, np.int64)
    groups = shot_groups(shots, train_counts_C, test.class_counts(num_classes))
    names, offset = classifier.meta.class_names, classifier.meta.offset
    logits_NC = predicted_logits(classifier, test.images_NCHW).double()
    p_NC, before_NC = probabilities(with_offset(logits_NC, offset)), probabilities(logits_NC)
    uncorrected_NC = None if offset is None else before_NC
    figures = report(p_NC, test.labels_N, groups, names, uncorrected_NC)
    figures["intervals"] = {
        **{
            name: bootstrap_interval(METRICS[name], before_NC if name in BEFORE_OFFSET else p_NC, test.labels_N)
            for name in WITH_INTERVALS
        },
        **bootstrap_area_intervals(before_NC, test.labels_N),
    }
    if test.patients_N is not None:
        patients_NC = None if uncorrected_NC is None else by_patient(uncorrected_NC, test)[0]
        figures["per_patient"] = report(*by_patient(p_NC, test), groups, names, patients_NC)
    return Examination(figures, p_NC, uncorrected_NC, offset)


def by_patient(p_NC: Float64, images: ImageSet) -> tuple[Float64, Int64]:
    """Return each patient's mean probabilities [P, C] and most frequent label [P] (ties: the lowest)."""
    assert images.patients_N is not None
    _, patient_N, sizes_P = np.unique(images.patients_N, return_inverse=True, return_counts=True)
    num_patients, num_classes = len(sizes_P), p_NC.shape[1]
    sums_PC = np.zeros((num_patients, num_classes))
    # `sums_PC[patient_N] += p_NC` would count only one image of each patient.
    np.add.at(sums_PC, patient_N, p_NC)
    votes_PC = np.zeros((num_patients, num_classes), np.int64)
    np.add.at(votes_PC, (patient_N, images.labels_N), 1)
    return sums_PC / sizes_P[:, None], votes_PC.argmax(axis=1)
