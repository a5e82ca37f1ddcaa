"""The diffusion process and its losses: noise schedule, targets, weights (paper, section 2.1).

z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε, with t in 0..999 and z_0 the normalised latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlcas.config import DenoiserConfig

if TYPE_CHECKING:  # it takes seconds to import, and the names of SOLVERS are checked by all that runs
    from diffusers import DDIMScheduler, SchedulerMixin, UniPCMultistepScheduler

NUM_TIMESTEPS = 1000
CBDM_COMMITMENT = 0.25  # γ of the paper
BETA_RANGES = {  # first and last β of DDPM and of Stable Diffusion; the cosine schedule has none
    "linear": {"beta_start": 1e-4, "beta_end": 2e-2},
    "scaled_linear": {"beta_start": 8.5e-4, "beta_end": 1.2e-2},
    "squaredcos_cap_v2": {},
}


def noise_schedule(config: DenoiserConfig) -> Tensor:
    """Return ᾱ [1000] float32 for the schedule named in the settings."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        NUM_TIMESTEPS, beta_schedule=config.schedule, **BETA_RANGES[config.schedule]
    ).alphas_cumprod


def ddim(config: DenoiserConfig) -> DDIMScheduler:
    """Return deterministic DDIM (Song et al. 2021); latents are not clipped, as pixels would be."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(clip_sample=False, **_process(config))


def unipc(config: DenoiserConfig) -> UniPCMultistepScheduler:
    """Return UniPC (Zhao et al. 2023), nearer to the exact solution; Karras spacing fails (diffusers #12771)."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**_process(config))


SOLVERS: dict[str, Callable[[DenoiserConfig], SchedulerMixin]] = {
    "unipc": unipc,
    "ddim": ddim,
}
"""How the few steps from noise to latent are taken, by name; from outside comes package.module:function."""


def _process(config: DenoiserConfig) -> dict[str, Any]:
    """Return the noise process as diffusers' schedulers take it; timesteps end at the noisiest one (trailing)."""
    return {
        "num_train_timesteps": NUM_TIMESTEPS,
        "beta_schedule": config.schedule,
        "prediction_type": config.prediction,
        "timestep_spacing": "trailing",
        **BETA_RANGES[config.schedule],
    }


def noised(z0_NChw: Tensor, noise_NChw: Tensor, abar_N: Tensor) -> Tensor:
    """Return z_t of each sample."""
    abar = per_sample(abar_N)
    return abar.sqrt() * z0_NChw + (1.0 - abar).sqrt() * noise_NChw


def target_of(prediction: str, z0_NChw: Tensor, noise_NChw: Tensor, abar_N: Tensor) -> Tensor:
    """Return what the denoiser should say: ε, or v = √ᾱ ε - √(1-ᾱ) z_0 (Salimans and Ho 2022)."""
    if prediction == "epsilon":
        return noise_NChw
    abar = per_sample(abar_N)
    return abar.sqrt() * noise_NChw - (1.0 - abar).sqrt() * z0_NChw


def noise_of(prediction: str, predicted_NChw: Tensor, z_NChw: Tensor, abar: Tensor) -> Tensor:
    """Return the ε that the denoiser's output on z_t says, at one ᾱ_t: itself, or √ᾱ v + √(1-ᾱ) z_t."""
    if prediction == "epsilon":
        return predicted_NChw
    return abar.sqrt() * predicted_NChw + (1.0 - abar).sqrt() * z_NChw


def min_snr_weight(prediction: str, abar_N: Tensor, gamma: float | None) -> Tensor:
    """Return [N] weights of Min-SNR-γ (Hang et al. 2023); 1 where `gamma` is None.

    With snr = ᾱ/(1-ᾱ): min(snr, γ)/snr for ε, min(snr, γ)/(snr + 1) for v.
    """
    if gamma is None:
        return torch.ones_like(abar_N)
    snr = abar_N / (1.0 - abar_N)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1.0)


def denoising_loss(predicted_NChw: Tensor, target_NChw: Tensor, weight_N: Tensor) -> Tensor:
    """Return [N]: the weighted squared error of each sample, averaged over its elements (L_LDM)."""
    return weight_N * (predicted_NChw - target_NChw).square().mean(dim=(1, 2, 3))


def sketch_loss(predicted_N1HW: Tensor, sketches_N1HW: Tensor, abar_N: Tensor) -> Tensor:
    """Return [N]: √ᾱ_t times the mean absolute error of each sample (L_s)."""
    return abar_N.sqrt() * (predicted_N1HW - sketches_N1HW).abs().mean(dim=(1, 2, 3))


def balancing_loss(predicted_NChw: Tensor, of_other_label_NChw: Tensor, relative_time_N: Tensor) -> Tensor:
    """Return [N]: the class-balancing regulariser of CBDM (Qin et al. 2023, eqs. 9 and 10).

    It draws the prediction under a label towards that under a label drawn evenly from all classes, and a
    quarter as strongly the other way, in proportion to the timestep: what the tail lacks it takes from the head.

    Args:
        predicted_NChw: predictions under the images' own labels.
        of_other_label_NChw: predictions of the same noisy latents under the other labels.
        relative_time_N: t/T.
    """
    towards_other = (predicted_NChw - of_other_label_NChw.detach()).square().mean(dim=(1, 2, 3))
    towards_own = (predicted_NChw.detach() - of_other_label_NChw).square().mean(dim=(1, 2, 3))
    return relative_time_N * (towards_other + CBDM_COMMITMENT * towards_own)


def per_sample(values_N: Tensor) -> Tensor:
    """Return the values as [N, 1, 1, 1], to be multiplied with images or latents."""
    return values_N.view(-1, 1, 1, 1)
