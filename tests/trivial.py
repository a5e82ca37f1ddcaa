"""A trainer that learns nothing real in no time: a pure function of its arguments, with faults on demand."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from rlcas.agents import Agents
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.types import EpochResult, Incumbent, Int64, Share


@dataclass
class TrivialTrainer:
    """Weights decay towards the composition; the metric is best where each class has a count of its own."""

    sampler: SamplerConfig | None = None
    """What a trainer factory is called with."""
    num_classes: int = 4
    num_weights: int = 64
    sleep_seconds: float = 0.0
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    """(epoch from 1, episode index) -> exception, out_of_memory, allocate, non_finite, sleep, kill, segfault, exit, or
    a path: die there once."""

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return weights of ones."""
        weights = np.ones(self.num_weights, np.float32)
        return Incumbent(
            epoch=0, arrays={"float32": weights}, counts_C=counts_C, positions_C=np.zeros_like(counts_C)
        )

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Move the weights by a formula of (weights, counts)."""
        time.sleep(self.sleep_seconds)
        epoch = incumbent.epoch + 1
        finite = self._fault(self.faults.get((epoch, episode_index), ""))
        best_C = np.arange(self.num_classes) % 9 * 2
        quality_C = 1 - ((counts_C - best_C) / 16.0) ** 2
        drive = np.resize(counts_C, self.num_weights)
        weights = np.tanh(0.9 * incumbent.arrays["float32"] + 0.01 * drive).astype(np.float32)
        self._trained = Incumbent(
            epoch=epoch,
            arrays={"float32": weights},
            counts_C=counts_C,
            positions_C=incumbent.positions_C + counts_C,
        )
        f1 = float(0.4 + 0.4 * quality_C.mean() + 0.01 * weights.mean())
        metrics = {"f1": f1, "acc": f1 / 2, "many": f1, "medium": float("nan"), "few": f1}
        return EpochResult(
            metrics=metrics,
            val_loss=1 - f1,
            train_loss=2 - f1 if finite else float("nan"),
            per_class={"recall": np.clip(quality_C, 0, 1), "log_likelihood": quality_C - 1},
            num_images=int(counts_C.sum()),
            finite=finite,
        )

    def train_share(
        self, incumbent: Incumbent, counts_C: Int64, *, epoch: int, episode_index: int, share: Share
    ) -> EpochResult:
        """Move the weights as in a whole epoch, whatever the share."""
        assert episode_index % share.total == share.number
        return self.train_epoch(replace(incumbent, epoch=epoch), counts_C, episode_index=episode_index)

    def trained(self) -> Incumbent:
        """Return the incumbent that the last epoch trained."""
        return self._trained

    def merged(self, incumbents: Sequence[Incumbent]) -> Incumbent:
        """Return the mean of the weights; the metric is that of the first."""
        weights = np.mean([incumbent.arrays["float32"] for incumbent in incumbents], axis=0, dtype=np.float64)
        return replace(incumbents[0], arrays={"float32": weights.astype(np.float32)})

    def _fault(self, fault: str) -> bool:
        if fault == "exception":
            raise RuntimeError("the trivial trainer was set to fail")
        if fault == "out_of_memory":
            raise torch.OutOfMemoryError("CUDA out of memory. (on demand)")
        if fault == "allocate":
            torch.empty(2**60, dtype=torch.uint8)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "segfault":
            ctypes.string_at(0)
        if fault == "exit":
            sys.exit("the trivial trainer was set to exit")
        if fault == "sleep":
            time.sleep(0.5)
        if fault.startswith("/") and not Path(fault).exists():
            Path(fault).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return fault != "non_finite"


class TiedTrainer(TrivialTrainer):
    """Every episode has the same metric, and few losses differ."""

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Train as the other does."""
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        metrics = {**result.metrics, "f1": 0.5, "acc": 0.5}
        return replace(result, metrics=metrics, val_loss=round(result.val_loss, 2))


METRIC_OF = {"real": 0.25, "effective": 0.75}
"""Metric of PriorTrainer by `sampler.prior`."""


class PriorTrainer(TrivialTrainer):
    """A user's own trainer, whose metric says which `sampler.prior` has reached it."""

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        assert self.sampler is not None
        return replace(result, metrics={**result.metrics, "f1": METRIC_OF[self.sampler.prior]})


class NoFirstClassifier(TrivialTrainer):
    """Fails at once."""

    def initial(self, counts_C: Int64) -> Incumbent:
        """Fail."""
        raise RuntimeError("there is no first classifier")


def dawdles(sampler: SamplerConfig) -> TrivialTrainer:
    """Build the trainer in ten minutes."""
    time.sleep(600)
    return TrivialTrainer()


def no_such_data(sampler: SamplerConfig) -> TrivialTrainer:
    """Fail as a trainer factory does whose user named data that are not there."""
    raise UserError("data 'nowhere' is unknown: use phantom")


def exits(sampler: SamplerConfig) -> TrivialTrainer:
    """End the process while the trainer is built."""
    sys.exit(7)


def breaks(sampler: SamplerConfig) -> TrivialTrainer:
    """Fail while the trainer is built."""
    raise RuntimeError("the trainer's parts do not fit")


class KeepingAgents(Agents):
    """Agents that always choose 0."""

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__(num_classes, num_features, sampler)
        self.logits_C3 = torch.nn.Parameter(torch.tensor([-1e9, 0.0, -1e9]).repeat(num_classes, 1))

    def forward(self, features_BCF: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C, 3]."""
        return self.logits_C3.expand(len(features_BCF), -1, -1)
