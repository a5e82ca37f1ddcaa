"""Exponential moving averages of a module's weights, of several lengths: what is sampled from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STEPS_A_MOVE = 8  # moving them less often, by as much more, costs an eighth


class Ema:
    """An average of the parameters by name for each decay, over the weights after steps 1, 9, 17, ...

    The decay of move m, from 1, is min(decay^8, (1 + m)/(10 + m)), so that it follows early and remembers late.
    """

    def __init__(self, module: nn.Module, decays: Sequence[float]) -> None:
        self.averages: dict[float, dict[str, Tensor]] = {
            decay: {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
            for decay in decays
        }

    @torch.no_grad()
    def update(self, module: nn.Module, steps_done: int) -> None:
        """Tell of the weights after `steps_done` steps; at every eighth, average ← d average + (1-d) weights."""
        before, left = divmod(steps_done - 1, STEPS_A_MOVE)
        if left:
            return
        moves = before + 1
        weights = [parameter.detach() for parameter in module.parameters()]
        for decay, average in self.averages.items():
            now = min(decay**STEPS_A_MOVE, (1 + moves) / (10 + moves))
            torch._foreach_lerp_(list(average.values()), weights, 1.0 - now)

    @torch.no_grad()
    def copy_to(self, module: nn.Module, decay: float) -> None:
        """Write the average of that decay into the module's parameters."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.averages[decay][name])
