"""The batch-composition environment and its views for RLlib and PettingZoo."""

from envs.checks import check_batch_composition
from envs.composition_env import BatchCompositionEnv

__all__ = ["BatchCompositionEnv", "check_batch_composition"]
