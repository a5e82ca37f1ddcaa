"""Skin-SDM (Patcharapimpisut and Khanarsa 2024): Stable Diffusion, a LoRA on its UNet, and class names in prompts.

The paper's training details are not public: rank, prompt, steps and rates are our settings. transformers and
peft are imported where they are used; both come with the extra `skin-sdm`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from rlcas.config import RunConfig, SkinSdmConfig
from rlcas.errors import UserError, first_line
from rlcas.files import replacing_folder, sha256_of, write_json
from rlcas.seeding import seed_for
from rlcas.types import TrainingData, Uint8
from synth.autoencoder import num_steps
from synth.diffusion import noised, target_of
from synth.latents import Moments, encode
from synth.progress import OnStep, Reporter
from synth.rng import isolated_rng
from synth.train import FIGURES_FILE, balanced_weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

EXTRA = ("transformers", "peft")
LORA_FOLDER = "lora"
LORA_FILE = "pytorch_lora_weights.safetensors"
RECORD_FILE = "skin_sdm.json"
ADAPTED_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
CHUNK_IMAGES = 4


def check_skin_sdm(config: RunConfig) -> None:
    """Find what Skin-SDM lacks.

    Raises:
        UserError: the base model is not given, or the extra `skin-sdm` is not installed.
    """
    if config.synth.skin_sdm.pretrained is None:
        raise UserError(
            "synth.skin_sdm.pretrained is not given: name a folder or hub name of Stable Diffusion weights, such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5 (licence CreativeML OpenRAIL-M; downloaded once)"
        )
    _require_extra()


def _require_extra() -> None:
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"synth.generator 'skin_sdm' needs {' and '.join(missing)}: pip install rlcas[skin-sdm]"
        )


def load_base(name: str, device: torch.device) -> StableDiffusionPipeline:
    """Return the Stable Diffusion of a folder or hub name, frozen, with DDIM and without its safety checker.

    Raises:
        UserError: nothing loads under that name, or the extra `skin-sdm` is not installed.
    """
    _require_extra()
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            name,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"synth.skin_sdm.pretrained {name!r} cannot be loaded ({first_line(error)}): name a folder or hub name "
            "of a Stable Diffusion pipeline in safetensors"
        ) from error
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False)
    return pipeline.to(device)


def prompts_of(template: str, class_names: Sequence[str]) -> list[str]:
    """Return the prompt of each class."""
    return [template.replace("{class}", name) for name in class_names]


def token_ids(pipeline: StableDiffusionPipeline, prompts_C: Sequence[str]) -> list[list[int]]:
    """Return what the text encoder is given of each prompt.

    Raises:
        UserError: two prompts are the same to it, as where class names come after more words than it takes.
    """
    longest = pipeline.tokenizer.model_max_length
    ids: list[list[int]] = pipeline.tokenizer(
        list(prompts_C), padding="max_length", truncation=True, max_length=longest
    ).input_ids
    if len(set(map(tuple, ids))) < len(ids):
        raise UserError(
            f"synth.skin_sdm.prompt gives two classes the same {longest} tokens: shorten it, or give the classes "
            "names that differ early"
        )
    return ids


def base_sha256(pipeline: StableDiffusionPipeline, tokens: list[list[int]]) -> str:
    """Return a hash of all that samples depend on in the base model: weights, prompts' tokens, settings."""
    digest = hashlib.sha256()
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for parameter in module.parameters():
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    digest.update(pipeline.scheduler.alphas_cumprod.numpy())
    settings = [pipeline.scheduler.config.prediction_type, pipeline.vae.config.scaling_factor, tokens]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()


