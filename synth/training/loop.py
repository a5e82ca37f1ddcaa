"""The one loop that trains every network of a generator, in one process or several, resumable at any step.

Step n is a function of the state before it and of n, so a killed training resumes from its last checkpoint and ends
with the same bits. Every worker draws the whole batch and computes its own rows of it, so the losses depend on the
number of workers only by rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlcas.config import SynthConfig
from rlcas.errors import UserError
from synth.training.checkpoint import load_checkpoint, save_checkpoint
from synth.training.ema import Ema
from synth.training.progress import NotFiniteError, PartProgress, Reporter
from synth.training.workers import Workers


class TrainingObjective(Protocol):
    """A network and the loss that it is trained with."""

    @property
    def module(self) -> nn.Module:
        """Return the network: float32 parameters on their device, no buffers."""
        ...

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return the losses on this worker's rows of batch number `step`; `total` is minimised.

        `module` is the objective's own or the DistributedDataParallel around it. Call it and no other network:
        DDP averages only the gradients of forward passes through its wrapper.
        """
        ...


class TrainingSettings(Protocol):
    """A group of settings under `synth`: number of steps and learning rate of a network."""

    epochs: int
    batch_size: int
    max_steps: int | None
    lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Number of steps, learning rate, averages and checkpoints of one part of a generator's training."""

    part: str
    """Name of the part in progress, log and messages."""
    steps: int
    """Number of optimiser steps."""
    lr: float
    """Learning rate of AdamW at the start."""
    weight_decay: float = 0.0
    lr_factor: Callable[[float], float] = lambda _: 1.0
    """Share of steps done, in [0, 1] -> factor of the learning rate."""
    ema_decays: tuple[float, ...] = ()
    """Decays of the moving averages of the weights."""
    checkpoint_steps: int
    """Steps from one checkpoint to the next."""
    remedy: str
    """What the user can do about losses that are not finite."""

    @classmethod
    def of(cls, part: str, synth: SynthConfig, group: str, num_images: int, **fields: Any) -> Schedule:
        """Return the schedule of a part.

        Args:
            part: name of the part.
            synth: settings of the generators.
            group: name of the group under `synth` with the part's `TrainingSettings`.
            num_images: training images.
            fields: values of the fields that do not follow from these settings.
        """
        settings: TrainingSettings = getattr(synth, group)
        return cls(
            part=part,
            steps=num_steps(num_images, settings.epochs, settings.batch_size, settings.max_steps),
            lr=settings.lr,
            checkpoint_steps=synth.checkpoint_steps,
            remedy=f"lower synth.{group}.lr {settings.lr:g}",
            **fields,
        )


class Training:
    """One network with its optimiser and the moving averages of its weights.

    Attributes:
        ema: the moving averages.
    """

    def __init__(self, objective: TrainingObjective, schedule: Schedule, workers: Workers) -> None:
        assert not list(objective.module.buffers()), "checkpoints hold parameters only"
        self._objective, self._schedule, self._workers = objective, schedule, workers
        # Losses go through the wrapper; names in checkpoints and averages are those of the module inside it.
        self._module = workers.wrap(objective.module)
        self.ema = Ema(objective.module, schedule.ema_decays)
        self._optimizer = torch.optim.AdamW(
            objective.module.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True
        )

    def run(self, checkpoint: Path, reporter: Reporter) -> dict[str, float]:
        """Train to the end, from the checkpoint if it exists; return the last figures.

        Raises:
            UserError: losses or weights are not finite, or the checkpoint cannot be read.
        """
        schedule, module = self._schedule, self._objective.module
        done, figures = 0, dict[str, float]()
        if checkpoint.exists():
            done, figures = load_checkpoint(checkpoint, module, self.ema, self._optimizer)
        self._workers.wait()  # all must have read the checkpoint before the first replaces or deletes it
        module.train()
        with reporter.part(schedule.part, schedule.steps, done=done) as progress:
            progress.latest = figures  # returned as they are if the part was finished before
            try:
                for step in range(done, schedule.steps):
                    progress.update(step + 1, self.step(step))
                    if (step + 1) % schedule.checkpoint_steps == 0 or step + 1 == schedule.steps:
                        # Also after the last step: if a later part is interrupted, this one is not repeated.
                        self._save(checkpoint, step + 1, progress)
            except NotFiniteError as error:
                kept = f"; the last good checkpoint stays in {checkpoint}" if checkpoint.exists() else ""
                raise UserError(f"{error}: {schedule.remedy}{kept}") from error
        module.eval()
        return progress.latest

    def run_timed(self, checkpoint: Path, reporter: Reporter) -> dict[str, float]:
        """Train as `run`; return the last figures, `steps`, and the `seconds` of this process."""
        started = time.perf_counter()
        figures = self.run(checkpoint, reporter)
        return {**figures, "steps": self._schedule.steps, "seconds": time.perf_counter() - started}

    def step(self, step: int) -> Mapping[str, Tensor]:
        """Do optimiser step number `step` (from 0); return its losses over the whole batch, on the device."""
        schedule = self._schedule
        for group in self._optimizer.param_groups:
            # From the step's number: a scheduler object would have a state to save and restore.
            group["lr"] = schedule.lr * schedule.lr_factor(step / schedule.steps)
        losses = self._objective.losses(self._module, step)
        self._optimizer.zero_grad(set_to_none=True)
        losses.pop("total").backward()  # the weighted sum is minimised, but only its terms are reported
        self._optimizer.step()
        self.ema.update(self._objective.module, step + 1)
        # Detached, or figures that are not yet read would keep the autograd graphs of their steps alive.
        return self._workers.mean({name: loss.detach() for name, loss in losses.items()})

    def _save(self, checkpoint: Path, steps_done: int, progress: PartProgress) -> None:
        """Write a checkpoint if figures and weights are finite; otherwise the previous one stays.

        Raises:
            NotFiniteError: a figure or weight is not finite.
        """
        figures, module = progress.read(), self._objective.module
        # The losses are those before the last update, which may have spoilt the weights. All workers check, as
        # all have the same weights: if one alone raised, the others would wait for it for ever.
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise NotFiniteError(f"{self._schedule.part}, step {steps_done}: weights are not finite")
        save = partial(save_checkpoint, checkpoint, module, self.ema, self._optimizer)
        self._workers.run_on_first(partial(save, steps_done=steps_done, figures=figures))


def num_steps(num_images: int, epochs: int, batch_size: int, max_steps: int | None) -> int:
    """Return the optimiser steps of that many epochs, at most `max_steps`.

    Args:
        num_images: training images.
        epochs: passes over them.
        batch_size: images of a mini-batch of all workers.
        max_steps: the limit. None: no limit.
    """
    steps = math.ceil(num_images * epochs / batch_size)
    return min(steps, max_steps or steps)


def cosine(progress: float) -> float:
    """Return the factor of a cosine learning-rate schedule: 1 at the start (`progress` 0), 0 at the end (1)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
