"""Probabilities of a classifier for stored images, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlcas.batches.images import Normalisation, to_float
from rlcas.config import ClassifierConfig
from rlcas.devices import autocast
from rlcas.errors import UserError
from rlcas.types import Float64

BATCH_SIZE = 256


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images_NCHW: Tensor,
    normalisation: Normalisation,
    config: ClassifierConfig,
    device: torch.device,
) -> Tensor:
    """Return [N, C] float32 logits on `device`; the model is in evaluation mode afterwards.

    Args:
        model: on `device`.
        images_NCHW: uint8, on any device; they are moved batch by batch.
        normalisation: that of the training images.
        config: for the precision.
        device: where logits are computed.
    """
    model.eval()
    logits = []
    for start in range(0, len(images_NCHW), BATCH_SIZE):
        batch = images_NCHW[start : start + BATCH_SIZE].to(device)
        with autocast(config.precision, device):
            logits.append(model(normalisation.apply(to_float(batch))).float())
    return torch.cat(logits)


def probabilities(logits_NC: Tensor) -> Float64:
    """Return the softmax of the logits as [N, C] float64."""
    return logits_NC.double().softmax(dim=1).cpu().numpy()


@contextlib.contextmanager
def features_of(model: nn.Module, backbone: str, *, or_else: str = "") -> Iterator[list[Tensor]]:
    """Collect the penultimate features of all batches that the model predicts: the input of its last linear layer.

    Args:
        model: the classifier.
        backbone: its name, for the error.
        or_else: what may be done in place of using another backbone.

    Raises:
        UserError: the classifier has no linear layer.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise UserError(
            f"classifier.backbone {backbone!r} has no linear layer to take features from: use another backbone{or_else}"
        )
    captured: list[Tensor] = []
    handle = linears[-1].register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].float().cpu()))
    try:
        yield captured
    finally:
        # Otherwise every call would leave one more hook on the classifier.
        handle.remove()
