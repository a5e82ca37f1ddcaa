"""A training step of the synthesiser against a bare step of UNet and sketch decoder: noise, forward, loss, AdamW.

share_of_floor is the bare step's time over ours: 1 means that loss weights, batches from the cache, random draws that
do not depend on the number of workers, moving averages and checks cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import emit, interleaved_medians, noise, parser
from diffusers import AutoencoderKL
from torch import nn

from rlcas.config import AutoencoderConfig, DenoiserConfig, SynthConfig
from rlcas.settings.presets import PRESETS
from synth.ldm import diffusion
from synth.ldm.autoencoder import build_autoencoder, factor_of
from synth.ldm.denoiser import SketchSupervisedDenoiser, build_unet
from synth.ldm.latents import LatentCache, build_cache, set_latent_scale
from synth.ldm.objective import DenoiserObjective, cropped_like
from synth.ldm.train import denoiser_schedule
from synth.sketch import SKETCHES
from synth.training.ema import STEPS_PER_UPDATE
from synth.training.loop import Training
from synth.training.workers import ALONE

NUM_CLASSES = 8
QUICK = PRESETS["quick"]["synth"]
CASES = {  # side in pixels, autoencoder, denoiser
    "quick_28px": (28, AutoencoderConfig(**QUICK["autoencoder"]), DenoiserConfig(**QUICK["denoiser"])),
    "best_64px": (64, AutoencoderConfig(), DenoiserConfig()),
}


def cached(
    side_px: int, autoencoder: AutoencoderConfig, device: torch.device
) -> tuple[AutoencoderKL, LatentCache]:
    """Return an autoencoder, and latents and sketches of images of noise."""
    images = noise(64, size_px=side_px, num_classes=NUM_CLASSES)
    vae = build_autoencoder(autoencoder, (1, side_px, side_px)).eval().requires_grad_(False).to(device)
    cache = build_cache(images, vae, SKETCHES["ratio_of_averages"](), device, flip=True)
    set_latent_scale(vae, cache)
    return vae, cache


def bare_step(vae: AutoencoderKL, cache: LatentCache, config: DenoiserConfig) -> Callable[[], None]:
    """Return one step of textbook latent diffusion with a sketch decoder, on a fixed batch."""
    channels, *size = cache.means_MChw.shape[1:]
    unet = build_unet(config, latent_channels=channels, latent_size=(size[0], size[1]), num_classes=NUM_CLASSES)
    model = SketchSupervisedDenoiser(
        unet, factor_of(vae), with_sketch=True, num_augmentations=0, dropout=nn.Dropout(config.dropout)
    )
    device = cache.means_MChw.device
    model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    latents = cache.means_MChw[: config.batch_size].contiguous(memory_format=torch.channels_last)
    truth = cache.sketches(torch.arange(config.batch_size, device=device))
    labels, abar = cache.labels_M[: config.batch_size], diffusion.noise_schedule(config).to(device)

    def step() -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(len(abar), labels.shape, device=device)
        noisy = diffusion.noised(latents, noise, abar[timesteps])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            predicted, sketches = model(noisy, timesteps, labels)
        loss = F.mse_loss(predicted.float(), noise) + F.l1_loss(cropped_like(sketches.float(), truth), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def our_step(vae: AutoencoderKL, cache: LatentCache, config: DenoiserConfig) -> Callable[[], None]:
    """Return the step of the training loop, with the next step number each time."""
    objective = DenoiserObjective(cache, vae, config, num_classes=NUM_CLASSES, seed=0, workers=ALONE)
    training = Training(objective, denoiser_schedule(SynthConfig(denoiser=config), len(cache)), ALONE)
    objective.module.train()
    numbers = iter(range(1_000_000))

    def step() -> None:
        training.step(next(numbers))
        if cache.labels_M.is_cuda:
            torch.cuda.synchronize()

    return step


def repeated(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function of as many steps as there are from one update of the averages to the next."""

    def steps() -> None:
        for _ in range(STEPS_PER_UPDATE):
            step()

    return steps


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=9)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = arguments.parse_args()
    device, results = torch.device(args.device), {}
    for case, (side_px, autoencoder, config) in CASES.items():
        vae, cache = cached(side_px, autoencoder, device)
        steps = {"bare": bare_step(vae, cache, config), "ours": our_step(vae, cache, config)}
        seconds = interleaved_medians({name: repeated(step) for name, step in steps.items()}, args.repeats)
        results[case] = {
            "share_of_floor": seconds["bare"] / seconds["ours"],
            "step_milliseconds": 1000 * seconds["ours"] / STEPS_PER_UPDATE,
        }
    emit("Synthesiser: training step against a bare step of UNet and sketch decoder", results, args.json)


if __name__ == "__main__":
    main()
