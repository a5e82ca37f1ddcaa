"""Training of the latent diffusion model: autoencoder, cache of latents and sketches, denoiser (paper, section 2.1)."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from rlcas.config import RunConfig, SynthConfig
from rlcas.devices import same_bits
from rlcas.seeding import seed_for
from rlcas.storage.atomic import replacing_folder, write_json
from rlcas.types import TrainingData
from synth.layout import CHECKPOINTS_FOLDER, FIGURES_FILE, PIPELINE_FOLDER
from synth.ldm.autoencoder import AutoencoderObjective, build_autoencoder, load_autoencoder
from synth.ldm.denoiser import SketchSupervisedDenoiser
from synth.ldm.diffusion import solver_of
from synth.ldm.held_out import HeldOutEvaluation
from synth.ldm.latents import LatentCache, build_cache, set_latent_scale
from synth.ldm.objective import DenoiserObjective
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.ldm.sampler import training_facts
from synth.sketch import sketch_extractor
from synth.training.ema import Ema
from synth.training.loop import Schedule, Training, cosine
from synth.training.progress import OnStep, Reporter
from synth.training.workers import Workers


def train_synthesiser(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the synthesiser and write it to `folder`: a diffusers pipeline and, last, synthesiser.json.

    An interrupted training resumes from its checkpoints in `folder`/training. If the process belongs to a
    torch.distributed group, all of its processes must call this; the first writes the files.

    Args:
        data: training images, and validation images to choose the average and to evaluate.
        config: the run's settings; `config.synth` and `config.seed` are used.
        folder: where to write; an earlier synthesiser in it is replaced.
        device: where to train.
        progress: show bars on a terminal, lines in a log.
        on_step: called with (part, step, steps, figures) up to a hundred times a part.

    Returns:
        The content of synthesiser.json: last losses, `val_loss` and `sketch_skill` of the average that is used for
        sampling, its decay, steps and seconds of each part.

    Raises:
        UserError: a setting does not fit the images, a name is unknown, a loss is not finite, or a checkpoint is
            damaged.
    """
    workers = Workers.joined()
    reporter = Reporter.of_first(workers, progress=progress, on_step=on_step)
    with same_bits(device):
        training = _LdmTraining(data, config, folder, device, workers, reporter)
        started = time.perf_counter()
        vae, figures = training.train_autoencoder()
        autoencoder_trained = time.perf_counter()
        cache, held_out = training.build_caches(vae)
        cached = time.perf_counter()
        denoiser, ema, denoiser_figures = training.train_denoiser(vae, cache)
        denoiser_trained = time.perf_counter()
        figures |= {
            **denoiser_figures,
            "autoencoder_seconds": autoencoder_trained - started,
            "cache_seconds": cached - autoencoder_trained,
            "denoiser_seconds": denoiser_trained - cached,
        }
        evaluation = HeldOutEvaluation(held_out, vae, config.synth.denoiser, seed=config.seed)
        figures |= choose_average(denoiser, ema, evaluation)
        # So a full disk ends all workers with the error, and none returns before everything is written.
        workers.run_on_first(lambda: training.save(vae, denoiser, ema, figures))
    return figures


def choose_average(
    denoiser: SketchSupervisedDenoiser, ema: Ema, evaluation: HeldOutEvaluation
) -> dict[str, float]:
    """Return the figures of the average with the lowest loss on held-out images, and its decay as `ema_decay`.

    The denoiser's weights are overwritten by each average in turn.
    """
    figures = {}
    for decay in ema.averages:
        ema.copy_to(denoiser, decay)
        figures[decay] = evaluation.figures(denoiser)
    # Chosen on validation images; test images are never read here. Every worker has the same figures.
    best = min(figures, key=lambda decay: figures[decay]["val_loss"])
    return {**figures[best], "ema_decay": best}


