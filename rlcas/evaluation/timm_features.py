"""Features of images by any timm model, such as Inception, an ImageNet ResNet or DINO."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import interpolate

from rlcas.batches.images import Normalisation, to_float
from rlcas.classifiers.hub import reading_hub
from rlcas.devices import as_tensor, same_bits
from rlcas.errors import UserError, first_line
from rlcas.types import Float32, Uint8

BATCH_SIZE = 64
JAX_SUFFIXES = (".npz", ".npy")
UNREADABLE = (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError, SafetensorError)


def timm_features(
    name: str, weights: Path | None, device: torch.device
) -> tuple[Callable[[Uint8], Float32], str]:
    """Return a function from uint8 images to a timm model's pooled features, and its description.

    Images are resized without cropping and normalised as the weights require; grey images are repeated to RGB.

    Raises:
        UserError: the weights cannot be loaded, or do not fit the model.
    """
    import timm.data

    # timm draws initial weights even for a model that is then loaded: the global generator stays as it was.
    with same_bits(torch.device("cpu")):
        model = _timm_model(name, weights).eval().to(device)
    wanted = timm.data.resolve_model_data_config(model)
    normalisation = Normalisation(wanted["mean"], wanted["std"])
    sides_px = wanted["input_size"][1:]

    def pooled(batch: Tensor) -> Tensor:
        # Gray to three equal channels without a copy; RGB stays as it is.
        rgb = batch.expand(-1, 3, -1, -1)
        return model(normalisation.apply(resized(rgb, sides_px, wanted["interpolation"]))).flatten(1)

    tag = model.pretrained_cfg["tag"]
    whose = f"the weights in {weights}" if weights else f"timm's weights {tag}"
    return (
        lambda images_NCHW: in_batches(pooled, images_NCHW, device),
        f"pooled features of {name.partition('.')[0]} with {whose}, images resized to {sides_px[0]} px",
    )


def _timm_model(name: str, weights: Path | None) -> Any:
    """Return a timm model without its last layer, with the weights of a file or its published ones.

    Raises:
        UserError: the weights cannot be loaded, or do not fit the model.
    """
    import timm
    from timm.models import load_checkpoint

    if weights is None:
        return _pretrained(name)
    if weights.suffix.lower() in JAX_SUFFIXES:
        raise UserError(_unfit(weights, name, "JAX's form, of which timm does not say what is missing"))
    model = timm.create_model(name, num_classes=0)
    try:
        # Without pickled code (weights_only). Not strict, because the file's last layer has no place in this
        # model; what the model needs must be there.
        missing = load_checkpoint(model, str(weights), strict=False, weights_only=True).missing_keys
    except UNREADABLE as error:
        raise UserError(_unfit(weights, name, first_line(error))) from error
    if missing:
        raise UserError(_unfit(weights, name, f"{missing[0]} is missing"))
    return model


def _unfit(weights: Path, name: str, reason: str) -> str:
    return (
        f"synth.scoring.extractor_weights {weights} are not the weights of timm's {name} ({reason}): name a file of "
        "such weights, .safetensors or .pth"
    )


def _pretrained(name: str) -> Any:
    """Return a timm model with its published weights.

    Raises:
        UserError: they cannot be loaded.
    """
    import timm

    fault = f"synth.scoring.extractor {name!r}: timm cannot read its pretrained weights"
    with reading_hub(
        fault, "or name a file with --synth.scoring.extractor_weights, or use the extractor classifier"
    ):
        return timm.create_model(name, pretrained=True, num_classes=0)


def resized(images_NCHW: Tensor, sides_px: Sequence[int], mode: str) -> Tensor:
    """Return images in [0, 1] resized to the sides (height, width), with an anti-aliasing filter."""
    if tuple(images_NCHW.shape[2:]) == tuple(sides_px):
        return images_NCHW
    if mode == "area":
        return interpolate(images_NCHW, tuple(sides_px), mode="area")
    # The two modes whose anti-aliasing filter torch has on every device; bicubic overshoots, so it is clamped.
    mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
    return interpolate(images_NCHW, tuple(sides_px), mode=mode, antialias=True).clamp(0, 1)


@torch.no_grad()
def in_batches(features: Callable[[Tensor], Tensor], images_NCHW: Uint8, device: torch.device) -> Float32:
    """Return features [N, D] of uint8 images.

    Args:
        features: called with batches of float images in [0, 1].
        images_NCHW: uint8 images.
        device: where the batches are.
    """
    batches = (images_NCHW[i : i + BATCH_SIZE] for i in range(0, len(images_NCHW), BATCH_SIZE))
    return torch.cat([features(to_float(as_tensor(batch, device))).float().cpu() for batch in batches]).numpy()