@torch.no_grad()
def posterior(images_NCHW: Tensor, pipeline: StableDiffusionPipeline, size_px: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the latents of uint8 images, resized to `size_px`; gray becomes RGB."""
    pixels = F.interpolate(images_NCHW.float(), (size_px, size_px), mode="bicubic", antialias=True)
    rgb = pixels.clamp(0, 255).expand(-1, 3, -1, -1) / 127.5 - 1.0
    distribution = pipeline.vae.encode(rgb).latent_dist
    return distribution.mean, distribution.std


class LoraTrainer:
    """The base model's own objective on its UNet's LoRA; each step is a function of its number.

    Args:
        pipeline: the frozen base model; its UNet gets the adapter.
        moments: the training latents.
        prompts_C: each class's prompt.
        config: settings of Skin-SDM.
        seed: the run's.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        moments: Moments,
        prompts_C: Sequence[str],
        config: SkinSdmConfig,
        *,
        seed: int,
    ) -> None:
        from peft import LoraConfig

        self.unet, self._moments, self._config, self._seed = pipeline.unet, moments, config, seed
        self.unet.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank,
                init_lora_weights="gaussian",
                target_modules=ADAPTED_LAYERS,
            )
        )
        device = moments.means_MChw.device
        with torch.no_grad():
            self._text_CLD, _ = pipeline.encode_prompt(list(prompts_C), device, 1, False)
        self._latent_scale = pipeline.vae.config.scaling_factor
        self._prediction = pipeline.scheduler.config.prediction_type
        self._abar = pipeline.scheduler.alphas_cumprod.to(device)
        self._item_weights = balanced_weights(moments.labels_M, config.class_balance)
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in self.unet.parameters() if parameter.requires_grad],
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def run(self, *, num_images: int, reporter: Reporter) -> dict[str, float]:
        """Train for the epochs of the settings; return figures."""
        config = self._config
        total = num_steps(num_images, config.epochs, config.batch_size, config.max_steps)
        self.unet.train()
        with reporter.part("lora", total, mend=f"lower synth.skin_sdm.lr {config.lr:g}") as report:
            for step in range(total):
                losses = self.losses(step)
                self._optimizer.zero_grad(set_to_none=True)
                losses["loss"].backward()
                self._optimizer.step()
                figures = report(step, {name: value.detach() for name, value in losses.items()})
        self.unet.eval()
        return {**{f"lora_{name}": value for name, value in figures.items()}, "lora_steps": total}

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Return the mean squared error of step number `step`, with its gradient."""
        device = self._abar.device
        generator = torch.Generator(device).manual_seed(seed_for(self._seed, "lora", step))
        size = self._config.batch_size
        items = torch.multinomial(self._item_weights, size, replacement=True, generator=generator)
        timesteps = torch.randint(len(self._abar), items.shape, generator=generator, device=device)
        shape = (size, *self._moments.means_MChw.shape[1:])
        posterior_noise, noise = torch.randn((2, *shape), generator=generator, device=device)
        latents = self._moments.sample(items, posterior_noise) * self._latent_scale
        abar = self._abar[timesteps]
        text = self._text_CLD[self._moments.labels_M[items]]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            predicted = self.unet(noised(latents, noise, abar), timesteps, encoder_hidden_states=text).sample
        return {"loss": F.mse_loss(predicted.float(), target_of(self._prediction, latents, noise, abar))}


def train_skin_sdm(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the LoRA and save it, with a record of what it was trained on, to `folder`/lora.

    Args are those of `synth.train.train_synthesiser`. The base model is not copied.

    Returns:
        What synthesiser.json holds: the last loss, steps and seconds.

    Raises:
        UserError: the base model does not load, a prompt does not tell the classes apart, or the loss is not finite.
    """
    check_skin_sdm(config)
    settings, started = config.synth.skin_sdm, time.perf_counter()
    base = str(settings.pretrained)
    pipeline = load_base(base, device)
    prompts = prompts_of(settings.prompt, data.class_names)
    record = {
        "base": str(Path(base).absolute()) if Path(base).is_dir() else base,
        "base_sha256": base_sha256(pipeline, token_ids(pipeline, prompts)),
        "prompts": prompts,
        "size_px": settings.size_px,
        "class_names": data.class_names,
        "image_shape_CHW": data.image_shape_CHW,
    }
    posterior_of = partial(posterior, pipeline=pipeline, size_px=settings.size_px)
    moments = encode(data.train, posterior_of, flip=settings.flip, device=device, chunk_images=CHUNK_IMAGES)
    caching = time.perf_counter()
    with isolated_rng(seed_for(config.seed, "skin_sdm", "torch"), device):
        trainer = LoraTrainer(pipeline, moments, prompts, settings, seed=config.seed)
        figures = trainer.run(num_images=len(data.train), reporter=Reporter(progress=progress, on_step=on_step))
    with replacing_folder(folder / LORA_FOLDER) as temporary:
        save_lora(pipeline, temporary)
        write_json(temporary / RECORD_FILE, record)
    figures |= {"cache_seconds": caching - started, "lora_seconds": time.perf_counter() - caching}
    write_json(folder / FIGURES_FILE, figures)
    return figures


def save_lora(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the adapter alone.

    `save_pretrained` with an adapter in the UNet would write names under which `from_pretrained` finds nothing.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=LORA_FILE)


class SkinSdmSampler:
    """Images by Stable Diffusion with the LoRA (a `synth.generators.ImageSampler`)."""

    def __init__(self, folder: Path, settings: SkinSdmConfig, device: torch.device) -> None:
        record = _read_record(folder)
        self.pipeline = load_base(record["base"], device)
        self._prompts = record["prompts"]
        sha256 = base_sha256(self.pipeline, token_ids(self.pipeline, self._prompts))
        if sha256 != record["base_sha256"]:
            raise UserError(
                f"{record['base']} is not the model that {folder} was trained on (sha256 differs): put that one "
                "there, or train again with `rlcas synth train`"
            )
        _load_lora(self.pipeline, folder)
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
        """Return [len(generators), channels, H, W] images of the class, resized to the data's shape."""
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
        return (gray_or_rgb.clamp(0, 1) * 255.0).round().to(torch.uint8).cpu().numpy()


def open_skin_sdm(folder: Path, config: RunConfig, device: torch.device) -> SkinSdmSampler:
    """Return the sampler of what `train_skin_sdm` left in `folder`.

    Raises:
        UserError: it is not there, or the base model is not there or another one.
    """
    return SkinSdmSampler(folder / LORA_FOLDER, config.synth.skin_sdm, device)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no Skin-SDM: train one with `rlcas synth train --synth.generator skin_sdm`"
        ) from error


def _load_lora(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        pipeline.unet.load_lora_adapter(
            folder, prefix="unet", weight_name=LORA_FILE, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / LORA_FILE} cannot be loaded ({first_line(error)}): train again with `rlcas synth train "
            "--synth.generator skin_sdm`"
        ) from error
