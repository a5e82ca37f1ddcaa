"""Batches of noised latents as a function of the step's number, for objectives that need latents only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlcas.seeding import seed_for
from synth.ldm.diffusion import noised
from synth.ldm.latents import Moments
from synth.ldm.objective import cumulative_probabilities, drawn_items
from synth.training.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedLatents:
    """A batch of z_t with z_0, ε and t."""

    noisy_NChw: Tensor
    timesteps_N: Tensor
    labels_N: Tensor
    latents_NChw: Tensor
    """z_0."""
    noise_NChw: Tensor
    """ε."""
    abar_N: Tensor
    """ᾱ_t."""


class NoisedLatentBatches:
    """Batch number n, with items drawn by class balance, t uniformly, and Gaussian noise; a function of n.

    Args:
        moments: the training latents.
        normalise: from latents to z_0.
        abar_T: ᾱ of the noise schedule.
        batch_size: latents in a mini-batch of all workers.
        class_balance: classes are drawn with probability ~ n_c^(1 - class_balance).
        path: seeding path of the draws, the run's seed first.
        workers: the processes that share a batch.
    """

    def __init__(
        self,
        moments: Moments,
        normalise: Callable[[Tensor], Tensor],
        abar_T: Tensor,
        *,
        batch_size: int,
        class_balance: float,
        path: tuple[int, str],
        workers: Workers,
    ) -> None:
        self._moments, self._normalise, self._workers = moments, normalise, workers
        self._abar = abar_T.to(moments.means_MChw.device)
        self._size, self._path = batch_size, path
        self._cumulative_M = cumulative_probabilities(moments.labels_M, class_balance)

    def batch(self, step: int) -> NoisedLatents:
        """Return this worker's rows of batch `step`."""
        device, share = self._abar.device, self._workers.share
        generator = torch.Generator(device).manual_seed(seed_for(*self._path, step))
        items = drawn_items(self._cumulative_M, self._size, generator)
        timesteps = torch.randint(len(self._abar), (self._size,), generator=generator, device=device)
        shape = (2, self._size, *self._moments.means_MChw.shape[1:])
        posterior_noise, noise = torch.randn(shape, generator=generator, device=device)
        # Shared only after the whole batch is drawn, so that its rows are the same with any number of workers.
        items, timesteps, noise = share(items), share(timesteps), share(noise)
        latents = self._normalise(self._moments.draw(items, share(posterior_noise)))
        abar = self._abar[timesteps]
        return NoisedLatents(
            noisy_NChw=noised(latents, noise, abar),
            timesteps_N=timesteps,
            labels_N=self._moments.labels_M[items],
            latents_NChw=latents,
            noise_NChw=noise,
            abar_N=abar,
        )
