"""Agents that learn by REINFORCE, and two that do not learn.

Logits are float64: advantages that cancel over the episodes then leave a gradient of exactly zero. In float32 they
leave the rounding error, which Adam would scale up to whole steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlcas.agents.base import Agents
from rlcas.batches.composition import ACTIONS
from rlcas.config import SamplerConfig

# The paper gives none; this is the one of AWSnet, whose search has the same stateless agents.
INITIAL_STD = 1e-3
CONTEXT_SCALE = 0.25
"""What an agent sees beside its own count is scaled by this: Adam then learns it the slower."""
NEVER = -1e9  # finite: with -inf the entropy would be 0 * inf = NaN
"""A logit of probability 0."""


class StatelessAgents(Agents):
    """The paper's agents: p(a_i) = softmax(θ_i), θ_i in R³, whatever the state (section 2.2)."""

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__(num_classes, num_features, sampler)
        self.logits_C3 = nn.Parameter(INITIAL_STD * torch.randn(num_classes, len(ACTIONS)))

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3] float64, the same whatever is seen."""
        return self.logits_C3.double().expand(len(features_BCF), -1, -1)


class StateAgents(Agents):
    """A linear policy a class of what it sees: it can learn to stop at a count, which stateless ones cannot.

    The features are centred on 0, without which the step of one action moves the others' most.
    """

    observes = ("composition", "signal", "metric", "progress")
    scale_F: Tensor

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__(num_classes, num_features, sampler)
        scale = [1.0 if name == "composition" else CONTEXT_SCALE for name in self.seen]
        self.register_buffer("scale_F", torch.tensor(scale), persistent=False)
        weights_CF3 = INITIAL_STD * torch.randn(num_classes, 1 + num_features, len(ACTIONS))
        self.bias_C3, self.weights_CF3 = nn.Parameter(weights_CF3[:, 0]), nn.Parameter(weights_CF3[:, 1:])

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3] float64."""
        centred_BCF = self.scale_F * (2 * features_BCF.double() - 1)
        return self.bias_C3.double() + torch.einsum("bcf,cfa->bca", centred_BCF, self.weights_CF3.double())


class UniformAgents(Agents):
    """Chance alone, the frozen control: best-of-K random search with carry-over."""

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return zeros [B, C, 3]: probabilities of exactly 1/3."""
        return features_BCF.new_zeros(*features_BCF.shape[:2], len(ACTIONS))


class ConstantAgents(Agents):
    """Action 0 always, a control: the composition stays what it was at first."""

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3]."""
        keep_3 = features_BCF.new_tensor([NEVER, 0.0, NEVER])
        return keep_3.expand(*features_BCF.shape[:2], -1)
