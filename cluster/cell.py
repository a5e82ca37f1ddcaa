"""One cell of a comparison in a process of its own: training by the row's engine, then the test images, once."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.compare_plan import REAL, PlannedCell
from cluster.judging import kept, real_classifier
from cluster.phase_one import open_pool
from rlcas import data as datasets
from rlcas import records, settings
from rlcas.comparison.cell import Cell, read_cell, write_cell, write_facts
from rlcas.comparison.folder import POOLS_FOLDER
from rlcas.composition import batch_starts
from rlcas.config import RunConfig
from rlcas.data.prepared import open_prepared
from rlcas.devices import choose_device, torch_threads
from rlcas.errors import first_line
from rlcas.evaluate import examine, save_incumbent
from rlcas.files import write_text
from rlcas.fit import fit, selection_key
from rlcas.methods import METHODS
from rlcas.methods.method import Method
from rlcas.mixture import apportion
from rlcas.registry import lookup
from rlcas.rundir import RunFolder
from rlcas.seeding import seed_for
from rlcas.selection import SELECTIONS
from rlcas.sources import RealImages
from rlcas.trainer import ClassifierTrainer
from rlcas.types import EpochResult, ImageSet, Incumbent, Int64, SyntheticSource, TrainingData
from synth.pool import SyntheticPool

ERROR_FILE = "error.txt"
"""Below a failed cell's folder: its traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What an engine left: the classifier is in the cell's folder."""

    curve: Sequence[Mapping[str, Any]]
    """As in `rlcas.comparison.cell.Cell`."""
    best_epoch: int
    passes: int
    """Passes over images, if one image asks one."""


def train_cell(comparison: Path, cell: PlannedCell) -> Cell:
    """Train a cell into its folder, unless it is finished, and return what came of it.

    What goes wrong is the cell's own: it fails, with its traceback beside it.

    Args:
        comparison: the comparison's folder, with its images and pools.
        cell: the cell.
    """
    folder = comparison / cell.name
    done = read_cell(folder)
    if done is not None and done.status == "finished":
        return done
    try:
        return _finished(comparison, folder, cell)
    except Exception as error:
        return fail(comparison, cell, first_line(error), traceback.format_exc())


def fail(comparison: Path, cell: PlannedCell, reason: str, traceback_text: str) -> Cell:
    """Write down that a cell failed and return it; the traceback goes beside it."""
    failed = replace(_blank(comparison, cell), status="failed", reason=reason)
    write_text(comparison / cell.name / ERROR_FILE, traceback_text)
    write_facts(comparison / cell.name, failed)
    return failed


def leave_out(comparison: Path, cell: PlannedCell) -> None:
    """Write down that a cell is left out, and why."""
    left_out = replace(_blank(comparison, cell), status="left_out", reason=cell.missing)
    write_facts(comparison / cell.name, left_out)


def _blank(comparison: Path, cell: PlannedCell) -> Cell:
    """Return a cell of which nothing is known but its plan."""
    return Cell(
        dataset=open_prepared(RunFolder(comparison).prepared).name,
        method=cell.method,
        seed=cell.seed,
        equal_compute=cell.equal_compute,
        settings=dict(cell.own),
        pool=_method(cell).pool,
        tried=cell.tried,
    )


def _finished(comparison: Path, folder: Path, cell: PlannedCell) -> Cell:
    _see_own_gpus()
    _open(comparison, folder, cell)
    method, config = _method(cell), cell.config
    data, device = open_prepared(RunFolder(folder).prepared), choose_device(config.device)
    threads = config.cluster.threads_per_episode
    assert threads is not None, "a plan's settings are concrete"
    started = time.perf_counter()
    with torch_threads(threads):
        trained = ENGINES[method.engine](comparison, folder, cell, data, device)
    seconds = time.perf_counter() - started
    ended = _told(comparison, cell, trained, seconds, len(data.train), device)
    if cell.trial is not None:
        write_facts(folder, ended)
        return ended
    test = _test_images(comparison)
    figures, p_NC = examine(folder, test, config.shots, device)
    write_cell(folder, ended := replace(ended, test=figures), p_NC, test.labels_N)
    return ended


def _told(
    comparison: Path, cell: PlannedCell, trained: Trained, seconds: float, num_train: int, device: torch.device
) -> Cell:
    """Return the cell before the test."""
    epochs, method = cell.config.sampler.epochs, _method(cell)
    best = trained.curve[trained.best_epoch - 1]
    return replace(
        _blank(comparison, cell),
        epochs=epochs,
        steps=epochs * len(batch_starts(num_train, cell.config.classifier.batch_size)),
        images=trained.curve[-1]["images"],
        passes=trained.passes * (method.passes(cell.config) if method.engine == "fit" else 1),
        seconds=seconds,
        device=_described(device),
        curve=tuple(trained.curve),
        best_epoch=trained.best_epoch,
        validation={
            name: value for name, value in best.items() if name not in ("epoch", "images", "train_loss")
        },
    )


def _test_images(comparison: Path) -> ImageSet:
    """Return the test images, which are of the comparison's seed whatever the cell's is."""
    shared = settings.of_comparison(settings.read_yaml(comparison / settings.COMPARE_CONFIG_FILE))
    return datasets.load_test(shared)[0]


def _open(comparison: Path, folder: Path, cell: PlannedCell) -> None:
    """Make the cell's folder a run's: its settings, and links to the images and the pool that it shares."""
    folder.mkdir(parents=True, exist_ok=True)
    settings.save(cell.config, folder)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    _link(RunFolder(comparison).prepared, RunFolder(folder).prepared)
    if (pool := _method(cell).pool) not in (None, REAL):
        _link(RunFolder(comparison / POOLS_FOLDER / str(pool)).pool, RunFolder(folder).pool)


def _link(there: Path, here: Path) -> None:
    if not here.is_symlink():
        here.symlink_to(os.path.relpath(there, here.parent))


def _method(cell: PlannedCell) -> Method:
    return lookup(cell.method, METHODS, "compare.methods")


def _see_own_gpus() -> None:
    """Let torch find the GPUs that Ray gave to this task alone; a task without one would see them all."""
    import ray

    if ray.is_initialized():
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))


def _described(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _pool(comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData) -> SyntheticPool:
    """Return the pool that the cell's row shares, without its marked copies."""
    there = RunFolder(comparison / POOLS_FOLDER / str(_method(cell).pool))
    stored = open_pool(there, settings.load(there.path), data)
    return kept(RunFolder(folder), cell.config, stored.folder)


