"""MGDM, Measurement Guidance in Diffusion Models (Luo et al. 2024), in our latents: images near the decision boundary.

Stage one samples latents from the latent diffusion model. Stage two inverts each by DDIM and denoises it again with
its own label, guided by the gradient of a noise-aware classifier's uncertainty.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from rlcas.config import RunConfig
from rlcas.devices import same_bits
from rlcas.errors import UserError, first_line
from rlcas.seeding import seed_for
from rlcas.storage.atomic import read_facts, replacing_folder, write_json
from rlcas.types import TrainingData, Uint8
from synth.layout import CHECKPOINTS_FOLDER, FIGURES_FILE, IGNORE_UNFINISHED, LDM_FOLDER, PIPELINE_FOLDER
from synth.ldm.latents import build_moments, posterior
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.ldm.sampler import LdmSampler, folder_sha256, load_pipeline
from synth.ldm.train import train_synthesiser
from synth.mgdm.disturbance import Disturbance, uncertainty_of
from synth.mgdm.latent_classifier import LatentClassifier, LatentClassifierObjective, recall_at
from synth.training.loop import Schedule, Training
from synth.training.progress import OnStep, Reporter
from synth.training.workers import Workers

CLASSIFIER_FOLDER = "classifier"


def check_mgdm(config: RunConfig) -> None:
    """Check the names in MGDM's settings.

    Raises:
        UserError: the uncertainty is unknown.
    """
    uncertainty_of(config.synth.mgdm)


class MgdmSampler:
    """Images of both stages (a `synth.generators.ImageSampler`)."""

    def __init__(self, folder: Path, config: RunConfig, device: torch.device) -> None:
        self.ldm = LdmSampler(folder / LDM_FOLDER / PIPELINE_FOLDER, config.synth.generation, device)
        self.classifier = load_latent_classifier(folder / CLASSIFIER_FOLDER).to(device)
        self.disturbance = Disturbance(self.ldm.pipeline, self.classifier, config.synth.mgdm)
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
    """Return the sampler of the models that `train_mgdm` wrote to `folder`.

    Raises:
        UserError: they are missing, or do not load.
    """
    return MgdmSampler(folder, config, device)


def load_latent_classifier(folder: Path) -> LatentClassifier:
    """Return the noise-aware classifier saved in `folder`, frozen.

    Raises:
        UserError: it is missing, or does not load.
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
    """Train the latent diffusion model, then the noise-aware classifier; an interrupted training is resumed.

    Args:
        data: training images, and validation images to evaluate.
        config: the run's settings.
        folder: where to write.
        device: where to train.
        progress: show bars on a terminal, lines in a log.
        on_step: called with (part, step, steps, figures) up to a hundred times a part.

    Returns:
        The figures of `synth.ldm.train.train_synthesiser` and those of the classifier: the last loss,
        `classifier_recall` (macro recall on validation latents at t = 0), steps and seconds.
    """
    # The diffusion model is trained below the checkpoints and copied at the end: until the classifier is trained too,
    # the folder must not look like a finished generator.
    workers, ldm = Workers.joined(), folder / CHECKPOINTS_FOLDER / LDM_FOLDER
    if (ldm / FIGURES_FILE).exists():
        figures = read_facts(ldm / FIGURES_FILE)
    else:
        figures = train_synthesiser(data, config, ldm, device=device, progress=progress, on_step=on_step)
    # Every worker reads the files: train_synthesiser returns in all of them once the first has written these,
    # and after an interruption it is not called again.
    pipeline = load_pipeline(ldm / PIPELINE_FOLDER, device)
    reporter = Reporter.of_first(workers, progress=progress, on_step=on_step)
    with same_bits(device):
        checkpoint = folder / CHECKPOINTS_FOLDER / "classifier.safetensors"
        classifier, classifier_figures = train_classifier(
            pipeline, data, config, checkpoint, workers=workers, reporter=reporter
        )
    figures |= {f"classifier_{name}": value for name, value in classifier_figures.items()}
    workers.run_on_first(lambda: _save(classifier, figures, folder, ldm))
    return figures


def _save(classifier: LatentClassifier, figures: dict[str, float], folder: Path, ldm: Path) -> None:
    """Write the trained generator into `folder`; `ldm` is where its diffusion model was trained."""
    with replacing_folder(folder / LDM_FOLDER) as temporary:
        shutil.copytree(ldm, temporary, ignore=IGNORE_UNFINISHED, dirs_exist_ok=True)
    with replacing_folder(folder / CLASSIFIER_FOLDER) as temporary:
        classifier.save_pretrained(temporary)
    # Last, since it makes the folder a finished generator; only then may the checkpoints go.
    write_json(folder / FIGURES_FILE, figures)
    shutil.rmtree(folder / CHECKPOINTS_FOLDER)


def train_classifier(
    pipeline: ClassConditionalLDMPipeline,
    data: TrainingData,
    config: RunConfig,
    checkpoint: Path,
    *,
    workers: Workers,
    reporter: Reporter,
) -> tuple[LatentClassifier, dict[str, float]]:
    """Return the noise-aware classifier of the pipeline's latents, and its figures.

    Args:
        pipeline: the trained latent diffusion model.
        data: training and validation images.
        config: the run's settings.
        checkpoint: file of the training's checkpoints.
        workers: the processes that train together.
        reporter: shows progress.
    """
    settings, vae, abar_T = config.synth.mgdm, pipeline.vae, pipeline.scheduler.alphas_cumprod
    moments_of = partial(build_moments, encode=partial(posterior, vae=vae), device=pipeline.device)
    # Before the network is built: layers take their initial weights from the global generator.
    torch.manual_seed(seed_for(config.seed, "latent-classifier", "initial weights"))
    objective = LatentClassifierObjective(
        moments_of(data.train, flip=config.synth.denoiser.flip, workers=workers),
        vae,
        abar_T,
        settings,
        num_classes=data.num_classes,
        seed=config.seed,
        workers=workers,
    )
    schedule = Schedule.of(
        "classifier", config.synth, "mgdm", len(data.train), weight_decay=settings.weight_decay
    )
    figures = Training(objective, schedule, workers).run_timed(checkpoint, reporter)
    recall = recall_at(0, objective.module, moments_of(data.val), vae, abar_T, seed=config.seed)
    return objective.module, {**figures, "recall": recall}
