"""A data set and settings so small that both phases take seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASS_NAMES = ("disc", "bar", "<b>cross</b>")
SETTINGS = {
    "preset": "quick",
    "classifier.width": 8,
    "classifier.batch_size": 16,
    "sampler.epochs": 2,
    "sampler.k": 2,
    "synth.autoencoder.channels": "8,8,16",
    "synth.autoencoder.max_steps": 4,
    "synth.denoiser.channels": "16,16,16,16",
    "synth.denoiser.max_steps": 4,
    "synth.generation.steps": 2,
    "synth.generation.per_class": 6,
    "synth.generation.micro_batch": 4,
    "synth.scoring.pool_only_epochs": 1,
    "synth.scoring.usefulness_seeds": 2,
    "synth.scoring.usefulness_epochs": 1,
    "synth.scoring.usefulness_width": 8,
}
IN_PROCESS = ("--cluster.episode_runner", "in_process")
"""The same bits without Ray's actors, each of which takes seconds to start: for what is held against them."""


def flags(**more: object) -> list[str]:
    """Return the settings as command-line words; `sampler__k=3` adds or replaces one."""
    replaced = {key.replace("__", "."): value for key, value in more.items()}
    return [word for key, value in {**SETTINGS, **replaced}.items() for word in (f"--{key}", str(value))]


def write_npz(path: Path, *, size_px: int = 24, seed: int = 0) -> Path:
    """Write 96 gray images of three shapes in MedMNIST form, a long tail of 2 : 1 : 1, with class names."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {"class_names": np.array(CLASS_NAMES)}
    for split, per_class in (("train", (32, 16, 16)), ("val", (6, 4, 4)), ("test", (8, 5, 5))):
        labels_N = np.repeat(np.arange(3), per_class)
        arrays[f"{split}_images"] = np.stack([_shape(label, size_px, rng) for label in labels_N])
        arrays[f"{split}_labels"] = labels_N.astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return path


def _shape(label: int, size_px: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size_px, :size_px] - size_px / 2 + rng.uniform(-2, 2, (2, 1, 1))
    inside = [np.hypot(x, y) < size_px / 4, abs(y) < size_px / 8, np.minimum(abs(x), abs(y)) < size_px / 12][
        label
    ]
    image = np.where(inside, 180, 60) + rng.normal(0, 15, (size_px, size_px))
    return image.clip(0, 255).astype(np.uint8)
