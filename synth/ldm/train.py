"""Training of the synthesiser: autoencoder, cache of latents and sketches, denoiser (paper, 2.1)."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from rlcas.config import RunConfig, SynthConfig
from rlcas.devices import same_bits
from rlcas.registry import lookup
from rlcas.seeding import seed_for
from rlcas.storage.atomic import replacing_folder, write_json
from rlcas.types import TrainingData
from synth.layout import CHECKPOINTS_FOLDER, FIGURES_FILE, PIPELINE_FOLDER
from synth.ldm.autoencoder import AutoencoderObjective, build_autoencoder, load_autoencoder
from synth.ldm.denoiser import SketchSupervisedDenoiser
from synth.ldm.diffusion import SOLVERS
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
    """Train the synthesiser into `folder`: a diffusers pipeline and, last, synthesiser.json.

    What was interrupted goes on from its checkpoints in `folder`/training. Where the process belongs to a
    torch.distributed group, all of its processes must call this; the first writes the files.

    Args:
        data: training images, and validation images to choose and judge by.
        config: the run's settings; `config.synth` is used, and `config.seed`.
        folder: where to write; an earlier synthesiser there is replaced, as a whole.
        device: where to train.
        progress: show bars on a terminal, lines in a log.
        on_step: called with (part, step, steps, figures) up to a hundred times a part.

    Returns:
        What synthesiser.json holds: last losses, `val_loss` and `sketch_skill` of the average that is sampled
        from, its decay, steps and seconds of each part.

    Raises:
        UserError: a setting does not fit the images, a loss is not finite, or a checkpoint is spoilt.
    """
    workers = Workers.joined()
    reporter = Reporter(progress=progress and workers.leads, on_step=on_step if workers.leads else None)
    with same_bits(device):
        work = _LdmTraining(data, config, folder, device, workers, reporter)
        started = time.perf_counter()
        vae, figures = work.autoencoder()
        caching = time.perf_counter()
        cache, held_out = work.caches(vae)
        training = time.perf_counter()
        denoiser, ema, denoiser_figures = work.denoiser(vae, cache)
        figures |= denoiser_figures
        seconds = (caching - started, training - caching, time.perf_counter() - training)
        figures |= dict(zip(("autoencoder_seconds", "cache_seconds", "denoiser_seconds"), seconds, strict=True))
        figures |= choose_average(
            denoiser, ema, HeldOutEvaluation(held_out, vae, config.synth.denoiser, seed=config.seed)
        )
        workers.run_on_first(lambda: work.save(vae, denoiser, ema, figures))
    return figures


def choose_average(
    denoiser: SketchSupervisedDenoiser, ema: Ema, held_out: HeldOutEvaluation
) -> dict[str, float]:
    """Return the decay of the average with the lowest loss on held-out images, as `ema_decay`, and its figures."""
    figures = {}
    for decay in ema.averages:
        ema.copy_to(denoiser, decay)
        figures[decay] = held_out.figures(denoiser)
    best = min(figures, key=lambda decay: figures[decay]["val_loss"])
    return {**figures[best], "ema_decay": best}


class _LdmTraining:
    """The steps of one training, each a part that its checkpoint remembers."""

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

    def autoencoder(self) -> tuple[AutoencoderKL, dict[str, float]]:
        """Return the autoencoder, trained here or loaded, frozen; and its figures."""
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

    def caches(self, vae: AutoencoderKL) -> tuple[LatentCache, LatentCache]:
        """Return what the denoiser trains on, and the validation images as they are; set the latents' scale."""
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
        set_latent_scale(vae, cache)
        return cache, build_cache(self._data.val, vae, sketch, self._device)

    def denoiser(
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
        """Write the pipeline, the average that was not chosen, and the figures; drop the checkpoints."""
        for decay, average in ema.averages.items():
            if decay != figures["ema_decay"]:
                with replacing_folder(self._folder / f"unet-ema-{decay:g}") as temporary:
                    denoiser.stock_unet(average).save_pretrained(temporary)
        data = self._data
        solver = lookup(self._settings.generation.solver, SOLVERS, "synth.generation.solver")
        pipeline = ClassConditionalLDMPipeline(
            unet=denoiser.stock_unet(ema.averages[figures["ema_decay"]]),
            vae=vae,
            scheduler=solver(self._settings.denoiser),
            id2label={str(number): name for number, name in enumerate(data.class_names)},
            image_shape=dict(zip(("channels", "height", "width"), data.image_shape_CHW, strict=True)),
            training=training_facts(data, self._config, figures),
        )
        with replacing_folder(self._folder / PIPELINE_FOLDER) as temporary:
            pipeline.save_pretrained(temporary)
        write_json(self._folder / FIGURES_FILE, figures)
        shutil.rmtree(self._folder / CHECKPOINTS_FOLDER, ignore_errors=True)

    def _train(
        self, objective: AutoencoderObjective | DenoiserObjective, schedule: Schedule
    ) -> tuple[Training, dict[str, float]]:
        training = Training(objective, schedule, self._workers)
        checkpoint = self._folder / CHECKPOINTS_FOLDER / f"{schedule.part}.safetensors"
        return training, training.run(checkpoint, self._reporter)

    def _seed(self, part: str) -> None:
        """Seed the global generator, which initial weights insist on."""
        torch.manual_seed(seed_for(self._config.seed, part, "initial weights"))


def denoiser_schedule(synth: SynthConfig, num_images: int) -> Schedule:
    """Return how long and how fast the denoiser is trained."""
    config = synth.denoiser
    return Schedule.of(
        "denoiser",
        synth,
        "denoiser",
        num_images,
        weight_decay=config.weight_decay,
        ema_decays=config.ema_decays,
    )
