"""All C agents as one RLModule."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from rlcas import registry
from rlcas.agents import AGENTS, build_agents
from rlcas.seeding import seed_for


class AgentsModule(TorchRLModule):
    """RLlib's side of `rlcas.agents`; `model_config` holds the agents' name and the run's seed."""

    def setup(self) -> None:
        """Build the agents from the run's seed."""
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
