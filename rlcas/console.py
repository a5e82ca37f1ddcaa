"""What a person sees of a run: phases, progress bars and a table of epochs; plain lines in a log.

Everything goes to stdout through one rich Console, so that nothing interleaves.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

from rich import progress as rich_progress
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlcas.types import EpisodeReport, EpochRecord, Int64, Status

ROWS_SHOWN = 12
CLASSES_SPELT_OUT = 12
PLAIN_LINES_A_BAR = 10
WIDEST_LOG = 1000

_CONSOLE = Console(highlight=False)


def console() -> Console:
    """Return the one Console that all output to stdout goes through."""
    return _CONSOLE


def say(text: str) -> None:
    """Print one line; in a log it is never wrapped."""
    console().print(Text(text), soft_wrap=True)


def show_table(table: Table) -> None:
    """Print a table, on a narrow terminal in parts that fit; in a log it is as wide as it needs to be."""
    if console().is_terminal:
        for part in parts_of(table, console().width):
            console().print(part)
        return
    width = console().measure(table, options=console().options.update(width=WIDEST_LOG)).maximum
    Console(file=console().file, width=width, highlight=False).print(table)


def parts_of(table: Table, width: int) -> list[Table]:
    """Return the table in parts that are at most `width` characters wide, each with the first column again."""
    widths = [
        max(cell_len(str(cell)) for cell in (column.header, *column.cells)) + 2 for column in table.columns
    ]
    groups: list[list[int]] = [[]]
    for index, needed in enumerate(widths[1:], start=1):
        if groups[-1] and widths[0] + sum(widths[i] for i in groups[-1]) + needed > width:
            groups.append([])
        groups[-1].append(index)
    if len(groups) == 1:
        return [table]
    return [_part(table, [0, *group], titled=group is groups[0]) for group in groups]


def _part(table: Table, columns: Sequence[int], *, titled: bool) -> Table:
    part = Table(
        title=table.title if titled else None,
        title_justify=table.title_justify,
        box=table.box,
        pad_edge=table.pad_edge,
        header_style=table.header_style,
    )
    kept = [table.columns[index] for index in columns]
    for column in kept:
        part.add_column(column.header, justify=column.justify)
    for cells in zip(*(column.cells for column in kept), strict=True):
        part.add_row(*cells)
    return part


def format_figure(value: float | None) -> str:
    """Return a figure with three decimals, or n/a for NaN and None."""
    return "n/a" if value is None or math.isnan(value) else f"{value:z.3f}"


def format_distance(value: float | None) -> str:
    """Return three significant figures, or n/a for NaN and None: distances have no scale of their own."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Return a duration as a person says it: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if math.isnan(seconds):
        return "n/a"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass
class Stopwatch:
    """The seconds that a phase took, known once it has ended."""

    seconds: float = math.nan


@contextmanager
def phase(title: str) -> Iterator[Stopwatch]:
    """Announce a phase, and its seconds when it has ended well."""
    say(f"{title} ...")
    watch, started = Stopwatch(), time.monotonic()
    yield watch
    watch.seconds = time.monotonic() - started
    say(f"{title}: done in {format_seconds(watch.seconds)}")


class Progress:
    """A bar under way: `advance` it by what was done, with a note such as the loss."""

    def __init__(self, show: Callable[[int, str], None]) -> None:
        self._show = show
        self.done = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` to what is done and show it."""
        self.done += amount
        self._show(self.done, note)


@contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Progress]:
    """Show progress towards `total`: a bar on a terminal, a line every tenth in a log.

    `unit` "B" shows bytes, as in a download; otherwise plain counts.
    """
    if console().is_terminal:
        with _live_bar(unit) as bar:
            task = bar.add_task(description, total=total, note="")
            yield Progress(lambda done, note: bar.update(task, completed=done, note=note))
    else:
        yield Progress(_plain_bar(description, total, unit))


def _live_bar(unit: str) -> rich_progress.Progress:
    counted = rich_progress.DownloadColumn() if unit == "B" else rich_progress.MofNCompleteColumn()
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        counted,
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console(),
    )


def _plain_bar(description: str, total: int, unit: str) -> Callable[[int, str], None]:
    started, tenths_said = time.monotonic(), 0

    def show(done: int, note: str) -> None:
        nonlocal tenths_said
        tenths = PLAIN_LINES_A_BAR * done // max(total, 1)
        if tenths <= tenths_said:
            return
        tenths_said = tenths
        seconds_left = (time.monotonic() - started) * (total - done) / done
        counted = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if unit == "B" else f"{done}/{total}"
        parts = [f"{100 * done // total} %", counted, f"left {format_seconds(seconds_left)}", note]
        say(f"{description}: " + "  ".join(part for part in parts if part))

    return show


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
        self._counts_C = record.reports[record.winner].counts_C
        self.emit(self._rows)

    def _row(self, record: EpochRecord) -> dict[str, str]:
        winner = record.reports[record.winner]
        assert winner.result is not None, "the winner is a valid episode"
        seconds_left = statistics.median(self._seconds) * (self.num_epochs - record.epoch)
        return {
            "epoch": f"{record.epoch}/{self.num_epochs}",
            "rewards": " ".join(_reward(report, report.child == record.winner) for report in record.reports),
            "baseline": format_figure(record.baseline),
            **_winner_metrics(winner.result.metrics, self.metric),
            "composition": _composition(winner.counts_C, self._counts_C),
            "best": f"{format_figure(record.best_metric)} @{record.best_epoch}",
            "took": format_seconds(record.seconds),
            "left": format_seconds(seconds_left),
        }


@contextmanager
def epoch_view(class_names: Sequence[str], num_epochs: int, metric: str) -> Iterator[EpochView]:
    """Give a view of the epochs: a live table on a terminal, a line an epoch in a log.

    Args:
        class_names: C names, in the order of the compositions.
        num_epochs: epochs of the whole run, for the time left.
        metric: the validation metric that rewards and selects; shown first of the winner's metrics.
    """
    if len(class_names) <= CLASSES_SPELT_OUT:
        say(f"composition in the order {', '.join(class_names)}; * marks the winner")
    if console().is_terminal:
        with Live(console=console(), auto_refresh=False) as live:
            yield EpochView(num_epochs, metric, lambda rows: live.update(_table(rows), refresh=True))
    else:
        yield EpochView(num_epochs, metric, lambda rows: say(_line(rows[-1])))


def _winner_metrics(metrics: Mapping[str, float], metric: str) -> dict[str, str]:
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
