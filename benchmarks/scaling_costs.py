"""Unit costs of an epoch on this machine, for `scaling.py`: engine, hand-over, metrics, checkpoint, images, memory.

The engine's overhead is an epoch's wall minus its slowest episode, with line and events of the epoch on disk, at some
K and numbers of classes; a plane in K, C and K·C is fitted to the medians. What one process does alone is told in its
processor's seconds. Kept in docs/scaling_costs.json by

    python benchmarks/scaling_costs.py --json > docs/scaling_costs.json
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import handover
import numpy as np
import ray
import torch
from common import emit, parser, peak_bytes
from episodes import SIZE_PX, noise
from scaling_model import GB, plane
from sleeping import SleepingTrainer, private_gb

from cluster import RLCAS, RLCASConfig
from cluster.episodes import checkpoint
from cluster.runtime.connection import ensure_ray
from rlcas import data as datasets
from rlcas.batches.images import CPU, Normalisation
from rlcas.batches.sources import RealImages
from rlcas.classifiers.inference import predict_logits
from rlcas.config import RunConfig
from rlcas.metrics import METRICS, class_signals
from rlcas.runs import epoch_log
from rlcas.tracking.tensorboard import Tracker
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpisodeReport, TrainingData

NUM_IMAGES = 256
NUM_SCORED, SCORED_CLASSES = 20_000, 100
OPENED_IMAGES = 100_000


def process_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median of the processor's seconds of `work`, after one call to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def build(k: int, num_classes: int, epochs: int) -> RLCAS:
    """Return the engine with K episodes that sleep."""
    return (
        RLCASConfig()
        .training(k=k, epochs=epochs)
        .episodes(
            trainer_factory=functools.partial(SleepingTrainer, num_classes=num_classes), num_classes=num_classes
        )
        .debugging(log_level="ERROR")
        .build_algo()
    )


def engine(k: int, num_classes: int, repeats: int) -> dict[str, float]:
    """Return the median overhead of an epoch in seconds, and the bytes of its messages and of its line."""
    algorithm = build(k, num_classes, repeats + 1)
    epochs = trained_epochs(algorithm, num_classes, repeats + 1)
    assert algorithm.record is not None
    report = algorithm.record.reports[0]
    algorithm.stop()
    return {
        "overhead_seconds": statistics.median(epoch.seconds - epoch.slowest for epoch in epochs[1:]),
        "message_bytes": message_bytes(report),
        "line_bytes": epochs[-1].line_bytes,
        "driver_gb": peak_gb(),
    }


class Epoch(NamedTuple):
    """What an epoch took."""

    seconds: float
    """Wall, with its record on disk."""
    slowest: float
    """Of its longest episode."""
    line_bytes: int


def trained_epochs(algorithm: RLCAS, num_classes: int, epochs: int) -> list[Epoch]:
    """Train, and write of each epoch what a run does: its line and its events."""
    trained = []
    with tempfile.TemporaryDirectory() as name, Tracker(Path(name), ["class"] * num_classes) as tracker:
        for _ in range(epochs):
            start = time.perf_counter()
            algorithm.train()
            assert algorithm.record is not None
            epoch_log.append_epoch(Path(name), algorithm.record)
            tracker.epoch(algorithm.record)
            seconds = time.perf_counter() - start
            slowest = max(report.seconds for report in algorithm.record.reports)
            line = (Path(name) / epoch_log.EPOCHS_FILE).read_bytes().splitlines()[-1]
            trained.append(Epoch(seconds, slowest, len(line)))
    return trained


def peak_gb() -> float:
    """Return the most memory that this process has held."""
    return peak_bytes() / GB


def message_bytes(report: EpisodeReport) -> float:
    """Return the bytes of an episode's report and of the actions in its call."""
    return float(len(ray.cloudpickle.dumps(report)) + len(ray.cloudpickle.dumps(report.actions_C)))


def scoring(repeats: int) -> float:
    """Return the seconds of all validation metrics, for an image and class, over log2 of the images."""
    rng = np.random.default_rng(0)
    p_NC = rng.dirichlet(np.ones(SCORED_CLASSES), NUM_SCORED)
    labels_N = np.arange(NUM_SCORED) % SCORED_CLASSES

    def score() -> None:
        for metric in METRICS.values():
            metric(p_NC, labels_N)
        class_signals(p_NC, labels_N)

    return process_seconds(score, repeats) / (p_NC.size * math.log2(NUM_SCORED))


