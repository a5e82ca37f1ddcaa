"""Output of a run on the terminal: phases, progress bars and tables; plain lines in a log.

Everything is printed to stdout through one rich Console, so that nothing interleaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import progress as rich_progress
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlcas.errors import escape_what_streams_cannot_show

LINES_PER_BAR = 10
"""Lines in a log in place of a progress bar."""
MAX_LOG_WIDTH = 1000
"""Characters: wider than any table."""

# rich would colour numbers and paths.
_CONSOLE = Console(highlight=False)


def console() -> Console:
    """Return the Console through which everything is printed."""
    # At each use: rich prints to what is stdout by then.
    escape_what_streams_cannot_show()
    return _CONSOLE


def say(text: str) -> None:
    """Print one line; in a log it is never wrapped."""
    # Text, as rich reads square brackets in a plain string as markup.
    console().print(Text(text), soft_wrap=True)


def say_notes(notes: Iterable[str]) -> None:
    """Print each note on a line of its own."""
    for note in notes:
        say(f"note: {note}")


def show_table(table: Table) -> None:
    """Print a table: on a terminal in parts that fit its width, in a log in its full width."""
    if console().is_terminal:
        # rich would cut or fold the cells of a table that is too wide.
        for part in parts_of(table, console().width):
            console().print(part)
        return
    # Outside of a terminal rich takes 80 columns.
    width = console().measure(table, options=console().options.update(width=MAX_LOG_WIDTH)).maximum
    Console(file=console().file, width=width, highlight=False).print(table)


def parts_of(table: Table, width: int) -> list[Table]:
    """Return the table in parts of at most `width` characters, each of which repeats the first column."""
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
    """Return a number with three decimals, or n/a for NaN and None."""
    return "n/a" if value is None or math.isnan(value) else f"{value:z.3f}"


def format_distance(value: float | None) -> str:
    """Return a number with three significant digits, because distances have no fixed scale; n/a for NaN and None."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Return a duration for people: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
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
    """The duration of a phase, NaN until it has ended."""

    seconds: float = math.nan


@contextmanager
def phase(title: str) -> Iterator[Stopwatch]:
    """Announce a phase, and its duration if it ends without an error."""
    say(f"{title} ...")
    # Monotonic: the clock may be set while a phase runs.
    watch, started = Stopwatch(), time.monotonic()
    yield watch
    watch.seconds = time.monotonic() - started
    say(f"{title}: done in {format_seconds(watch.seconds)}")


class Progress:
    """A progress bar; `advance` moves it, with a note such as the loss."""

    def __init__(self, show: Callable[[int, str], None]) -> None:
        self._show = show
        self.done = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` to the finished part and show it."""
        self.done += amount
        self._show(self.done, note)


@contextmanager
def progress(description: str, total: int, unit: str = "") -> Iterator[Progress]:
    """Show progress towards `total`: a bar on a terminal, a line for every tenth in a log.

    With the unit "B" the numbers are bytes, as of a download; otherwise they are counts.
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
    started, tenths_shown = time.monotonic(), 0

    def show(done: int, note: str) -> None:
        nonlocal tenths_shown
        tenths = LINES_PER_BAR * done // max(total, 1)
        if tenths <= tenths_shown:
            return
        tenths_shown = tenths
        seconds_left = (time.monotonic() - started) * (total - done) / done
        counted = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if unit == "B" else f"{done}/{total}"
        parts = [f"{100 * done // total} %", counted, f"left {format_seconds(seconds_left)}", note]
        say(f"{description}: " + "  ".join(part for part in parts if part))

    return show
