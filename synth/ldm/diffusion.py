"""The diffusion process and its losses: noise schedule, targets, weights (paper, section 2.1).

z_t = √ᾱ_t z_0 + √(1-ᾱ_t) ε, with t in 0..999 and z_0 the normalised latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlcas.config import DenoiserConfig, GenerationConfig
from rlcas.registry import lookup

if TYPE_CHECKING:  # importing diffusers takes seconds, and every command that checks settings imports SOLVERS
    from diffusers import DDIMScheduler, SchedulerMixin, UniPCMultistepScheduler

NUM_TIMESTEPS = 1000
CBDM_COMMITMENT = 0.25  # γ of the CBDM paper
BETA_RANGES = {  # first and last β, as in DDPM and in Stable Diffusion; the cosine schedule has none
    "linear": {"beta_start": 1e-4, "beta_end": 2e-2},
    "scaled_linear": {"beta_start": 8.5e-4, "beta_end": 1.2e-2},
    "squaredcos_cap_v2": {},
}


def noise_schedule(config: DenoiserConfig) -> Tensor:
    """Return ᾱ [1000] float32 of the schedule named in the settings."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        NUM_TIMESTEPS, beta_schedule=config.schedule, **BETA_RANGES[config.schedule]
    ).alphas_cumprod


def ddim(config: DenoiserConfig) -> DDIMScheduler:
    """Return deterministic DDIM (Song et al. 2021).

    Diffusers clips z_0 to [-1, 1] by default, which is right for pixels and wrong for latents.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(clip_sample=False, **_process(config))


def unipc(config: DenoiserConfig) -> UniPCMultistepScheduler:
    """Return UniPC (Zhao et al. 2023), at few steps nearer to the exact solution than DDIM.

    Without Karras spacing: with the cosine schedule its timesteps round to duplicates, and diffusers 0.42 stops with
    an AssertionError (the cause of issue #12771).
    """
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**_process(config))


SOLVERS: dict[str, Callable[[DenoiserConfig], SchedulerMixin]] = {
    "unipc": unipc,
    "ddim": ddim,
}
"""Solvers of the reverse process by name; one from outside is named package.module:function."""


def solver_of(config: GenerationConfig) -> Callable[[DenoiserConfig], SchedulerMixin]:
    """Return the solver named in the settings.

    Raises:
        UserError: its name is unknown.
    """
    return lookup(config.solver, SOLVERS, "synth.generation.solver")


def _process(config: DenoiserConfig) -> dict[str, Any]:
    """Return the noise process as arguments of diffusers' schedulers.

    With spacing "trailing" the timesteps include the last one, which is pure noise, as sampling begins there.
    """
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
    """Return the target of the denoiser's output: ε, or v = √ᾱ ε - √(1-ᾱ) z_0 (Salimans and Ho 2022).

    Args:
        prediction: "epsilon" or "v_prediction".
        z0_NChw: normalised latents.
        noise_NChw: ε.
        abar_N: ᾱ_t.
    """
    if prediction == "epsilon":
        return noise_NChw
    abar = per_sample(abar_N)
    return abar.sqrt() * noise_NChw - (1.0 - abar).sqrt() * z0_NChw


def noise_of(prediction: str, predicted_NChw: Tensor, z_NChw: Tensor, abar: Tensor) -> Tensor:
    """Return ε from the denoiser's output on z_t: the output itself, or √ᾱ v + √(1-ᾱ) z_t.

    Args:
        prediction: "epsilon" or "v_prediction".
        predicted_NChw: the denoiser's output.
        z_NChw: z_t.
        abar: ᾱ_t, a scalar.
    """
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

    It pulls the prediction under an image's label towards the prediction under a label drawn uniformly from all
    classes, and the latter a quarter as strongly towards the former, in proportion to the timestep. So rare classes
    learn from frequent ones.

    Args:
        predicted_NChw: predictions under the images' own labels.
        of_other_label_NChw: predictions for the same noisy latents under the other labels.
        relative_time_N: t/T.
    """
    # detach is the stop-gradient of the paper: each term moves only one of the two predictions.
    towards_other = (predicted_NChw - of_other_label_NChw.detach()).square().mean(dim=(1, 2, 3))
    towards_own = (predicted_NChw.detach() - of_other_label_NChw).square().mean(dim=(1, 2, 3))
    return relative_time_N * (towards_other + CBDM_COMMITMENT * towards_own)


def per_sample(values_N: Tensor) -> Tensor:
    """Return the values as [N, 1, 1, 1], which broadcast over images or latents."""
    return values_N.view(-1, 1, 1, 1)
