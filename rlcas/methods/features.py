"""A classifier in two parts: its feature extractor and its last linear layer."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.errors import UserError
from rlcas.methods.objective import new_classifier


def split_classifier(meta: ClassifierMeta) -> tuple[nn.Module, nn.Linear]:
    """Return a new backbone, called with images for features [N, D], and its linear layer from D to C.

    Raises:
        UserError: the backbone cannot be split so.
    """
    network: Any = new_classifier(meta)
    # Before the reset, which replaces the layer by an identity.
    linear = last_linear(network, meta)
    network.reset_classifier(0)
    return network, linear


def last_linear(network: Any, meta: ClassifierMeta) -> nn.Linear:
    """Return the layer that computes the logits.

    Raises:
        UserError: the backbone has no method that names this layer, or the layer is not linear.
    """
    layer = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not (isinstance(layer, nn.Linear) and hasattr(network, "reset_classifier")):
        raise UserError(
            f"classifier.backbone {meta.classifier.backbone!r} has no single linear layer after its features, which "
            f"classifier.method {meta.classifier.method!r} needs: use another of timm's models, or add "
            "get_classifier() and reset_classifier(num_classes) to yours as timm's have them"
        )
    return layer
