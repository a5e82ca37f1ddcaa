"""All C agents as one RLModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from envs.observations import Observer
from rlcas.agents import build_agents
from rlcas.config import SamplerConfig
from rlcas.seeding import seed_for


class AgentsModule(TorchRLModule):
    """RLlib's side of `rlcas.agents`.

    `model_config` holds the sampler's settings, the run's seed and, if they are known, `class_counts` and `found_dose`
    (`RLCASConfig.episodes`).
    """

    def setup(self) -> None:
        """Build the agents from the run's seed."""
        sampler = SamplerConfig.model_validate(self.model_config["sampler"])
        num_classes = len(self.action_space.nvec)
        indices_CF = torch.from_numpy(Observer(sampler).agent_indices(num_classes))
        # Not persistent: both buffers follow from the settings, and a checkpoint holds the whole state_dict.
        self.register_buffer("_indices_CF", indices_CF, persistent=False)
        self.register_buffer("_high_D", torch.from_numpy(self.observation_space.high), persistent=False)
        seed = seed_for(self.model_config["seed"], "agents")
        self.agents = build_agents(sampler, num_classes, indices_CF.shape[1], seed)
        # Before a checkpoint is loaded, if there is one: what the agents know since is in it.
        if (class_counts := self.model_config["class_counts"]) is not None:
            found = [np.array(values) for values in self.model_config["found_dose"] or ()]
            self.agents.begin(np.array(class_counts), *found)

    def logits(self, observations_BD: Tensor) -> Tensor:
        """Return [B, C, 3]: each agent sees its own numbers of the joint observation, scaled to [0, 1]."""
        return self.agents((observations_BD / self._high_D)[:, self._indices_CF])  # [B, D] -> [B, C, F]

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.logits(batch[Columns.OBS]).flatten(1)}


def probabilities(module: AgentsModule, observation_D: Any) -> Any:
    """Return [C, 3] float64: each agent's policy for one observation."""
    with torch.no_grad():
        logits_1C3 = module.logits(torch.as_tensor(observation_D)[None])
        # In float64, so that equal logits give the float64 nearest to 1/3.
        return logits_1C3[0].double().softmax(dim=-1).cpu().numpy()
