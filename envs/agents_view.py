"""What the multi-agent views share: the joint observation and action, split by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.composition_env import BatchCompositionEnv
from rlcas.batches.composition import ACTIONS
from rlcas.types import Float32, Int64


class AgentsView:
    """Agents `class_0` … `class_{C-1}` of an environment; each sees its own class's numbers and the shared ones."""

    def __init__(self, env: BatchCompositionEnv) -> None:
        # [C, F]: which of the D numbers each agent sees.
        self._indices = env.observer.agent_indices(env.num_classes)
        self.names = [f"class_{i}" for i in range(env.num_classes)]
        high = env.observation_space.high
        self.observation_spaces: dict[str, Any] = {
            name: Box(0.0, high[row], dtype=np.float32)
            for name, row in zip(self.names, self._indices, strict=True)
        }
        self.action_spaces: dict[str, Any] = {name: Discrete(len(ACTIONS)) for name in self.names}

    def split(self, observation_D: Float32) -> dict[str, Float32]:
        """Return each agent's part of the joint observation."""
        return dict(zip(self.names, observation_D[self._indices], strict=True))

    def joined(self, actions: dict[str, Any]) -> Int64:
        """Return [C] int64: the joint action."""
        return np.array([actions[name] for name in self.names], dtype=np.int64)