class _LdmTraining:
    """The stages of one training; those with a checkpoint of their own are not repeated after an interruption.

    Args:
        data: training and validation images.
        config: the run's settings.
        folder: where to write.
        device: where to train.
        workers: the processes that train together.
        reporter: shows progress.
    """

    def __init__(
        self,
        data: TrainingData,
        config: RunConfig,
        folder: Path,
        device: torch.device,
        workers: Workers,
        reporter: Reporter,
    ) -> None:
        self._data, self._config, self._folder = data, config, folder
        self._device, self._workers, self._reporter = device, workers, reporter
        self._settings = config.synth
        # Only needed at the end, but an unknown name must not be found after hours of training.
        self._solver = solver_of(config.synth.generation)

    def train_autoencoder(self) -> tuple[AutoencoderKL, dict[str, float]]:
        """Return the autoencoder, trained or loaded, then frozen; and its figures."""
        config, shape = self._settings.autoencoder, self._data.image_shape_CHW
        if config.pretrained is not None:
            return load_autoencoder(config.pretrained, shape[0]).to(self._device), {}
        self._seed("autoencoder")
        vae, images = build_autoencoder(config, shape), self._data.train.images_NCHW
        objective = AutoencoderObjective(
            vae, images, config, seed=self._config.seed, device=self._device, workers=self._workers
        )
        schedule = Schedule.of("autoencoder", self._settings, "autoencoder", len(images), lr_factor=cosine)
        figures = self._train(objective, schedule)[1]
        return vae.requires_grad_(False), {f"autoencoder_{name}": value for name, value in figures.items()}

    def build_caches(self, vae: AutoencoderKL) -> tuple[LatentCache, LatentCache]:
        """Return the caches of augmented training images and unaltered validation images; set the latents' scale."""
        sketch, config = sketch_extractor(self._settings), self._settings.denoiser
        cache = build_cache(
            self._data.train,
            vae,
            sketch,
            self._device,
            flip=config.flip,
            moved_copies=config.moved_copies,
            seed=self._config.seed,
            workers=self._workers,
        )
        # From the training images alone; validation latents are normalised by the same figures.
        set_latent_scale(vae, cache)
        return cache, build_cache(self._data.val, vae, sketch, self._device)

    def train_denoiser(
        self, vae: AutoencoderKL, cache: LatentCache
    ) -> tuple[SketchSupervisedDenoiser, Ema, dict[str, float]]:
        """Return the trained denoiser, the averages of its weights, and its figures."""
        config = self._settings.denoiser
        self._seed("denoiser")
        objective = DenoiserObjective(
            cache,
            vae,
            config,
            num_classes=self._data.num_classes,
            seed=self._config.seed,
            workers=self._workers,
        )
        schedule = denoiser_schedule(self._settings, len(self._data.train))
        training, figures = self._train(objective, schedule)
        return objective.module, training.ema, {**figures, "denoiser_steps": schedule.steps}

    def save(
        self, vae: AutoencoderKL, denoiser: SketchSupervisedDenoiser, ema: Ema, figures: dict[str, float]
    ) -> None:
        """Write the averages that were not chosen, the pipeline and the figures; then delete the checkpoints.

        Args:
            vae: the autoencoder.
            denoiser: makes UNets of averaged weights.
            ema: the averages.
            figures: the content of synthesiser.json, with the chosen `ema_decay`.
        """
        for decay, average in ema.averages.items():
            if decay != figures["ema_decay"]:
                with replacing_folder(self._folder / f"unet-ema-{decay:g}") as temporary:
                    denoiser.stock_unet(average).save_pretrained(temporary)
        data = self._data
        pipeline = ClassConditionalLDMPipeline(
            unet=denoiser.stock_unet(ema.averages[figures["ema_decay"]]),
            vae=vae,
            scheduler=self._solver(self._settings.denoiser),
            id2label={str(number): name for number, name in enumerate(data.class_names)},
            image_shape=dict(zip(("channels", "height", "width"), data.image_shape_CHW, strict=True)),
            training=training_facts(data, self._config, figures),
        )
        with replacing_folder(self._folder / PIPELINE_FOLDER) as temporary:
            pipeline.save_pretrained(temporary)
        # After all weights: a folder with this file counts as finished. The checkpoints go last: a process
        # killed before this line resumes from them.
        write_json(self._folder / FIGURES_FILE, figures)
        shutil.rmtree(self._folder / CHECKPOINTS_FOLDER, ignore_errors=True)

    def _train(
        self, objective: AutoencoderObjective | DenoiserObjective, schedule: Schedule
    ) -> tuple[Training, dict[str, float]]:
        training = Training(objective, schedule, self._workers)
        checkpoint = self._folder / CHECKPOINTS_FOLDER / f"{schedule.part}.safetensors"
        return training, training.run(checkpoint, self._reporter)

    def _seed(self, part: str) -> None:
        """Seed PyTorch's global generator: the initialisers of its layers take no other."""
        torch.manual_seed(seed_for(self._config.seed, part, "initial weights"))


def denoiser_schedule(synth: SynthConfig, num_images: int) -> Schedule:
    """Return the schedule of the denoiser's training."""
    config = synth.denoiser
    return Schedule.of(
        "denoiser",
        synth,
        "denoiser",
        num_images,
        weight_decay=config.weight_decay,
        ema_decays=config.ema_decays,
    )
