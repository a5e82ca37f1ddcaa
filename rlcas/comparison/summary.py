"""The statistics of a comparison's cells, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlcas.comparison.cell import Cell
from rlcas.comparison.contrasts import Contrast, contrasts
from rlcas.comparison.folder import Comparison, TableRow
from rlcas.comparison.intervals import (
    BOUNDS,
    WITH_DRAWS,
    Interval,
    drawn_figures,
    image_draws,
    interval,
    mean_and_std,
    paired_interval,
    ranks,
)
from rlcas.metrics import SMALLER_IS_BETTER
from rlcas.types import Float64

BASELINE = "baseline"
OURS = "rlcas"
RANKED = "f1"
NAN = float("nan")
COST = ("epochs", "steps", "images", "passes", "seconds")

RowStatus = Literal["finished", "failed", "left_out", "waiting"]
Drawn = Mapping[str, Mapping[int, Float64]]
"""Figure -> seed -> [B + 1] draws, of one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure over a row's seeds."""

    mean: float
    std: float
    """Of the seeds (n - 1); NaN of one seed."""
    low: float = float("nan")
    high: float = float("nan")
    """95 % interval over test images and seeds, within [0, 1], but for log-loss, which has no upper bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A row of the tables."""

    method: str
    title: str
    source: str
    control: bool
    status: RowStatus
    """finished where a seed is; waiting where nothing has been tried yet."""
    reason: str
    """Why it is left out or failed, or a seed of it did."""
    seeds: tuple[int, ...]
    """Those with figures."""
    figures: Mapping[str, Figure]
    """Every name of `WITH_DRAWS`; empty where no seed is finished."""
    per_class_recall: tuple[float, ...]
    """[C], mean over the seeds; NaN for a class without test images."""
    against_baseline: Mapping[str, Interval]
    """This row minus the Baseline, every figure of `WITH_DRAWS`."""
    against_ours: Mapping[str, Interval]
    """This row minus rlcas."""
    same_as_ours: tuple[int, ...]
    """Seeds under which it is the very classifier of rlcas: all test probabilities are equal."""
    equal_compute: Mapping[str, Figure]
    """Figures of its equal-compute cells; empty where it has none."""
    equal_against_baseline: Interval | None
    """F1 of its equal-compute cells minus the Baseline's."""
    equal_passes_over_baseline: float
    """NaN where it has none."""
    needs_equal: bool
    """Whether equal-compute cells are asked for."""
    only_equal: bool
    """Whether its figures are those of equal compute, because it is trained so alone."""
    equal_seeds: tuple[int, ...]
    """Those that have one."""
    equal_reason: str
    """Why one failed."""
    ranks: Mapping[int, float]
    """Seed -> rank by F1 among the rows that have the seed."""
    rank: float
    """Their mean; NaN where it has none."""
    cost: Mapping[str, float]
    """Mean over the seeds of epochs, steps, images, passes, seconds."""
    passes_over_baseline: float
    images_over_budget: float
    """Images seen over those of the budget: whole epochs, and compositions that move, miss it by a little."""
    device: str
    pool: str | None
    pool_figures: Mapping[str, Any]
    """fid, kid, intervals and more of its pool; empty where it has none or it was not scored."""
    pool_seconds: float | None
    """Of making its pool; None where it has none, or it was made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A comparison with its statistics."""

    comparison: Comparison
    rows: tuple[Summary, ...]
    best: Mapping[str, str]
    """Figure -> the row of the best mean, where the interval of its difference to the next best leaves out 0."""
    contrasts: Mapping[Contrast, Mapping[str, Interval]]
    """Pairs of rows that differ in one part of RL-CAS -> figure -> their difference."""
    f1_draws: Mapping[str, Mapping[int, Float64]]
    """Row -> seed -> [B + 1] draws of macro F1."""

    def row(self, method: str) -> Summary | None:
        """Return the row of a method, if it has figures."""
        return next((row for row in self.rows if row.method == method and row.figures), None)


def summarise(comparison: Comparison) -> Results:
    """Return the statistics of a comparison's cells; takes seconds, not minutes."""
    drawn = _draw(comparison)
    of_f1 = {
        row.name: {seed: cell.test[RANKED] for seed, cell in _finished(row.cells).items()}
        for row in comparison.rows
    }
    ranks_of = ranks(of_f1)
    passes_of = {row.name: _cost(row.cells)["passes"] for row in comparison.rows}
    rows = tuple(
        _summary(row, comparison, drawn, ranks_of[row.name], passes_of.get(BASELINE, NAN))
        for row in comparison.rows
    )
    under_budget = {name: of for (name, equal), of in drawn.items() if not equal}
    best = {
        name: _distinctly_best({row: of[name] for row, of in under_budget.items()}, name) for name in WITH_DRAWS
    }
    f1_draws = {name: of[RANKED] for name, of in under_budget.items()}
    return Results(
        comparison=comparison,
        rows=rows,
        best={name: row for name, row in best.items() if row},
        contrasts=contrasts(under_budget),
        f1_draws=f1_draws,
    )


def _draw(comparison: Comparison) -> Mapping[tuple[str, bool], Drawn]:
    """Return the draws of every row that has figures, and of its equal-compute cells, all from the same images."""
    weights_BN = image_draws(comparison.labels_N)
    found: dict[tuple[str, bool], dict[str, dict[int, Float64]]] = {}
    for key, probabilities_NC in comparison.probabilities.items():
        method, seed, equal = key
        figures = drawn_figures(
            probabilities_NC,
            comparison.labels_N,
            weights_BN,
            comparison.groups,
            comparison.uncorrected.get(key),
        )
        row = found.setdefault((method, equal), {name: {} for name in figures})
        for name, draws in figures.items():
            row[name][seed] = draws
    return found


