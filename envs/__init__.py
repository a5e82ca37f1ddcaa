"""The batch-composition environment and its views for RLlib and PettingZoo."""

from gymnasium import register

from envs.checks import check_batch_composition
from envs.composition_env import BatchCompositionEnv

__all__ = ["ENV_ID", "BatchCompositionEnv", "check_batch_composition"]

ENV_ID = "rlcas/BatchComposition-v0"
"""What `gymnasium.make` knows the environment by, once `envs` is imported."""

register(ENV_ID, entry_point="envs.composition_env:BatchCompositionEnv")
