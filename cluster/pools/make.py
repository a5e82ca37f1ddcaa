"""Phase one of a run: the synthesiser and its pool, or the user's own synthetic images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from cluster.pools.stored import _own_images, _stored, is_stored, open_pool
from cluster.synthesis import train
from rlcas.config import RunConfig
from rlcas.registry import lookup
from rlcas.runs.folder import FOLDER_PREFIX, RunFolder
from rlcas.runs.stages import stage
from rlcas.storage.atomic import read_facts
from rlcas.types import Int64, TrainingData
from synth.generate import SampleAll, fill_pool
from synth.generators import GENERATORS
from synth.layout import FIGURES_FILE
from synth.manifest import MANIFEST_FILE
from synth.own_images import import_folder
from synth.pool import SyntheticPool

FEWEST_PER_CLASS = 50
MOST_PER_CLASS = 1000


def pool_of(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> SyntheticPool:
    """Return the run's pool: what is there, the user's own, or a new one from a new synthesiser."""
    if is_stored(config) or (folder.pool / MANIFEST_FILE).exists():
        return open_pool(folder, config, data)
    if config.pool is not None:
        with stage(folder, f"Reading synthetic images from {config.pool.removeprefix(FOLDER_PREFIX)}", "pool"):
            return import_folder(_own_images(config), folder.pool, data.class_names, data.image_shape_CHW)
    train.train(folder, config, data, device)
    return sample(folder, config, data, device)


def check(config: RunConfig, data: TrainingData) -> None:
    """Find what is wrong with phase one's settings before anything is made.

    Raises:
        UserError: the pool cannot be used, or the autoencoder cannot be built for these images.
    """
    if config.pool is None:
        generator = lookup(config.synth.generator, GENERATORS, "synth.generator")
        if "autoencoder" in generator.parts and config.synth.autoencoder.pretrained is None:
            from synth.ldm.autoencoder import build_autoencoder  # diffusers takes seconds to import

            build_autoencoder(config.synth.autoencoder, data.image_shape_CHW)
    elif is_stored(config):
        SyntheticPool(_stored(config)).require(data.class_names, data.image_shape_CHW)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            import_folder(_own_images(config), Path(scratch) / "pool", data.class_names, data.image_shape_CHW)


def sample(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> SyntheticPool:
    """Fill the run's pool with the trained synthesiser; whole shards that are there stay."""
    sizes = per_class(config, data.train.class_counts(data.num_classes))
    with stage(folder, f"Making {sum(sizes)} synthetic images", "pool"):
        fill_pool(
            folder.synth,
            folder.pool,
            sizes,
            config,
            device=device,
            progress=True,
            sample_all=_workers(folder, config),
        )
    return SyntheticPool(folder.pool)


def _workers(folder: RunFolder, config: RunConfig) -> SampleAll | None:
    """Return what samples on Ray; None where one process does it."""
    if config.cluster.sampling_workers == 1:
        return None
    from cluster.synthesis.ray_data import SamplingWorkers  # Ray takes seconds to start

    return SamplingWorkers(folder.synth, config)


def per_class(config: RunConfig, train_counts_C: Int64) -> list[int]:
    """Return how many images of each class the pool gets."""
    if config.synth.generation.per_class is not None:
        return [config.synth.generation.per_class] * len(train_counts_C)
    return train_counts_C.clip(FEWEST_PER_CLASS, MOST_PER_CLASS).tolist()


def figures_of(folder: RunFolder) -> dict[str, Any]:
    """Return the figures of the run's synthesiser; empty where the pool is the user's own."""
    return read_facts(folder.synth / FIGURES_FILE)
