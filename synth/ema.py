"""An exponential moving average of a module's weights: what is sampled from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS_A_MOVE = 4  # moving it less often, by as much more, costs a quarter


class Ema:
    """Average of the parameters by name, over the weights after every fourth step.

    Its decay is min(decay^4, (1 + m)/(10 + m)) for move m, so that it follows early and remembers late.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Tell it of a step; at every fourth, ema ← d ema + (1-d) weights."""
        self._steps += 1
        moves, left = divmod(self._steps, STEPS_A_MOVE)
        if left:
            return
        decay = min(self._decay**STEPS_A_MOVE, (1 + moves) / (10 + moves))
        weights = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), weights, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into the module's parameters."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])
