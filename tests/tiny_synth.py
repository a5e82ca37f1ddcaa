"""Small synthesisers and images for the tests of synth."""

from __future__ import annotations

import numpy as np

from rlcas.config import RunConfig
from rlcas.types import ImageSet, TrainingData, Uint8

DENOISER = {"channels": (8, 8, 16, 16), "max_steps": 3, "batch_size": 4}
AUTOENCODER = {"factor": 2, "channels": (8, 8), "max_steps": 3, "batch_size": 4}
GENERATION = {"steps": 2, "micro_batch": 4, "shard_images": 6}


def tiny_config(**groups: dict) -> RunConfig:
    """Return settings of a synthesiser that trains in a second; `denoiser=...` and so on override them."""
    synth = {"autoencoder": AUTOENCODER, "denoiser": DENOISER, "generation": GENERATION}
    for name, values in groups.items():
        synth[name] = {**synth[name], **values}
    return RunConfig(synth=synth)


def squares(num_images: int, *, side_px: int = 20, channels: int = 1, seed: int = 0) -> Uint8:
    """Return speckled images with a dark square somewhere, [N, channels, side, side] uint8."""
    rng = np.random.default_rng(seed)
    images = rng.gamma(8.0, 20.0, (num_images, channels, side_px, side_px))
    for image, (top, left) in zip(images, rng.integers(2, side_px // 2, (num_images, 2)), strict=True):
        image[:, top : top + side_px // 3, left : left + side_px // 3] *= 0.2
    return images.clip(0, 255).astype(np.uint8)


def tiny_data(*, side_px: int = 20, channels: int = 1) -> TrainingData:
    """Return 12 training and 6 validation images of 2 classes."""
    train, val = (squares(n, side_px=side_px, channels=channels, seed=n) for n in (12, 6))
    return TrainingData(
        name="squares",
        class_names=("round", "spiky"),
        train=ImageSet(images_NCHW=train, labels_N=np.arange(12) % 3 // 2),
        val=ImageSet(images_NCHW=val, labels_N=np.arange(6) % 2),
    )
