"""The environment as RLlib's MultiAgentEnv: one agent a class, one shared reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.composition_env import BatchCompositionEnv
from envs.observations import agent_indices
from rlcas.reinforce import ACTIONS
from rlcas.types import Float32


class MultiAgentComposition(MultiAgentEnv):
    """Agents `class_0` … `class_{C-1}`; each sees its own class's numbers and the shared ones.

    Any RLlib algorithm trains on it: `register_env("rlcas", MultiAgentComposition)` and settings in
    `env_config`.

    Args:
        config: a BatchCompositionEnv, or overrides of the preset's settings as a nested mapping.
    """

    def __init__(self, config: BatchCompositionEnv | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.env = config if isinstance(config, BatchCompositionEnv) else BatchCompositionEnv(config)
        self._indices = agent_indices(self.env.num_classes, self.env.sampler)
        self.possible_agents = [f"class_{i}" for i in range(self.env.num_classes)]
        self.agents = list(self.possible_agents)
        high = self.env.observation_space.high
        self.observation_spaces = {
            agent: Box(0.0, high[row], dtype=np.float32)
            for agent, row in zip(self.possible_agents, self._indices, strict=True)
        }
        self.action_spaces: dict[str, Any] = {agent: Discrete(len(ACTIONS)) for agent in self.possible_agents}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, Any]]:
        """Start from the initial incumbent, or from `options["incumbent"]`."""
        self.agents = list(self.possible_agents)
        observation, _ = self.env.reset(seed=seed, options=options)
        return self._split(observation), {}

    def step(
        self, action_dict: dict[str, Any]
    ) -> tuple[dict[str, Float32], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """Train one epoch under all agents' actions."""
        actions_C = np.array([action_dict[agent] for agent in self.possible_agents], dtype=np.int64)
        observation, reward, terminated, truncated, _ = self.env.step(actions_C)
        rewards = dict.fromkeys(self.possible_agents, reward)
        ended = {"__all__": terminated}, {"__all__": truncated}
        return self._split(observation), rewards, *ended, {}

    def _split(self, observation: Float32) -> dict[str, Float32]:
        return dict(zip(self.possible_agents, observation[self._indices], strict=True))
