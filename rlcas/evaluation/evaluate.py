"""Saved classifiers, and their figures on test images, which are read here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from rlcas.classifiers.inference import predict_logits, probabilities
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.classifiers.snapshot import to_state_dict
from rlcas.config import RunConfig, ShotsConfig
from rlcas.devices import as_tensor, place, same_bits
from rlcas.errors import UserError, first_line
from rlcas.evaluation.bootstrap import bootstrap_interval
from rlcas.methods import build_objective
from rlcas.methods.objective import Objective, new_classifier
from rlcas.metrics import METRICS, report
from rlcas.shots import shot_groups
from rlcas.storage.atomic import replacing
from rlcas.storage.reading import require_memory
from rlcas.types import Float64, ImageSet, Incumbent, Int64, TrainingData, Uint8

MODEL_FILE = "model.safetensors"
METADATA_KEY = "rlcas"
UNFIT = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError, MemoryError)
"""What timm and torch raise of a network that cannot be, or is another than the weights are of."""
WITH_INTERVALS = ("acc", "f1", "recall", "auc")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained classifier, ready to predict."""

    model: Objective
    meta: ClassifierMeta
    device: torch.device


def save_classifier(folder: Path, model_state: dict[str, Tensor], meta: ClassifierMeta) -> None:
    """Write `model.safetensors` into `folder`, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous().clone() for name, tensor in model_state.items()}
    with replacing(folder / MODEL_FILE) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: meta.model_dump_json()})


def save_incumbent(folder: Path, incumbent: Incumbent, data: TrainingData, config: RunConfig) -> None:
    """Write the classifier of an incumbent that was trained on `data`."""
    meta = ClassifierMeta.of(data, config)
    save_classifier(folder, to_state_dict(incumbent.arrays, untrained(meta)), meta)


def untrained(meta: ClassifierMeta) -> Objective:
    """Return the classifier with weights that mean nothing yet."""
    classifier = meta.classifier.model_copy(update={"pretrained": False})
    with same_bits(torch.device("cpu")):
        return build_objective(meta.model_copy(update={"classifier": classifier}))


def load_classifier(folder: Path, device: torch.device) -> Classifier:
    """Read `model.safetensors` of `folder`.

    Raises:
        UserError: the file is missing, damaged or not written by rlcas.
    """
    path = folder / MODEL_FILE
    tensors, metadata = _read(path)
    try:
        meta = ClassifierMeta.model_validate_json(metadata[METADATA_KEY])
    except (KeyError, ValidationError) as error:
        raise UserError(f"{path} was not written by this version of rlcas: train it again") from error
    try:
        require_memory(_backbone_bytes(meta), "a classifier as its header says")
        model = untrained(meta)
        model.load_state_dict(tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except UNFIT as error:
        raise UserError(
            f"{path} does not hold the weights of {meta.classifier.backbone!r} ({first_line(error)}): restore it"
        ) from error
    return Classifier(place(model, device), meta, device)


def _backbone_bytes(meta: ClassifierMeta) -> int:
    """Return the memory that the backbone's weights will take, without taking it."""
    classifier = meta.classifier.model_copy(update={"pretrained": False})
    with torch.device("meta"):
        backbone = new_classifier(meta.model_copy(update={"classifier": classifier}))
    return sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())


def predict(classifier: Classifier, images_NCHW: Uint8) -> Float64:
    """Return [N, C] class probabilities of uint8 images.

    Raises:
        UserError: the images have another shape than those that the classifier was trained on.
    """
    meta = classifier.meta
    if images_NCHW.shape[1:] != meta.image_shape:
        raise UserError(
            f"the images are {images_NCHW.shape[1:]} (channels, height, width), but the classifier was "
            f"trained on {meta.image_shape}: make them alike with dataset.channels and dataset.size_px"
        )
    images = as_tensor(images_NCHW, torch.device("cpu"))
    logits = predict_logits(classifier.model, images, meta.normalisation, meta.classifier, classifier.device)
    return probabilities(logits)


def evaluate(run_folder: Path, test: ImageSet, shots: ShotsConfig, device: torch.device) -> dict[str, Any]:
    """Return the figures of the run's classifier on test images.

    Returns:
        `rlcas.metrics.report` of the images, `intervals` (95 %, bootstrap) of some of them, and the report
        of the patients under `per_patient` where there are ids.

    Raises:
        UserError: the classifier cannot be read, or does not fit the images or labels.
    """
    return examine(run_folder, test, shots, device)[0]


def examine(
    run_folder: Path, test: ImageSet, shots: ShotsConfig, device: torch.device
) -> tuple[dict[str, Any], Float64]:
    """Return what `evaluate` returns, and the [N, C] probabilities that it is made of."""
    classifier = load_classifier(run_folder, device)
    num_classes = len(classifier.meta.class_names)
    if test.labels_N.max() >= num_classes:
        raise UserError(
            f"the test labels go up to {test.labels_N.max()}, but {run_folder / MODEL_FILE} knows "
            f"{num_classes} classes: evaluate it on its own data set"
        )
    train_counts_C = np.array(classifier.meta.train_counts, np.int64)
    groups = shot_groups(shots, train_counts_C, test.class_counts(num_classes))
    p_NC = predict(classifier, test.images_NCHW)
    figures = report(p_NC, test.labels_N, groups)
    figures["intervals"] = {
        name: bootstrap_interval(METRICS[name], p_NC, test.labels_N) for name in WITH_INTERVALS
    }
    if test.patients_N is not None:
        figures["per_patient"] = report(*by_patient(p_NC, test), groups)
    return figures, p_NC


def in_class_order(images: ImageSet, found: Sequence[str], known: Sequence[str], source: str) -> ImageSet:
    """Return images whose labels count in the classes `found` with labels that count in the classes `known`.

    Classes that are only numbered count as the known ones.

    Raises:
        UserError: a class is not known to the classifier.
    """
    numbered = [str(number) for number in range(len(found))]
    if list(found) in (list(known), numbered) and len(found) <= len(known):
        return images
    if unknown := [name for name in found if name not in known]:
        raise UserError(
            f"{source} has class {unknown[0]!r}, which the classifier does not know: its classes are "
            f"{', '.join(known)}; name the folders or class_names so"
        )
    ids_F = np.array([list(known).index(name) for name in found], np.int64)
    return replace(images, labels_N=ids_F[images.labels_N])


def by_patient(p_NC: Float64, images: ImageSet) -> tuple[Float64, Int64]:
    """Return each patient's mean probabilities [P, C] and most frequent label [P] (ties: the lowest)."""
    assert images.patients_N is not None
    _, patient_N, sizes_P = np.unique(images.patients_N, return_inverse=True, return_counts=True)
    num_patients, num_classes = len(sizes_P), p_NC.shape[1]
    sums_PC = np.zeros((num_patients, num_classes))
    np.add.at(sums_PC, patient_N, p_NC)
    votes_PC = np.zeros((num_patients, num_classes), np.int64)
    np.add.at(votes_PC, (patient_N, images.labels_N), 1)
    return sums_PC / sizes_P[:, None], votes_PC.argmax(axis=1)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} is missing: give the folder of a finished run")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it or train again") from error
