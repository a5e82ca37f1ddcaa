"""Unit costs of an epoch on this machine, for `scaling.py`: engine, hand-over, metrics, checkpoint, images, memory.

The engine's overhead is the wall-clock time of an epoch minus its slowest episode, with the epoch's line and events
written to disk, for some K and numbers of classes; a plane in K, C and K·C is fitted to the medians. The costs of a
single process are in processor seconds. Stored in docs/scaling_costs.json by

    python benchmarks/scaling_costs.py --json > docs/scaling_costs.json
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import handover
import ray
import torch
from common import emit, parser, peak_bytes
from engines import build_engine
from scaling_model import GB, plane
from scaling_process_costs import costs_of_one_process
from sleeping import SleepingTrainer, private_gb

from cluster import RLCAS
from cluster.runtime.connection import ensure_ray
from rlcas.runs import epoch_log
from rlcas.tracking.tensorboard import Tracker
from rlcas.types import EpisodeReport

NUM_IMAGES = 256
NUM_SCORED, SCORED_CLASSES = 20_000, 100
OPENED_IMAGES = 100_000


def build(k: int, num_classes: int, epochs: int) -> RLCAS:
    """Return the engine with K episodes that sleep."""
    return build_engine(
        {"k": k, "epochs": epochs},
        trainer_factory=functools.partial(SleepingTrainer, num_classes=num_classes),
        num_classes=num_classes,
    )


def engine(k: int, num_classes: int, repeats: int) -> dict[str, float]:
    """Return an epoch's median overhead in seconds, the bytes of its messages and its line, and the driver's memory."""
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
    """Measurements of an epoch."""

    seconds: float
    """Wall-clock time, with its record on disk."""
    slowest: float
    """Seconds of its longest episode."""
    line_bytes: int


def trained_epochs(algorithm: RLCAS, num_classes: int, epochs: int) -> list[Epoch]:
    """Train, and write the line and events of each epoch as a run does."""
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
    """Return the peak memory of this process in GB."""
    return peak_bytes() / GB


def message_bytes(report: EpisodeReport) -> float:
    """Return the bytes of an episode's report and of the actions in its call, as Ray pickles them."""
    return float(len(ray.cloudpickle.dumps(report)) + len(ray.cloudpickle.dumps(report.actions_C)))


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
    single_process = costs_of_one_process(options.repeats)
    handed_over = handover.measure(options.repeats)
    k, c = max(shapes)
    costs = {
        **plane({shape: figures["overhead_seconds"] for shape, figures in engines.items()}),
        **single_process,
        "hand_over_seconds_per_gb": handed_over["hand_over_ms"] / (handed_over["megabytes"] * handover.K),
        "message_bytes": engines[k, c]["message_bytes"] / c,
        "line_bytes": engines[k, c]["line_bytes"] / (k * c),
        "driver_gb": engines[k, c]["driver_gb"],
        "worker_gb": worker_gb,
    }
    results = {"costs": costs, **{f"k{k}_classes_{c}": figures for (k, c), figures in engines.items()}}
    emit("Unit costs on this machine", results, options.json)


def _worker_gb() -> float:
    """Return the memory in GB of a Ray worker that has imported the modules of an episode."""
    import cluster.episodes.episode  # noqa: F401

    return private_gb()


if __name__ == "__main__":
    main()
