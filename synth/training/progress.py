"""How far a part of the synthesiser is: shown to a person, and handed to a caller as numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from rlcas import console

OnStep = Callable[[str, int, int, dict[str, float]], None]
NUM_REPORTS = 100


class NotFiniteError(ArithmeticError):
    """A figure is NaN or infinite; the text names the part, the step and the figure."""


class Reporter:
    """Shows the parts of a piece of work; hands their figures to `on_step` (part, step, total, figures)."""

    def __init__(self, *, progress: bool, on_step: OnStep | None = None) -> None:
        self._progress = progress
        self._on_step = on_step

    @contextlib.contextmanager
    def part(self, name: str, total: int, *, done: int = 0) -> Iterator[Part]:
        """Yield what is to be told of each of the `total` steps, of which `done` were done before."""
        shown = console.progress(name, total) if self._progress else contextlib.nullcontext()
        with shown as bar:
            if bar is not None and done:
                bar.advance(done)
            yield Part(name, total, bar, self._on_step)


class Part:
    """One part under way; it reads figures from the device at every hundredth of the way only.

    Attributes:
        latest: the figures last read.
    """

    def __init__(self, name: str, total: int, bar: console.Progress | None, on_step: OnStep | None) -> None:
        self._name, self._total = name, total
        self._bar, self._on_step = bar, on_step
        self._every = max(1, total // NUM_REPORTS)
        self._unread: list[tuple[int, Mapping[str, Tensor | float]]] = []
        self.latest: dict[str, float] = {}

    def told(self, done: int, figures: Mapping[str, Tensor | float]) -> None:
        """Take the figures of step number `done` (from 1).

        Raises:
            NotFiniteError: a figure of a step up to this one is not finite; names the first such step.
        """
        self._unread.append((done, figures))
        if done % self._every == 0 or done == self._total:
            self.read()
            if self._bar is not None:
                self._bar.advance(done - self._bar.done, _text(self.latest))
            if self._on_step is not None:
                self._on_step(self._name, done, self._total, dict(self.latest))

    def read(self) -> dict[str, float]:
        """Read what was told since the last time, and return the latest figures.

        Raises:
            NotFiniteError: as `told`.
        """
        unread, self._unread = self._unread, []
        for step, figures in unread:
            self.latest = {key: float(value) for key, value in figures.items()}
            for key, value in self.latest.items():
                if not math.isfinite(value):
                    raise NotFiniteError(f"{self._name}, step {step}: {key} is {value}")
        return self.latest


def _text(figures: Mapping[str, float]) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in figures.items())
