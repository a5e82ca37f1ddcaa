"""A noise-aware classifier of latents, c_φ(z_t, t), whose uncertainty guides MGDM."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import DownBlock2D, UNetMidBlock2D
from torch import Tensor, nn

from rlcas.config import MgdmConfig
from rlcas.metrics import macro_recall
from rlcas.seeding import seed_for
from synth.ldm.diffusion import noised
from synth.ldm.latent_batches import NoisedLatentBatches
from synth.ldm.latents import Moments, normalised
from synth.training.workers import Workers

NORM_GROUPS = 8
HEAD_CHANNELS = 8
TIME_WIDTHS = 4
"""Width of the time embedding as a multiple of the first level's channels."""


class LatentClassifier(ModelMixin, ConfigMixin):
    """The encoder half of a small UNet with attention at its end, averaged over space; time modulates every block.

    The official classifier is the encoder of a pixel UNet of 256 channels with attention pooling. MGDM's paper
    describes no classifier of latents, so size and pooling are our choice.

    Args:
        in_channels: channels of the latents.
        num_classes: C.
        channels: width of each level; between levels the side is halved.
    """

    @register_to_config
    def __init__(self, in_channels: int, num_classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        first, last, embedded = channels[0], channels[-1], TIME_WIDTHS * channels[0]
        common = {
            "temb_channels": embedded,
            "resnet_groups": NORM_GROUPS,
            "resnet_time_scale_shift": "scale_shift",
        }
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.frequencies = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, embedded)
        self.down_blocks = nn.ModuleList(
            DownBlock2D(narrow, wide, add_downsample=level < len(channels) - 1, **common)
            for level, (narrow, wide) in enumerate(zip((first, *channels), channels, strict=False))
        )
        self.mid_block = UNetMidBlock2D(last, attention_head_dim=HEAD_CHANNELS, **common)
        self.norm_out = nn.GroupNorm(NORM_GROUPS, last)
        self.logits = nn.Linear(last, num_classes)

    def forward(self, noisy_NChw: Tensor, timesteps_N: Tensor) -> Tensor:
        """Return logits [N, C] of latents z_t."""
        embedding = self.time_embedding(self.frequencies(timesteps_N).to(noisy_NChw.dtype))
        hidden = self.conv_in(noisy_NChw)
        for block in self.down_blocks:
            hidden, _ = block(hidden, embedding)
        hidden = self.mid_block(hidden, embedding)
        return self.logits(F.silu(self.norm_out(hidden)).mean(dim=(2, 3)))


class LatentClassifierObjective:
    """Cross-entropy of the classes of z_t, at random t (a `synth.training.loop.TrainingObjective`).

    Args:
        moments: the training latents.
        vae: the autoencoder that they come from, for its scale and shift.
        abar_T: ᾱ of the denoiser's own schedule.
        config: settings of MGDM.
        num_classes: C.
        seed: the run's seed.
        workers: the processes that share a batch.
    """

    def __init__(
        self,
        moments: Moments,
        vae: AutoencoderKL,
        abar_T: Tensor,
        config: MgdmConfig,
        *,
        num_classes: int,
        seed: int,
        workers: Workers,
    ) -> None:
        workers.check_divides(config.batch_size, "synth.mgdm.batch_size")
        classifier = LatentClassifier(moments.means_MChw.shape[1], num_classes, config.channels)
        self.module = classifier.to(moments.means_MChw.device)
        self._batches = NoisedLatentBatches(
            moments,
            partial(normalised, vae=vae),
            abar_T,
            batch_size=config.batch_size,
            class_balance=config.class_balance,
            path=(seed, "latent-classifier"),
            workers=workers,
        )

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return the loss on this worker's rows of batch `step`, also as total."""
        batch = self._batches.batch(step)
        loss = F.cross_entropy(module(batch.noisy_NChw, batch.timesteps_N), batch.labels_N)
        return {"loss": loss, "total": loss}


@torch.no_grad()
def recall_at(
    timestep: int, classifier: nn.Module, held_out: Moments, vae: AutoencoderKL, abar_T: Tensor, *, seed: int
) -> float:
    """Return the macro recall on held-out latents noised to z_t; chance is 1/C.

    Args:
        timestep: t.
        classifier: the noise-aware classifier.
        held_out: latents of held-out images.
        vae: the autoencoder that they come from.
        abar_T: ᾱ of the denoiser's schedule.
        seed: the run's seed.
    """
    device = held_out.means_MChw.device
    generator = torch.Generator(device).manual_seed(seed_for(seed, "classifier-recall", timestep))
    noise = torch.randn(held_out.means_MChw.shape, generator=generator, device=device)
    abar_M = abar_T[timestep].to(device).expand(len(held_out))
    # Means, not draws: the only noise is that of t.
    noisy = noised(normalised(held_out.means_MChw, vae), noise, abar_M)
    probabilities = classifier(noisy, torch.full_like(held_out.labels_M, timestep)).softmax(dim=1)
    return macro_recall(probabilities.cpu().numpy(), held_out.labels_M.cpu().numpy())
