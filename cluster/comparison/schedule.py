"""The cells of a comparison as Ray tasks: side by side, the longest first, each reported as it ends."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError, WorkerCrashedError

from cluster.comparison.cell import fail, train_cell
from cluster.comparison.cell_plan import PlannedCell
from cluster.comparison.engines import passes_done
from cluster.runtime.connection import ensure_ray, own_ray_ends, quiet_ray
from cluster.runtime.node_folder import for_ray
from cluster.runtime.resources import gpus_per_episode
from rlcas.comparison.cell import Cell
from rlcas.config import CompareRunConfig
from rlcas.console import Progress, format_figure, format_seconds, phase, progress, say
from rlcas.errors import ANSI_COLOUR, first_line, last_line

POLL_SECONDS = 1.0
"""How often the logs of the cells in training are read."""


@dataclass(frozen=True, slots=True)
class CellSlots:
    """How many cells are trained side by side, and what each reserves of Ray."""

    number: int
    resources: Mapping[str, float]
    retries: int
    """How often a cell is trained again after its worker died."""


@contextlib.contextmanager
def cell_slots(config: CompareRunConfig) -> Iterator[CellSlots]:
    """Connect to Ray, or start it, and yield the slots for cells; a Ray that was started here ends afterwards."""
    quiet_ray()
    with own_ray_ends():
        with phase("Starting Ray"):
            ensure_ray(config.compare.concurrent or 1, config.cluster.worker_niceness)
        total = ray.cluster_resources()
        number = side_by_side(config, total)
        resources = share_of(config, number, total)
        yield CellSlots(number, resources, config.cluster.episode_retries)


def side_by_side(config: CompareRunConfig, total: Mapping[str, float]) -> int:
    """Return how many cells run side by side: `compare.concurrent`, else one a GPU, else one for each core.

    Args:
        config: the comparison's settings.
        total: all CPUs and GPUs, as in `ray.cluster_resources()`.
    """
    threads = config.cluster.threads_per_episode or 1
    return config.compare.concurrent or _gpus(config, total) or max(1, int(total.get("CPU", 1.0)) // threads)


def share_of(config: CompareRunConfig, number: int, total: Mapping[str, float]) -> dict[str, float]:
    """Return what one of `number` cells reserves: its threads and a GPU, or an even share where these are too few."""
    cpus = min(float(config.cluster.threads_per_episode or 1), total.get("CPU", 1.0) / number)
    gpus = gpus_per_episode(None, number, _gpus(config, total))
    return {"num_cpus": cpus, "num_gpus": gpus}


def run_cells(comparison: Path, cells: Sequence[PlannedCell], slots: CellSlots) -> list[Cell]:
    """Train cells to their ends, the longest first; return them as they end."""
    # A long cell that started last would train alone at the end.
    waiting = deque(sorted(cells, key=lambda cell: -cell.passes))
    # Ray retries a task whose worker died, not one that raised: that would fail again.
    task = ray.remote(train_cell).options(**slots.resources, max_retries=slots.retries)
    training: dict[ray.ObjectRef, PlannedCell] = {}
    ended: list[Cell] = []
    with progress("Images of all cells", sum(cell.passes for cell in cells)) as bar:
        clock = Clock(bar, sum(cell.passes for cell in cells))
        while waiting or training:
            while waiting and len(training) < slots.number:
                cell = waiting.popleft()
                training[task.remote(for_ray(comparison), cell)] = cell
            # The timeout lets the bar advance between the ends of cells.
            done, _ = ray.wait(list(training), num_returns=1, timeout=POLL_SECONDS)
            for task_done in done:
                cell = training.pop(task_done)
                ended.append(_result(comparison, cell, task_done))
                clock.count_ended(cell.passes)
                line = f"{len(ended)} of {len(cells)}: {describe_end(ended[-1], cell)}"
            clock.count_running(sum(passes_done(comparison, cell) for cell in training.values()))
            if done:
                say(f"{line}  left {clock.left}")
    return ended


class Clock:
    """Counts passes over images, advances the bar, and estimates the time left from the speed so far."""

    def __init__(self, bar: Progress, total: int) -> None:
        self._bar, self._total, self._started = bar, total, time.monotonic()
        self._ended = self._done = 0

    def count_ended(self, passes: int) -> None:
        """Count the passes of a cell that has ended."""
        self._ended += passes

    def count_running(self, passes: int) -> None:
        """Count those of the cells in training; the bar does not go back where a cell starts again."""
        self._done = self._ended + passes
        if self._done > self._bar.done:
            self._bar.advance(self._done - self._bar.done)

    @property
    def left(self) -> str:
        """Return the time that is left."""
        seconds = time.monotonic() - self._started
        return format_seconds(seconds * (self._total - self._done) / self._done)


def describe_end(ended: Cell, cell: PlannedCell) -> str:
    """Return one line about a cell that has ended."""
    name = f"{ended.method} seed {ended.seed}{' at equal compute' if ended.equal_compute else ''}"
    if ended.status == "failed":
        return f"{name}  failed: {ended.reason}"
    metric = cell.config.sampler.metric
    found = f"validation {metric} {format_figure(ended.validation[metric])}"
    return f"{name}  {found}  {ended.epochs} epochs in {format_seconds(ended.seconds)}"


def _result(comparison: Path, cell: PlannedCell, task: ray.ObjectRef) -> Cell:
    """Return the result of a task; a cell whose worker died once too often fails."""
    try:
        return ray.get(task)
    # Before RayError, of which it is a kind.
    except WorkerCrashedError as error:
        return fail(comparison, cell, f"its worker died: {first_line(error)}", str(error))
    except RayError as error:
        text = ANSI_COLOUR.sub("", str(error))
        return fail(comparison, cell, f"its worker could not train it: {last_line(text)}", text)


def _gpus(config: CompareRunConfig, total: Mapping[str, float]) -> int:
    return 0 if config.device == "cpu" else int(total.get("GPU", 0.0))
