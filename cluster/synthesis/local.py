"""Training a generator in this process, its progress in a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rlcas.runs.context import RunContext
from rlcas.runs.epoch_log import read_lines
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import write_text
from rlcas.tracking.tensorboard import Tracker
from synth.generators import generator_of
from synth.training.workers import Workers


def train_here(context: RunContext, *, progress: bool = True) -> None:
    """Train in this process, which may be one of several; the first of them keeps the log."""
    generator = generator_of(context.config)
    data, config, synth_folder = context.data, context.config, context.folder.synth
    if not Workers.joined().leads:
        generator.train(data, config, synth_folder, device=context.device, progress=False)
        return
    with SynthesisLog(context.folder, data.class_names) as log:
        generator.train(data, config, synth_folder, device=context.device, progress=progress, on_step=log.write)


class SynthesisLog:
    """Writes the losses of training to synthesis_log.jsonl and TensorBoard.

    Lines of an interrupted training are kept up to the checkpoint from which it resumes.
    """

    def __init__(self, folder: RunFolder, class_names: tuple[str, ...]) -> None:
        self._path = folder.synthesis_log
        self._tracker = Tracker(folder.path, class_names)
        self._rewound = False

    def __enter__(self) -> SynthesisLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tracker.close()

    def write(self, part: str, step: int, total: int, figures: dict[str, float]) -> None:
        """Add the figures of a step.

        Args:
            part: the part of training, such as "autoencoder".
            step: the step of the part, from 1.
            total: all steps of the part.
            figures: name -> value, such as the loss.
        """
        # Only the first step shows from which checkpoint the training goes on.
        if not self._rewound:
            keep_lines(self._path, lambda line: line["part"] != part or line["step"] < step)
            self._rewound = True
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"part": part, "step": step, "steps": total, **figures}) + "\n")
        self._tracker.synthesis(part, step, figures)


def keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite the log with the wanted lines alone."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in read_lines(path) if wanted(line)))
