"""The classifier's trainer of a run, built on whichever node an episode's actor is."""

from __future__ import annotations

import functools
from pathlib import Path

from cluster.episodes.episode import TrainerFactory
from cluster.pools.stored import open_filtered
from cluster.runtime.node_folder import NodeFolder
from rlcas.config import RunConfig, SamplerConfig
from rlcas.data.prepared import open_prepared
from rlcas.devices import choose_device
from rlcas.runs.folder import RunFolder
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpisodeTrainer
from synth.manifest import pool_digests


def trainer_factory(folder: RunFolder, config: RunConfig, pool_folder: Path) -> TrainerFactory:
    """Return what builds the trainer of a run on any node; call it where the folders lie, with Ray started."""
    cache = config.cluster.cache
    pool = NodeFolder.of(pool_folder, cache, pool_digests)
    # Where the pool is another run's, this run has marks of its own: they refer to its own training images.
    own_marks = folder.pool.resolve() != pool_folder.resolve()
    marks = NodeFolder.of(folder.pool, cache) if own_marks else pool
    return functools.partial(build_trainer, config, NodeFolder.of(folder.prepared, cache), pool, marks)


def build_trainer(
    config: RunConfig, prepared: NodeFolder, pool: NodeFolder, marks: NodeFolder, sampler: SamplerConfig
) -> EpisodeTrainer:
    """Return the trainer of a run on the node that calls.

    Args:
        config: the run's settings, but for those of the sampler.
        prepared: the training and validation images.
        pool: the synthetic images.
        marks: which images of the pool are copies of training images.
        sampler: the sampler's settings as the algorithm has them.
    """
    config = config.model_copy(update={"sampler": sampler})
    data, source = open_prepared(prepared.here()), open_filtered(config, pool.here(), marks.here())
    # auto: an actor's CUDA_VISIBLE_DEVICES names the GPUs that Ray assigned to it (`use_assigned_gpus`), and
    # torch finds none where no GPU was assigned. This process sees them all.
    device = config.device if config.cluster.episode_runner == "in_process" else "auto"
    return ClassifierTrainer(data, config, pool=source, device=choose_device(device))
