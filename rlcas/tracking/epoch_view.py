"""The live table of a run's epochs in the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlcas.console import console, format_figure, format_seconds, say
from rlcas.types import EpisodeReport, EpochRecord, Int64, Status

ROWS_SHOWN = 12
CLASSES_SPELT_OUT = 12


@dataclass
class EpochView:
    """Shows the epochs of a run as they end; `epoch_view` makes one."""

    num_epochs: int
    metric: str
    emit: Callable[[list[dict[str, str]]], None]
    _rows: list[dict[str, str]] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)
    _counts_C: Int64 | None = None

    def show(self, record: EpochRecord) -> None:
        """Show one more epoch."""
        self._seconds.append(record.seconds)
        self._rows.append(self._row(record))
        self._counts_C = record.counts_C
        self.emit(self._rows)

    def _row(self, record: EpochRecord) -> dict[str, str]:
        seconds_left = statistics.median(self._seconds) * (self.num_epochs - record.epoch)
        return {
            "epoch": f"{record.epoch}/{self.num_epochs}",
            "rewards": " ".join(
                _reward(report, report.episode_index == record.winner) for report in record.reports
            ),
            "baseline": format_figure(record.baseline),
            **_incumbent_metrics(record.incumbent.metrics, self.metric),
            "composition": _composition(record.counts_C, self._counts_C),
            "best": f"{format_figure(record.best_metric)} @{record.best_epoch}",
            "took": format_seconds(record.seconds),
            "left": format_seconds(seconds_left),
        }


@contextmanager
def epoch_view(class_names: Sequence[str], num_epochs: int, metric: str) -> Iterator[EpochView]:
    """Yield a view of the epochs: a live table on a terminal, a line for each epoch in a log.

    Args:
        class_names: C names, in the order of the compositions.
        num_epochs: epochs of the whole run, to estimate the time left.
        metric: the validation metric for rewards and selection; shown first of the winner's metrics.
    """
    if len(class_names) <= CLASSES_SPELT_OUT:
        say(f"composition in the order {', '.join(class_names)}; * marks the winner")
    if console().is_terminal:
        # auto_refresh would redraw an unchanged table from a thread, several times a second.
        with Live(console=console(), auto_refresh=False) as live:
            yield EpochView(num_epochs, metric, lambda rows: live.update(_table(rows), refresh=True))
    else:
        yield EpochView(num_epochs, metric, lambda rows: say(_line(rows[-1])))


def _incumbent_metrics(metrics: Mapping[str, float], metric: str) -> dict[str, str]:
    names = dict.fromkeys([metric, "f1", "many", "medium", "few"])
    return {name: format_figure(metrics[name]) for name in names}


def _reward(report: EpisodeReport, won: bool) -> str:
    if not report.valid:
        return report.status
    return format_figure(report.reward) + ("*" if won else "")


def _composition(counts_C: Int64, before_C: Int64 | None) -> str:
    up, down = ("+", "-") if console().options.ascii_only else ("↑", "↓")
    changes = [0] * len(counts_C) if before_C is None else (counts_C - before_C).tolist()
    if len(counts_C) > CLASSES_SPELT_OUT:
        risen, fallen = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        return f"{counts_C.min()} to {counts_C.max()}, sum {counts_C.sum()}, {up}{risen} {down}{fallen}"
    marks = [up if change > 0 else down if change < 0 else "" for change in changes]
    return " ".join(f"{count}{mark}" for count, mark in zip(counts_C, marks, strict=True))


def _line(row: dict[str, str]) -> str:
    facts = [f"{name} {text}" for name, text in row.items()]
    return "  ".join(facts)


def _table(rows: list[dict[str, str]]) -> Group:
    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("rewards", "composition") else "right")
    for row in rows[-ROWS_SHOWN:]:
        table.add_row(*(_cell(name, text) for name, text in row.items()))
    return Group(Text(), table)


def _cell(name: str, text: str) -> Text:
    cell = Text(text)
    if name == "rewards":
        cell.highlight_regex(r"\S+\*", "bold green")
        cell.highlight_words([status for status in get_args(Status) if status != "ok"], "bold red")
    if name == "composition":
        cell.highlight_regex(r"\d+[↑+]", "green")
        cell.highlight_regex(r"\d+[↓-]", "magenta")
    return cell
