"""The cells of a comparison: each row under each seed, with its epochs and what they cost, before any is trained."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.comparison.plan import ComparisonPlan, PlannedRow
from cluster.runs.checks import check_data_fits
from rlcas.batches.budget import epochs_within, expected_added
from rlcas.batches.composition import (
    batch_starts,
    first_composition,
    replaces_real,
    shows_synthetic,
    undivided_epoch,
)
from rlcas.batches.static_mixture import static_counts
from rlcas.comparison.folder import cell_folder
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.methods.method import Engine, PoolName
from rlcas.types import Int64, TrainingData

MOST_GUESSES = 10
"""Guesses of the number of epochs; of two that would lead to each other for ever, the lower one counts."""
EQUAL_CELLS: dict[bool | str, tuple[bool, ...]] = {False: (False,), True: (False, True), "only": (True,)}
"""`compare.equal_compute` -> whether each cell of a row that needs more passes is of equal compute."""
TRIED_FOLDER = "tried"
"""Below a row's folder: a cell for each setting that `compare.tune` tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A row under a seed, before its training."""

    method: str
    seed: int
    equal_compute: bool
    config: RunConfig
    """With the cell's seed, and its epochs as `sampler.epochs`."""
    engine: Engine
    """What trains it, and the pool, `select` and `passes_per_image`: as its method says, so that no name of a method
    is looked up again where the cell is trained."""
    pool: PoolName | None = None
    select: str | None = None
    passes_per_image: int = 1
    """Forward and backward passes of one classifier for each image that it sees; 1 where the engine counts them."""
    counts_C: tuple[int, ...]
    """Images added to each mini-batch: all through, or before the first action."""
    own: Mapping[str, Any]
    """Settings of the row's own."""
    passes: int
    """Passes over images that its training takes, about."""
    replays: str | None = None
    """Folder, below the comparison's, of the cell whose compositions it trains with."""
    missing: str = ""
    """Why it is left out, and the fix, in one line."""
    tried: tuple[Mapping[str, Any], ...] = ()
    """What was tried to find its settings, as in `rlcas.comparison.cell.Cell`."""
    trial: int | None = None
    """Its number, from 1, if it is a trial of settings, which reads no test image; else None."""

    @property
    def name(self) -> str:
        """Return its folder below the comparison's."""
        folder = cell_folder(Path(), self.method, self.seed, equal_compute=self.equal_compute)
        return str(folder if self.trial is None else folder.parent / TRIED_FOLDER / str(self.trial))


def cells_of(plan: ComparisonPlan, data: TrainingData) -> list[PlannedCell]:
    """Return the cells of all rows: under each seed that of the full budget, that of equal compute, or both.

    Raises:
        UserError: a row's settings do not fit the data.
    """
    return [cell for row in plan.rows for cell in cells_of_row(row, data)]


def cells_of_row(
    row: PlannedRow, data: TrainingData, tried: Mapping[str, Any] | None = None
) -> list[PlannedCell]:
    """Return the cells of one row; `tried` are settings that were searched for it.

    Raises:
        UserError: the row's settings do not fit the data.
    """
    compare = row.config.compare
    if undivided := undivided_epoch(row.config.sampler, _num_steps(row, data)):
        # Left out and not refused: K may suit all other rows.
        row = dataclasses.replace(row, missing=row.missing or undivided)
    else:
        try:
            check_data_fits(row.config, data)
        except UserError as error:
            raise UserError(f"row {row.name}: {error}") from None
    more_passes = row.method.passes(row.config) > 1
    own = {**row.method.settings, **(tried or {})}
    return [
        _cell(row, data, row.config.seed + number, equal, own)
        # The cell of the tables comes first under each seed: `tries_of` takes cell 0 as the trial of a setting.
        for number in range(compare.seeds)
        for equal in (EQUAL_CELLS[compare.equal_compute] if more_passes else (False,))
    ]


