"""Evaluation of a trained denoiser on held-out images: its loss, and the skill of its sketch branch."""

from __future__ import annotations

from collections import defaultdict

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rlcas.config import DenoiserConfig
from rlcas.seeding import seed_for
from synth.ldm import diffusion
from synth.ldm.denoiser import SketchSupervisedDenoiser
from synth.ldm.latents import LatentCache, normalised
from synth.ldm.objective import cropped_like

NUM_TIMESTEPS = 8


class HeldOutEvaluation:
    """Held-out latents with fixed noise at evenly spaced timesteps, the same for every denoiser.

    Args:
        cache: latents and sketches of the held-out images.
        vae: the autoencoder that they come from, for its scale and shift.
        config: settings of the denoiser.
        seed: the run's seed.
    """

    def __init__(self, cache: LatentCache, vae: AutoencoderKL, config: DenoiserConfig, *, seed: int) -> None:
        self._cache, self._config, self._seed = cache, config, seed
        # Means, not draws from the posteriors: only the noise is random, and it is the same for every denoiser.
        self._latents = normalised(cache.means_MChw, vae)
        self._abar = diffusion.noise_schedule(config).to(self._latents.device)
        all_items = torch.arange(len(cache), device=self._latents.device)
        self._constant = cache.sketches(all_items).median()

    @torch.no_grad()
    def figures(self, denoiser: SketchSupervisedDenoiser) -> dict[str, float]:
        """Return `val_loss` (L_LDM with no label dropped) and, with a sketch branch, `sketch_skill`.

        The skill is 1 - L_s / L_s(best constant). The best constant map is fitted to the held-out sketches
        themselves (their median): the L1 loss on a sparse map falls to that level without learning anything, so
        only a positive skill shows learning. It is undefined, and left out, if the sketches are one constant.
        """
        sums: defaultdict[str, float] = defaultdict(float)
        for timestep in torch.linspace(0, len(self._abar) - 1, NUM_TIMESTEPS).long().tolist():
            generator = torch.Generator(self._latents.device)
            # A path of its own: the noise differs from that of any training step.
            generator.manual_seed(seed_for(self._seed, "held-out", timestep))
            noise = torch.randn(self._latents.shape, generator=generator, device=self._latents.device)
            for items in torch.arange(len(noise), device=noise.device).split(self._config.batch_size):
                for name, loss_N in self._losses(denoiser, items, noise[items], timestep).items():
                    sums[name] += loss_N.sum().item()
        figures = {"val_loss": sums["loss"] / (len(self._latents) * NUM_TIMESTEPS)}
        if sums["constant_loss"] > 0:
            figures["sketch_skill"] = 1.0 - sums["sketch_loss"] / sums["constant_loss"]
        return figures

    def _losses(
        self, denoiser: SketchSupervisedDenoiser, items_N: Tensor, noise_NChw: Tensor, timestep: int
    ) -> dict[str, Tensor]:
        """Return [N] losses of the items at one timestep.

        Args:
            denoiser: the denoiser with its sketch branch.
            items_N: indices of latents.
            noise_NChw: their noise.
            timestep: t.
        """
        config, abar = self._config, self._abar[timestep].expand(len(items_N))
        latents, labels = self._latents[items_N], self._cache.labels_M[items_N]
        noisy = diffusion.noised(latents, noise_NChw, abar)
        predicted, sketches = denoiser(noisy, torch.full_like(labels, timestep), labels)
        target = diffusion.target_of(config.prediction, latents, noise_NChw, abar)
        weight = diffusion.min_snr_weight(config.prediction, abar, config.min_snr_gamma)
        losses = {"loss": diffusion.denoising_loss(predicted, target, weight)}
        if sketches is not None:
            truth = self._cache.sketches(items_N)
            constant = self._constant.expand_as(truth)
            losses["sketch_loss"] = diffusion.sketch_loss(cropped_like(sketches, truth), truth, abar)
            losses["constant_loss"] = diffusion.sketch_loss(constant, truth, abar)
        return losses
