"""How every network here is trained: one loop, alone or with other workers, resumable at any step.

Step n is a function of the state before it and of n, so a killed training goes on from its last checkpoint to the
same bits. A batch is drawn whole by every worker, which then computes its own rows of it: so the losses depend on
how many workers there are only by rounding.
"""

from __future__ import annotations

import math
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
from synth.training.progress import NotFiniteError, Part, Reporter
from synth.training.workers import Workers


class TrainingObjective(Protocol):
    """What a network learns."""

    @property
    def module(self) -> nn.Module:
        """Return it: float32 parameters on their device, no buffers."""
        ...

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return what this worker's share of batch number `step` gives; `total` is what is minimised.

        `module` is the objective's own, or its wrapper that averages gradients: call it, and nothing beside it.
        """
        ...


class Pace(Protocol):
    """A group of settings that tells how long and how fast a network is trained."""

    epochs: int
    batch_size: int
    max_steps: int | None
    lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast."""

    part: str
    """Name of what is trained, as progress and messages give it."""
    steps: int
    """Optimiser steps in all."""
    lr: float
    """Learning rate of AdamW at the start."""
    weight_decay: float = 0.0
    lr_left: Callable[[float], float] = lambda _: 1.0
    """Share of the learning rate that is left at a share of the way."""
    ema_decays: tuple[float, ...] = ()
    """Decays of the moving averages of the weights."""
    checkpoint_steps: int
    """Steps from one checkpoint to the next."""
    mend: str
    """What a user may do about losses that are not finite."""

    @classmethod
    def of(cls, part: str, synth: SynthConfig, group: str, num_images: int, **more: Any) -> Schedule:
        """Return the schedule of a part by the settings `synth.<group>`; `more` are fields that these do not give."""
        pace: Pace = getattr(synth, group)
        return cls(
            part=part,
            steps=num_steps(num_images, pace.epochs, pace.batch_size, pace.max_steps),
            lr=pace.lr,
            checkpoint_steps=synth.checkpoint_steps,
            mend=f"lower synth.{group}.lr {pace.lr:g}",
            **more,
        )


class Training:
    """One network in training.

    Attributes:
        ema: the moving averages of its weights.
    """

    def __init__(self, objective: TrainingObjective, schedule: Schedule, workers: Workers) -> None:
        assert not list(objective.module.buffers()), "checkpoints hold parameters only"
        self._objective, self._schedule, self._workers = objective, schedule, workers
        self._module = workers.wrap(objective.module)
        self.ema = Ema(objective.module, schedule.ema_decays)
        self._optimizer = torch.optim.AdamW(
            objective.module.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True
        )

    def run(self, checkpoint: Path, reporter: Reporter) -> dict[str, float]:
        """Train from the checkpoint, where there is one, to the end; return the last figures.

        Raises:
            UserError: losses or weights are not finite, or the checkpoint cannot be read.
        """
        schedule, module = self._schedule, self._objective.module
        done, figures = 0, dict[str, float]()
        if checkpoint.exists():
            done, figures = load_checkpoint(checkpoint, module, self.ema, self._optimizer)
        self._workers.wait()  # all have read it before the first goes on, and replaces or deletes it
        module.train()
        with reporter.part(schedule.part, schedule.steps, done=done) as part:
            part.latest = figures
            try:
                for step in range(done, schedule.steps):
                    part.told(step + 1, self.step(step))
                    if (step + 1) % schedule.checkpoint_steps == 0 or step + 1 == schedule.steps:
                        self._save(checkpoint, step + 1, part)
            except NotFiniteError as error:
                kept = f"; the last good checkpoint stays in {checkpoint}" if checkpoint.exists() else ""
                raise UserError(f"{error}: {schedule.mend}{kept}") from error
        module.eval()
        return part.latest

    def step(self, step: int) -> Mapping[str, Tensor]:
        """Do optimiser step number `step` (from 0); return its losses over the whole batch, on the device."""
        schedule = self._schedule
        for group in self._optimizer.param_groups:
            group["lr"] = schedule.lr * schedule.lr_left(step / schedule.steps)
        losses = self._objective.losses(self._module, step)
        self._optimizer.zero_grad(set_to_none=True)
        losses.pop("total").backward()
        self._optimizer.step()
        self.ema.update(self._objective.module, step + 1)
        return self._workers.mean({name: loss.detach() for name, loss in losses.items()})

    def _save(self, checkpoint: Path, steps_done: int, part: Part) -> None:
        """Write a checkpoint, if what is in it is finite; else the one before stays."""
        figures, module = part.read(), self._objective.module
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise NotFiniteError(f"{self._schedule.part}, step {steps_done}: weights are not finite")
        save = partial(save_checkpoint, checkpoint, module, self.ema, self._optimizer)
        self._workers.first(partial(save, steps_done=steps_done, figures=figures))


def num_steps(num_images: int, epochs: int, batch_size: int, max_steps: int | None) -> int:
    """Return the optimiser steps of that many passes, cut at `max_steps`."""
    steps = math.ceil(num_images * epochs / batch_size)
    return min(steps, max_steps or steps)


def cosine(progress: float) -> float:
    """Return the share of the learning rate that is left, from 1 at the start to 0 at the end."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
