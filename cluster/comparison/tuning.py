"""`compare.tune`: the same small number of settings is tried for every row, and validation selects one.

The trials are in the rows' folders, so that an interrupted search resumes, and a finished one is only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.comparison.cell_plan import PlannedCell, cells_of_row
from cluster.comparison.plan import ComparisonPlan, PlannedRow, row_of
from rlcas.comparison.cell import Cell, read_cell
from rlcas.config.sampler import WITHOUT_GRADIENT
from rlcas.seeding import seed_for
from rlcas.settings.search_space import Choices, Point, Range, Space, draws, value_of
from rlcas.types import TrainingData

LR_FACTOR = 4.0
"""Learning rates are tried between the row's own divided by this and the row's own times this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search found for a row."""

    row: PlannedRow
    """With the settings that were best on validation."""
    settings: Mapping[str, Any]
    tried: tuple[Mapping[str, Any], ...]
    """As in `rlcas.comparison.cell.Cell`."""
    reason: str = ""
    """Why it found none, in one line; else empty."""


def tries_of(plan: ComparisonPlan, data: TrainingData) -> list[PlannedCell]:
    """Return a cell for each trial of each row, under the first seed and with the budget of its first cell.

    A row that replays another has no trials: it is trained with the settings of that row.
    """
    return [
        # That of the first seed, under the full budget unless the row is trained at equal compute alone.
        replace(cells_of_row(row_of(plan.config, row.name, point), data, point)[0], trial=number)
        for row in plan.rows
        if not row.missing and row.method.replays is None
        for number, point in enumerate(points_of(row), start=1)
    ]


def still_to_try(path: Path, tries: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Return the trials to train: those that have not ended, and failed ones of rows of which no trial has finished.

    Were others tried again, a row's best settings could change after cells were trained with them.
    """
    ended = {cell.name: done for cell in tries if (done := read_cell(path / cell.name))}
    settled = {done.method for done in ended.values() if done.status == "finished"}
    return [cell for cell in tries if cell.name not in ended or cell.method not in settled]


def points_of(row: PlannedRow) -> list[Point]:
    """Return the settings to try of a row: its own, then draws of what its method names and of the learning rate.

    The learning rates are the same factors of the row's own in all rows, so that no row is drawn luckier ones.
    """
    space, config = space_of(row), row.config
    number = config.compare.tune
    if not number:
        return []
    own = {key: value_of(config, key) for key in space}
    # The same seed for every row, so that all draw the same factors of their learning rates.
    return [own, *draws(space, number - 1, seed_for(config.seed, "tune"))]


def space_of(row: PlannedRow) -> Space:
    """Return the search space of a row. The learning rate is drawn first, so that its draws are the same in all rows.

    Agents without a gradient have no learning rate to search.
    """
    lr = row.config.classifier.lr
    lrs: Space = {"classifier.lr": Range(lr / LR_FACTOR, lr * LR_FACTOR, whole=False)}
    search = {key: Choices(tuple(values)) for key, values in row.method.search.items()}
    if row.config.sampler.agents in WITHOUT_GRADIENT:
        search.pop("sampler.lr", None)
    return lrs | search


def found(path: Path, plan: ComparisonPlan, tries: Sequence[PlannedCell]) -> list[Found]:
    """Return each row with the settings that were best for it; without a search, with its own."""
    of_row: dict[str, list[tuple[PlannedCell, Cell]]] = {}
    for cell in tries:
        if ended := read_cell(path / cell.name):
            of_row.setdefault(cell.method, []).append((cell, ended))
    best = {row.name: _best(plan, row, of_row.get(row.name, [])) for row in plan.rows}
    return [_as_replayed(plan, row, best) if row.method.replays else best[row.name] for row in plan.rows]


def _as_replayed(plan: ComparisonPlan, row: PlannedRow, best: Mapping[str, Found]) -> Found:
    """Return a row that replays another with what was found for that one, or as it is where nothing was."""
    replayed = best.get(row.method.replays or "")
    if replayed is None or not replayed.tried:
        return best[row.name]
    return replace(replayed, row=row_of(plan.config, row.name, replayed.settings))


def _best(plan: ComparisonPlan, row: PlannedRow, ended: Sequence[tuple[PlannedCell, Cell]]) -> Found:
    if not ended:
        return Found(row=row, settings={}, tried=())
    # A cell's own settings hold the method's fixed ones too, which were not tried.
    keys = space_of(row)
    points = [{key: cell.own[key] for key in keys} for cell, _ in ended]
    scores = [_score(row, cell) for _, cell in ended]
    tried = tuple({"settings": point, "metric": score[0]} for point, score in zip(points, scores, strict=True))
    good = [number for number, score in enumerate(scores) if score[0] is not None]
    if not good:
        reason = f"each of the {len(ended)} settings that compare.tune tried failed, the first so: {ended[0][1].reason}"
        return Found(row=row, settings={}, tried=tried, reason=reason)
    # max keeps the first of equals: the row's own settings, which were tried first.
    best = points[max(good, key=scores.__getitem__)]
    return Found(row=row_of(plan.config, row.name, best), settings=best, tried=tried)


def _score(row: PlannedRow, cell: Cell) -> tuple[Any, ...]:
    """Return what trials are ranked by, larger is better: the metric, then less validation loss; None if it failed."""
    if cell.status != "finished":
        return (None,)
    return cell.validation[row.config.sampler.metric], -cell.validation["val_loss"]


def tuned_cells(found: Found, data: TrainingData) -> list[PlannedCell]:
    """Return the cells of a row with the settings that the search found."""
    return [replace(cell, tried=found.tried) for cell in cells_of_row(found.row, data, found.settings)]
