"""What the denoiser trains on, computed once: posterior moments of the latents, and sketches.

Moments and not samples are kept: a sample's noise, baked in, would be learnt as if it were the image's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rlcas.devices import as_tensor
from rlcas.errors import UserError
from rlcas.types import ImageSet
from synth.autoencoder import vae_input
from synth.sketch import Extractor

CHUNK_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCache:
    """Latents and sketches of M training items: the N images, then their mirrored copies if there are any."""

    means_MChw: Tensor
    stds_MChw: Tensor
    sketches_M1HW: Tensor
    """[M, 1, H, W] uint8; 255 is 1."""
    labels_M: Tensor
    """[M] int64."""

    def __len__(self) -> int:
        """Return M."""
        return len(self.labels_M)

    def sample(self, indices_N: Tensor, noise_NChw: Tensor) -> Tensor:
        """Return latents drawn from the posteriors of the items, not yet normalised."""
        return self.means_MChw[indices_N] + self.stds_MChw[indices_N] * noise_NChw

    def sketches(self, indices_N: Tensor) -> Tensor:
        """Return [N, 1, H, W] float32 in [0, 1]."""
        return self.sketches_M1HW[indices_N].float() / 255.0


def build_cache(
    images: ImageSet, vae: AutoencoderKL, sketch: Extractor, *, flip: bool, device: torch.device
) -> LatentCache:
    """Encode every image, and with `flip` its mirror image, and draw its sketch.

    Raises:
        UserError: the autoencoder gives values that are not finite.
    """
    pixels = as_tensor(images.images_NCHW, torch.device("cpu"))
    labels = as_tensor(images.labels_N, torch.device("cpu"))
    if flip:
        pixels, labels = torch.cat([pixels, pixels.flip(3)]), labels.repeat(2)
    means, stds, sketches = [], [], []
    for chunk in pixels.split(CHUNK_IMAGES):
        mean, std = posterior(chunk.to(device), vae)
        means.append(mean)
        stds.append(std)
        sketches.append((sketch(chunk.to(device)) * 255.0).round().to(torch.uint8))
    cache = LatentCache(
        means_MChw=torch.cat(means),
        stds_MChw=torch.cat(stds),
        sketches_M1HW=torch.cat(sketches),
        labels_M=labels.to(device),
    )
    if not (cache.means_MChw.isfinite().all() and cache.stds_MChw.isfinite().all()):
        raise UserError(
            "synth.autoencoder gives latents that are not finite: lower synth.autoencoder.lr, or check the "
            "weights under synth.autoencoder.pretrained"
        )
    return cache


@torch.no_grad()
def posterior(images_NCHW: Tensor, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [N, c, h, w] of the latents of uint8 images."""
    distribution = vae.encode(vae_input(images_NCHW, vae)).latent_dist
    return distribution.mean, distribution.std


def set_latent_scale(vae: AutoencoderKL, cache: LatentCache) -> None:
    """Store shift (mean) and scale (1 / standard deviation) of the training latents in the VAE's settings."""
    mean = cache.means_MChw.mean()
    variance = cache.means_MChw.var(correction=0) + cache.stds_MChw.square().mean()
    vae.register_to_config(shift_factor=mean.item(), scaling_factor=variance.rsqrt().item())


def normalised(latents_NChw: Tensor, vae: AutoencoderKL) -> Tensor:
    """Return z_0 as the denoiser takes it: mean 0 and standard deviation 1 over the training latents."""
    return (latents_NChw - vae.config.shift_factor) * vae.config.scaling_factor
