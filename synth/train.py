"""Training of the synthesiser: autoencoder, cache, then L = L_LDM + λ √ᾱ_t L1(S_pred, S_gt) (paper, 2.1)."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rlcas.config import DenoiserConfig, RunConfig, SynthConfig
from rlcas.errors import UserError
from rlcas.files import replacing_folder, write_json
from rlcas.registry import lookup
from rlcas.seeding import seed_for
from rlcas.types import TrainingData
from synth import diffusion
from synth.autoencoder import (
    build_autoencoder,
    factor_of,
    load_autoencoder,
    num_steps,
    train_autoencoder,
)
from synth.denoiser import SketchSupervisedDenoiser, build_unet
from synth.ema import Ema
from synth.latents import LatentCache, build_cache, normalised, set_latent_scale
from synth.ldm import PIPELINE_FOLDER, training_facts
from synth.pipeline import ClassConditionalLDMPipeline
from synth.progress import OnStep, Reporter
from synth.rng import isolated_rng
from synth.sketch import SKETCHES, Extractor

FIGURES_FILE = "synthesiser.json"
SKILL_TIMESTEPS = 8


def train_synthesiser(
    data: TrainingData,
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool,
    on_step: OnStep | None = None,
) -> dict[str, float]:
    """Train the synthesiser and save it to `folder`/pipeline (diffusers) and `folder`/synthesiser.json.

    Args:
        data: training images, and validation images for `sketch_skill`.
        config: the run's settings; `config.synth` is used, and `config.seed`.
        folder: where to write; an earlier synthesiser there is replaced, as a whole.
        device: where to train.
        progress: show bars on a terminal, lines in a log.
        on_step: called with (part, step, steps, figures) up to a hundred times a part.

    Returns:
        What synthesiser.json holds: final losses, `sketch_skill`, steps and seconds of each part.

    Raises:
        UserError: a setting does not fit the images, or a loss is not finite.
    """
    settings, reporter = config.synth, Reporter(progress=progress, on_step=on_step)
    with isolated_rng(seed_for(config.seed, "synth", "torch"), device):
        started = time.perf_counter()
        vae, figures = _autoencoder(data, settings, config.seed, device, reporter)
        caching = time.perf_counter()
        sketch = sketch_extractor(settings)
        cache = build_cache(data.train, vae, sketch, flip=settings.denoiser.flip, device=device)
        set_latent_scale(vae, cache)
        training = time.perf_counter()
        trainer = DenoiserTrainer(cache, vae, settings.denoiser, num_classes=data.num_classes, seed=config.seed)
        figures |= trainer.run(num_images=len(data.train), reporter=reporter)
        if settings.denoiser.sketch_weight > 0:
            held_out = build_cache(data.val, vae, sketch, flip=False, device=device)
            figures["sketch_skill"] = trainer.sketch_skill(held_out)
        figures |= {
            "autoencoder_seconds": caching - started,
            "cache_seconds": training - caching,
            "denoiser_seconds": time.perf_counter() - training,
        }
    pipeline = ClassConditionalLDMPipeline(
        unet=trainer.denoiser.release_unet().eval(),
        vae=vae,
        scheduler=diffusion.few_step_sampler(settings.denoiser),
        id2label={str(number): name for number, name in enumerate(data.class_names)},
        image_shape=dict(zip(("channels", "height", "width"), data.image_shape_CHW, strict=True)),
        training=training_facts(data, config, figures),
    )
    with replacing_folder(folder / PIPELINE_FOLDER) as temporary:
        pipeline.save_pretrained(temporary)
    write_json(folder / FIGURES_FILE, figures)
    return figures


class DenoiserTrainer:
    """Joint training of denoiser and sketch branch on a cache; each step is a function of its number."""

    def __init__(
        self, cache: LatentCache, vae: AutoencoderKL, config: DenoiserConfig, *, num_classes: int, seed: int
    ) -> None:
        assert cache.labels_M.min() >= 0 and cache.labels_M.max() < num_classes, "a label is out of range"
        device, latent_shape = cache.means_MChw.device, cache.means_MChw.shape[1:]
        unet = build_unet(
            config,
            latent_channels=latent_shape[0],
            latent_size=(latent_shape[1], latent_shape[2]),
            num_classes=num_classes,
        )
        self.denoiser = SketchSupervisedDenoiser(unet, factor_of(vae), with_sketch=config.sketch_weight > 0)
        self.denoiser.to(device).to(memory_format=torch.channels_last)
        self.ema = Ema(self.denoiser, config.ema_decay)
        self._cache, self._vae, self._config, self._seed = cache, vae, config, seed
        self._null_class = num_classes
        self._abar = diffusion.noise_schedule(config).to(device)
        self._item_weights = balanced_weights(cache.labels_M, config.class_balance)
        self._optimizer = torch.optim.AdamW(
            self.denoiser.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self._generator = torch.Generator(device)

    def run(self, *, num_images: int, reporter: Reporter) -> dict[str, float]:
        """Train for the epochs of the settings, then put the average in the weights' place; return figures."""
        config = self._config
        total = num_steps(num_images, config.epochs, config.batch_size, config.max_steps)
        self.denoiser.train()
        with reporter.part("denoiser", total, mend=f"lower synth.denoiser.lr {config.lr:g}") as report:
            for step in range(total):
                figures = report(step, self.step(step))
        self.ema.copy_to(self.denoiser)
        self.denoiser.eval()
        return {**figures, "denoiser_steps": total}

    def step(self, step: int) -> Mapping[str, Tensor]:
        """Do optimiser step number `step`; return the losses, as tensors on the device."""
        config, generator = self._config, self._generator
        device = self._abar.device
        generator.manual_seed(seed_for(self._seed, "denoiser", step))
        items = torch.multinomial(self._item_weights, config.batch_size, replacement=True, generator=generator)
        timesteps = torch.randint(len(self._abar), items.shape, generator=generator, device=device)
        dropped = torch.rand(items.shape, generator=generator, device=device) < config.label_drop
        labels = self._cache.labels_M[items].masked_fill(dropped, self._null_class)
        losses = self._losses(items, timesteps, labels, generator)
        total = losses["loss"] + config.sketch_weight * losses.get("sketch_loss", 0.0)
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._optimizer.step()
        self.ema.update(self.denoiser)
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses(
        self, items_N: Tensor, timesteps_N: Tensor, labels_N: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        config, abar = self._config, self._abar[timesteps_N]
        shape = (len(items_N), *self._cache.means_MChw.shape[1:])
        posterior_noise, noise = torch.randn((2, *shape), generator=generator, device=abar.device)
        latents = normalised(self._cache.sample(items_N, posterior_noise), self._vae)
        noisy = diffusion.noised(latents, noise, abar).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            predicted, sketches = self.denoiser(noisy, timesteps_N, labels_N)
        target = diffusion.target_of(config.prediction, latents, noise, abar)
        weight = diffusion.min_snr_weight(config.prediction, abar, config.min_snr_gamma)
        losses = {"loss": diffusion.denoising_loss(predicted.float(), target, weight).mean()}
        if sketches is not None:
            truth = self._cache.sketches(items_N)
            losses["sketch_loss"] = diffusion.sketch_loss(
                cropped_like(sketches.float(), truth), truth, abar
            ).mean()
        return losses

    def _autocast(self) -> torch.autocast:
        kind = self._abar.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")

    @torch.no_grad()
    def sketch_skill(self, held_out: LatentCache) -> float:
        """Return 1 - L_s / L_s(best constant) on held-out images, over evenly spaced timesteps.

        The best constant map is fitted to the held-out sketches themselves (their median): an L1 loss on a
        sparse map falls to that with nothing learnt, so only a positive skill shows that something was.
        """
        truth = held_out.sketches(torch.arange(len(held_out), device=self._abar.device))
        constant = truth.median()
        loss, constant_loss = 0.0, 0.0
        spaced = torch.linspace(0, len(self._abar) - 1, SKILL_TIMESTEPS).long()
        for timestep in spaced.tolist():
            abar = self._abar[timestep].expand(len(truth))
            predicted = self._sketches(held_out, timestep, abar)
            loss += diffusion.sketch_loss(cropped_like(predicted, truth), truth, abar).sum().item()
            constant_loss += diffusion.sketch_loss(constant.expand_as(truth), truth, abar).sum().item()
        return 1.0 - loss / constant_loss

    def _sketches(self, held_out: LatentCache, timestep: int, abar_N: Tensor) -> Tensor:
        device = abar_N.device
        generator = torch.Generator(device).manual_seed(seed_for(self._seed, "sketch_skill", timestep))
        noise = torch.randn(held_out.means_MChw.shape, generator=generator, device=device)
        noisy = diffusion.noised(normalised(held_out.means_MChw, self._vae), noise, abar_N)
        batches = zip(
            noisy.split(self._config.batch_size), held_out.labels_M.split(self._config.batch_size), strict=True
        )
        maps = []
        for latents, labels in batches:
            _, predicted = self.denoiser(latents, torch.full_like(labels, timestep), labels)
            maps.append(predicted)
        return torch.cat(maps)


def sketch_extractor(settings: SynthConfig) -> Extractor:
    """Return the extractor named in the settings.

    Raises:
        UserError: its name is unknown, or it is given weights and takes none.
    """
    factory = lookup(settings.sketch, SKETCHES, "synth.sketch")
    if settings.sketch_weights is None:
        return factory()
    if "weights" not in inspect.signature(factory).parameters:
        raise UserError(
            f"synth.sketch_weights is {settings.sketch_weights}, but the sketch {settings.sketch!r} takes none: "
            "leave it out"
        )
    return factory(weights=settings.sketch_weights)


def balanced_weights(labels_M: Tensor, class_balance: float) -> Tensor:
    """Return [M] float: weights that draw class c with probability ~ n_c^(1 - class_balance)."""
    counts_C = torch.bincount(labels_M).double()
    return counts_C[labels_M].pow(-class_balance).float()


def cropped_like(maps_N1HW: Tensor, reference_N1HW: Tensor) -> Tensor:
    """Return the middle of the maps, of the reference's height and width."""
    height, width = reference_N1HW.shape[2:]
    top, left = (maps_N1HW.shape[2] - height) // 2, (maps_N1HW.shape[3] - width) // 2
    return maps_N1HW[:, :, top : top + height, left : left + width]


def _autoencoder(
    data: TrainingData, settings: SynthConfig, seed: int, device: torch.device, reporter: Reporter
) -> tuple[AutoencoderKL, dict[str, float]]:
    config, shape = settings.autoencoder, data.image_shape_CHW
    if config.pretrained is not None:
        return load_autoencoder(config.pretrained, shape[0]).to(device), {}
    vae = build_autoencoder(config, shape)
    figures = train_autoencoder(
        vae, data.train.images_NCHW, config, seed=seed, device=device, reporter=reporter
    )
    return vae, {f"autoencoder_{name}": value for name, value in figures.items()}
