"""Phase one of a run: the synthesiser and its pool, or the user's own synthetic images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cluster.stages import stage
from rlcas.config import RunConfig
from rlcas.rundir import RunFolder
from rlcas.tracking import Tracker
from rlcas.types import Int64, TrainingData
from synth.generate import fill_pool
from synth.pool import MANIFEST_FILE, SyntheticPool, import_folder
from synth.train import FIGURES_FILE, PIPELINE_FOLDER, train_synthesiser

FEWEST_PER_CLASS = 50
MOST_PER_CLASS = 1000
FOLDER_PREFIX = "folder:"


def pool_of(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> SyntheticPool:
    """Return the run's pool: what is there, the user's own, or a new one from a new synthesiser."""
    if config.pool is not None and not config.pool.startswith(FOLDER_PREFIX):
        pool = SyntheticPool(pool_folder(Path(config.pool)))
        pool.require(data.class_names, data.image_shape_CHW)
        return pool
    if (folder.pool / MANIFEST_FILE).exists():
        return SyntheticPool(folder.pool)
    if config.pool is not None:
        own = Path(config.pool.removeprefix(FOLDER_PREFIX))
        with stage(folder, f"Reading synthetic images from {own}", "pool"):
            return import_folder(own, folder.pool, data.class_names, data.image_shape_CHW)
    train(folder, config, data, device)
    return sample(folder, config, data, device)


def pool_folder(path: Path) -> Path:
    """Return the pool that `path` is or, as the folder of a run, holds."""
    inside = RunFolder(path).pool
    return inside if (inside / MANIFEST_FILE).exists() else path


def train(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> None:
    """Train the synthesiser into the run's folder, where it is not there yet."""
    if (folder.synth / FIGURES_FILE).exists():
        return
    folder.synthesis_log.unlink(missing_ok=True)
    with (
        stage(folder, "Training the synthesiser", "synthesiser"),
        Tracker(folder.path, data.class_names) as tracker,
        folder.synthesis_log.open("a", encoding="utf-8") as lines,
    ):

        def on_step(part: str, step: int, _: int, figures: dict[str, float]) -> None:
            tracker.synthesis(part, step, figures)
            print(json.dumps({"part": part, "step": step, **figures}), file=lines, flush=True)

        train_synthesiser(data, config, folder.synth, device=device, progress=True, on_step=on_step)


def sample(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> SyntheticPool:
    """Fill the run's pool with the trained synthesiser; whole shards that are there stay."""
    sizes = per_class(config, data.train.class_counts(data.num_classes))
    with stage(folder, f"Making {sum(sizes)} synthetic images", "pool"):
        fill_pool(folder.synth / PIPELINE_FOLDER, folder.pool, sizes, config, device=device, progress=True)
    return SyntheticPool(folder.pool)


def per_class(config: RunConfig, train_counts_C: Int64) -> list[int]:
    """Return how many images of each class the pool gets."""
    if config.synth.generation.per_class is not None:
        return [config.synth.generation.per_class] * len(train_counts_C)
    return train_counts_C.clip(FEWEST_PER_CLASS, MOST_PER_CLASS).tolist()


def figures_of(folder: RunFolder) -> dict[str, Any]:
    """Return the figures of the run's synthesiser; empty where the pool is the user's own."""
    path = folder.synth / FIGURES_FILE
    return json.loads(path.read_text()) if path.exists() else {}