def validation_speed(repeats: int) -> float:
    """Return the images that are validated in the time of training on one: ResNet-18 of width 16, 28 px."""
    config = RunConfig.model_validate({"classifier": {"width": 16}})
    images = noise(NUM_IMAGES, 0)
    data = TrainingData(name="noise", class_names=tuple(map(str, range(8))), train=images, val=noise(8, 1))
    trainer = ClassifierTrainer(data, config, pool=RealImages(images), device=CPU)
    start = trainer.initial(np.zeros(8, np.int64))
    images_NCHW, normalisation = torch.from_numpy(images.images_NCHW), Normalisation.of(images.images_NCHW)
    trained = process_seconds(lambda: trainer.train_epoch(start, start.counts_C, episode_index=0), repeats)
    validated = process_seconds(
        lambda: predict_logits(trainer.model, images_NCHW, normalisation, config.classifier, CPU), repeats
    )
    return trained / validated


def opening(repeats: int) -> float:
    """Return a worker's seconds for each GB of training images, which it maps and takes the statistics of."""
    images = noise(OPENED_IMAGES, 0)
    data = TrainingData(name="noise", class_names=tuple(map(str, range(8))), train=images, val=noise(8, 1))
    with tempfile.TemporaryDirectory() as name:
        datasets.prepare(data, Path(name))

        def open_images() -> None:
            Normalisation.of(datasets.open_prepared(Path(name)).train.images_NCHW)

        return process_seconds(open_images, repeats) / (OPENED_IMAGES * SIZE_PX**2 / GB)


def checkpointing(repeats: int) -> float:
    """Return the wall seconds of a checkpoint for each GB of one state, fsync included."""
    left = handover.Holder().left
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(repeats):
            start = time.perf_counter()
            incumbents, arrays = {"incumbent": left, "best": left}, {"learner": {"lr": np.zeros(1, np.float32)}}
            checkpoint.write(checkpoint.Snapshot(incumbents=incumbents, arrays=arrays), Path(name))
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / (sum(array.nbytes for array in left.arrays.values()) / GB)


def costs_of_one_process(repeats: int) -> dict[str, float]:
    """Return what needs no Ray."""
    return {
        "score_seconds": scoring(repeats),
        "validation_speed": validation_speed(repeats),
        "open_seconds_per_gb": opening(repeats),
        "checkpoint_seconds_per_gb": checkpointing(repeats),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=10, help="measurements of each cost")
    arguments.add_argument("--k", type=int, nargs="+", default=[2, 8], help="episodes of the engine")
    arguments.add_argument("--classes", type=int, nargs="+", default=[8, 1000], help="classes of the engine")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    ensure_ray(max(options.k))
    shapes = list(itertools.product(options.k, options.classes))
    engines = {(k, c): engine(k, c, options.repeats) for k, c in shapes}
    worker_gb = ray.get(ray.remote(_worker_gb).remote())
    alone = costs_of_one_process(options.repeats)
    handed = handover.measure(options.repeats)
    k, c = max(shapes)
    costs = {
        **plane({shape: figures["overhead_seconds"] for shape, figures in engines.items()}),
        **alone,
        "hand_over_seconds_per_gb": handed["hand_over_ms"] / (handed["megabytes"] * handover.K),
        "message_bytes": engines[k, c]["message_bytes"] / c,
        "line_bytes": engines[k, c]["line_bytes"] / (k * c),
        "driver_gb": engines[k, c]["driver_gb"],
        "worker_gb": worker_gb,
    }
    results = {"costs": costs, **{f"k{k}_classes_{c}": figures for (k, c), figures in engines.items()}}
    emit("Unit costs on this machine", results, options.json)


def _worker_gb() -> float:
    """Return the memory of a Ray worker that has imported what an episode needs."""
    import cluster.episodes.episode  # noqa: F401

    return private_gb()


if __name__ == "__main__":
    main()
