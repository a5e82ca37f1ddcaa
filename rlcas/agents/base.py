"""What all agents are: C policies in one stacked module."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from rlcas.config import SamplerConfig
from rlcas.types import Float64, Int64


class Agents(nn.Module, abc.ABC):
    """From what C agents see to C × 3 logits; what must outlive a restart lies in parameters and buffers.

    Args:
        num_classes: C.
        num_features: F, the numbers that an agent sees: one for each name in `seen`.
        sampler: the sampler's settings.
    """

    observes: ClassVar[tuple[str, ...]] = ("composition",)
    """Names in envs.observations.OBSERVATIONS that they see where `sampler.observation` is None."""

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        self.sampler = sampler

    @property
    def seen(self) -> tuple[str, ...]:
        """The names of the F features."""
        return self.sampler.observation or self.observes

    def begin(
        self,
        class_counts_C: Int64,
        dose_C: Int64 | None = None,
        benefit_probability_C: Float64 | None = None,
    ) -> None:
        """Take what is known before the first epoch of a run that does not resume; most agents need nothing of it.

        Args:
            class_counts_C: real training images of each class.
            dose_C: a composition that was found before.
            benefit_probability_C: the probability that its images of a class are a benefit.
        """

    def centre(self, counts_C: Int64) -> Int64:
        """Return [C] int64: the composition that the next epoch's actions change.

        Args:
            counts_C: the incumbent's composition, which most agents act upon.
        """
        return counts_C

    def design(self, num_episodes: int, rng: np.random.Generator) -> Int64 | None:
        """Return [K, C] int64: the actions of all episodes of the next epoch, as indices 0, 1, 2.

        None, as most agents return, for independent draws from the probabilities of `forward`.

        Args:
            num_episodes: K.
            rng: all is drawn from it.
        """
        return None

    @abc.abstractmethod
    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3] for -step, 0 and +step.

        Args:
            features_BCF: [B, C, F] in [0, 1].
        """

    def learn(self, counts_KC: Tensor, signals_KC: Tensor, progress: float) -> None:
        """Learn without a gradient from the valid episodes of an epoch; most agents do not.

        Args:
            counts_KC: the compositions.
            signals_KC: `sampler.signal` of each class; NaN for a class without validation images.
            progress: t/T of the epoch.
        """

    def curves(self) -> Tensor | None:
        """Return [C, G]: the signal expected at the counts 0, step, …; None where they fit no curves."""
        return None
