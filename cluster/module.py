"""All C agents as one RLModule: the policy of a joint action, one batched categorical."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from rlcas import registry
from rlcas.agents import AGENTS, build_agents
from rlcas.reinforce import ACTIONS
from rlcas.seeding import seed_for


class JointCategorical(TorchCategorical):
    """C independent categoricals over three actions, as one distribution of the joint action."""

    @classmethod
    def from_logits(cls, logits: Tensor, **kwargs: Any) -> JointCategorical:
        """Take logits [B, C * 3]."""
        return cls(logits=logits.unflatten(-1, (-1, len(ACTIONS))), **kwargs)

    @staticmethod
    def required_input_dim(space: Any, **kwargs: Any) -> int:
        """Return C * 3."""
        return len(ACTIONS) * len(space.nvec)

    def logp(self, value: Tensor, **kwargs: Any) -> Tensor:
        """Return [B]: the sum over classes."""
        return super().logp(value, **kwargs).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return [B]: the sum over classes."""
        return super().entropy().sum(dim=-1)


class AgentsModule(TorchRLModule):
    """RLlib's side of `rlcas.agents`; `model_config` holds the agents' name and the run's seed."""

    def setup(self) -> None:
        """Build the agents from the run's seed."""
        self.action_dist_cls = JointCategorical
        agents = registry.lookup(self.model_config["agents"], AGENTS, "sampler.agents")
        num_classes, (observation_size,) = len(self.action_space.nvec), self.observation_space.shape
        seed = seed_for(self.model_config["seed"], "agents")
        self.agents = build_agents(agents, num_classes, observation_size, seed)

    def logits(self, observations_BD: Tensor) -> Tensor:
        """Return [B, C, 3]."""
        return self.agents(observations_BD)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.logits(batch[Columns.OBS]).flatten(1)}


def probabilities(module: AgentsModule, observation_D: Any) -> Any:
    """Return [C, 3] float64: each agent's policy for one observation."""
    with torch.no_grad():
        logits_1C3 = module.logits(torch.as_tensor(observation_D)[None])
        return logits_1C3[0].double().softmax(dim=-1).cpu().numpy()
