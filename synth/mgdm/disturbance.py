"""Stage two of MGDM (Luo et al. 2024): latents to noise by DDIM, and back towards the decision boundary."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from rlcas.config import MgdmConfig
from rlcas.registry import lookup
from synth.ldm.diffusion import noise_of
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.mgdm.latent_classifier import LatentClassifier

Uncertainty = Callable[[Tensor], Tensor]


def entropy(logits_NC: Tensor) -> Tensor:
    """Return [N]: -Σ_c p_c ln p_c."""
    log_p_NC = logits_NC.log_softmax(dim=1)  # not softmax().log(), whose 0 · ln 0 is NaN
    return -(log_p_NC.exp() * log_p_NC).sum(dim=1)


def margin(logits_NC: Tensor) -> Tensor:
    """Return [N]: second largest minus largest probability."""
    largest_N2 = logits_NC.softmax(dim=1).topk(2, dim=1).values
    return largest_N2[:, 1] - largest_N2[:, 0]


def least_confidence(logits_NC: Tensor) -> Tensor:
    """Return [N]: minus the largest probability."""
    return -logits_NC.softmax(dim=1).amax(dim=1)


UNCERTAINTIES: dict[str, Uncertainty] = {
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
}
"""Uncertainties U by name: logits [N, C] -> [N], larger where the classifier is less sure."""


def uncertainty_of(config: MgdmConfig) -> Uncertainty:
    """Return the uncertainty named in the settings.

    Raises:
        UserError: its name is unknown.
    """
    return lookup(config.uncertainty, UNCERTAINTIES, "synth.mgdm.uncertainty")


class Disturbance:
    """Stage two: latents to noise by DDIM (η = 0), and back to where the classifier is less sure of them.

    Both directions take the same steps between neighbouring ᾱ, each with ε at the t of the noisier one:
    z' = √ᾱ' (z - √(1-ᾱ) ε) / √ᾱ + √(1-ᾱ') ε. On the way back, ε ← ε - √(1-ᾱ_t) s ∇_z U(c_φ(z_t, t)).
    """

    def __init__(
        self, pipeline: ClassConditionalLDMPipeline, classifier: LatentClassifier, config: MgdmConfig
    ) -> None:
        self._unet, self._classifier = pipeline.unet, classifier
        self._prediction = pipeline.scheduler.config.prediction_type
        self._scale = config.scale
        self._uncertainty = uncertainty_of(config)
        abar_T = pipeline.scheduler.alphas_cumprod.to(pipeline.device)
        spacing = len(abar_T) // config.ddim_steps
        self._timesteps = torch.arange(config.ddim_steps, device=abar_T.device) * spacing
        # ᾱ = 1 comes first: clean latents, from which the inversion starts and at which decoding ends.
        self._abar = torch.cat([abar_T.new_ones(1), abar_T[self._timesteps]])

    @torch.no_grad()
    def __call__(self, latents_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return the disturbed latents; each depends on its own latent and label only."""
        return self.decode(self.invert(latents_NChw, labels_N), labels_N)

    @torch.no_grad()
    def invert(self, latents_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return the latents at the last t, which `decode` with s = 0 approximately inverts."""
        z = latents_NChw
        for t, (cleaner, noisier) in zip(self._timesteps, itertools.pairwise(self._abar), strict=True):
            z = ddim_step(z, self._noise(z, t, noisier, labels_N), cleaner, noisier)
        return z

    @torch.no_grad()
    def decode(self, noisy_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return clean latents from those at the last t, under the uncertainty gradient."""
        z, steps = noisy_NChw, zip(self._timesteps, itertools.pairwise(self._abar), strict=True)
        for t, (cleaner, noisier) in reversed(list(steps)):
            guidance = (1.0 - noisier).sqrt() * self._scale * self.uncertainty_gradient(z, t)
            z = ddim_step(z, self._noise(z, t, noisier, labels_N) - guidance, noisier, cleaner)
        return z

    def uncertainty_gradient(self, z_NChw: Tensor, t: Tensor) -> Tensor:
        """Return ∇_z U; as U is summed over the images, each image's gradient is its own."""
        with torch.enable_grad():  # both directions run under no_grad
            z = z_NChw.detach().requires_grad_()
            uncertainty = self._uncertainty(self._classifier(z, t.expand(len(z)))).sum()
            return torch.autograd.grad(uncertainty, z)[0]

    def _noise(self, z_NChw: Tensor, t: Tensor, abar: Tensor, labels_N: Tensor) -> Tensor:
        predicted = self._unet(z_NChw, t, class_labels=labels_N).sample
        return noise_of(self._prediction, predicted, z_NChw, abar)


def ddim_step(z_NChw: Tensor, noise_NChw: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """Return z at another ᾱ by one DDIM step (Song et al. 2021, eq. 12 with σ = 0).

    Args:
        z_NChw: z at `abar_from`.
        noise_NChw: its ε.
        abar_from: ᾱ of z, a scalar.
        abar_to: ᾱ of the result.
    """
    clean = (z_NChw - (1.0 - abar_from).sqrt() * noise_NChw) / abar_from.sqrt()
    return abar_to.sqrt() * clean + (1.0 - abar_to).sqrt() * noise_NChw
