"""Phase one of a run: the synthesiser and its pool, or the user's own synthetic images."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster.pools.leaks import check_learnt_from, check_pixels
from cluster.pools.start_images import start_images
from cluster.pools.stored import is_stored, open_pool, own_images_folder, stored_folder
from cluster.synthesis.train import train_generator
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.runs.images import record_of
from rlcas.runs.paths import FOLDER_PREFIX
from rlcas.runs.stages import stage
from rlcas.types import Int64, SplitRecord, TrainingData
from synth.generate import SampleAll, fill_pool
from synth.generators import StartImages, check_start, generator_of
from synth.manifest import MANIFEST_FILE
from synth.own_images import import_folder, masks_left_out
from synth.pool import SyntheticPool

FEWEST_PER_CLASS = 50
MOST_PER_CLASS = 1000


def open_or_make_pool(context: RunContext) -> SyntheticPool:
    """Return the run's pool: the one that exists, the user's own, or a new one from a new synthesiser."""
    folder, config, data = context.folder, context.config, context.data
    # The manifest is written last, so a pool that has one is whole.
    if is_stored(config):
        pool = open_pool(folder, config, data)
        # Once more where a run is resumed: the pool may have been made anew meanwhile.
        check_learnt_from(pool, record_of(folder, config))
        return pool
    if (folder.pool / MANIFEST_FILE).exists():
        return open_pool(folder, config, data)
    if config.pool is not None:
        with stage(folder, f"Reading synthetic images from {config.pool.removeprefix(FOLDER_PREFIX)}", "pool"):
            return _import(config, folder.pool, data)
    train_generator(context)
    return sample_pool(context)


def check_phase_one(config: RunConfig, data: TrainingData, record: SplitRecord) -> None:
    """Check phase one's settings before anything is made; print a note where a pool does not say what it learnt from.

    Raises:
        UserError: the pool cannot be used or knows test images, or the autoencoder cannot be built for these images.
    """
    if config.pool is None:
        generator = generator_of(config)
        if "autoencoder" in generator.parts and config.synth.autoencoder.pretrained is None:
            from synth.ldm.autoencoder import build_autoencoder  # diffusers takes seconds to import

            build_autoencoder(config.synth.autoencoder, data.image_shape_CHW)
    elif is_stored(config):
        pool = SyntheticPool(stored_folder(config))
        pool.require(data.class_names, data.image_shape_CHW)
        check_learnt_from(pool, record)
        check_pixels(pool, config, record)
    else:
        # Imported in full and thrown away: only so is every image of the user's known to be readable.
        with tempfile.TemporaryDirectory() as scratch:
            pool = _import(config, Path(scratch) / "pool", data)
            check_pixels(pool, config, record)
            if config.dataset.masks == "leave_out":
                for note in masks_left_out(own_images_folder(config), data.class_names):
                    say(f"note: {note}")


def _import(config: RunConfig, to: Path, data: TrainingData) -> SyntheticPool:
    return import_folder(
        own_images_folder(config),
        to,
        data.class_names,
        data.image_shape_CHW,
        frame=config.dataset.frame,
        keep_masks=config.dataset.masks == "keep",
    )


def sample_pool(context: RunContext) -> SyntheticPool:
    """Fill the run's pool with the trained synthesiser; whole shards that exist stay."""
    folder, config = context.folder, context.config
    sizes = images_per_class(config, context.data.train.class_counts(context.data.num_classes))
    check_start(config)
    start = start_images(context)
    with stage(folder, f"Making {sum(sizes)} synthetic images", "pool"):
        fill_pool(
            folder.synth,
            folder.pool,
            sizes,
            config,
            device=context.device,
            progress=True,
            sample_all=_workers(folder, config, start),
            start=start,
            learnt_from=record_of(folder, settings.load(folder.path)).parts["train"].digests,
        )
    return SyntheticPool(folder.pool)


def _workers(folder: RunFolder, config: RunConfig, start: StartImages | None) -> SampleAll | None:
    """Return what samples on workers of Ray; None where this process samples."""
    if config.cluster.sampling_workers == 1:
        return None
    from cluster.synthesis.ray_data import SamplingWorkers  # Ray takes seconds to start

    return SamplingWorkers(folder.synth, config, start)


def images_per_class(config: RunConfig, train_counts_C: Int64) -> list[int]:
    """Return how many images of each class the pool gets."""
    if config.synth.generation.per_class is not None:
        return [config.synth.generation.per_class] * len(train_counts_C)
    return train_counts_C.clip(FEWEST_PER_CLASS, MOST_PER_CLASS).tolist()
