"""Exponential moving averages of a module's weights, one for each decay: sampling uses one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STEPS_PER_UPDATE = 8
"""The averages are updated every eighth step, with the decay of eight steps: that costs an eighth of the time."""


class Ema:
    """An average of the parameters by name for each decay, over the weights after steps 1, 9, 17, ...

    The decay of update m (from 1) is min(decay^8, (1 + m)/(10 + m)): small at first, so that the untrained weights
    are soon forgotten.
    """

    def __init__(self, module: nn.Module, decays: Sequence[float]) -> None:
        self.averages: dict[float, dict[str, Tensor]] = {
            decay: {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
            for decay in decays
        }

    @torch.no_grad()
    def update(self, module: nn.Module, steps_done: int) -> None:
        """Call after each step; at steps 1, 9, 17, … average ← d average + (1-d) weights."""
        updates_before, remainder = divmod(steps_done - 1, STEPS_PER_UPDATE)
        if remainder:
            return
        updates = updates_before + 1
        # In the order of named_parameters, as the averages are; the module has no buffers (see Training).
        weights = [parameter.detach() for parameter in module.parameters()]
        for decay, average in self.averages.items():
            d = min(decay**STEPS_PER_UPDATE, (1 + updates) / (10 + updates))
            # For all tensors in a few kernels, not one for each.
            torch._foreach_lerp_(list(average.values()), weights, 1.0 - d)

    @torch.no_grad()
    def copy_to(self, module: nn.Module, decay: float) -> None:
        """Copy the average with that decay into the module's parameters."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.averages[decay][name])
