"""The trials of a sweep's folder: sweep.json, sweep.csv and a table for the console."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter
from rich.table import Table
from rich.text import Text

from rlcas.console import format_figure, format_seconds
from rlcas.errors import UserError
from rlcas.settings.search_space import Point, as_text
from rlcas.storage.atomic import read_facts, replacing, write_json
from rlcas.storage.reading import RESTORE, typed

SWEEP_FILE = "sweep.json"
CSV_FILE = "sweep.csv"
TRIALS_FOLDER = "trials"

TrialStatus = Literal["waiting", "finished", "stopped", "failed"]
"""waiting: has not ended, and may have trained epochs; stopped: by ASHA, early and for good."""


@dataclass(slots=True, kw_only=True)
class Trial:
    """A trial's row of the table."""

    name: str
    """Its folder below `trials`."""
    settings: Point
    pool: str
    """Folder of the phase one that it shares with other trials, below the sweep's."""
    num_epochs: int
    """Epochs that it trains unless it is stopped."""
    status: TrialStatus = "waiting"
    epochs: int = 0
    """Epochs trained."""
    # NaN is written as null, as JSON has none.
    metric: Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)] = math.nan
    """The sweep's metric on the validation images, of the classifier that the trial keeps."""
    best_epoch: int = 0
    """Epoch of that classifier."""
    seconds: float = 0.0
    """Of all its epochs."""
    reason: str = ""
    """Why it failed, in one line."""

    @property
    def ended(self) -> bool:
        """Return whether its metric is final."""
        # A failed trial is tried again when the sweep is resumed.
        return self.status in ("finished", "stopped")


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A sweep's folder, read."""

    path: Path
    name: str
    """Of the data."""
    metric: str
    search: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Return the swept settings."""
        return list(self.trials[0].settings)

    def ranked(self) -> list[Trial]:
        """Return the trials, the best first, those without a final metric last."""
        # -1 is below every metric: NaN would leave the order undefined. Ties go by name.
        return sorted(self.trials, key=lambda trial: (not trial.ended, -_or(trial.metric, -1.0), trial.name))

    def folder(self, trial: Trial) -> Path:
        """Return the folder of a trial, which is a run's."""
        return self.path / TRIALS_FOLDER / trial.name

    def save(self) -> None:
        """Write sweep.json and sweep.csv."""
        facts = {name: getattr(self, name) for name in ("name", "metric", "search")}
        write_json(self.path / SWEEP_FILE, {**facts, "trials": [asdict(trial) for trial in self.trials]})
        with replacing(self.path / CSV_FILE) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            figures = ("epochs", "metric", "best_epoch", "seconds", "status", "reason")
            writer.writerow(["trial", *self.keys, *figures])
            for trial in self.ranked():
                values = [as_text(value) for value in trial.settings.values()]
                writer.writerow([trial.name, *values, *(getattr(trial, name) for name in figures)])


_SWEEP = TypeAdapter(Sweep)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's folder.

    Raises:
        UserError: it is not a sweep's folder.
    """
    facts = read_facts(path / SWEEP_FILE)
    if not facts.get("trials"):
        raise UserError(f"{path} is not a sweep's folder: it has no {SWEEP_FILE}; name the --out of a sweep")
    sweep = typed({**facts, "path": path}, _SWEEP, path / SWEEP_FILE)
    if any(trial.settings.keys() != sweep.trials[0].settings.keys() for trial in sweep.trials):
        raise UserError(f"{path / SWEEP_FILE} is altered (its trials vary other settings): {RESTORE}")
    return sweep


def sweep_table(sweep: Sweep) -> Table:
    """Return a row a trial, the best first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", *sweep.keys, "epochs", sweep.metric, "time", "status"):
        table.add_column(Text(name), justify="left" if name in ("trial", "status") else "right")
    for trial in sweep.ranked():
        table.add_row(*map(Text, [trial.name, *settings_of(trial), *figures_of(trial)]))
    return table


def settings_of(trial: Trial) -> list[str]:
    """Return the trial's values of the swept settings as they are typed."""
    return [as_text(value) for value in trial.settings.values()]


def figures_of(trial: Trial) -> Sequence[str]:
    """Return epochs, metric, time and status as text."""
    return (
        f"{trial.epochs}/{trial.num_epochs}",
        format_figure(trial.metric),
        format_seconds(trial.seconds),
        f"{trial.status}: {trial.reason}" if trial.reason else trial.status,
    )


def _or(value: Any, instead: float) -> float:
    return instead if value is None or math.isnan(value) else float(value)
