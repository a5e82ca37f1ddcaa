"""A comparison: the rows of Tables 1 and 2 on one data set, every cell a Ray task.

Its folder holds compare.yaml (what the rows share), `prepared` (the images), `pools/NAME` (a phase one each),
`cells/ROW/SEED` (a run's folder each, with cell.json once it has ended), and the tables, figures and page that
`rlcas.reports.comparison_page` makes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.comparison.cell import fail, leave_out
from cluster.comparison.cell_plan import PlannedCell, cells_of
from cluster.comparison.checks import check_pools, load_checked
from cluster.comparison.plan import ComparisonPlan, plan, plan_of
from cluster.comparison.pools import make_pools
from cluster.comparison.schedule import CellSlots, cell_slots, run_cells
from cluster.comparison.tuning import found, still_to_try, tries_of, tuned_cells
from cluster.runtime.connection import check_can_start
from rlcas import settings
from rlcas.comparison.cell import read_cell
from rlcas.comparison.folder import MADE_FILE, cell_folder
from rlcas.comparison.table import summary_notes, summary_table
from rlcas.config import CompareRunConfig
from rlcas.console import phase, say, show_table
from rlcas.data.prepared import open_prepared
from rlcas.errors import UserError
from rlcas.methods import weight_settings
from rlcas.reports import REPORT_FILE
from rlcas.reports.comparison_page import write_tables
from rlcas.runs.folder import ERROR_FILE, POOLS_FOLDER, RunFolder
from rlcas.runs.images import keep_images, record_of
from rlcas.runs.paths import check_is_new, naming_out, resolved
from rlcas.runs.versions import date_and_versions
from rlcas.settings.search_space import value_of
from rlcas.storage.atomic import exclusive_lock, replacing_folder, write_json, write_text
from rlcas.types import TrainingData


def compare(stated: Mapping[str, Any]) -> Path:
    """Compare rows in a new folder and return it.

    Args:
        stated: settings as of `rlcas run`, and a section `compare`; nested or dotted.

    Raises:
        UserError: a setting, a row, a file or the folder is wrong, or Ray cannot start; then no folder is made.
    """
    check_can_start()
    planned = plan(stated)
    assert planned.config.out is not None, "a plan has its folder"
    out = check_is_new(planned.config.out, "rlcas compare --resume")
    # Before the folder is made, so that a fault in images or pools leaves none behind.
    data = load_checked(planned)
    for note in data.notes:
        say(f"note: {note}")
    create(planned, data, out)
    return _run_stages(out, planned)


def resume(path: Path, weights: Mapping[str, Any] | None = None) -> Path:
    """Resume an interrupted comparison and return its folder: finished cells are kept, failed ones trained again.

    Args:
        path: the folder.
        weights: settings that name foundation weights, by dotted keys; rows that were left out because these were
            missing are trained now.

    Raises:
        UserError: the folder is not a comparison's, its rows have other weights already, another setting is given,
            or Ray cannot start for what is not finished.
    """
    config = load(path)
    if others := [key for key in weights or {} if key not in weight_settings()]:
        raise UserError(
            f"{others[0]} is not a setting that a comparison is resumed with: it keeps its own, but for "
            f"{', '.join(sorted(weight_settings()))}"
        )
    path = path.absolute()
    return _run_stages(path, _completed(path, config, weights) if weights else plan_of(config))


def _completed(path: Path, config: CompareRunConfig, weights: Mapping[str, Any]) -> ComparisonPlan:
    """Return the plan with weights that were not given before, after writing its settings."""
    completed = resolved(settings.override(config, weights))
    for key, weight in weights.items():
        # Cells with other weights would stand in one row.
        if (before := value_of(config, key)) not in (None, value_of(completed, key)):
            raise UserError(
                f"{key} {weight}: {path} has trained with {before}: leave it out, or compare anew with another --out"
            )
    planned = plan_of(completed)
    with exclusive_lock(path):
        folder = RunFolder(path)
        check_pools(planned, open_prepared(folder.prepared), record_of(folder, planned.config))
        _write_settings(path, planned)
    return planned


def load(path: Path) -> CompareRunConfig:
    """Return what the rows of a comparison's folder share.

    Raises:
        UserError: the folder is not a comparison's.
    """
    file = path / settings.COMPARE_CONFIG_FILE
    if not file.is_file():
        raise UserError(
            f"{path} is not a comparison's folder: it has no {file.name}; name the --out of a comparison"
        )
    return settings.of_comparison(settings.read_yaml(file)).model_copy(update={"out": path.absolute()})


def create(planned: ComparisonPlan, data: TrainingData, out: Path) -> None:
    """Make the folder with the settings and the images, all of it or nothing.

    Raises:
        UserError: it cannot be made.
    """
    with naming_out(out), replacing_folder(out) as temporary:
        keep_images(data, RunFolder(temporary))
        _write_settings(temporary, planned)


def _write_settings(path: Path, planned: ComparisonPlan) -> None:
    """Write what the rows share; first the settings of each pool that has no folder yet."""
    for name, config in planned.pools.items():
        folder = path / POOLS_FOLDER / name
        if not (folder / settings.CONFIG_FILE).exists():
            settings.save(config, folder)
    # Last: with the new weights in it, a resume expects the folders of their pools.
    write_text(path / settings.COMPARE_CONFIG_FILE, settings.as_yaml(planned.config))


def _run_stages(path: Path, planned: ComparisonPlan) -> Path:
    """Do what is missing of the pools, the trials of settings, the cells and the tables."""
    with exclusive_lock(path):
        if _train(path, planned):
            write_json(path / MADE_FILE, date_and_versions())
        else:
            say(f"{path} is finished")
        results = write_tables(path)
    for cell in results.comparison.cells:
        if cell.status == "failed":
            folder = cell_folder(path, cell.method, cell.seed, equal_compute=cell.equal_compute)
            say(f"{cell.method} seed {cell.seed} failed, its traceback: {folder / ERROR_FILE}")
    show_table(summary_table(results))
    for note in summary_notes(results):
        say(note)
    say(f"report: {path / REPORT_FILE}")
    return path


def _train(path: Path, planned: ComparisonPlan) -> bool:
    """Train what is not finished and return whether anything was; rows that cannot be trained get left out or fail."""
    data = open_prepared(RunFolder(path).prepared)
    waiting = _waiting(path, cells_of(planned, data))
    if waiting:
        check_can_start()  # the pools come before Ray, and take long
    _leave_out(path, waiting)
    rows = {cell.method for cell in waiting if not cell.missing}
    reasons = _make_pools(path, planned, rows)
    # Ray is started only where something is left to train.
    if able := rows - reasons.keys():
        with cell_slots(planned.config) as slots:
            reasons |= _search_and_train(path, planned, data, able, slots)
    for cell in waiting:
        if cell.method in reasons:
            fail(path, cell, reasons[cell.method], reasons[cell.method])
    return bool(waiting)


def _leave_out(path: Path, cells: Sequence[PlannedCell]) -> None:
    for method, reason in {cell.method: cell.missing for cell in cells if cell.missing}.items():
        say(f"note: row {method} is left out: {reason}")
    for cell in cells:
        if cell.missing:
            leave_out(path, cell)


def _make_pools(path: Path, planned: ComparisonPlan, rows: Collection[str]) -> dict[str, str]:
    """Make the pools that rows need; return the rows whose pool failed, with the reason."""
    pool_of = {row.name: row.pool for row in planned.rows if row.pool and row.name in rows}
    failed = make_pools(path, [name for name in planned.pools if name in pool_of.values()])
    return {name: failed[pool] for name, pool in pool_of.items() if pool in failed}


def _search_and_train(
    path: Path, planned: ComparisonPlan, data: TrainingData, rows: Collection[str], slots: CellSlots
) -> dict[str, str]:
    """Try settings of the rows where that is asked for, then train their cells; return why a row has no settings."""
    # A row that replays another has the settings that were found for that one.
    searched = {row.method.replays or row.name for row in planned.rows if row.name in rows}
    tries = [cell for cell in tries_of(planned, data) if cell.method in searched]
    _run(path, still_to_try(path, tries), slots, "trials of settings")
    # After all trials: a row's cells have the settings that were best on validation.
    settled = [of_row for of_row in found(path, planned, tries) if of_row.row.name in rows]
    cells = [cell for of_row in settled if not of_row.reason for cell in tuned_cells(of_row, data)]
    _run(path, _waiting(path, [cell for cell in cells if cell.replays is None]), slots, "cells")
    # After those that they replay, which have ended by now.
    _run(path, _waiting(path, [cell for cell in cells if cell.replays]), slots, "cells that replay others")
    return {of_row.row.name: of_row.reason for of_row in settled if of_row.reason}


def _run(path: Path, cells: Sequence[PlannedCell], slots: CellSlots, what: str) -> None:
    if cells:
        with phase(f"Training {len(cells)} {what}, {min(slots.number, len(cells))} side by side"):
            run_cells(path, cells, slots)


def _waiting(path: Path, cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Return the cells to train: those that have not ended, failed, or lacked weights that are now given."""

    def waits(cell: PlannedCell) -> bool:
        ended = read_cell(path / cell.name)
        return not ended or ended.status == "failed" or (ended.status == "left_out" and not cell.missing)

    return [cell for cell in cells if waits(cell)]
