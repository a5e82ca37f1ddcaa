"""A run's settings as those of its algorithm."""

from __future__ import annotations

from pathlib import Path

from cluster.episodes.trainer_factory import trainer_factory
from cluster.rllib.algorithm import RLCASConfig
from rlcas.config import RunConfig
from rlcas.runs.folder import RunFolder
from rlcas.types import Float64, Int64, TrainingData


def algorithm_config(
    folder: RunFolder,
    config: RunConfig,
    data: TrainingData,
    pool_folder: Path,
    found_dose: tuple[Int64, Float64] | None = None,
) -> RLCASConfig:
    """Return the RLlib config of a run's sampler.

    Args:
        folder: the run's; the schedule that it replays is the copy in there.
        config: the run's settings.
        data: for its classes.
        pool_folder: where the synthetic images are.
        found_dose: [C] the composition that agents dose start from, and [C] the probability of its benefit.
    """
    replayed = {"replay": folder.replay} if config.sampler.replay else {}
    return (
        RLCASConfig()
        .training(**dict(config.sampler) | replayed)
        .episodes(
            trainer_factory=trainer_factory(folder, config, pool_folder),
            num_classes=data.num_classes,
            class_counts=data.train.class_counts(data.num_classes).tolist(),
            found_dose=found_dose and tuple(values.tolist() for values in found_dose),
            **dict(config.cluster),
        )
        .debugging(seed=config.seed, log_level="ERROR")
    )
