"""A classifier's penultimate features: the default yardstick of synthetic images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlcas.errors import UserError
from rlcas.evaluate import Classifier, predict
from rlcas.types import Float32, Uint8

Features = Callable[[Uint8], Float32]


def penultimate(classifier: Classifier) -> Features:
    """Return the function from uint8 images [N, channels, H, W] to what the last linear layer is given [N, D].

    Raises:
        UserError: the classifier has no linear layer.
    """
    linears = [module for module in classifier.model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise UserError(
            f"classifier.backbone {classifier.meta.classifier.backbone!r} has no linear layer to take features from: "
            "use another backbone"
        )

    def features(images_NCHW: Uint8) -> Float32:
        captured: list[Tensor] = []
        handle = linears[-1].register_forward_pre_hook(
            lambda _, inputs: captured.append(inputs[0].float().cpu())
        )
        try:
            predict(classifier, images_NCHW)
        finally:
            handle.remove()
        return torch.cat(captured).numpy()

    return features
