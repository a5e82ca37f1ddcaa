"""An exponential moving average of a module's weights: what is sampled from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Average of the parameters by name, with the early steps weighted as min(decay, (1 + s)/(10 + s))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights: ema ← d ema + (1-d) weights."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        weights = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), weights, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into the module's parameters."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])
