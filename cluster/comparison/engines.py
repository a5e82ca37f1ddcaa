"""The engines that train a cell: one classifier under one composition, the best of K, or the sampler's episodes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.comparison.plan import REAL, PlannedCell
from cluster.pools.judge import real_classifier
from cluster.pools.stored import kept, open_pool
from rlcas import settings
from rlcas.batches.sources import RealImages
from rlcas.batches.static_mixture import apportion
from rlcas.comparison.folder import POOLS_FOLDER
from rlcas.config import RunConfig
from rlcas.jsonable import jsonable
from rlcas.methods import METHODS
from rlcas.methods.method import Method
from rlcas.registry import lookup
from rlcas.runs import epoch_log
from rlcas.runs.context import RunContext
from rlcas.runs.epoch_log import EPOCHS_FILE
from rlcas.runs.folder import RunFolder
from rlcas.seeding import seed_for
from rlcas.training.fit import fit, selection_key
from rlcas.training.pool_selection import SELECTIONS
from rlcas.training.saved_classifier import save_incumbent
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpochResult, Incumbent, Int64, SyntheticSource, TrainingData
from synth.pool import SyntheticPool

PROGRESS_FILE = "told.jsonl"
"""Below the folder of a cell in the plain loop, until it has ended: what each epoch gave on validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What an engine left: the classifier is in the cell's folder."""

    curve: Sequence[Mapping[str, Any]]
    """As in `rlcas.comparison.cell.Cell`."""
    best_epoch: int
    passes: int
    """Passes over images, if one image asks one."""
    seconds: float
    """Of all epochs, in whatever sitting they were trained."""


def method_of(cell: PlannedCell) -> Method:
    """Return the method of a cell's row."""
    return lookup(cell.method, METHODS, "compare.methods")


def _pool(comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData) -> SyntheticPool:
    """Return the pool that the cell's row shares, without its marked copies."""
    there = RunFolder(comparison / POOLS_FOLDER / str(method_of(cell).pool))
    stored = open_pool(there, settings.load(there.path), data)
    return kept(RunFolder(folder), cell.config, stored.folder)


def _mixture(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> tuple[SyntheticSource, Int64]:
    """Return where a row of the plain loop takes its added images from, and [C] how many a batch gets of each class."""
    method, counts_C = method_of(cell), np.array(cell.counts_C, np.int64)
    if method.pool in (None, REAL):
        return RealImages(data.train), counts_C
    pool = _pool(comparison, folder, cell, data)
    if method.select is None:
        return pool, counts_C
    there = RunFolder(comparison / POOLS_FOLDER / str(method.pool))
    judge = real_classifier(there, settings.load(there.path), data, device)
    selected = lookup(method.select, SELECTIONS, "a method's select")(data, pool, judge, cell.config)
    return selected.source, apportion(selected.shares_C, int(counts_C.sum()))


def _fit(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> Trained:
    """Train under one composition."""
    mixture = _mixture(comparison, folder, cell, data, device)
    started = time.perf_counter()
    best, results = _fitted(folder, mixture, cell.config, data, device)
    seconds = time.perf_counter() - started
    save_incumbent(folder, best, data, cell.config)
    return Trained(curve=_curve(results), best_epoch=best.epoch, passes=_images(results), seconds=seconds)


def _best_of_k(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> Trained:
    """Train K classifiers, the first as the plain row is, and keep the one that is best on validation."""
    mixture = _mixture(comparison, folder, cell, data, device)
    fits, started = [], time.perf_counter()
    for j in range(cell.config.sampler.k):
        seed = cell.seed if j == 0 else seed_for(cell.seed, "best_of_k", j)
        config = cell.config.model_copy(update={"seed": seed})
        fits.append((config, *_fitted(folder, mixture, config, data, device)))
    seconds, metric = time.perf_counter() - started, cell.config.sampler.metric
    config, best, results = max(fits, key=lambda fit: selection_key(fit[2][fit[1].epoch - 1], metric))
    save_incumbent(folder, best, data, config)
    passes = sum(_images(results) for _, _, results in fits)
    return Trained(curve=_curve(results), best_epoch=best.epoch, passes=passes, seconds=seconds)


def _fitted(
    folder: Path,
    mixture: tuple[SyntheticSource, Int64],
    config: RunConfig,
    data: TrainingData,
    device: torch.device,
) -> tuple[Incumbent, list[EpochResult]]:
    source, counts_C = mixture
    trainer = ClassifierTrainer(data, config, pool=source, device=device)
    with (folder / PROGRESS_FILE).open("a", encoding="utf-8", buffering=1) as lines:
        return fit(
            trainer,
            counts_C,
            config.sampler.epochs,
            lambda result: print(json.dumps(jsonable(dict(result.metrics))), file=lines),
        )


def passes_told(comparison: Path, cell: PlannedCell) -> int:
    """Return the passes that a cell under way has done, as far as its folder tells."""
    path = comparison / cell.name / (EPOCHS_FILE if method_of(cell).engine == "episodes" else PROGRESS_FILE)
    fits = cell.config.sampler.k if method_of(cell).engine == "best_of_k" else 1
    num_epochs = path.read_bytes().count(b"\n") if path.exists() else 0
    return (
        cell.passes * min(num_epochs, fits * cell.config.sampler.epochs) // (fits * cell.config.sampler.epochs)
    )


def _images(results: Sequence[EpochResult]) -> int:
    return sum(result.num_images for result in results)


def _curve(results: Sequence[EpochResult]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "images": _images(results[:epoch]),
            "train_loss": result.train_loss,
            "val_loss": result.val_loss,
            **result.metrics,
        }
        for epoch, result in enumerate(results, start=1)
    ]


def _episodes(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> Trained:
    """Train the sampler itself, its K episodes one after another in this process."""
    from cluster.runs import training  # RLlib takes seconds to import, and the other engines do not need it

    run = RunFolder(folder)
    training.train(RunContext(run, cell.config, data, device), _pool(comparison, folder, cell, data))
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return told_by_epochs(epoch_log.read_epochs(folder))


def told_by_epochs(lines: Sequence[Mapping[str, Any]]) -> Trained:
    """Return what the lines of epochs.jsonl tell: the curve is the winners'."""
    curve: list[dict[str, Any]] = []
    for line in lines:
        winner = line["winner"]
        seen = curve[-1]["images"] if curve else 0
        curve.append(
            {
                "epoch": line["epoch"],
                "images": seen + line["images"][winner],
                "train_loss": line["train_losses"][winner],
                "val_loss": line["val_losses"][winner],
                **line["metrics"][winner],
            }
        )
    passes = sum(sum(line["images"]) for line in lines)
    seconds = sum(line["seconds"] for line in lines)
    return Trained(curve=curve, best_epoch=lines[-1]["best_epoch"], passes=passes, seconds=seconds)


ENGINES: dict[str, Callable[[Path, Path, PlannedCell, TrainingData, torch.device], Trained]] = {
    "fit": _fit,
    "episodes": _episodes,
    "best_of_k": _best_of_k,
}
