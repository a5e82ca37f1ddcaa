"""Agents: C policies in one stacked module, from what they see to C × 3 logits.

An agent class takes (num_classes, observation_size); its forward maps observations [B, D] to logits
[B, C, 3] for -step, 0 and +step. To add one, write the class and its line in AGENTS.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_STD = 1e-3


class StatelessAgents(nn.Module):
    """The paper's agents: p(a_i) = softmax(θ_i), θ_i in R³, whatever the state (section 2.2)."""

    def __init__(self, num_classes: int, observation_size: int) -> None:
        super().__init__()
        del observation_size  # these agents see nothing
        self.logits_C3 = nn.Parameter(INITIAL_STD * torch.randn(num_classes, 3))

    def forward(self, observations_BD: Tensor) -> Tensor:
        """Return logits [B, C, 3], the same for each of the B observations."""
        return self.logits_C3.expand(len(observations_BD), -1, -1)


AGENTS: dict[str, type[nn.Module]] = {
    "paper": StatelessAgents,
}


def build_agents(agents: type[nn.Module], num_classes: int, observation_size: int, seed: int) -> nn.Module:
    """Return `agents(num_classes, observation_size)`, initialised from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return agents(num_classes, observation_size)
