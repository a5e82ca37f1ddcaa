"""A noise-aware classifier of latents, c_φ(z_t, t): what MGDM's uncertainty gradient comes from."""

from __future__ import annotations

from collections.abc import Mapping

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
from synth.autoencoder import num_steps
from synth.diffusion import noised
from synth.latents import Moments, normalised
from synth.progress import Reporter
from synth.train import balanced_weights

NORM_GROUPS = 8
HEAD_CHANNELS = 8
TIME_WIDTHS = 4  # the time embedding is so many times as wide as the first level


class LatentClassifier(ModelMixin, ConfigMixin):
    """The way down of a small UNet with attention at its end, averaged over space; time modulates every block.

    The official classifier is the encoder of a pixel UNet of 256 channels with attention pooling; MGDM's paper
    gives no classifier of latents, so size and pooling are ours.

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


class LatentClassifierTrainer:
    """Cross-entropy on z_t at random t; each step is a function of its number.

    Args:
        moments: the training latents.
        vae: the autoencoder that they come from, for its scale and shift.
        abar_T: ᾱ of the denoiser's own schedule.
        config: settings of MGDM.
        num_classes: C.
        seed: the run's.
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
    ) -> None:
        device = moments.means_MChw.device
        self.classifier = LatentClassifier(moments.means_MChw.shape[1], num_classes, config.channels).to(device)
        self._moments, self._vae, self._config, self._seed = moments, vae, config, seed
        self._abar = abar_T.to(device)
        self._item_weights = balanced_weights(moments.labels_M, config.class_balance)
        self._optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )

    def run(self, *, num_images: int, reporter: Reporter) -> dict[str, float]:
        """Train for the epochs of the settings; return figures."""
        config = self._config
        total = num_steps(num_images, config.epochs, config.batch_size, config.max_steps)
        self.classifier.train()
        with reporter.part("classifier", total, mend=f"lower synth.mgdm.lr {config.lr:g}") as report:
            for step in range(total):
                losses = self.losses(step)
                self._optimizer.zero_grad(set_to_none=True)
                losses["loss"].backward()
                self._optimizer.step()
                figures = report(step, {name: value.detach() for name, value in losses.items()})
        self.classifier.eval()
        return {**{f"classifier_{name}": value for name, value in figures.items()}, "classifier_steps": total}

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Return the loss of step number `step`, with its gradient."""
        device = self._abar.device
        generator = torch.Generator(device).manual_seed(seed_for(self._seed, "latent-classifier", step))
        size = self._config.batch_size
        items = torch.multinomial(self._item_weights, size, replacement=True, generator=generator)
        timesteps = torch.randint(len(self._abar), items.shape, generator=generator, device=device)
        shape = (size, *self._moments.means_MChw.shape[1:])
        posterior_noise, noise = torch.randn((2, *shape), generator=generator, device=device)
        latents = normalised(self._moments.sample(items, posterior_noise), self._vae)
        logits = self.classifier(noised(latents, noise, self._abar[timesteps]), timesteps)
        return {"loss": F.cross_entropy(logits, self._moments.labels_M[items])}

    @torch.no_grad()
    def recall(self, held_out: Moments, timestep: int) -> float:
        """Return the macro recall on other images' latents, noised to z_t; chance is 1/C."""
        device = self._abar.device
        generator = torch.Generator(device).manual_seed(seed_for(self._seed, "classifier-recall", timestep))
        noise = torch.randn(held_out.means_MChw.shape, generator=generator, device=device)
        abar_M = self._abar[timestep].expand(len(held_out))
        noisy = noised(normalised(held_out.means_MChw, self._vae), noise, abar_M)
        timesteps = torch.full_like(held_out.labels_M, timestep)
        probabilities = self.classifier(noisy, timesteps).softmax(dim=1)
        return macro_recall(probabilities.cpu().numpy(), held_out.labels_M.cpu().numpy())
