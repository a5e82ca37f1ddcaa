"""A training step of the synthesiser against a bare UNet step of the same size: noise, forward, MSE, AdamW.

share_of_floor is the bare step's time over ours: 1 means that sketch branch, sketch loss, weighting, batch
assembly from the cache and moving average cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from common import emit, interleaved_medians, parser

from rlcas.config import AutoencoderConfig, DenoiserConfig
from rlcas.presets import PRESETS
from rlcas.types import ImageSet
from synth import diffusion
from synth.autoencoder import build_autoencoder
from synth.denoiser import build_unet
from synth.latents import LatentCache, build_cache, set_latent_scale
from synth.sketch import SKETCHES
from synth.train import DenoiserTrainer

NUM_CLASSES = 8
QUICK = PRESETS["quick"]["synth"]
CASES = {  # side in pixels, autoencoder, denoiser
    "quick_28px": (28, AutoencoderConfig(**QUICK["autoencoder"]), DenoiserConfig(**QUICK["denoiser"])),
    "best_64px": (64, AutoencoderConfig(), DenoiserConfig()),
}


def trainer_of(
    side_px: int, autoencoder: AutoencoderConfig, config: DenoiserConfig, device: torch.device
) -> tuple[DenoiserTrainer, LatentCache]:
    """Return a trainer over the latents of random images, and these latents."""
    rng = np.random.default_rng(0)
    images = ImageSet(
        images_NCHW=rng.integers(0, 256, (64, 1, side_px, side_px), dtype=np.uint8),
        labels_N=np.arange(64) % NUM_CLASSES,
    )
    vae = build_autoencoder(autoencoder, (1, side_px, side_px)).eval().requires_grad_(False).to(device)
    cache = build_cache(images, vae, SKETCHES["ratio_of_averages"](), flip=True, device=device)
    set_latent_scale(vae, cache)
    return DenoiserTrainer(cache, vae, config, num_classes=NUM_CLASSES, seed=0), cache


def bare_step(cache: LatentCache, config: DenoiserConfig) -> Callable[[], None]:
    """Return one step of textbook latent diffusion on a fixed batch of latents."""
    channels, *size = cache.means_MChw.shape[1:]
    unet = build_unet(config, latent_channels=channels, latent_size=(size[0], size[1]), num_classes=NUM_CLASSES)
    device = cache.means_MChw.device
    unet.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    latents = cache.means_MChw[: config.batch_size].contiguous(memory_format=torch.channels_last)
    labels, abar = cache.labels_M[: config.batch_size], diffusion.noise_schedule(config).to(device)

    def step() -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(len(abar), labels.shape, device=device)
        noisy = diffusion.noised(latents, noise, abar[timesteps])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            predicted = unet(noisy, timesteps, class_labels=labels).sample
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(predicted.float(), noise).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def ours(trainer: DenoiserTrainer, device: torch.device) -> Callable[[], None]:
    """Return the trainer's step with the next number each time."""
    numbers = iter(range(1_000_000))
    trainer.denoiser.train()

    def step() -> None:
        trainer.step(next(numbers))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=21)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = arguments.parse_args()
    device, results = torch.device(args.device), {}
    for case, (side_px, autoencoder, config) in CASES.items():
        trainer, cache = trainer_of(side_px, autoencoder, config, device)
        seconds = interleaved_medians(
            {"bare": bare_step(cache, config), "ours": ours(trainer, device)}, args.repeats
        )
        results[case] = {
            "share_of_floor": seconds["bare"] / seconds["ours"],
            "step_milliseconds": 1000 * seconds["ours"],
        }
    emit("Synthesiser: training step against a bare UNet step", results, args.json)


if __name__ == "__main__":
    main()
