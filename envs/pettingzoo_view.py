"""The environment as a PettingZoo ParallelEnv: one agent a class, one shared reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pettingzoo import ParallelEnv

from envs.agents_view import AgentsView
from envs.composition_env import BatchCompositionEnv
from rlcas.types import Float32


class ParallelComposition(ParallelEnv):
    """Agents `class_0` … `class_{C-1}`, as `AgentsView` splits them."""

    metadata = {"render_modes": [], "name": "batch_composition_v0"}  # noqa: RUF012 - PettingZoo declares it so

    def __init__(self, env: BatchCompositionEnv) -> None:
        self.env = env
        self.render_mode = None
        self._view = AgentsView(env)
        self.possible_agents = self._view.names
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        """Return the agent's Box; the same object on every call."""
        return self._view.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """Return the agent's Discrete(3); the same object on every call."""
        return self._view.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, dict[str, Any]]]:
        """Start from the initial incumbent, or from `options["incumbent"]`."""
        self.agents = list(self.possible_agents)
        observation, _ = self.env.reset(seed=seed, options=options)
        return self._view.split(observation), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[Any, ...]:
        """Train one epoch under all agents' actions; all leave together at the last epoch.

        Each agent has an info dict of its own, as wrappers write into them. After the last epoch all dicts are empty.
        """
        if not self.agents and self.env.incumbent.epoch > 0:
            return {}, {}, {}, {}, {}
        acting = self.agents  # the results are theirs even in the step in which they leave
        observation, reward, terminated, truncated, info = self.env.step(self._view.joined(actions))
        self.agents = [] if truncated else acting
        return (
            self._view.split(observation),
            dict.fromkeys(acting, reward),
            dict.fromkeys(acting, terminated),
            dict.fromkeys(acting, truncated),
            {agent: dict(info) for agent in acting},
        )


def parallel_env(config: BatchCompositionEnv | Mapping[str, Any] | None = None) -> ParallelComposition:
    """Return the view of `config`: a BatchCompositionEnv, or overrides of the preset's settings."""
    return ParallelComposition(
        config if isinstance(config, BatchCompositionEnv) else BatchCompositionEnv(config)
    )
