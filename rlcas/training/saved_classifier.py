"""A trained classifier as a safetensors file, and its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from rlcas.classifiers.build import UNFIT
from rlcas.classifiers.inference import predict_logits, probabilities
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.classifiers.offset import fit_offset, with_offset
from rlcas.classifiers.snapshot import to_state_dict
from rlcas.config import RunConfig
from rlcas.devices import as_tensor, place, same_bits
from rlcas.errors import UserError, first_line
from rlcas.methods import build_objective
from rlcas.methods.objective import Objective, new_classifier
from rlcas.storage.atomic import replacing
from rlcas.storage.reading import require_memory
from rlcas.types import Float64, ImageSet, Incumbent, TrainingData, Uint8

MODEL_FILE = "model.safetensors"
METADATA_KEY = "rlcas"
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained classifier, ready to predict."""

    model: Objective
    meta: ClassifierMeta
    device: torch.device


def save_classifier(folder: Path, model_state: dict[str, Tensor], meta: ClassifierMeta) -> None:
    """Write `model.safetensors` into `folder`, completely or not at all."""
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory, as the views of an incumbent's arrays do.
    tensors = {name: tensor.contiguous().clone() for name, tensor in model_state.items()}
    with replacing(folder / MODEL_FILE) as temporary:
        # The header of safetensors holds text alone, hence JSON.
        save_file(tensors, temporary, metadata={METADATA_KEY: meta.model_dump_json()})


def save_incumbent(
    folder: Path,
    incumbent: Incumbent,
    data: TrainingData,
    config: RunConfig,
    device: torch.device = CPU,
) -> None:
    """Write an incumbent's classifier as `model.safetensors`, with its decision offset if the settings ask for one.

    Args:
        folder: where the file is written.
        incumbent: the trained classifier.
        data: the data that it was trained on.
        config: the settings that it was trained with.
        device: where the validation images are predicted for the offset.
    """
    meta = ClassifierMeta.of(data, config)
    model = untrained(meta)
    state = to_state_dict(incumbent.arrays, model)
    if config.classifier.offset == "calibrated":
        model.load_state_dict(state)
        meta = _calibrated(Classifier(place(model, device), meta, device), data.val)
    save_classifier(folder, state, meta)


def _calibrated(classifier: Classifier, val: ImageSet) -> ClassifierMeta:
    """Return the classifier's metadata with the offset that suits the validation images."""
    meta = classifier.meta
    with same_bits(classifier.device):
        logits_NC = predicted_logits(classifier, val.images_NCHW).double().cpu().numpy()
    offset_C = fit_offset(logits_NC, val.labels_N, np.array(meta.train_counts, np.int64))
    return meta.model_copy(update={"offset": tuple(offset_C.tolist())})


def untrained(meta: ClassifierMeta) -> Objective:
    """Return the classifier of the metadata with random weights."""
    # The weights come from the file: neither timm's are downloaded nor numbers drawn from the global generator.
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
        # The header is not trusted: a huge width in it would fill the memory before the weights are compared.
        require_memory(_backbone_bytes(meta), "a classifier as its header says")
        model = untrained(meta)
        model.load_state_dict(tensors)
    # Before UNFIT, which has ValueError, the base of UserError.
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except UNFIT as error:
        raise UserError(
            f"{path} does not hold the weights of {meta.classifier.backbone!r} ({first_line(error)}): restore it"
        ) from error
    return Classifier(place(model, device), meta, device)


def _backbone_bytes(meta: ClassifierMeta) -> int:
    """Return the memory that the backbone's weights will take, without allocating it."""
    classifier = meta.classifier.model_copy(update={"pretrained": False})
    with torch.device("meta"):
        backbone = new_classifier(meta.model_copy(update={"classifier": classifier}))
    return sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())


def predict(classifier: Classifier, images_NCHW: Uint8) -> Float64:
    """Return [N, C] class probabilities of uint8 images, after the classifier's offset.

    Raises:
        UserError: the images' shape is not that of the training images.
    """
    return probabilities(
        with_offset(predicted_logits(classifier, images_NCHW).double(), classifier.meta.offset)
    )


def predicted_logits(classifier: Classifier, images_NCHW: Uint8) -> Tensor:
    """Return [N, C] float32 logits of uint8 images on the classifier's device, before its offset.

    Raises:
        UserError: the images' shape is not that of the training images.
    """
    meta = classifier.meta
    if images_NCHW.shape[1:] != meta.image_shape:
        raise UserError(
            f"the images are {images_NCHW.shape[1:]} (channels, height, width), but the classifier was "
            f"trained on {meta.image_shape}: make them alike with dataset.channels and dataset.size_px"
        )
    images = as_tensor(images_NCHW, CPU)  # moved to the device batch by batch
    return predict_logits(classifier.model, images, meta.normalisation, meta.classifier, classifier.device)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} is missing: give the folder of a finished run")
    try:
        with safe_open(path, framework="pt") as file:
            # An open file has keys(), but is no iterable.
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it or train again") from error
