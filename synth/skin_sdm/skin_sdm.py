"""Skin-SDM (Patcharapimpisut and Khanarsa 2024): Stable Diffusion, a LoRA on its UNet, and class names in prompts.

The paper's training details are not public: rank, prompt, steps and learning rate are our choice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from rlcas.config import RunConfig, SkinSdmConfig
from rlcas.devices import same_bits
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from rlcas.storage.atomic import replacing_folder, sha256_of, write_json
from rlcas.storage.reading import NOT_JSON
from rlcas.types import TrainingData, Uint8
from synth.layout import CHECKPOINTS_FOLDER, FIGURES_FILE
from synth.ldm.latents import build_moments
from synth.skin_sdm.lora import LORA_FILE, LoraObjective, load_lora, save_lora
from synth.skin_sdm.stable_diffusion import (
    base_sha256,
    load_base,
    posterior,
    prompts_of,
    require_extra,
    token_ids,
)
from synth.training.loop import Schedule, Training
from synth.training.progress import OnStep, Reporter
from synth.training.workers import Workers

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

LORA_FOLDER = "lora"
RECORD_FILE = "skin_sdm.json"
CHUNK_IMAGES = 4  # images of 512 px, where latents of small images are computed 64 at a time


def check_skin_sdm(config: RunConfig) -> None:
    """Check that a base model is named and the extra `skin-sdm` installed.

    Raises:
        UserError: one of them is not.
    """
    if config.synth.skin_sdm.pretrained is None:
        raise UserError(
            "synth.skin_sdm.pretrained is not given: name a folder or hub name of Stable Diffusion weights, such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5 (licence CreativeML OpenRAIL-M; downloaded once)"
        )
    require_extra()


def train_skin_sdm(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the LoRA and save it, with a record of its base model, to `folder`/lora; the base model is not copied.

    Args:
        data: training images.
        config: the run's settings.
        folder: where to write.
        device: where to train.
        progress: show bars on a terminal, lines in a log.
        on_step: called with (part, step, steps, figures) up to a hundred times.

    Returns:
        The content of synthesiser.json: the last loss, steps and seconds.

    Raises:
        UserError: the base model does not load, two classes have the same prompt, or the loss is not finite.
    """
    check_skin_sdm(config)
    settings, workers = config.synth.skin_sdm, Workers.joined()
    pipeline = load_base(str(settings.pretrained), device)
    record = _record(pipeline, data, settings)
    reporter = Reporter.of_first(workers, progress=progress, on_step=on_step)
    with same_bits(device):
        checkpoint = folder / CHECKPOINTS_FOLDER / "lora.safetensors"
        trained = train_lora(pipeline, data, config, checkpoint, workers=workers, reporter=reporter)
    figures = {f"lora_{name}": value for name, value in trained.items()}
    workers.run_on_first(lambda: _save(pipeline, record, figures, folder))
    return figures


def _save(
    pipeline: StableDiffusionPipeline, record: dict[str, Any], figures: dict[str, float], folder: Path
) -> None:
    with replacing_folder(folder / LORA_FOLDER) as temporary:
        save_lora(pipeline, temporary)
        # In one folder, so that LoRA and record are replaced together.
        write_json(temporary / RECORD_FILE, record)
    # Last, since it makes the folder a finished generator; only then may the checkpoints go.
    write_json(folder / FIGURES_FILE, figures)
    shutil.rmtree(folder / CHECKPOINTS_FOLDER)


