"""Pools that exist: a run's own, that of another folder, a user's own images."""

from __future__ import annotations

from pathlib import Path

from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.runs.folder import RunFolder
from rlcas.runs.paths import FOLDER_PREFIX
from rlcas.storage import remote
from rlcas.types import TrainingData
from synth.manifest import MANIFEST_FILE
from synth.pool import SyntheticPool


def open_pool(folder: RunFolder, config: RunConfig, data: TrainingData) -> SyntheticPool:
    """Return the pool that the settings name, else the one in the run's folder.

    Raises:
        UserError: none exists, or it was made for other images.
    """
    if config.pool is not None and is_stored(config):
        pool = SyntheticPool(stored_folder(config))
    elif (folder.pool / MANIFEST_FILE).exists():
        pool = SyntheticPool(folder.pool)
    else:
        raise UserError(f"{folder.path} has no pool: make it with `rlcas synth sample {folder.path}`")
    # A pool may be from anywhere: its images must have these classes and this shape.
    pool.require(data.class_names, data.image_shape_CHW)
    return pool


def is_stored(config: RunConfig) -> bool:
    """Return whether the settings name a pool in our own form."""
    return config.pool is not None and not config.pool.startswith(FOLDER_PREFIX)


def stored_folder(config: RunConfig) -> Path:
    """Return the folder of the pool that the settings name."""
    assert config.pool is not None
    return pool_folder(remote.fetched(config.pool, config.cluster.cache))


def own_images_folder(config: RunConfig) -> Path:
    """Return the folder of the user's own synthetic images."""
    assert config.pool is not None
    return remote.fetched(config.pool.removeprefix(FOLDER_PREFIX), config.cluster.cache)


def pool_folder(path: Path) -> Path:
    """Return the pool that `path` is or, as the folder of a run, holds."""
    inside = RunFolder(path).pool
    return inside if (inside / MANIFEST_FILE).exists() else path


def run_pool(folder: RunFolder, config: RunConfig, pool_folder: Path) -> SyntheticPool:
    """Return a run's pool without the images that the settings leave out, as marked in the run's folder."""
    return open_filtered(config, pool_folder, folder.pool)


def open_filtered(config: RunConfig, pool_folder: Path, marks_folder: Path) -> SyntheticPool:
    """Return a pool without the copies and filtered images that the settings leave out, as in `marks_folder`."""
    return SyntheticPool(
        pool_folder,
        with_copies=not config.synth.scoring.leave_out_copies,
        with_filtered=not config.synth.filter.active,
        marks_folder=marks_folder,
    )
