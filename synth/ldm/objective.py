"""The denoiser's loss: L = L_LDM + λ √ᾱ_t L1(S_pred, S_gt) (paper, section 2.1), on cached latents and sketches."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from rlcas.config import DenoiserConfig
from rlcas.devices import autocast
from rlcas.seeding import seed_for
from synth.ldm import diffusion
from synth.ldm.autoencoder import factor_of
from synth.ldm.denoiser import SharedDropout, SketchSupervisedDenoiser, build_unet
from synth.ldm.latents import LatentCache, normalised
from synth.training.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBatch:
    """Everything random in one step: items, timesteps, labels and noise."""

    items_N: Tensor
    """Indices into the cache."""
    timesteps_N: Tensor
    labels_N: Tensor
    """Classes; C, the null class, where the label is dropped."""
    other_labels_N: Tensor
    """Classes drawn uniformly, for the class-balancing regulariser."""
    posterior_noise_NChw: Tensor
    noise_NChw: Tensor

    def share_of(self, workers: Workers) -> LatentBatch:
        """Return this worker's rows."""
        return LatentBatch(**{field.name: workers.share(getattr(self, field.name)) for field in fields(self)})


class DenoiserObjective:
    """Joint training of denoiser and sketch branch on a cache (a `synth.training.loop.TrainingObjective`).

    Args:
        cache: latents and sketches of the training images.
        vae: the autoencoder that they come from, for its scale and shift.
        config: settings of the denoiser.
        num_classes: C.
        seed: the run's seed.
        workers: the processes that share a batch.

    Attributes:
        module: the denoiser with its sketch branch.
    """

    def __init__(
        self,
        cache: LatentCache,
        vae: AutoencoderKL,
        config: DenoiserConfig,
        *,
        num_classes: int,
        seed: int,
        workers: Workers,
    ) -> None:
        assert cache.labels_M.min() >= 0 and cache.labels_M.max() < num_classes, "a label is out of range"
        workers.check_divides(config.batch_size, "synth.denoiser.batch_size")
        device, (channels, height, width) = cache.means_MChw.device, cache.means_MChw.shape[1:]
        # Also that of the dropout masks: reseeded each step, it makes them a function of the step too.
        self._generator = torch.Generator(device)
        self._is_augmented = cache.is_augmented  # read once, because reading it waits for the GPU
        denoiser = SketchSupervisedDenoiser(
            build_unet(config, latent_channels=channels, latent_size=(height, width), num_classes=num_classes),
            factor_of(vae),
            with_sketch=config.sketch_weight > 0,
            num_augmentations=cache.augmentations_MA.shape[1] if self._is_augmented else 0,
            dropout=SharedDropout(config.dropout, self._generator, workers),
        )
        self.module = denoiser.to(device).to(memory_format=torch.channels_last)
        self._cache, self._vae, self._config, self._seed, self._workers = cache, vae, config, seed, workers
        self._num_classes = num_classes
        self._abar = diffusion.noise_schedule(config).to(device)
        self._cumulative_M = cumulative_probabilities(cache.labels_M, config.class_balance)

    def losses(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Return loss (L_LDM), sketch_loss (L_s) and cbdm_loss, if enabled, and their weighted total.

        Every worker draws the whole batch in the same order and computes its own rows.
        """
        self._generator.manual_seed(seed_for(self._seed, "denoiser", step))
        return self.losses_of(module, self._draw().share_of(self._workers))

    def losses_of(self, module: nn.Module, batch: LatentBatch) -> dict[str, Tensor]:
        """Return the losses of a given batch, as `losses`."""
        config, abar = self._config, self._abar[batch.timesteps_N]
        latents = normalised(self._cache.draw(batch.items_N, batch.posterior_noise_NChw), self._vae)
        noisy = diffusion.noised(latents, batch.noise_NChw, abar).contiguous(memory_format=torch.channels_last)
        predicted, sketches, losses = self._predicted(module, noisy, batch)
        target = diffusion.target_of(config.prediction, latents, batch.noise_NChw, abar)
        weight = diffusion.min_snr_weight(config.prediction, abar, config.min_snr_gamma)
        losses["loss"] = diffusion.denoising_loss(predicted, target, weight).mean()
        total = losses["loss"]
        if sketches is not None:
            truth = self._cache.sketches(batch.items_N)
            losses["sketch_loss"] = diffusion.sketch_loss(cropped_like(sketches, truth), truth, abar).mean()
            total = total + config.sketch_weight * losses["sketch_loss"]
        if "cbdm_loss" in losses:
            total = total + config.cbdm_weight * losses["cbdm_loss"]
        return {**losses, "total": total}

    def _draw(self) -> LatentBatch:
        config, generator, device = self._config, self._generator, self._abar.device
        size = (config.batch_size,)
        items = drawn_items(self._cumulative_M, config.batch_size, generator)
        timesteps = torch.randint(len(self._abar), size, generator=generator, device=device)
        dropped = torch.rand(size, generator=generator, device=device) < config.label_drop
        noises = torch.randn((2, *size, *self._cache.means_MChw.shape[1:]), generator=generator, device=device)
        return LatentBatch(
            items_N=items,
            timesteps_N=timesteps,
            labels_N=self._cache.labels_M[items].masked_fill(dropped, self._num_classes),
            other_labels_N=torch.randint(self._num_classes, size, generator=generator, device=device),
            posterior_noise_NChw=noises[0],
            noise_NChw=noises[1],
        )

    def _predicted(
        self, module: nn.Module, noisy_NChw: Tensor, batch: LatentBatch
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return prediction, sketches and, if the class-balancing regulariser is enabled, its loss.

        The predictions under both labels come from one forward pass, as DDP expects one for each backward pass. The
        two rows of a sample are adjacent: so a row has the same dropout mask with any number of workers.
        """
        inputs = [noisy_NChw, batch.timesteps_N, batch.labels_N]
        if self._is_augmented:
            inputs.append(self._cache.augmentations_MA[batch.items_N])
        balanced = self._config.cbdm_weight > 0
        if balanced:  # each sample twice, the second time with its other label
            inputs = [values.repeat_interleave(2, dim=0) for values in inputs]
            inputs[2] = torch.stack([batch.labels_N, batch.other_labels_N], dim=1).flatten()
        # The network alone may compute in bf16; losses are float32.
        with autocast("auto", self._abar.device):
            predicted, sketches = module(*inputs)
        predicted, sketches = predicted.float(), None if sketches is None else sketches.float()
        if not balanced:
            return predicted, sketches, {}
        own, of_other = predicted[::2], predicted[1::2]
        loss_N = diffusion.balancing_loss(own, of_other, batch.timesteps_N / len(self._abar))
        loss_N = loss_N * (batch.labels_N < self._num_classes)  # the null class is not regularised
        return own, None if sketches is None else sketches[::2], {"cbdm_loss": loss_N.mean()}


def cumulative_probabilities(labels_M: Tensor, class_balance: float) -> Tensor:
    """Return [M] float64, rising to 1: the probability of drawing an item or one before it.

    Class c is drawn with probability ~ n_c^(1 - class_balance). Computed on the CPU, as on a GPU some versions of
    PyTorch have no deterministic cumsum.
    """
    labels_M, device = labels_M.cpu(), labels_M.device
    weights_M = torch.bincount(labels_M)[labels_M].double().pow(-class_balance)
    sums_M = weights_M.cumsum(0)
    # The last entry is exactly 1, so every draw in [0, 1) below finds an item.
    return (sums_M / sums_M[-1]).to(device)


def drawn_items(cumulative_M: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Return [number] items drawn with replacement by their `cumulative_probabilities`.

    `torch.multinomial` would sum the weights again at each step, on a GPU by a cumsum that deterministic mode refuses
    in some versions of PyTorch (issue #152854).
    """
    # float64 as the sums are: searchsorted compares tensors of one dtype only.
    draws = torch.rand(number, dtype=torch.float64, generator=generator, device=cumulative_M.device)
    return torch.searchsorted(cumulative_M, draws, right=True)


def cropped_like(maps_N1HW: Tensor, reference_N1HW: Tensor) -> Tensor:
    """Return the maps cropped in the middle to the reference's height and width."""
    height, width = reference_N1HW.shape[2:]
    # The inverse of `pad_to_multiple`, which puts the smaller half of the padding at the top and left.
    top, left = (maps_N1HW.shape[2] - height) // 2, (maps_N1HW.shape[3] - width) // 2
    return maps_N1HW[:, :, top : top + height, left : left + width]
