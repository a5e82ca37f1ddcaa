"""Sampling from a latent diffusion model trained by `synth.ldm.train`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor

from rlcas.config import GenerationConfig, RunConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError, first_line
from rlcas.storage.atomic import sha256_of
from rlcas.types import TrainingData, Uint8
from synth.layout import PIPELINE_FOLDER
from synth.ldm.pipeline import ClassConditionalLDMPipeline

SAMPLING_SETTINGS = {"steps", "guidance", "guidance_interval"}
CARD_FIGURES = ("sketch_skill", "val_loss", "ema_decay", "denoiser_steps")


class LdmSampler:
    """Images from the saved pipeline by its few-step solver (a `synth.generators.ImageSampler`)."""

    def __init__(self, folder: Path, generation: GenerationConfig, device: torch.device) -> None:
        self.pipeline = load_pipeline(folder, device)
        assert self.pipeline.image_shape_CHW is not None, "train_synthesiser saves the shape"
        self._generation = generation
        self.class_names = self.pipeline.class_names
        self.image_shape_CHW = self.pipeline.image_shape_CHW
        self.origin = {
            "pipeline_sha256": folder_sha256(folder),
            "scheduler": type(self.pipeline.scheduler).__name__,
            **generation.model_dump(include=SAMPLING_SETTINGS),
        }

    def sample(self, class_id: int, generators: Sequence[torch.Generator]) -> Uint8:
        """Return [len(generators), channels, H, W] images of the class."""
        return self.decode(self.latents(class_id, generators))

    def sample_from(self, class_id: int, generators: Sequence[torch.Generator], sources_NCHW: Uint8) -> Uint8:
        """Return [len(generators), channels, H, W] images of the class, each from the source of its row."""
        images = as_tensor(sources_NCHW, self.pipeline.device).float() / 255.0
        return self.decode(self.latents(class_id, generators, images))

    def latents(
        self, class_id: int, generators: Sequence[torch.Generator], images: Tensor | None = None
    ) -> Tensor:
        """Return the normalised latents [len(generators), c, h, w] of the images, before decoding.

        With `images` [N, channels, H, W] in [0, 1] to start from, else from noise alone.
        """
        (latents,) = self.pipeline(
            [class_id] * len(generators),
            generator=list(generators),
            num_inference_steps=self._generation.steps,
            guidance_scale=self._generation.guidance,
            guidance_interval=self._generation.guidance_interval,
            output_type="latent",
            return_dict=False,
            images=images,
            strength=self._generation.strength or 1.0,  # none is set, or used, without images
        )
        return latents

    @torch.no_grad()
    def decode(self, latents_NChw: Tensor) -> Uint8:
        """Return the images [N, channels, H, W] of normalised latents."""
        images = self.pipeline.decode(latents_NChw)
        return (images * 255.0).round().to(torch.uint8).cpu().numpy()


def open_ldm(folder: Path, config: RunConfig, device: torch.device) -> LdmSampler:
    """Return the sampler of the synthesiser in `folder`.

    Raises:
        UserError: the folder holds none, or it does not load.
    """
    return LdmSampler(folder / PIPELINE_FOLDER, config.synth.generation, device)


def load_pipeline(folder: Path, device: torch.device) -> ClassConditionalLDMPipeline:
    """Return the pipeline saved in `folder`, in evaluation mode and without its own progress bar.

    Raises:
        UserError: the folder holds none, or it does not load.
    """
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} holds no synthesiser: train one with `rlcas synth train`")
    diffusers_logging.disable_progress_bar()
    try:
        # Without low_cpu_mem_usage, weights load in one way whether or not the optional accelerate is installed,
        # and diffusers does not warn of its absence.
        pipeline = ClassConditionalLDMPipeline.from_pretrained(
            folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder} cannot be loaded as a synthesiser ({first_line(error)}): train one again with "
            "`rlcas synth train`"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)  # as in training
    return pipeline.to(device)


def training_facts(data: TrainingData, config: RunConfig, figures: Mapping[str, float]) -> dict[str, Any]:
    """Return the model card's facts about the training, the same for the same weights: no paths, no times.

    Args:
        data: the training images.
        config: the run's settings.
        figures: those of the training.
    """
    synth, counts_C = config.synth, data.train.class_counts(data.num_classes)
    groups = {
        "autoencoder": synth.autoencoder.model_dump(mode="json", exclude={"pretrained"}),  # may be a path
        "denoiser": synth.denoiser.model_dump(mode="json"),
        "generation": synth.generation.model_dump(mode="json", include=SAMPLING_SETTINGS),
    }
    settings = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    return {
        "data": data.name,
        "images": dict(zip(data.class_names, counts_C.tolist(), strict=True)),
        "settings": {"seed": config.seed, "sketch": synth.sketch, **settings},
        "figures": {name: figures[name] for name in CARD_FIGURES if name in figures},
    }


def folder_sha256(folder: Path) -> str:
    """Return a hash of the saved model's weights and config files; its README and code do not change the images."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".json"):
            digest.update(f"{file.relative_to(folder).as_posix()}:{sha256_of(file)}\n".encode())
    return digest.hexdigest()
