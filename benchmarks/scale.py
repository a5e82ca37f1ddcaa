"""1000 classes and 30 epochs with a trivial trainer: the seconds after start-up, and the driver's peak memory."""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path

from common import emit, parser, peak_bytes
from engines import build_engine
from orchestration import K
from sleeping import SleepingTrainer

from cluster.episodes.checkpoint_writer import CheckpointWriter
from cluster.runtime.connection import ensure_ray
from rlcas.runs import epoch_log

NUM_CLASSES, EPOCHS = 1000, 30
NUM_WEIGHTS = 1_000_000


def measure(num_classes: int, epochs: int) -> dict[str, float]:
    """Return the seconds of all epochs, records and checkpoints included, and the driver's peak memory in GiB."""
    factory = functools.partial(SleepingTrainer, num_classes=num_classes, num_weights=NUM_WEIGHTS, seconds=0.0)
    algorithm = build_engine(
        {"k": K, "epochs": epochs},
        trainer_factory=factory,
        num_classes=num_classes,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, CheckpointWriter(Path(name) / "checkpoints") as writer:
        for _ in range(epochs):
            algorithm.train()
            assert algorithm.record is not None
            epoch_log.append_epoch(Path(name), algorithm.record)
            writer.save(algorithm)
    seconds = time.perf_counter() - started
    algorithm.stop()
    return {"seconds": seconds, "driver_gib": peak_bytes() / 2**30}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--epochs", type=int, default=EPOCHS)
    options = arguments.parse_args()
    ensure_ray(K)
    results = {f"classes_{NUM_CLASSES}": measure(NUM_CLASSES, options.epochs)}
    emit(f"{options.epochs} epochs of a trivial trainer, K={K}", results, options.json)


if __name__ == "__main__":
    main()
