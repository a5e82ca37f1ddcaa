"""The variational autoencoder between pixels and latents: diffusers' own, in the images' native channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rlcas.config import AutoencoderConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError, first_line
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.progress import Reporter

NORM_GROUPS = 8
CHANNELS_BY_LEVEL = (16, 32, 64, 64)
DENOISER_STRIDE = 8  # the UNet halves the latent three times
FACTOR_UP_TO_PX: dict[int, int] = {2: 48, 4: 128}


def factor_of(vae: AutoencoderKL) -> int:
    """Return how many pixels a latent element stands for, along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def build_autoencoder(config: AutoencoderConfig, image_shape_CHW: tuple[int, int, int]) -> AutoencoderKL:
    """Return an untrained autoencoder in the images' channels.

    Raises:
        UserError: `channels` do not fit the factor or the group normalisation.
    """
    channels_in, *size = image_shape_CHW
    factor: int = config.factor or next((f for f, px in FACTOR_UP_TO_PX.items() if max(size) <= px), 8)
    num_levels = factor.bit_length()
    widths = config.channels or CHANNELS_BY_LEVEL[:num_levels]
    if len(widths) != num_levels or any(width % NORM_GROUPS for width in widths):
        raise UserError(
            f"synth.autoencoder.channels {list(widths)} does not fit factor {factor}: "
            f"give {num_levels} multiples of {NORM_GROUPS}"
        )
    return AutoencoderKL(
        in_channels=channels_in,
        out_channels=channels_in,
        latent_channels=config.latent_channels,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * num_levels,
        up_block_types=("UpDecoderBlock2D",) * num_levels,
        layers_per_block=1,
        norm_num_groups=NORM_GROUPS,
        sample_size=max(size),
        mid_block_add_attention=False,
    )


def load_autoencoder(name: str, image_channels: int) -> AutoencoderKL:
    """Return a pretrained AutoencoderKL from a folder or the hub; gray images may use a three-channel one.

    Raises:
        UserError: nothing loads under that name, or its channels do not fit the images.
    """
    try:
        vae = AutoencoderKL.from_pretrained(name, use_safetensors=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"synth.autoencoder.pretrained {name!r} cannot be loaded ({first_line(error)}): name a folder or hub "
            "name of a diffusers AutoencoderKL in safetensors"
        ) from error
    if vae.config.in_channels not in (image_channels, 3):
        raise UserError(
            f"synth.autoencoder.pretrained {name!r} takes {vae.config.in_channels} channels, but the images "
            f"have {image_channels}: set dataset.channels to {vae.config.in_channels}"
        )
    return vae.eval().requires_grad_(False)


def train_autoencoder(
    vae: AutoencoderKL,
    images_NCHW: Uint8,
    config: AutoencoderConfig,
    *,
    seed: int,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, float]:
    """Train by L1 + kl_weight * KL(posterior ‖ N(0, I)) per pixel; return the last losses.

    Half of the images of a mini-batch are mirrored. The learning rate falls to 0 along a cosine.
    """
    vae.train().requires_grad_(True).to(device)
    images = as_tensor(images_NCHW, device)
    total = num_steps(len(images), config.epochs, config.batch_size, config.max_steps)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / total))
    generator = torch.Generator(device)
    with reporter.part("autoencoder", total, mend=f"lower synth.autoencoder.lr {config.lr:g}") as report:
        for step in range(total):
            generator.manual_seed(seed_for(seed, "autoencoder", step))
            batch = vae_input(_mirrored_batch(images, config.batch_size, generator), vae)
            posterior = vae.encode(batch).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample
            l1 = (decoded - batch).abs().mean()
            kl = posterior.kl().sum() / batch.numel()
            optimizer.zero_grad(set_to_none=True)
            (l1 + config.kl_weight * kl).backward()
            optimizer.step()
            decay.step()
            figures = report(step, {"l1": l1.detach(), "kl": kl.detach()})
    vae.eval().requires_grad_(False)
    return figures


def vae_input(images_NCHW: Tensor, vae: AutoencoderKL) -> Tensor:
    """Return uint8 images as the VAE takes them: float in [-1, 1], reflected up to a multiple of 8 * factor.

    One-channel images are repeated for a three-channel VAE.
    """
    images = pad_to_multiple(images_NCHW, DENOISER_STRIDE * factor_of(vae)).float() / 127.5 - 1.0
    return images.expand(-1, vae.config.in_channels, -1, -1).contiguous()


def pad_to_multiple(images_NCHW: Tensor, multiple: int) -> Tensor:
    """Return the images mirrored at their borders up to sides divisible by `multiple`, centred."""
    for axis in (2, 3):
        side = images_NCHW.shape[axis]
        missing = math.ceil(side / multiple) * multiple - side
        if missing:
            reflected = np.pad(np.arange(side), (missing // 2, missing - missing // 2), mode="reflect")
            images_NCHW = images_NCHW.index_select(axis, torch.from_numpy(reflected).to(images_NCHW.device))
    return images_NCHW


def num_steps(num_images: int, epochs: int, batch_size: int, max_steps: int | None) -> int:
    """Return the optimiser steps of that many passes, cut at `max_steps`."""
    steps = math.ceil(num_images * epochs / batch_size)
    return min(steps, max_steps or steps)


def cosine(progress: float) -> float:
    """Return the share of the learning rate that is left, from 1 at the start to 0 at the end."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _mirrored_batch(images_NCHW: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    device = images_NCHW.device
    chosen = torch.randint(len(images_NCHW), (batch_size,), generator=generator, device=device)
    batch = images_NCHW[chosen]
    half = batch_size // 2
    return torch.cat([batch[:half], batch[half:].flip(3)])
