"""The environment as RLlib's MultiAgentEnv: one agent a class, one shared reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.agents_view import AgentsView
from envs.composition_env import BatchCompositionEnv
from rlcas.types import Float32


class MultiAgentComposition(MultiAgentEnv):
    """Agents `class_0` … `class_{C-1}`, as `AgentsView` splits them.

    Any RLlib algorithm trains on it: `register_env("rlcas", MultiAgentComposition)` and settings in
    `env_config`.

    Args:
        config: a BatchCompositionEnv, or overrides of the preset's settings as a nested mapping.
    """

    def __init__(self, config: BatchCompositionEnv | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.env = config if isinstance(config, BatchCompositionEnv) else BatchCompositionEnv(config)
        self._view = AgentsView(self.env)
        self.possible_agents = self._view.names
        # RLlib declares `agents` as a mutable class attribute, which all environments would share.
        self.agents = list(self.possible_agents)
        self.observation_spaces = self._view.observation_spaces
        self.action_spaces = self._view.action_spaces

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, Any]]:
        """Start from the initial incumbent, or from `options["incumbent"]`."""
        self.agents = list(self.possible_agents)
        observation, _ = self.env.reset(seed=seed, options=options)
        return self._view.split(observation), {}

    def step(
        self, action_dict: dict[str, Any]
    ) -> tuple[dict[str, Float32], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        """Train one epoch under all agents' actions."""
        observation, reward, terminated, truncated, _ = self.env.step(self._view.joined(action_dict))
        rewards = dict.fromkeys(self.possible_agents, reward)
        return self._view.split(observation), rewards, {"__all__": terminated}, {"__all__": truncated}, {}
