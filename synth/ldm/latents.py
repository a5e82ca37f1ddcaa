"""The training data of the denoiser, computed once: posterior moments of the latents, and sketches.

Moments are cached, not draws from the posteriors: a cached draw's noise would be learnt as if it were the image's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rlcas.batches.augment import move
from rlcas.devices import as_tensor
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from rlcas.types import ImageSet
from synth.ldm.autoencoder import vae_input
from synth.sketch import SketchExtractor
from synth.training.workers import ALONE, Workers

CHUNK_IMAGES = 64

Encode = Callable[[Tensor], tuple[Tensor, ...]]
"""From uint8 images [n, C, H, W] on the device to mean and standard deviation of their latents, and possibly more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Latents of M training items: the N images, then their augmented copies, if any."""

    means_MChw: Tensor
    stds_MChw: Tensor
    labels_M: Tensor
    """[M] int64."""

    def __len__(self) -> int:
        """Return M."""
        return len(self.labels_M)

    def draw(self, indices_N: Tensor, noise_NChw: Tensor) -> Tensor:
        """Return latents drawn from the items' posteriors with standard normal noise, not yet normalised."""
        return self.means_MChw[indices_N] + self.stds_MChw[indices_N] * noise_NChw


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCache(Moments):
    """Latents, sketches and augmentations."""

    sketches_M1HW: Tensor
    """[M, 1, H, W] uint8; 255 is 1."""
    augmentations_MA: Tensor
    """[M, 5] float32: mirrored (0 or 1), angle, scale, shift right, shift down; all 0 for an unaltered image."""

    @property
    def is_augmented(self) -> bool:
        """Return whether there are augmented copies."""
        return bool(self.augmentations_MA.any())

    def sketches(self, indices_N: Tensor) -> Tensor:
        """Return [N, 1, H, W] float32 in [0, 1]."""
        return self.sketches_M1HW[indices_N].float() / 255.0


def build_cache(
    images: ImageSet,
    vae: AutoencoderKL,
    sketch: SketchExtractor,
    device: torch.device,
    *,
    flip: bool = False,
    moved_copies: int = 0,
    seed: int = 0,
    workers: Workers = ALONE,
) -> LatentCache:
    """Encode every image, its mirror image with `flip`, and `moved_copies` copies of it; compute their sketches.

    Args:
        images: N images.
        vae: the trained autoencoder.
        sketch: the extractor of sketches.
        device: where to encode and store the cache.
        flip: add the mirror images.
        moved_copies: copies of each image that are rotated, scaled and shifted, half of them mirrored too.
        seed: the run's seed, for the copies.
        workers: each encodes its block of the items; all get the whole cache.

    Raises:
        UserError: the autoencoder returns values that are not finite.
    """
    augmentations_MA = augmentations(len(images), flip=flip, moved_copies=moved_copies, seed=seed)

    def encode(pixels_NCHW: Tensor) -> tuple[Tensor, ...]:
        # Sketches in 8 bits: a quarter of the memory; the error is at most 1/510.
        return *posterior(pixels_NCHW, vae), (sketch(pixels_NCHW) * 255.0).round().to(torch.uint8)

    means, stds, sketches = _encoded(images, augmentations_MA, encode, device, workers)
    # Found here, NaN is the autoencoder's fault; later it would look like the denoiser's.
    if not (means.isfinite().all() and stds.isfinite().all()):
        raise UserError(
            "synth.autoencoder returns latents that are not finite: lower synth.autoencoder.lr, or check the "
            "weights under synth.autoencoder.pretrained"
        )
    return LatentCache(
        means_MChw=means,
        stds_MChw=stds,
        sketches_M1HW=sketches,
        labels_M=_labels(images, augmentations_MA, device),
        augmentations_MA=augmentations_MA.to(device),
    )


def build_moments(
    images: ImageSet,
    encode: Encode,
    device: torch.device,
    *,
    flip: bool = False,
    workers: Workers = ALONE,
    chunk_images: int = CHUNK_IMAGES,
) -> Moments:
    """Return the latents of every image, and of its mirror image with `flip`.

    Args:
        images: N images.
        encode: uint8 images to mean and standard deviation of their latents.
        device: where to encode and store them.
        flip: add the mirror images.
        workers: each encodes its block of the items; all get the whole.
        chunk_images: images encoded together.
    """
    augmentations_MA = augmentations(len(images), flip=flip, moved_copies=0, seed=0)
    means, stds = _encoded(images, augmentations_MA, encode, device, workers, chunk_images)
    return Moments(
        means_MChw=means,
        stds_MChw=stds,
        labels_M=_labels(images, augmentations_MA, device),
    )


