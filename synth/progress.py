"""How far a part of the synthesiser is: bars on a terminal, plain lines elsewhere, numbers for a caller."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from rlcas.errors import UserError

OnStep = Callable[[str, int, int, dict[str, float]], None]
Report = Callable[[int, Mapping[str, "Tensor | float"]], dict[str, float]]
Show = Callable[[int, Mapping[str, float]], None]
NUM_REPORTS = 100
NUM_LINES = 5


class Reporter:
    """Shows the parts of a piece of work; hands their figures to `on_step` (part, step, total, figures)."""

    def __init__(self, *, progress: bool, on_step: OnStep | None = None) -> None:
        self._progress = progress
        self._on_step = on_step

    @contextlib.contextmanager
    def part(self, name: str, total: int, *, mend: str = "") -> Iterator[Report]:
        """Yield the function to call with (step from 0, figures) after each of the `total` steps.

        It reads the figures at every hundredth of the way and at the end, and returns those last read.

        Raises:
            UserError: a figure is not finite; the message names it and ends with `mend`.
        """
        latest: dict[str, float] = {}
        every = max(1, total // NUM_REPORTS)
        with self._shown(name, total) as show:

            def report(step: int, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
                done = step + 1
                if done % every == 0 or done == total:
                    latest.update({key: float(value) for key, value in figures.items()})
                    _check_finite(f"{name}, step {done}", latest, mend)
                    show(done, latest)
                    if self._on_step is not None:
                        self._on_step(name, done, total, dict(latest))
                return latest

            yield report

    @contextlib.contextmanager
    def _shown(self, name: str, total: int) -> Iterator[Show]:
        if not self._progress:
            yield lambda done, figures: _print_line(name, done, total, figures)
            return
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[figures]}")) as bars:
            task = bars.add_task(name, total=total, figures="")
            yield lambda done, figures: bars.update(task, completed=done, figures=_text(figures))


def _check_finite(where: str, figures: Mapping[str, float], mend: str) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise UserError(f"{where}: {name} is {value}: {mend}")


def _print_line(name: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    every = max(1, total // NUM_REPORTS) * (NUM_REPORTS // NUM_LINES)
    if done % every == 0 or done == total:
        print(f"{name} {done}/{total} {_text(figures)}".rstrip(), flush=True)


def _text(figures: Mapping[str, float]) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in figures.items())
