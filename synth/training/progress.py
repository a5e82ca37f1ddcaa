"""Progress of a part of the synthesis (`autoencoder`, `denoiser`, `sampling`): shown on the console, and as numbers.

Figures are read from the device at every hundredth of a part only: each reading waits for the GPU to finish.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from rlcas import console
from synth.training.workers import Workers

OnStep = Callable[[str, int, int, dict[str, float]], None]
"""Called with (part, step, total, figures)."""
NUM_REPORTS = 100


class NotFiniteError(ArithmeticError):
    """A figure is NaN or infinite; the message names the part, the step and the figure."""


class Reporter:
    """Shows the progress of each part and passes its figures to `on_step`."""

    def __init__(self, *, progress: bool, on_step: OnStep | None = None) -> None:
        self._progress = progress
        self._on_step = on_step

    @classmethod
    def of_first(cls, workers: Workers, *, progress: bool, on_step: OnStep | None) -> Reporter:
        """Return a reporter for the first of the workers, and one without output for the others."""
        return cls(progress=progress and workers.leads, on_step=on_step if workers.leads else None)

    @contextlib.contextmanager
    def part(self, name: str, total: int, *, done: int = 0) -> Iterator[PartProgress]:
        """Yield the progress of a part with `total` steps, `done` of them done before an interruption."""
        shown = console.progress(name, total) if self._progress else contextlib.nullcontext()
        with shown as bar:
            if bar is not None and done:
                bar.advance(done)
            yield PartProgress(name, total, bar, self._on_step)


class PartProgress:
    """Progress of one part.

    Args:
        name: the part.
        total: its steps.
        bar: the bar on the console. None: not shown.
        on_step: called with the figures at every hundredth of the steps.

    Attributes:
        latest: the figures last read.
    """

    def __init__(self, name: str, total: int, bar: console.Progress | None, on_step: OnStep | None) -> None:
        self._name, self._total = name, total
        self._bar, self._on_step = bar, on_step
        self._every = max(1, total // NUM_REPORTS)
        self._unread: list[tuple[int, Mapping[str, Tensor | float]]] = []
        self.latest: dict[str, float] = {}

    def update(self, done: int, figures: Mapping[str, Tensor | float]) -> None:
        """Record the figures of step number `done` (from 1).

        Raises:
            NotFiniteError: a figure of a step up to this one is not finite; the message names the first such step.
        """
        # Tensors on the device: float() would wait for the GPU at every step.
        self._unread.append((done, figures))
        if done % self._every == 0 or done == self._total:
            self.read()
            if self._bar is not None:
                self._bar.advance(done - self._bar.done, _text(self.latest))
            if self._on_step is not None:
                # A copy, since the receiver may keep it.
                self._on_step(self._name, done, self._total, dict(self.latest))

    def read(self) -> dict[str, float]:
        """Read the figures recorded since the last call, and return the latest.

        Raises:
            NotFiniteError: as `update`.
        """
        unread, self._unread = self._unread, []
        # All of them, not the latest alone: the message must name the first step that is not finite.
        for step, figures in unread:
            self.latest = {key: float(value) for key, value in figures.items()}
            for key, value in self.latest.items():
                if not math.isfinite(value):
                    raise NotFiniteError(f"{self._name}, step {step}: {key} is {value}")
        return self.latest


def _text(figures: Mapping[str, float]) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in figures.items())
