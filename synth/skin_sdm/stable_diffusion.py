"""Stable Diffusion as a frozen base model: loading, prompts, latents, and a hash of all that its images depend on.

transformers and peft come with the optional extra `skin-sdm`, so they are imported inside functions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor

from rlcas.errors import UserError, first_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

EXTRA = ("transformers", "peft")


def require_extra() -> None:
    """Check that the extra `skin-sdm` is installed.

    Raises:
        UserError: it is not.
    """
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"synth.generator 'skin_sdm' needs {' and '.join(missing)}: pip install rlcas[skin-sdm]"
        )


def load_base(name: str, device: torch.device) -> StableDiffusionPipeline:
    """Return the Stable Diffusion of a folder or hub name, frozen, with DDIM and without its safety checker.

    The checker was made for photographs; an image that it blacks out would become a black training image.

    Raises:
        UserError: nothing loads under that name, or the extra `skin-sdm` is not installed.
    """
    require_extra()
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            name,
            # Whatever precision the weights were saved in: on the hub it is often half.
            dtype=torch.float32,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # see `synth.ldm.sampler.load_pipeline`
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,  # else diffusers warns about its absence
        )
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"synth.skin_sdm.pretrained {name!r} cannot be loaded ({first_line(error)}): name a folder or hub name "
            "of a Stable Diffusion pipeline in safetensors"
        ) from error
    # Clipping z_0 to [-1, 1] is right for pixels and wrong for latents (see `synth.ldm.diffusion.ddim`).
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False)
    return pipeline.to(device)


def prompts_of(template: str, class_names: Sequence[str]) -> list[str]:
    """Return the prompt of each class."""
    return [template.replace("{class}", name) for name in class_names]


def token_ids(pipeline: StableDiffusionPipeline, prompts_C: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each prompt, cut at the text encoder's maximum length.

    Raises:
        UserError: two prompts have the same tokens, for instance because the class names are cut off.
    """
    longest = pipeline.tokenizer.model_max_length
    ids: list[list[int]] = pipeline.tokenizer(
        list(prompts_C), padding="max_length", truncation=True, max_length=longest
    ).input_ids
    if len(set(map(tuple, ids))) < len(ids):
        raise UserError(
            f"synth.skin_sdm.prompt has the same {longest} tokens for two classes: shorten it, or give the classes "
            "names that differ early"
        )
    return ids


def base_sha256(pipeline: StableDiffusionPipeline, tokens: list[list[int]]) -> str:
    """Return a hash of everything in the base model that images depend on: weights, tokens of prompts, settings."""
    digest = hashlib.sha256()
    # The tensors as loaded: how a model's files are named and split does not change its images.
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for parameter in module.parameters():
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    # The scheduler is no module, so its schedule is not among the parameters.
    digest.update(pipeline.scheduler.alphas_cumprod.numpy())
    settings = [pipeline.scheduler.config.prediction_type, pipeline.vae.config.scaling_factor, tokens]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()


@torch.no_grad()
def posterior(images_NCHW: Tensor, pipeline: StableDiffusionPipeline, size_px: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [N, c, h, w] of the latents of uint8 images, resized to `size_px`, as RGB."""
    pixels = F.interpolate(images_NCHW.float(), (size_px, size_px), mode="bicubic", antialias=True)
    # Bicubic interpolation overshoots at edges; gray is repeated.
    rgb = pixels.clamp(0, 255).expand(-1, 3, -1, -1) / 127.5 - 1.0
    distribution = pipeline.vae.encode(rgb).latent_dist
    return distribution.mean, distribution.std