def augmentations(num_images: int, *, flip: bool, moved_copies: int, seed: int) -> Tensor:
    """Return [M, 5], the augmentations of the M items: first the unaltered images, then mirrored, then moved ones.

    Args:
        num_images: N.
        flip: add the mirror images.
        moved_copies: moved copies of each image.
        seed: the run's seed.
    """
    rows = [torch.zeros(num_images, 5)]
    if flip:
        rows.append(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]]).expand(num_images, 5))
    for copy in range(moved_copies):
        # A path for each copy: with more of them, the first ones stay the same.
        generator = torch.Generator().manual_seed(seed_for(seed, "moved-copy", copy))
        draws = torch.rand((num_images, 5), generator=generator) * 2.0 - 1.0
        rows.append(torch.cat([(draws[:, :1] < 0).float(), draws[:, 1:]], dim=1))
    return torch.cat(rows)


def augmented(images_NCHW: Tensor, augmentations_NA: Tensor) -> Tensor:
    """Return uint8 images, each mirrored and moved by its row; without a move, no pixel is interpolated."""
    mirrored_N = augmentations_NA[:, 0] > 0
    images_NCHW = torch.where(mirrored_N[:, None, None, None], images_NCHW.flip(3), images_NCHW)
    moved_N = augmentations_NA[:, 1:].any(dim=1)
    if not moved_N.any():
        return images_NCHW
    # `move` mirrors where its first draw is negative; these images are mirrored already.
    draws_N5 = torch.cat([torch.ones(len(images_NCHW), 1), augmentations_NA[:, 1:]], dim=1)
    # All rows are moved, and unmoved ones then replaced: interpolation would change their pixels.
    moved = move(images_NCHW.float(), draws_N5).round().clamp(0, 255).to(torch.uint8)
    return torch.where(moved_N[:, None, None, None], moved, images_NCHW)


def _encoded(
    images: ImageSet,
    augmentations_MA: Tensor,
    encode: Encode,
    device: torch.device,
    workers: Workers,
    chunk_images: int = CHUNK_IMAGES,
) -> Iterator[Tensor]:
    """Yield each output of `encode` for all items; each worker encodes its block of them, and all get the whole.

    Args:
        images: N images.
        augmentations_MA: augmentations of the items.
        encode: the encoder.
        device: where to encode.
        workers: the processes that share the work.
        chunk_images: images encoded together.
    """
    pixels = as_tensor(images.images_NCHW, torch.device("cpu"))
    block = torch.arange(len(augmentations_MA)).tensor_split(workers.size)[workers.rank]
    # Item jN + i is image i in its j-th form, hence the remainder below.
    chunks = [
        encode(augmented(pixels[items % len(pixels)], augmentations_MA[items]).to(device))
        for items in block.split(chunk_images)
    ]
    for outputs in zip(*chunks, strict=True):
        yield workers.gather(torch.cat(outputs), len(augmentations_MA))


def _labels(images: ImageSet, augmentations_MA: Tensor, device: torch.device) -> Tensor:
    """Return the labels [M] of the items."""
    return as_tensor(images.labels_N, device).repeat(len(augmentations_MA) // len(images))


@torch.no_grad()
def posterior(images_NCHW: Tensor, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [N, c, h, w] of the latents of uint8 images."""
    distribution = vae.encode(vae_input(images_NCHW, vae)).latent_dist
    return distribution.mean, distribution.std


def set_latent_scale(vae: AutoencoderKL, cache: LatentCache) -> None:
    """Store shift (mean) and scale (1 / standard deviation) of the training latents in the VAE's config.

    By the law of total variance: the variance of the means plus the mean variance of the posteriors.
    """
    mean = cache.means_MChw.mean()
    variance = cache.means_MChw.var(correction=0) + cache.stds_MChw.square().mean()
    # In the config, which is saved with the VAE, so that the pipeline decodes with the same scale; diffusers'
    # default of 0.18215 is that of Stable Diffusion's autoencoder.
    vae.register_to_config(shift_factor=mean.item(), scaling_factor=variance.rsqrt().item())


def normalised(latents_NChw: Tensor, vae: AutoencoderKL) -> Tensor:
    """Return z_0, the input of the denoiser: mean 0 and standard deviation 1 over the training latents."""
    return (latents_NChw - vae.config.shift_factor) * vae.config.scaling_factor