def _mixture(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> tuple[SyntheticSource, Int64]:
    """Return where a row of the plain loop takes its added images from, and [C] how many a batch gets of each class."""
    method, counts_C = _method(cell), np.array(cell.counts_C, np.int64)
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
    best, results = _fitted(mixture, cell.config, data, device)
    save_incumbent(folder, best, data, cell.config)
    return Trained(curve=_curve(results), best_epoch=best.epoch, passes=_images(results))


def _best_of_k(
    comparison: Path, folder: Path, cell: PlannedCell, data: TrainingData, device: torch.device
) -> Trained:
    """Train K classifiers, the first as the plain row is, and keep the one that is best on validation."""
    mixture = _mixture(comparison, folder, cell, data, device)
    fits = []
    for j in range(cell.config.sampler.k):
        seed = cell.seed if j == 0 else seed_for(cell.seed, "best_of_k", j)
        config = cell.config.model_copy(update={"seed": seed})
        fits.append((config, *_fitted(mixture, config, data, device)))
    metric = cell.config.sampler.metric
    config, best, results = max(fits, key=lambda fit: selection_key(fit[2][fit[1].epoch - 1], metric))
    save_incumbent(folder, best, data, config)
    passes = sum(_images(results) for _, _, results in fits)
    return Trained(curve=_curve(results), best_epoch=best.epoch, passes=passes)


def _fitted(
    mixture: tuple[SyntheticSource, Int64], config: RunConfig, data: TrainingData, device: torch.device
) -> tuple[Incumbent, list[EpochResult]]:
    source, counts_C = mixture
    trainer = ClassifierTrainer(data, config, pool=source, device=device)
    return fit(trainer, counts_C, config.sampler.epochs)


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
    from cluster import phase_two  # RLlib takes seconds to import, and the other engines do not need it

    run = RunFolder(folder)
    phase_two.train(run, cell.config, data, _pool(comparison, folder, cell, data))
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return told_by_epochs(records.read_epochs(folder))


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
    return Trained(curve=curve, best_epoch=lines[-1]["best_epoch"], passes=passes)


ENGINES: dict[str, Callable[[Path, Path, PlannedCell, TrainingData, torch.device], Trained]] = {
    "fit": _fit,
    "episodes": _episodes,
    "best_of_k": _best_of_k,
}
