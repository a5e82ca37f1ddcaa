"""One cell of a comparison in a process of its own: training by the row's engine, then the test images, once."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import ray
import torch

from cluster.comparison.cell_plan import PlannedCell
from cluster.comparison.engines import ENGINES, TrainedCell, remove_progress
from cluster.comparison.plan import REAL
from cluster.runtime.gpus import use_assigned_gpus
from cluster.runtime.node_folder import check_reached
from rlcas import settings
from rlcas.batches.composition import batch_starts
from rlcas.comparison.cell import Cell, read_cell, write_cell, write_facts
from rlcas.data.prepared import open_prepared
from rlcas.devices import choose_device, torch_threads
from rlcas.errors import UserError, first_line
from rlcas.evaluation.evaluate import examine
from rlcas.runs.context import RunContext
from rlcas.runs.folder import ERROR_FILE, POOLS_FOLDER, RunFolder
from rlcas.runs.images import link_once, share_images, test_images
from rlcas.runs.replay import keep_recorded
from rlcas.storage.atomic import write_text


def train_cell(comparison: Path, cell: PlannedCell) -> Cell:
    """Train a cell into its folder, unless it is finished, and return its result.

    An exception fails this cell alone; its traceback is written into the cell's folder.

    Args:
        comparison: the comparison's folder, with its images and pools.
        cell: the cell.

    Raises:
        UserError: this node does not reach the comparison's folder, so that nothing can be written into it.
    """
    # Outside of the try: without the folder there is no place for the failure that `fail` would write.
    check_reached(comparison, settings.COMPARE_CONFIG_FILE)
    folder = comparison / cell.name
    done = read_cell(folder)
    # Ray may run the task again after its worker died, and a resume starts it once more.
    if done is not None and done.status == "finished":
        return done
    try:
        return _train_and_test(comparison, folder, cell)
    # Written here, where the traceback is the cell's own; Ray would wrap it in one of its own.
    except Exception as error:
        return fail(comparison, cell, first_line(error), traceback.format_exc())


def fail(comparison: Path, cell: PlannedCell, reason: str, traceback_text: str) -> Cell:
    """Write cell.json of a cell that failed, and its traceback into the same folder; return the cell.

    Args:
        comparison: the comparison's folder.
        cell: the cell.
        reason: why it failed, in one line.
        traceback_text: the whole traceback.
    """
    failed = replace(_blank(comparison, cell), status="failed", reason=reason)
    # Before cell.json, so that a cell which counts as failed has its traceback.
    write_text(comparison / cell.name / ERROR_FILE, traceback_text)
    write_facts(comparison / cell.name, failed)
    return failed


def leave_out(comparison: Path, cell: PlannedCell) -> None:
    """Write cell.json of a cell that is left out, with the reason."""
    left_out = replace(_blank(comparison, cell), status="left_out", reason=cell.missing)
    write_facts(comparison / cell.name, left_out)


def _blank(comparison: Path, cell: PlannedCell) -> Cell:
    """Return the cell before its training: what its plan says."""
    return Cell(
        dataset=open_prepared(RunFolder(comparison).prepared).name,
        method=cell.method,
        seed=cell.seed,
        equal_compute=cell.equal_compute,
        settings=dict(cell.own),
        pool=cell.pool,
        tried=cell.tried,
    )


def _train_and_test(comparison: Path, folder: Path, cell: PlannedCell) -> Cell:
    # Ray 2.60 hides no GPU from a task that reserved none, so the choice of the device would see them all.
    if ray.is_initialized():
        use_assigned_gpus()
    if cell.replays is not None:
        cell = _of_recorded(comparison, cell, cell.replays)
    _open(comparison, folder, cell)
    config = cell.config
    data, device = open_prepared(RunFolder(folder).prepared), choose_device(config.device)
    context = RunContext(RunFolder(folder), config, data, device)
    threads = config.cluster.threads_per_episode
    assert threads is not None, "a plan's settings are concrete"
    # The number of threads is part of the bits of a cell.
    with torch_threads(threads):
        trained = ENGINES[cell.engine](comparison, cell, context)
    # Its lines would count as the progress of a cell that still trains.
    remove_progress(folder)
    ended = _trained_cell(comparison, cell, trained, len(data.train), device)
    # Settings are chosen by validation alone: a trial never reads a test image.
    if cell.trial is not None:
        write_facts(folder, ended)
        return ended
    # The only place where a comparison reads test images: the best epoch is chosen and saved by now.
    test, _ = test_images(RunFolder(folder), config)
    figures, p_NC, uncorrected_NC, offset = examine(folder, test, config.shots, device)
    ended = replace(ended, test=figures, offset=offset or ())
    write_cell(folder, ended, p_NC, test.labels_N, uncorrected_NC)
    return ended


def _trained_cell(
    comparison: Path, cell: PlannedCell, trained: TrainedCell, num_train: int, device: torch.device
) -> Cell:
    """Return the cell after its training, before the test images are read."""
    epochs = cell.config.sampler.epochs
    # Epochs count from 1.
    best = trained.curve[trained.best_epoch - 1]
    return replace(
        _blank(comparison, cell),
        epochs=epochs,
        steps=epochs * len(batch_starts(num_train, cell.config.classifier.batch_size)),
        images=trained.curve[-1]["images"],
        passes=trained.passes * cell.passes_per_image,
        seconds=trained.seconds,
        device=_device_name(device),
        curve=tuple(trained.curve),
        best_epoch=trained.best_epoch,
        validation={
            name: value for name, value in best.items() if name not in ("epoch", "images", "train_loss")
        },
    )


def _of_recorded(comparison: Path, cell: PlannedCell, replayed: str) -> PlannedCell:
    """Return a cell that replays another, whose compositions are its policy.

    Raises:
        UserError: the other one has no whole record, as it did not finish.
    """
    done = read_cell(comparison / replayed)
    if done is None or done.status != "finished":
        why = f"which failed: {done.reason}" if done and done.reason else "which is not trained"
        raise UserError(f"it replays {replayed}, {why}: correct its cause, then resume the comparison")
    sampler = cell.config.sampler.model_copy(update={"replay": comparison / replayed})
    return replace(cell, config=cell.config.model_copy(update={"sampler": sampler}))


def _open(comparison: Path, folder: Path, cell: PlannedCell) -> None:
    """Make the cell's folder a run's: its settings, and links to the images and the pool that it shares."""
    folder.mkdir(parents=True, exist_ok=True)
    settings.save(cell.config, folder)
    # Of an earlier attempt, as is the log of epochs: the plain loop has no checkpoints and starts again.
    (folder / ERROR_FILE).unlink(missing_ok=True)
    remove_progress(folder)
    share_images(RunFolder(comparison), RunFolder(folder))
    # A cell that was interrupted goes on with the record that it began with.
    if (replayed := cell.config.sampler.replay) and not RunFolder(folder).checkpoints.exists():
        keep_recorded(replayed, RunFolder(folder).replay)
    if cell.pool not in (None, REAL):
        link_once(RunFolder(comparison / POOLS_FOLDER / str(cell.pool)).pool, RunFolder(folder).pool)
        # One judge for all, which the pool's stage has trained.
        link_once(RunFolder(comparison).judge, RunFolder(folder).judge)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
