"""Episodes that only sleep, for the engine's benchmarks.

A module of its own that does not import RLlib: a run's workers do not import it either, and their memory is measured.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
from scaling_model import GB

from rlcas.config import SamplerConfig
from rlcas.metrics import CLASS_SIGNALS
from rlcas.types import EpochResult, Incumbent, Int64

EPISODE_SECONDS = 0.1
NUM_WEIGHTS = 1000


@dataclasses.dataclass
class SleepingTrainer:
    """A trainer whose epoch takes a known time."""

    sampler: SamplerConfig | None = None
    """What a trainer factory is called with; nothing here depends on it."""
    _: dataclasses.KW_ONLY
    num_classes: int
    num_weights: int = NUM_WEIGHTS
    seconds: float = EPISODE_SECONDS

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return zeros."""
        return Incumbent(
            epoch=0,
            arrays={"float32": np.zeros(self.num_weights, np.float32)},
            counts_C=counts_C,
            positions_C=np.zeros_like(counts_C),
        )

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Sleep; the metric is a function of the composition."""
        time.sleep(self.seconds)
        self._trained = dataclasses.replace(incumbent, epoch=incumbent.epoch + 1, counts_C=counts_C)
        f1 = float(np.tanh(counts_C.mean() / 16))
        return EpochResult(
            metrics={"f1": f1, "many": f1, "medium": f1, "few": f1},
            val_loss=1 - f1,
            train_loss=1 - f1,
            per_class=dict.fromkeys(CLASS_SIGNALS, np.full(self.num_classes, f1)),
            num_images=1,
            finite=True,
        )

    def trained(self) -> Incumbent:
        """Return the classifier after the last epoch."""
        return self._trained


@dataclasses.dataclass
class StragglingTrainer(SleepingTrainer):
    """A trainer with episodes of given lengths; its metrics include its process id and private memory."""

    sleeps_KE: tuple[tuple[float, ...], ...] = ()
    """Seconds of each episode, by episode and epoch."""

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        """Sleep for the given time of this episode and epoch."""
        self.seconds = self.sleeps_KE[episode_index][incumbent.epoch]
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        worker = {"pid": float(os.getpid()), "private_gb": private_gb()}
        return dataclasses.replace(result, metrics={**result.metrics, **worker})


def private_gb() -> float:
    """Return the memory of this process that is not shared with others, in GB (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    fields = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return sum(int(fields[f"Private_{kind}:"]) for kind in ("Clean", "Dirty")) * 1024 / GB
