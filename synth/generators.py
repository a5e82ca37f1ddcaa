"""Generators by name: how each is trained, and how it is opened to sample a pool."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.types import TrainingData, Uint8
from synth.training.progress import OnStep


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
        """Return everything but class and seeds that its images depend on, as JSON: hashes of weights, settings."""
        ...

    def sample(self, class_id: int, generators: Sequence[torch.Generator]) -> Uint8:
        """Return [len(generators), channels, H, W] uint8; image i is drawn from generator i (on the CPU) alone."""
        ...


class ImageStartSampler(ImageSampler, Protocol):
    """A trained generator that also makes images from real ones."""

    def sample_from(self, class_id: int, generators: Sequence[torch.Generator], sources_NCHW: Uint8) -> Uint8:
        """Return [len(generators), channels, H, W] uint8; image i depends on generator i and source i alone."""
        ...


class StartImages(Protocol):
    """The real images that synthetic ones start from."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """Return which they are and how they are dealt, as JSON: for the pool's manifest."""
        ...

    def images(self, class_id: int, indices: range) -> Uint8:
        """Return [len(indices), channels, H, W] uint8: the source of each of these synthetic images of the class."""
        ...


class Train(Protocol):
    """Trains a generator on the training images."""

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
        """Write the trained generator into `folder` and, last, its figures to synthesiser.json; return these.

        Args:
            data: training and validation images.
            config: the run's settings.
            folder: where to write; checkpoints of an interrupted training are found here.
            device: where to train.
            progress: show bars on a terminal, lines in a log.
            on_step: called with (part, step, total, figures) up to a hundred times a part.
        """
        ...


class Open(Protocol):
    """Opens a generator that `Train` wrote."""

    def __call__(self, folder: Path, config: RunConfig, device: torch.device) -> ImageSampler:
        """Return the sampler of the generator in `folder`."""
        ...


def no_check(config: RunConfig) -> None:
    """Accept any settings."""


@dataclass(frozen=True, slots=True)
class Generator:
    """An entry of GENERATORS."""

    train: Train
    open: Open
    check: Callable[[RunConfig], None] = no_check
    """Raises a UserError if its settings are wrong, before anything is read or written."""
    starts_from_images: bool = False
    """Whether what it opens is an `ImageStartSampler`."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part of its training -> group of settings under `synth` with the part's epochs, batch_size and max_steps.
    Its figures have <part>_seconds, from which `--dry-run` estimates; without parts there is no estimate."""


def _lazy(name: str) -> Callable[..., Any]:
    """Return a function that imports `module:function` when called: importing diffusers takes seconds."""

    def call(*args: Any, **named: Any) -> Any:
        module, _, function = name.partition(":")
        return getattr(importlib.import_module(module), function)(*args, **named)

    return call


LDM_PARTS = {"autoencoder": "autoencoder", "denoiser": "denoiser"}
"""Parts of the latent diffusion model's training, which is MGDM's first stage too."""

GENERATORS: dict[str, Generator] = {
    "ldm": Generator(
        train=_lazy("synth.ldm.train:train_synthesiser"),
        open=_lazy("synth.ldm.sampler:open_ldm"),
        starts_from_images=True,
        parts=LDM_PARTS,
    ),
    "mgdm": Generator(
        train=_lazy("synth.mgdm.mgdm:train_mgdm"),
        open=_lazy("synth.mgdm.mgdm:open_mgdm"),
        check=_lazy("synth.mgdm.mgdm:check_mgdm"),
        parts={**LDM_PARTS, "classifier": "mgdm"},
    ),
    "skin_sdm": Generator(
        train=_lazy("synth.skin_sdm.skin_sdm:train_skin_sdm"),
        open=_lazy("synth.skin_sdm.skin_sdm:open_skin_sdm"),
        check=_lazy("synth.skin_sdm.skin_sdm:check_skin_sdm"),
        parts={"lora": "skin_sdm"},
    ),
}
"""Generators by name; one from outside is named package.module:object and is a `Generator`."""


def generator_of(config: RunConfig) -> Generator:
    """Return the generator that the setting `synth.generator` names.

    Raises:
        UserError: the name is unknown, or names another kind of object.
    """
    name = config.synth.generator
    generator = lookup(name, GENERATORS, "synth.generator")
    if not isinstance(generator, Generator):
        raise UserError(f"synth.generator {name!r} is not a synth.generators.Generator: name one")
    return generator


def check_start(config: RunConfig) -> None:
    """Check that the generator can start from what `synth.generation.start` says.

    Raises:
        UserError: it starts from noise alone.
    """
    if config.synth.generation.start == "image" and not generator_of(config).starts_from_images:
        able = ", ".join(name for name, generator in GENERATORS.items() if generator.starts_from_images)
        raise UserError(
            f"synth.generation.start image is for synth.generator {able}, but {config.synth.generator} starts from "
            "noise alone: set the start to noise, or change the generator"
        )