def _replayed(row: PlannedRow, seed: int, equal: bool) -> str | None:
    """Return the folder of the cell that a cell replays: that of the next seed, after the last the first."""
    if row.method.replays is None:
        return None
    # Under its own seed it would be the very run that it replays.
    first = row.config.seed
    other = first + (seed - first + 1) % row.config.compare.seeds
    return str(cell_folder(Path(), row.method.replays, other, equal_compute=equal))


def _cell(row: PlannedRow, data: TrainingData, seed: int, equal: bool, own: Mapping[str, Any]) -> PlannedCell:
    num_images, counts_C = len(data.train), _counts(row, data)
    passes = row.method.passes(row.config)
    # Whole epochs come nearest to the full budget, but at equal compute they must not exceed the Baseline's
    # passes.
    budget_images = row.config.compare.epochs * num_images / (passes if equal else 1)
    epochs = _epochs_within(budget_images, row, data, at_most=equal)
    run = row.config.run
    config = run.model_copy(
        update={
            "seed": seed,
            "out": None,
            "sampler": run.sampler.model_copy(update={"epochs": epochs}),
            # In process: a cell that waited for actors of its own could wait for what other cells hold. The
            # bits are the same.
            "cluster": run.cluster.model_copy(
                update={"episode_runner": "in_process", "gpus_per_episode": None}
            ),
        }
    )
    return PlannedCell(
        method=row.name,
        seed=seed,
        equal_compute=equal,
        config=config,
        engine=row.method.engine,
        pool=row.method.pool,
        select=row.method.select,
        # The other engines train K classifiers and count the images of each themselves.
        passes_per_image=row.method.passes(config) if row.method.engine == "fit" else 1,
        counts_C=tuple(counts_C.tolist()),
        own=own,
        passes=passes * round(epochs * num_images + sum(itertools.islice(_added(row, data, epochs), epochs))),
        replays=_replayed(row, seed, equal),
        missing=row.missing,
    )


def _counts(row: PlannedRow, data: TrainingData) -> Int64:
    """Return [C]: images of each class that are added to a mini-batch."""
    if row.method.engine == "episodes":
        return first_composition(row.config, data.train.class_counts(data.num_classes))
    if row.method.pool is None:
        return np.zeros(data.num_classes, np.int64)
    return static_counts(row.config, data.train.class_counts(data.num_classes))


def _num_steps(row: PlannedRow, data: TrainingData) -> int:
    return len(batch_starts(len(data.train), row.config.classifier.batch_size))


def _epochs_within(budget_images: float, row: PlannedRow, data: TrainingData, *, at_most: bool) -> int:
    """Return how many epochs a budget of images lasts, as `epochs_within`."""
    num_images = len(data.train)
    epochs = max(1, round(budget_images / num_images))
    # Again and again, since in how many epochs images are added may depend on how many epochs there are.
    for _ in range(MOST_GUESSES):
        added = _added(row, data, epochs)
        found = epochs_within(budget_images, num_images, added, at_most=at_most)
        if found == epochs:
            return epochs
        fewer, epochs = min(epochs, found), found
    return fewer


def _added(row: PlannedRow, data: TrainingData, epochs: int) -> Iterator[float]:
    """Yield the images added in epochs 1, 2, … of `epochs`; of compositions that move, those expected."""
    sampler = row.config.sampler.model_copy(update={"epochs": epochs})
    num_steps = _num_steps(row, data)
    if replaces_real(row.config, data.num_classes):
        # Added images replace real ones, so an epoch has the same number whatever the composition.
        return itertools.repeat(0.0)
    counts_C = _counts(row, data)
    if row.method.engine == "episodes":
        started = sampler.model_copy(update={"initial_count": tuple(counts_C.tolist())})
        return (num_steps * added for added in expected_added(started, data.num_classes))
    of_epoch = float(num_steps * counts_C.sum())
    return (of_epoch if shows_synthetic(sampler, epoch) else 0.0 for epoch in itertools.count(1))
