"""Generators by name: what learns from the training images, and what then fills a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from rlcas.config import RunConfig
from rlcas.types import TrainingData, Uint8
from synth.ldm import open_ldm
from synth.progress import OnStep
from synth.train import train_synthesiser


class ImageSampler(Protocol):
    """A trained generator on its device."""

    @property
    def class_names(self) -> Sequence[str]:
        """Return [C] names."""
        ...

    @property
    def image_shape_CHW(self) -> tuple[int, int, int]:
        """Return (channels, H, W) of its images."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """Return all that its images depend on beside class and draws, as JSON: hashes of weights, settings."""
        ...

    def sample(self, class_id: int, generators: Sequence[torch.Generator]) -> Uint8:
        """Return [len(generators), channels, H, W] uint8; image i is drawn from generator i (on the CPU) alone."""
        ...


class Train(Protocol):
    """Learns from the training images."""

    def __call__(
        self,
        data: TrainingData,
        config: RunConfig,
        folder: Path,
        *,
        device: torch.device,
        progress: bool,
        on_step: OnStep | None = None,
    ) -> dict[str, float]:
        """Write the trained generator into `folder` and, last, its figures to synthesiser.json; return these."""
        ...


class Open(Protocol):
    """Reads what `Train` wrote."""

    def __call__(self, folder: Path, config: RunConfig, device: torch.device) -> ImageSampler:
        """Return the sampler of the generator in `folder`."""
        ...


@dataclass(frozen=True, slots=True)
class Generator:
    """An entry of GENERATORS."""

    train: Train
    open: Open


GENERATORS: dict[str, Generator] = {
    "ldm": Generator(train_synthesiser, open_ldm),
}
"""Generators by name; from outside comes package.module:object with the attributes `train` and `open`."""
