"""The variational autoencoder between pixels and latents: diffusers' AutoencoderKL in the images' own channels."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from torch import Tensor, nn

from rlcas.config import AutoencoderConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError, first_line
from rlcas.seeding import seed_for
from rlcas.types import Uint8
from synth.ldm.pipeline import mirror_padded
from synth.training.workers import Workers

NORM_GROUPS = 8  # diffusers' default of 32 does not divide narrow levels
CHANNELS_BY_LEVEL = (16, 32, 64, 64)
DENOISER_STRIDE = 8  # the UNet halves the latent three times
MAX_PX_BY_FACTOR: dict[int, int] = {2: 48, 4: 128}
"""Downsampling factor -> longest side in pixels of the images it is chosen for; larger images get factor 8.

A 28 px image at factor 8 would leave a latent of 4 x 4, too small to denoise.
"""


def factor_of(vae: AutoencoderKL) -> int:
    """Return the downsampling factor: pixels per latent element, along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def build_autoencoder(config: AutoencoderConfig, image_shape_CHW: tuple[int, int, int]) -> AutoencoderKL:
    """Return an untrained autoencoder with the images' channels.

    Raises:
        UserError: `channels` do not fit the factor or the group normalisation.
    """
    channels_in, *size = image_shape_CHW
    factor: int = config.factor or next((f for f, px in MAX_PX_BY_FACTOR.items() if max(size) <= px), 8)
    num_levels = factor.bit_length()  # a factor of 2^k has k + 1 levels
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
    """Return a pretrained AutoencoderKL from a folder or the hub, frozen; gray images may use a three-channel one.

    Raises:
        UserError: nothing loads under that name, or its channels do not fit the images.
    """
    try:
        # Only safetensors, never pickle. low_cpu_mem_usage: see `synth.ldm.sampler.load_pipeline`.
        vae = AutoencoderKL.from_pretrained(name, use_safetensors=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
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


class Reconstruction(nn.Module):
    """Encoding and decoding as one forward pass, so that DistributedDataParallel can wrap both."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images_NCHW: Tensor, noise_NChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images decoded from latents drawn with `noise_NChw`, and KL(posterior ‖ N(0, I)) [N]."""
        posterior = self.vae.encode(images_NCHW).latent_dist
        # The noise is given, not drawn by latent_dist.sample(): it must come from the step's own generator, and
        # be the worker's rows of the noise for the whole batch.
        return self.vae.decode(posterior.mean + posterior.std * noise_NChw).sample, posterior.kl()


class AutoencoderObjective:
    """L1 + kl_weight · KL(posterior ‖ N(0, I)) per pixel (a `synth.training.loop.TrainingObjective`).

    Half of the images of a mini-batch are mirrored.

    Args:
        vae: the autoencoder to train.
        images_NCHW: training images.
        config: settings of the autoencoder.
        seed: the run's seed.
        device: where to train.
        workers: the processes that share a batch.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        images_NCHW: Uint8,
        config: AutoencoderConfig,
        *,
        seed: int,
        device: torch.device,
        workers: Workers,
    ) -> None:
        workers.check_divides(config.batch_size, "synth.autoencoder.batch_size")
        self.module = Reconstruction(vae.requires_grad_(True).to(device))
        self._images = as_tensor(images_NCHW, device)
        self._config, self._seed, self._workers = config, seed, workers
        self._generator = torch.Generator(device)

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return l1 and kl on this worker's rows of batch `step`, and their total."""
        # Seeded at every step, so that a resumed training draws what an uninterrupted one does.
        self._generator.manual_seed(seed_for(self._seed, "autoencoder", step))
        whole = self._batch()
        batch, noise = self._workers.share(whole), self._workers.share(self._noise(whole))
        decoded, kl_N = module(batch, noise)
        l1 = (decoded - batch).abs().mean()
        # kl() sums over the elements of a latent; divided by the pixels, as l1 is a mean over them.
        kl = kl_N.sum() / batch.numel()
        return {"total": l1 + self._config.kl_weight * kl, "l1": l1, "kl": kl}

    def _batch(self) -> Tensor:
        """Return the whole mini-batch as input of the VAE."""
        size, device = self._config.batch_size, self._images.device
        chosen = torch.randint(len(self._images), (size,), generator=self._generator, device=device)
        batch = self._images[chosen]
        batch = torch.cat([batch[: size // 2], batch[size // 2 :].flip(3)])
        return vae_input(batch, self.module.vae)

    def _noise(self, images_NCHW: Tensor) -> Tensor:
        """Return standard normal noise for the posteriors of the images, [N, c, h, w]."""
        vae, (num_images, _, height, width) = self.module.vae, images_NCHW.shape
        shape = (num_images, vae.config.latent_channels, height // factor_of(vae), width // factor_of(vae))
        return torch.randn(shape, generator=self._generator, device=images_NCHW.device)


def vae_input(images_NCHW: Tensor, vae: AutoencoderKL) -> Tensor:
    """Return uint8 images as input of the VAE: float in [-1, 1], mirror-padded to a multiple of 8 * factor.

    Gray images are repeated for a three-channel VAE.
    """
    images = pad_to_multiple(images_NCHW, DENOISER_STRIDE * factor_of(vae)).float() / 127.5 - 1.0
    return images.expand(-1, vae.config.in_channels, -1, -1).contiguous()


def pad_to_multiple(images_NCHW: Tensor, multiple: int) -> Tensor:
    """Return the images in the middle of mirror padding to sides divisible by `multiple`."""
    return mirror_padded(images_NCHW, [math.ceil(side / multiple) * multiple for side in images_NCHW.shape[2:]])