def _summary(
    row: TableRow,
    comparison: Comparison,
    drawn: Mapping[tuple[str, bool], Drawn],
    of_seeds: Mapping[int, float],
    baseline_passes: float,
) -> Summary:
    cells = _finished(row.cells)
    status, reason = _status(row.cells)
    cost = _cost(row.cells)
    equal = drawn.get((row.name, True))
    pool = next((cell.pool for cell in cells.values() if cell.pool), row.method.pool)
    return Summary(
        method=row.name,
        title=row.method.title,
        source=row.method.source,
        control=row.method.control,
        status=status,
        reason=reason,
        seeds=tuple(cells),
        figures=_figures(cells, drawn.get((row.name, False))),
        per_class_recall=_per_class_recall(cells),
        against_baseline=_against(drawn, row.name, BASELINE),
        against_ours=_against(drawn, row.name, OURS),
        same_as_ours=tuple(_seeds_in_common(comparison, row.name, OURS)),
        equal_compute=_figures(_finished(row.equal), equal),
        equal_against_baseline=_difference(equal, drawn.get((BASELINE, False)), RANKED),
        equal_passes_over_baseline=_cost(row.equal)["passes"] / baseline_passes,
        needs_equal=row.needs_equal,
        only_equal=row.only_equal,
        equal_seeds=tuple(_finished(row.equal)),
        equal_reason=_status(row.equal)[1],
        ranks=of_seeds,
        rank=mean_and_std(of_seeds)[0],
        cost=cost,
        passes_over_baseline=cost["passes"] / baseline_passes,
        images_over_budget=cost["images"] / comparison.budget_images,
        device=", ".join(sorted({cell.device for cell in cells.values()})),
        pool=pool,
        pool_figures=comparison.pools.get(pool or "", {}),
        pool_seconds=comparison.pool_seconds.get(pool or ""),
    )


def _finished(cells: Mapping[int, Cell]) -> dict[int, Cell]:
    return {seed: cell for seed, cell in cells.items() if cell.status == "finished"}


def _status(cells: Mapping[int, Cell]) -> tuple[RowStatus, str]:
    """Return the status of a row, and the reason of the first cell that was left out or failed."""
    reason = next((cell.reason for cell in cells.values() if cell.reason), "")
    statuses = {cell.status for cell in cells.values()}
    known: tuple[RowStatus, ...] = ("finished", "failed", "left_out")
    return next((status for status in known if status in statuses), "waiting"), reason


def _figures(cells: Mapping[int, Cell], drawn: Drawn | None) -> dict[str, Figure]:
    if drawn is None:
        return {}
    found = {}
    for name in WITH_DRAWS:
        draws = drawn.get(name, {})
        values = {seed: draws[seed][0] for seed in cells if seed in draws}
        mean, std = mean_and_std(values)
        over = interval(draws) if draws else None
        # Student's t knows no bounds, but a figure has them.
        low, high = np.clip((over.low, over.high), 0, BOUNDS.get(name, 1)).tolist() if over else (NAN, NAN)
        found[name] = Figure(mean=mean, std=std, low=low, high=high)
    return found


def _per_class_recall(cells: Mapping[int, Cell]) -> tuple[float, ...]:
    # In JSON a class without test images has null.
    recalls_SC = [list(map(_or_nan, cell.test["per_class_recall"])) for cell in cells.values()]
    return tuple(np.mean(recalls_SC, axis=0).tolist()) if recalls_SC else ()


def _against(drawn: Mapping[tuple[str, bool], Drawn], name: str, other: str) -> dict[str, Interval]:
    row, reference = drawn.get((name, False)), drawn.get((other, False))
    differences = {figure: _difference(row, reference, figure) for figure in WITH_DRAWS}
    return {figure: found for figure, found in differences.items() if found}


def _difference(row: Drawn | None, other: Drawn | None, figure: str) -> Interval | None:
    return paired_interval(row[figure], other[figure], BOUNDS.get(figure, 1)) if row and other else None


def _seeds_in_common(comparison: Comparison, name: str, other: str) -> Iterator[int]:
    """Yield the seeds under which two rows ended as the same classifier."""
    for seed in comparison.seeds:
        mine, theirs = (comparison.probabilities.get((row, seed, False)) for row in (name, other))
        if mine is not None and theirs is not None and np.array_equal(mine, theirs):
            yield seed


def _cost(cells: Mapping[int, Cell]) -> dict[str, float]:
    finished = _finished(cells)
    return {
        name: mean_and_std({seed: getattr(cell, name) for seed, cell in finished.items()})[0] for name in COST
    }


def _distinctly_best(rows: Mapping[str, Mapping[int, Float64]], figure: str) -> str | None:
    sign = -1 if figure in SMALLER_IS_BETTER else 1
    means = {name: sign * interval(draws).value for name, draws in rows.items()}
    ranked = sorted((name for name in means if not np.isnan(means[name])), key=means.__getitem__, reverse=True)
    if len(ranked) < 2:
        return None
    # Against the next best alone, without a correction for the number of rows, as the tables' note says.
    found = paired_interval(rows[ranked[0]], rows[ranked[1]])
    # Where smaller is better, the whole interval must be below 0.
    return ranked[0] if found and found.sign == sign else None


def _or_nan(value: float | None) -> float:
    return NAN if value is None else value
