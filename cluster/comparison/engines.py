"""The engines that train a cell: one classifier under one composition, the best of K, or the sampler's episodes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.comparison.cell_plan import PlannedCell
from cluster.comparison.plan import REAL
from cluster.pools.judge import real_classifier
from cluster.pools.stored import open_pool, run_pool
from rlcas import settings
from rlcas.batches.sources import RealImages
from rlcas.batches.static_mixture import apportion
from rlcas.jsonable import jsonable
from rlcas.registry import lookup
from rlcas.runs import epoch_log
from rlcas.runs.context import RunContext
from rlcas.runs.epoch_log import EPOCHS_FILE
from rlcas.runs.folder import POOLS_FOLDER, RunFolder
from rlcas.seeding import seed_for
from rlcas.training.fit import fit, selection_key
from rlcas.training.pool_selection import SELECTIONS
from rlcas.training.saved_classifier import save_incumbent
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpochResult, Incumbent, Int64, SyntheticSource
from synth.pool import SyntheticPool

PROGRESS_FILE = "progress.jsonl"
"""Below the folder of a cell in the plain loop, until it has ended: each epoch's metrics on validation."""
FORMER_PROGRESS_FILE = "told.jsonl"
"""Its former name: a cell that was interrupted then still has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedCell:
    """The training of a cell, whose classifier is in the cell's folder."""

    curve: Sequence[Mapping[str, Any]]
    """As in `rlcas.comparison.cell.Cell`."""
    best_epoch: int
    passes: int
    """Passes over images, with one pass for each image."""
    seconds: float
    """Of all epochs, also of those before an interruption."""


def _pool(comparison: Path, cell: PlannedCell, context: RunContext) -> SyntheticPool:
    """Return the pool that the cell's row shares, without its marked copies."""
    shared = RunFolder(comparison / POOLS_FOLDER / str(cell.pool))
    stored = open_pool(shared, settings.load(shared.path), context.data)
    # The marks of copies lie in the pool's folder of the comparison, to which the cell's `pool` is a link.
    return run_pool(context.folder, context.config, stored.folder)


def _mixture(comparison: Path, cell: PlannedCell, context: RunContext) -> tuple[SyntheticSource, Int64]:
    """Return the source of the images that a row of the plain loop adds, and [C] how many of each a batch gets."""
    counts_C, data = np.array(cell.counts_C, np.int64), context.data
    if cell.pool in (None, REAL):
        return RealImages(data.train), counts_C
    pool = _pool(comparison, cell, context)
    if cell.select is None:
        return pool, counts_C
    shared = RunFolder(comparison / POOLS_FOLDER / str(cell.pool))
    judge = real_classifier(RunContext(shared, settings.load(shared.path), data, context.device))
    selected = lookup(cell.select, SELECTIONS, "a method's select")(data, pool, judge, context.config)
    # The batch gets as many images as in the other rows; the selection only shares them out anew.
    return selected.source, apportion(selected.shares_C, int(counts_C.sum()))


def _fit(comparison: Path, cell: PlannedCell, context: RunContext) -> TrainedCell:
    """Train one classifier under one composition."""
    mixture = _mixture(comparison, cell, context)
    started = time.perf_counter()
    best, results = _fitted(context, mixture)
    seconds = time.perf_counter() - started
    save_incumbent(context.folder.path, best, context.data, context.config, context.device)
    return TrainedCell(curve=_curve(results), best_epoch=best.epoch, passes=_images(results), seconds=seconds)


