"""How far a part of the synthesiser is: shown to a person, and handed to a caller as numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from rlcas import console
from rlcas.errors import UserError

OnStep = Callable[[str, int, int, dict[str, float]], None]
Report = Callable[[int, Mapping[str, "Tensor | float"]], dict[str, float]]
NUM_REPORTS = 100


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
        shown = console.progress(name, total) if self._progress else contextlib.nullcontext()
        with shown as bar:

            def report(step: int, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
                done = step + 1
                if done % every == 0 or done == total:
                    latest.update({key: float(value) for key, value in figures.items()})
                    _check_finite(f"{name}, step {done}", latest, mend)
                    if bar is not None:
                        bar.advance(done - bar.done, _text(latest))
                    if self._on_step is not None:
                        self._on_step(name, done, total, dict(latest))
                return latest

            yield report


def _check_finite(where: str, figures: Mapping[str, float], mend: str) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise UserError(f"{where}: {name} is {value}: {mend}")


def _text(figures: Mapping[str, float]) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in figures.items())
