"""MGDM, measurement-guided diffusion (Luo et al. 2024), in our latents: hard images near the decision boundary.

Stage one makes images with the latent diffusion model. Stage two inverts each by DDIM and decodes it again with
its own label, under the gradient of the uncertainty of a noise-aware classifier.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlcas.config import MgdmConfig, RunConfig
from rlcas.errors import UserError, first_line
from rlcas.files import replacing_folder, write_json
from rlcas.registry import lookup
from rlcas.seeding import seed_for
from rlcas.types import TrainingData, Uint8
from synth.diffusion import noise_of
from synth.latent_classifier import LatentClassifier, LatentClassifierTrainer
from synth.latents import encode, posterior
from synth.ldm import PIPELINE_FOLDER, LdmSampler, folder_sha256, load_pipeline
from synth.pipeline import ClassConditionalLDMPipeline
from synth.progress import OnStep, Reporter
from synth.rng import isolated_rng
from synth.train import FIGURES_FILE, train_synthesiser

LDM_FOLDER = "ldm"
CLASSIFIER_FOLDER = "classifier"

Uncertainty = Callable[[Tensor], Tensor]


def entropy(logits_NC: Tensor) -> Tensor:
    """Return [N]: -Σ_c p_c ln p_c."""
    log_p_NC = logits_NC.log_softmax(dim=1)
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
"""Uncertainties U by name: logits [N, C] -> [N], the larger the less sure."""


def check_mgdm(config: RunConfig) -> None:
    """Look up what the settings of MGDM name.

    Raises:
        UserError: the uncertainty is unknown.
    """
    lookup(config.synth.mgdm.uncertainty, UNCERTAINTIES, "synth.mgdm.uncertainty")


class Disturbance:
    """Stage two: latents to noise by DDIM (η = 0), and back where the classifier is less sure of them.

    Both ways take the same steps between neighbouring ᾱ, each with the ε at the noisier one's t:
    z' = √ᾱ' (z - √(1-ᾱ) ε) / √ᾱ + √(1-ᾱ') ε. Back, ε ← ε - √(1-ᾱ_t) s ∇_z U(c_φ(z_t, t)).
    """

    def __init__(
        self, pipeline: ClassConditionalLDMPipeline, classifier: LatentClassifier, config: MgdmConfig
    ) -> None:
        self._unet, self._classifier = pipeline.unet, classifier
        self._prediction = pipeline.scheduler.config.prediction_type
        self._scale = config.scale
        self._uncertainty = lookup(config.uncertainty, UNCERTAINTIES, "synth.mgdm.uncertainty")
        abar_T = pipeline.scheduler.alphas_cumprod.to(pipeline.device)
        spacing = len(abar_T) // config.ddim_steps
        self._timesteps = torch.arange(config.ddim_steps, device=abar_T.device) * spacing
        self._abar = torch.cat([abar_T.new_ones(1), abar_T[self._timesteps]])

    @torch.no_grad()
    def __call__(self, latents_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return the disturbed latents; each depends on its own latent and label alone."""
        return self.decode(self.invert(latents_NChw, labels_N), labels_N)

    @torch.no_grad()
    def invert(self, latents_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return the latents at the last t, from which `decode` with s = 0 leads back."""
        z = latents_NChw
        for t, (cleaner, noisier) in zip(self._timesteps, itertools.pairwise(self._abar), strict=True):
            z = ddim_step(z, self._noise(z, t, noisier, labels_N), cleaner, noisier)
        return z

    @torch.no_grad()
    def decode(self, noisy_NChw: Tensor, labels_N: Tensor) -> Tensor:
        """Return clean latents from those at the last t, under the uncertainty gradient."""
        z, steps = noisy_NChw, zip(self._timesteps, itertools.pairwise(self._abar), strict=True)
        for t, (cleaner, noisier) in reversed(list(steps)):
            push = (1.0 - noisier).sqrt() * self._scale * self.uncertainty_gradient(z, t)
            z = ddim_step(z, self._noise(z, t, noisier, labels_N) - push, noisier, cleaner)
        return z

    def uncertainty_gradient(self, z_NChw: Tensor, t: Tensor) -> Tensor:
        """Return ∇_z U; U is summed over the images, so that each image's gradient is its own."""
        with torch.enable_grad():
            z = z_NChw.detach().requires_grad_()
            uncertainty = self._uncertainty(self._classifier(z, t.expand(len(z)))).sum()
            return torch.autograd.grad(uncertainty, z)[0]

    def _noise(self, z_NChw: Tensor, t: Tensor, abar: Tensor, labels_N: Tensor) -> Tensor:
        predicted = self._unet(z_NChw, t, class_labels=labels_N).sample
        return noise_of(self._prediction, predicted, z_NChw, abar)


def ddim_step(z_NChw: Tensor, noise_NChw: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """Return z at `abar_to`, from z at `abar_from` and its ε (Song et al. 2021, eq. 12 with σ = 0)."""
    clean = (z_NChw - (1.0 - abar_from).sqrt() * noise_NChw) / abar_from.sqrt()
    return abar_to.sqrt() * clean + (1.0 - abar_to).sqrt() * noise_NChw


class MgdmSampler:
    """Images of both stages (a `synth.generators.ImageSampler`)."""

    def __init__(self, folder: Path, config: RunConfig, device: torch.device) -> None:
        self.ldm = LdmSampler(folder / LDM_FOLDER / PIPELINE_FOLDER, config.synth.generation, device)
        classifier = load_classifier(folder / CLASSIFIER_FOLDER).to(device)
        self.disturbance = Disturbance(self.ldm.pipeline, classifier, config.synth.mgdm)
        self.class_names = self.ldm.class_names
        self.image_shape_CHW = self.ldm.image_shape_CHW
        self.origin = {
            **self.ldm.origin,
            "classifier_sha256": folder_sha256(folder / CLASSIFIER_FOLDER),
            **config.synth.mgdm.model_dump(include={"scale", "uncertainty", "ddim_steps"}),
        }

    def sample(self, class_id: int, generators: Sequence[torch.Generator]) -> Uint8:
        """Return [len(generators), channels, H, W] images of the class."""
        latents = self.ldm.latents(class_id, generators)
        labels = torch.full((len(latents),), class_id, device=latents.device)
        return self.ldm.decode(self.disturbance(latents, labels))


def open_mgdm(folder: Path, config: RunConfig, device: torch.device) -> MgdmSampler:
    """Return the sampler of what `train_mgdm` left in `folder`.

    Raises:
        UserError: it is not there, or does not load.
    """
    return MgdmSampler(folder, config, device)


def load_classifier(folder: Path) -> LatentClassifier:
    """Return the noise-aware classifier saved in `folder`, frozen.

    Raises:
        UserError: it is not there, or does not load.
    """
    try:
        classifier = LatentClassifier.from_pretrained(
            folder, use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder} cannot be loaded as MGDM's classifier ({first_line(error)}): train one again with "
            "`rlcas synth train --synth.generator mgdm`"
        ) from error
    return classifier.eval().requires_grad_(False)


def train_mgdm(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the latent diffusion model, then the noise-aware classifier; a model that is there is kept.

    Args and errors are those of `synth.train.train_synthesiser`.

    Returns:
        Its figures, and of the classifier the last loss, `classifier_recall` (macro recall on validation
        latents at t = 0), steps and seconds.
    """
    ldm, reporter = folder / LDM_FOLDER, Reporter(progress=progress, on_step=on_step)
    if (ldm / FIGURES_FILE).exists():
        figures = json.loads((ldm / FIGURES_FILE).read_text())
    else:
        figures = train_synthesiser(data, config, ldm, device=device, progress=progress, on_step=on_step)
    started = time.perf_counter()
    pipeline = load_pipeline(ldm / PIPELINE_FOLDER, device)
    latents_of = partial(posterior, vae=pipeline.vae)
    with isolated_rng(seed_for(config.seed, "latent-classifier", "torch"), device):
        trainer = LatentClassifierTrainer(
            encode(data.train, latents_of, flip=config.synth.denoiser.flip, device=device),
            pipeline.vae,
            pipeline.scheduler.alphas_cumprod,
            config.synth.mgdm,
            num_classes=data.num_classes,
            seed=config.seed,
        )
        figures |= trainer.run(num_images=len(data.train), reporter=reporter)
    held_out = encode(data.val, latents_of, flip=False, device=device)
    figures |= {
        "classifier_recall": trainer.recall(held_out, timestep=0),
        "classifier_seconds": time.perf_counter() - started,
    }
    with replacing_folder(folder / CLASSIFIER_FOLDER) as temporary:
        trainer.classifier.save_pretrained(temporary)
    write_json(folder / FIGURES_FILE, figures)
    return figures
