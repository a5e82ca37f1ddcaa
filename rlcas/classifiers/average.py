"""An exponential moving average of a classifier's weights (`classifier.ema_decay`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's weights and floating-point buffers beside the model; integers are copied.

    Buffers are averaged as weights are, as in timm's ModelEmaV3, so that BatchNorm's running statistics belong to the
    averaged weights.

    Args:
        model: its tensors stay its own, and keep their places.
        decay: share of the average that a step keeps, once enough steps are done. None: there is no average, and
            nothing changes.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self._decay = decay
        self._of_model = [] if decay is None else list(model.state_dict().values())
        self.tensors: list[Tensor] = [tensor.clone() for tensor in self._of_model]
        """The average while the model is trained; the trained weights while the model holds the average."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model after global step `step` (from 0); the first steps keep less, (1 + t) / (10 + t)."""
        if self._decay is None:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        pairs = list(zip(self.tensors, self._of_model, strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, weights = zip(*floating, strict=True)
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, now in pairs:
            if not average.is_floating_point():
                average.copy_(now)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and buffers with `tensors`."""
        # All copies first: two names of one tensor would otherwise be exchanged twice.
        before = [tensor.clone() for tensor in self._of_model]
        for own, kept in zip(self._of_model, self.tensors, strict=True):
            own.copy_(kept)
        for kept, old in zip(self.tensors, before, strict=True):
            kept.copy_(old)
