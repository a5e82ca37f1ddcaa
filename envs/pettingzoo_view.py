"""The environment as a PettingZoo ParallelEnv: one agent a class, one shared reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

from envs.composition_env import BatchCompositionEnv
from envs.observations import agent_indices
from rlcas.reinforce import ACTIONS
from rlcas.types import Float32


class ParallelComposition(ParallelEnv):
    """Agents `class_0` … `class_{C-1}`; each sees its own class's numbers and the shared ones."""

    metadata = {"render_modes": [], "name": "batch_composition_v0"}  # noqa: RUF012 - PettingZoo declares it so

    def __init__(self, env: BatchCompositionEnv) -> None:
        self.env = env
        self.render_mode = None
        self._indices = agent_indices(env.num_classes, env.sampler)
        self.possible_agents = [f"class_{i}" for i in range(env.num_classes)]
        self.agents: list[str] = []
        high = env.observation_space.high
        self.observation_spaces = {
            agent: Box(0.0, high[row], dtype=np.float32)
            for agent, row in zip(self.possible_agents, self._indices, strict=True)
        }
        self.action_spaces: dict[str, Any] = {agent: Discrete(len(ACTIONS)) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> Box:
        """Return the agent's space; the same object on every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        """Return the agent's three actions; the same object on every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, dict[str, Any]]]:
        """Start from the initial incumbent, or from `options["incumbent"]`."""
        self.agents = list(self.possible_agents)
        observation, _ = self.env.reset(seed=seed, options=options)
        return self._split(observation), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[Any, ...]:
        """Train one epoch under all agents' actions; all leave together at the last epoch."""
        acting = self.agents
        actions_C = np.array([actions[agent] for agent in acting], dtype=np.int64)
        observation, reward, terminated, truncated, info = self.env.step(actions_C)
        self.agents = [] if truncated else acting
        return (
            self._split(observation),
            dict.fromkeys(acting, reward),
            dict.fromkeys(acting, terminated),
            dict.fromkeys(acting, truncated),
            {agent: info for agent in acting},
        )

    def _split(self, observation: Float32) -> dict[str, Float32]:
        return dict(zip(self.possible_agents, observation[self._indices], strict=True))


def parallel_env(config: BatchCompositionEnv | Mapping[str, Any] | None = None) -> ParallelComposition:
    """Return the view of `config`: a BatchCompositionEnv, or overrides of the preset's settings."""
    return ParallelComposition(
        config if isinstance(config, BatchCompositionEnv) else BatchCompositionEnv(config)
    )