def train_lora(
    pipeline: StableDiffusionPipeline,
    data: TrainingData,
    config: RunConfig,
    checkpoint: Path,
    *,
    workers: Workers,
    reporter: Reporter,
) -> dict[str, float]:
    """Add a LoRA to the pipeline's UNet and train it; return its figures.

    Args:
        pipeline: the frozen base model.
        data: training images.
        config: the run's settings.
        checkpoint: file of the training's checkpoints.
        workers: the processes that train together.
        reporter: shows progress.
    """
    settings = config.synth.skin_sdm
    moments = build_moments(
        data.train,
        partial(posterior, pipeline=pipeline, size_px=settings.size_px),
        pipeline.device,
        flip=settings.flip,
        workers=workers,
        chunk_images=CHUNK_IMAGES,
    )
    prompts = prompts_of(settings.prompt, data.class_names)
    # Before the LoRA is added: peft takes its initial weights from the global generator.
    torch.manual_seed(seed_for(config.seed, "lora", "initial weights"))
    objective = LoraObjective(pipeline, moments, prompts, settings, seed=config.seed, workers=workers)
    schedule = Schedule.of(
        "lora", config.synth, "skin_sdm", len(data.train), weight_decay=settings.weight_decay
    )
    return Training(objective, schedule, workers).run_timed(checkpoint, reporter)


class SkinSdmSampler:
    """Images by Stable Diffusion with the LoRA (a `synth.generators.ImageSampler`).

    Raises:
        UserError: the folder holds no LoRA, or the base model is not the one that it was trained on.
    """

    def __init__(self, folder: Path, settings: SkinSdmConfig, device: torch.device) -> None:
        record = _read_record(folder)
        self.pipeline = load_base(record["base"], device)
        self._prompts = record["prompts"]
        sha256 = base_sha256(self.pipeline, token_ids(self.pipeline, self._prompts))
        if sha256 != record["base_sha256"]:
            raise UserError(
                f"{record['base']} is not the model that {folder} was trained on (sha256 differs): put that one "
                "in its place, or train again with `rlcas synth train`"
            )
        # After the hash, which is of the base model alone.
        load_lora(self.pipeline, folder)
        self._settings, self._size_px = settings, record["size_px"]
        self.class_names = tuple(record["class_names"])
        self.image_shape_CHW = tuple(record["image_shape_CHW"])
        self.origin = {
            "base": record["base"],
            "base_sha256": sha256,
            "lora_sha256": sha256_of(folder / LORA_FILE),
            "size_px": self._size_px,
            **settings.model_dump(include={"steps", "guidance"}),
        }

    def sample(self, class_id: int, generators: Sequence[torch.Generator]) -> Uint8:
        """Return [len(generators), channels, H, W] images of the class, resized to the shape of the data."""
        images, *_ = self.pipeline(
            [self._prompts[class_id]] * len(generators),
            height=self._size_px,
            width=self._size_px,
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance,
            generator=list(generators),
            output_type="pt",
            return_dict=False,
        )
        channels, *size = self.image_shape_CHW
        resized = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
        gray_or_rgb = resized if channels == 3 else resized.mean(dim=1, keepdim=True)
        # Bicubic interpolation overshoots at edges.
        return (gray_or_rgb.clamp(0, 1) * 255.0).round().to(torch.uint8).cpu().numpy()


def open_skin_sdm(folder: Path, config: RunConfig, device: torch.device) -> SkinSdmSampler:
    """Return the sampler of the LoRA that `train_skin_sdm` wrote to `folder`.

    Raises:
        UserError: the LoRA or its base model is missing, or the base model is another one.
    """
    return SkinSdmSampler(folder / LORA_FOLDER, config.synth.skin_sdm, device)


def _record(pipeline: StableDiffusionPipeline, data: TrainingData, settings: SkinSdmConfig) -> dict[str, Any]:
    """Return the facts about the training that the sampler needs, as JSON."""
    prompts = prompts_of(settings.prompt, data.class_names)
    return {
        "base": settings.pretrained,
        "base_sha256": base_sha256(pipeline, token_ids(pipeline, prompts)),
        "prompts": prompts,
        "size_px": settings.size_px,
        "class_names": data.class_names,
        "image_shape_CHW": data.image_shape_CHW,
    }


def _read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a training.

    Raises:
        UserError: there is none.
    """
    try:
        return json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, *NOT_JSON) as error:
        raise UserError(
            f"{folder} holds no Skin-SDM: train one with `rlcas synth train --synth.generator skin_sdm`"
        ) from error
