"""A run's settings as those of its algorithm."""

from __future__ import annotations

from pathlib import Path

from cluster.episodes.trainer_factory import trainer_factory
from cluster.rllib.algorithm import RLCASConfig
from rlcas.config import RunConfig
from rlcas.runs.folder import RunFolder


def algorithm_config(folder: RunFolder, config: RunConfig, num_classes: int, pool_folder: Path) -> RLCASConfig:
    """Return the RLlib config of a run's sampler.

    Args:
        folder: the run's; the schedule that it replays is the copy in there.
        config: the run's settings.
        num_classes: C.
        pool_folder: where the synthetic images are.
    """
    replayed = {"replay": folder.replay} if config.sampler.replay else {}
    return (
        RLCASConfig()
        .training(**dict(config.sampler) | replayed)
        .episodes(
            trainer_factory=trainer_factory(folder, config, pool_folder),
            num_classes=num_classes,
            **dict(config.cluster),
        )
        .debugging(seed=config.seed, log_level="ERROR")
    )
