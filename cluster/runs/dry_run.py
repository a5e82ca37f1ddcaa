"""What a run would take, for `--dry-run`: settings, demand, and time from a few real steps on this machine."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cluster.episodes.handover import describe_episodes
from cluster.pools.make import check_phase_one, images_per_class
from cluster.pools.start_images import own_images
from cluster.pools.usefulness import images_trained, small_config
from cluster.runs.checks import check_data_fits, check_settings
from cluster.runs.first_dose import check_search
from cluster.runtime.connection import check_starts_here
from cluster.runtime.resources import gpus_per_episode, this_machine, uses_ray, with_chosen_episodes
from rlcas import data as datasets
from rlcas import settings
from rlcas.batches.composition import batch_starts, first_composition, replaces_real
from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig
from rlcas.console import format_seconds
from rlcas.devices import choose_device, torch_threads
from rlcas.training.out_of_fold import NUM_FOLDS
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import ImageSet, TrainingData
from synth.generate import fill_pool
from synth.generators import generator_of
from synth.training.loop import num_steps

MEASURED_STEPS = 2
MEASURED_IMAGES = 64
MB = 1e6


def describe(config: RunConfig) -> str:
    """Return the resolved settings, the demand on GPUs, memory and disk, and an estimate of the time.

    Raises:
        UserError: a setting or the data is wrong.
    """
    check_settings(config)
    # Whether a cluster answers is left to the run: a dry run starts nothing, and may be made elsewhere.
    if uses_ray(config) and not os.environ.get("RAY_ADDRESS"):
        check_starts_here()
    config = with_chosen_episodes(config)
    cluster = config.cluster.concrete(config.sampler.num_workers, config.device)
    config = config.model_copy(update={"cluster": cluster})
    data = datasets.load(config, progress=True)
    assert data.record is not None, "the images were read from their source"
    check_phase_one(config, data, data.record)
    check_search(config)
    notes = check_data_fits(config, data)
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, _counts(data), strict=True))
    lines = [
        settings.as_yaml(config),
        f"data: {len(data.train)} training and {len(data.val)} validation images {data.image_shape_CHW}: {counts}",
        *(f"note: {note}" for note in data.notes + notes),
        *_demand(config, data),
        *_times(config, data),
    ]
    return "\n".join(lines)


def _counts(data: TrainingData) -> list[int]:
    return data.train.class_counts(data.num_classes).tolist()


def _pool_images(config: RunConfig, data: TrainingData) -> int:
    return sum(images_per_class(config, data.train.class_counts(data.num_classes)))


def _demand(config: RunConfig, data: TrainingData) -> list[str]:
    """Return what the episodes ask of the machine, and the bytes of images and checkpoints."""
    image_bytes = int(np.prod(data.image_shape_CHW))
    real = (len(data.train) + len(data.val)) * image_bytes
    pool = 0 if config.pool else _pool_images(config, data) * image_bytes
    state = sum(array.nbytes for array in _trainer(config, data).initial(_start(config, data)).arrays.values())
    machine = this_machine()
    sampler = config.sampler
    each = gpus_per_episode(config.cluster.gpus_per_episode, sampler.num_workers, int(machine["GPU"]))
    workers = f"K={sampler.k} episodes" if sampler.num_workers == sampler.k else "1 worker"
    return [
        f"episodes: {describe_episodes(sampler)}",
        f"demand: {workers} x {each:g} GPU (here: {machine['GPU']:g}), "
        f"{config.cluster.threads_per_episode} thread each (here: {machine['CPU']:g} cores)",
        f"memory: {(real + pool) / MB:.0f} MB of images, mapped once a node; {state / MB:.0f} MB of weights and "
        "optimiser an episode",
        # Two checkpoints are kept, each with the incumbent and the best classifier.
        f"disk: {(real + pool) / MB:.0f} MB of images, {4 * state / MB:.0f} MB of checkpoints",
    ]


def _start(config: RunConfig, data: TrainingData) -> np.ndarray:
    return first_composition(config, data.train.class_counts(data.num_classes))


def _trainer(config: RunConfig, data: TrainingData, some: TrainingData | None = None) -> ClassifierTrainer:
    """Return a trainer of all images, or of some, whose added images are real ones of every class."""
    pool, device = RealImages(data.train), choose_device(config.device)
    return ClassifierTrainer(some or data, config, pool=pool, device=device)


def _times(config: RunConfig, data: TrainingData) -> list[str]:
    """Return the estimate of each part: the time of a few steps on this machine, times the number of steps."""
    parts = {} if config.pool else synthesis_seconds(config, data)
    not_estimated = (
        "" if config.pool or parts else f", and synth.generator {config.synth.generator!r}, not estimated"
    )
    per_image = seconds_per_image(config, data)
    if config.synth.scoring.extractor == "classifier":
        parts["judge"] = per_image * len(data.train) * config.sampler.epochs
    if config.synth.scoring.usefulness:
        # The pool's and the repeats'.
        parts["usefulness"] = 2 * usefulness_seconds(config, data)
    if folds := config.sampler.fold_epochs:
        # Each classifier is trained on all thirds but one, and looking through compositions takes less.
        parts["dose search"] = per_image * len(data.train) * (NUM_FOLDS - 1) * folds
    parts["episodes"] = per_image * _images_in_turn(config, data)
    named = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts.items())
    return [
        f"time, from a few steps on this machine: {named}; in all {format_seconds(sum(parts.values()))}{not_estimated}"
    ]


def synthesis_seconds(config: RunConfig, data: TrainingData) -> dict[str, float]:
    """Return the seconds of each part of the generator's training and of the pool; empty where it names no parts."""
    synth, device = config.synth, choose_device(config.device)
    generator = generator_of(config)
    if not generator.parts:
        return {}
    groups = {part: getattr(synth, group) for part, group in generator.parts.items()}
    short = settings.override(
        config, {f"synth.{group}.max_steps": str(MEASURED_STEPS) for group in generator.parts.values()}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = generator.train(_some(data), short, folder, device=device, progress=False)
        batch = synth.generation.micro_batch
        started = time.perf_counter()
        # A micro-batch is of one size whatever the classes in it.
        one_batch = [batch] + [0] * (data.num_classes - 1)
        # Of whichever class the sources are, encoding them takes as long.
        start = own_images(data, short)
        fill_pool(folder, folder / "pool", one_batch, short, device=device, progress=False, start=start)
        sampling_seconds = time.perf_counter() - started
    samplers = min(config.cluster.sampling_workers, _side_by_side(device))
    steps = {
        part: num_steps(len(data.train), group.epochs, group.batch_size, group.max_steps)
        for part, group in groups.items()
    }
    return {
        **{part: figures[f"{part}_seconds"] / MEASURED_STEPS * number for part, number in steps.items()},
        # -(-a // b) rounds up: the last micro-batch is padded and takes as long.
        "pool": sampling_seconds * -(-_pool_images(config, data) // batch) / samplers,
    }


def _some(data: TrainingData) -> TrainingData:
    """Return a few images of each split: a step takes as long on them, while encoding all would take longer."""

    def few(images: ImageSet) -> ImageSet:
        # Evenly over the whole set: images may be sorted by class, and the first few would lack classes.
        return images.take(np.linspace(0, len(images) - 1, min(len(images), MEASURED_IMAGES)).astype(np.int64))

    return dataclasses.replace(data, train=few(data.train), val=few(data.val))


def seconds_per_image(config: RunConfig, data: TrainingData) -> float:
    """Return the seconds in which one episode trains on an image, measured on this machine."""
    batch = config.classifier.batch_size
    images = min(len(data.train), MEASURED_STEPS * batch)
    some = data.train.take(np.linspace(0, len(data.train) - 1, images).astype(np.int64))
    trainer = _trainer(config, data, dataclasses.replace(data, train=some, val=some))
    start = _start(config, data)
    threads = config.cluster.threads_per_episode
    assert threads is not None, "the settings are concrete"
    with torch_threads(threads):
        trainer.train_epoch(trainer.initial(start), start, episode_index=0)  # warms up: the first is slower
        started = time.perf_counter()
        result = trainer.train_epoch(trainer.initial(start), start, episode_index=0)
        return (time.perf_counter() - started) / result.num_images


def usefulness_seconds(config: RunConfig, data: TrainingData) -> float:
    """Return the seconds in which the small classifiers of one arm are trained, those of a pool or of the repeats."""
    return seconds_per_image(small_config(config, config.seed), data) * images_trained(config, data)


def _images_in_turn(config: RunConfig, data: TrainingData) -> float:
    """Return the images of all epochs that are trained one after another: K episodes share the cores or GPUs."""
    num_batches = len(batch_starts(len(data.train), config.classifier.batch_size))
    appended = not replaces_real(config, data.num_classes)
    images_an_epoch = len(data.train) + appended * num_batches * int(_start(config, data).sum())
    sampler = config.sampler
    rounds = max(1.0, sampler.num_workers / _side_by_side(choose_device(config.device)))
    # K shares that are trained at once take a K-th of an epoch each.
    return images_an_epoch * sampler.epochs * rounds * sampler.passes / sampler.num_workers


def _side_by_side(device: torch.device) -> int:
    """Return how many workers compute on this machine without waiting for each other."""
    return int(this_machine()["GPU" if device.type == "cuda" else "CPU"])
