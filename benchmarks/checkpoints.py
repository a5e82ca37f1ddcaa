"""The cost of a checkpoint, and of checkpoints written during the epochs on a thread of their own.

A small classifier (ResNet-18 of width 16, AdamW: 2.1 million float32) after some epochs. `checkpoint_ms` is the time
of a complete one: arrays, JSON, digests, fsync. `epoch_ratio` is the median epoch with checkpoints on their thread
over the median without, both in turn in one run; an episode of the engine sleeps 0.1 s.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import emit, interleaved_medians, median_seconds, parser
from engines import build_engine
from orchestration import K
from sleeping import SleepingTrainer

from cluster import RLCAS
from cluster.episodes import checkpoint
from cluster.episodes.checkpoint_writer import CheckpointWriter
from cluster.runtime.connection import ensure_ray

NUM_CLASSES = (8, 1000)
NUM_WEIGHTS = 3 * 700_000
"""A ResNet-18 of width 16 and its AdamW moments."""


def build(num_classes: int, epochs: int) -> RLCAS:
    """Return the engine with episodes that sleep and return a small classifier."""
    factory = functools.partial(SleepingTrainer, num_classes=num_classes, num_weights=NUM_WEIGHTS)
    return build_engine({"k": K, "epochs": epochs}, trainer_factory=factory, num_classes=num_classes)


def measure(num_classes: int, repeats: int, folder: Path) -> dict[str, float]:
    """Return the milliseconds of a checkpoint, and the ratio of epochs with checkpoints to epochs without."""
    algorithm = build(num_classes, epochs=2 * repeats + 3)
    algorithm.train()
    with CheckpointWriter(folder / "during") as writer:
        cases: dict[str, Callable[[], None]] = {
            "without": lambda: algorithm.train(),
            "with": lambda: (algorithm.train(), writer.save(algorithm)),
        }
        seconds = interleaved_medians(cases, repeats)
    checkpoint_seconds = median_seconds(lambda: checkpoint.save(algorithm, folder / "between"), repeats)
    algorithm.stop()
    return {
        "checkpoint_ms": 1e3 * checkpoint_seconds,
        "epoch_ratio": seconds["with"] / seconds["without"],
        "with_ms": 1e3 * seconds["with"],
        "without_ms": 1e3 * seconds["without"],
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=15, help="epochs of each, and checkpoints")
    options = arguments.parse_args()
    ensure_ray(K)
    with tempfile.TemporaryDirectory() as name:
        results = {
            f"classes_{num}": measure(num, options.repeats, Path(name) / str(num)) for num in NUM_CLASSES
        }
    emit("Checkpoints of a small classifier", results, options.json)


if __name__ == "__main__":
    main()
