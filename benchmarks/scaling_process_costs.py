"""Unit costs of a single process, for `scaling_costs.py`: metrics, validation, opening of the data, checkpoints."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import handover
import numpy as np
import torch
from common import median_seconds
from episodes import NUM_CLASSES, SIZE_PX, noise_data
from scaling_model import GB

from cluster.episodes import checkpoint
from rlcas import data as datasets
from rlcas.batches.images import CPU, Normalisation
from rlcas.batches.sources import RealImages
from rlcas.classifiers.inference import predict_logits
from rlcas.config import RunConfig
from rlcas.metrics import METRICS, class_signals
from rlcas.training.trainer import ClassifierTrainer

NUM_IMAGES = 256
NUM_SCORED, SCORED_CLASSES = 20_000, 100
OPENED_IMAGES = 100_000


def process_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of `work` in seconds, after one call to warm up."""
    work()
    return median_seconds(work, repeats, time.process_time)


def scoring(repeats: int) -> float:
    """Return the seconds of all validation metrics per image and class, divided by log2 of the number of images."""
    rng = np.random.default_rng(0)
    p_NC = rng.dirichlet(np.ones(SCORED_CLASSES), NUM_SCORED)
    labels_N = np.arange(NUM_SCORED) % SCORED_CLASSES

    def score() -> None:
        for metric in METRICS.values():
            metric(p_NC, labels_N)
        class_signals(p_NC, labels_N)

    return process_seconds(score, repeats) / (p_NC.size * math.log2(NUM_SCORED))


def validation_speed(repeats: int) -> float:
    """Return the images validated in the time of training on one: ResNet-18 of width 16, 28 px."""
    config = RunConfig.model_validate({"classifier": {"width": 16}})
    data = noise_data(NUM_IMAGES, NUM_CLASSES)
    images = data.train
    trainer = ClassifierTrainer(data, config, pool=RealImages(images), device=CPU)
    start = trainer.initial(np.zeros(NUM_CLASSES, np.int64))
    images_NCHW, normalisation = torch.from_numpy(images.images_NCHW), Normalisation.of(images.images_NCHW)
    trained = process_seconds(lambda: trainer.train_epoch(start, start.counts_C, episode_index=0), repeats)
    validated = process_seconds(
        lambda: predict_logits(trainer.model, images_NCHW, normalisation, config.classifier, CPU), repeats
    )
    return trained / validated


def opening(repeats: int) -> float:
    """Return a worker's seconds per GB of training images, which it maps and computes the statistics of."""
    data = noise_data(OPENED_IMAGES, NUM_CLASSES)
    with tempfile.TemporaryDirectory() as name:
        datasets.prepare(data, Path(name))

        def open_images() -> None:
            Normalisation.of(datasets.open_prepared(Path(name)).train.images_NCHW)

        return process_seconds(open_images, repeats) / (OPENED_IMAGES * SIZE_PX**2 / GB)


def checkpointing(repeats: int) -> float:
    """Return the wall-clock seconds of a checkpoint per GB of one state, fsync included."""
    trained = handover.Holder().trained
    incumbents, arrays = {"incumbent": trained, "best": trained}, {"learner": {"lr": np.zeros(1, np.float32)}}
    snapshot = checkpoint.Snapshot(incumbents=incumbents, arrays=arrays)
    with tempfile.TemporaryDirectory() as name:
        seconds = median_seconds(lambda: checkpoint.write(snapshot, Path(name)), repeats)
    return seconds / (sum(array.nbytes for array in trained.arrays.values()) / GB)


def costs_of_one_process(repeats: int) -> dict[str, float]:
    """Return all of these costs, by their names in `scaling_inputs.Costs`."""
    return {
        "score_seconds": scoring(repeats),
        "validation_speed": validation_speed(repeats),
        "open_seconds_per_gb": opening(repeats),
        "checkpoint_seconds_per_gb": checkpointing(repeats),
    }