def _best_of_k(comparison: Path, cell: PlannedCell, context: RunContext) -> TrainedCell:
    """Train K classifiers, the first with the cell's own seed, and keep the one that is best on validation."""
    mixture = _mixture(comparison, cell, context)
    fits, started = [], time.perf_counter()
    for j in range(cell.config.sampler.k):
        # The first is the row's plain classifier to the bit; the others have a random stream of their own each.
        seed = cell.seed if j == 0 else seed_for(cell.seed, "best_of_k", j)
        config = cell.config.model_copy(update={"seed": seed})
        fits.append((config, *_fitted(dataclasses.replace(context, config=config), mixture)))
    seconds, metric = time.perf_counter() - started, cell.config.sampler.metric
    # max keeps the first of equals: ties go to the lower index.
    config, best, results = max(fits, key=lambda fit: selection_key(fit[2][fit[1].epoch - 1], metric))
    save_incumbent(context.folder.path, best, context.data, config, context.device)
    passes = sum(_images(results) for _, _, results in fits)
    return TrainedCell(curve=_curve(results), best_epoch=best.epoch, passes=passes, seconds=seconds)


def _fitted(context: RunContext, mixture: tuple[SyntheticSource, Int64]) -> tuple[Incumbent, list[EpochResult]]:
    source, counts_C = mixture
    config = context.config
    trainer = ClassifierTrainer(context.data, config, pool=source, device=context.device)
    # A line is flushed at its end, as the driver counts them while the cell trains; appended, as the K
    # classifiers of a cell write one after another.
    with (context.folder.path / PROGRESS_FILE).open("a", encoding="utf-8", buffering=1) as lines:
        return fit(
            trainer,
            counts_C,
            config.sampler.epochs,
            lambda result: print(json.dumps(jsonable(dict(result.metrics))), file=lines),
        )


def passes_done(comparison: Path, cell: PlannedCell) -> int:
    """Return the passes that a cell in training has done, by the epochs that are logged in its folder."""
    names = (EPOCHS_FILE,) if cell.engine == "episodes" else (PROGRESS_FILE, FORMER_PROGRESS_FILE)
    logs = [path for name in names if (path := comparison / cell.name / name).exists()]
    # A line without its end is still being written.
    num_epochs = logs[0].read_bytes().count(b"\n") if logs else 0
    fits = cell.config.sampler.k if cell.engine == "best_of_k" else 1
    all_epochs = fits * cell.config.sampler.epochs
    return cell.passes * min(num_epochs, all_epochs) // all_epochs


def remove_progress(folder: Path) -> None:
    """Remove the log of a cell's epochs in the plain loop."""
    for name in (PROGRESS_FILE, FORMER_PROGRESS_FILE):
        (folder / name).unlink(missing_ok=True)


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


def _episodes(comparison: Path, cell: PlannedCell, context: RunContext) -> TrainedCell:
    """Train the sampler itself, its K episodes one after another in this process."""
    from cluster.runs import training  # RLlib takes seconds to import, and the other engines do not need it

    pool = _pool(comparison, cell, context)
    training.train(context, pool)
    # model.safetensors is written, and the cell's result needs nothing else of the two checkpoints.
    shutil.rmtree(context.folder.checkpoints, ignore_errors=True)
    return trained_from(epoch_log.read_epochs(context.folder.path))


def trained_from(lines: Sequence[Mapping[str, Any]]) -> TrainedCell:
    """Return the training that the lines of epochs.jsonl record: the curve is the incumbents'."""
    curve: list[dict[str, Any]] = []
    for line in lines:
        incumbent = epoch_log.incumbent_of(line)
        curve.append(
            {
                "epoch": line["epoch"],
                "images": incumbent["images"] + (curve[-1]["images"] if curve else 0),
                "train_loss": incumbent["train_loss"],
                "val_loss": incumbent["val_loss"],
                **incumbent["metrics"],
            }
        )
    passes = sum(sum(line["images"]) for line in lines)
    seconds = sum(line["seconds"] for line in lines)
    return TrainedCell(curve=curve, best_epoch=lines[-1]["best_epoch"], passes=passes, seconds=seconds)


ENGINES: dict[str, Callable[[Path, PlannedCell, RunContext], TrainedCell]] = {
    "fit": _fit,
    "episodes": _episodes,
    "best_of_k": _best_of_k,
}
