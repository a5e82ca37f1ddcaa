"""RLlib always makes a local env runner; this one runs nothing, because `cluster.episodes` runs the episodes."""

from __future__ import annotations

from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable


# RLlib 2.60 ignores create_local_env_runner=False, and its own runner raises where the config has no env.
class NoEnvRunner(EnvRunner, Checkpointable):
    """Knows the spaces, which the module and the learner need, and has no environment and no state."""

    def assert_healthy(self) -> None:
        """Do nothing: it is always healthy."""

    def sample(self, **kwargs: Any) -> Any:
        """Refuse: nothing samples here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the episodes run on the actors of cluster.episodes")

    def get_metrics(self) -> dict[str, Any]:
        """Return no metrics."""
        return {}

    def get_spaces(self) -> dict[str, Any]:
        """Return the spaces that the config's classes and settings make."""
        spaces = self.config.spaces()
        return {INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Do nothing: it has no state."""

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what builds it again."""
        return (), {"config": self.config}
