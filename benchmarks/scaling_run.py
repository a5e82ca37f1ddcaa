"""The real engine with up to 64 trivial trainers on one machine, compared with `scaling_model.py`.

An episode sleeps for a lognormal time and computes nothing, so that K of them do not need K cores; a worker is a real
process with torch. `ratio_to_model` is the mean epoch over the model's with the same sleeps. `left_behind` counts
workers that are still alive after the engine was stopped.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from pathlib import Path

from common import emit, parser
from engines import build_engine
from scaling import COSTS_FILE
from scaling_costs import peak_gb, trained_epochs
from scaling_inputs import Cluster, Costs, Job, costs_of
from scaling_model import engine_seconds, straggler_factors
from sleeping import StragglingTrainer

from cluster import RLCAS
from cluster.runtime.connection import ensure_ray

SEED, EPISODE_SECONDS = 0, 1.0
END_SECONDS = 30.0


def build(k: int, num_classes: int, sleeps_KE: tuple[tuple[float, ...], ...], timeout: float) -> RLCAS:
    """Return the engine with K episodes of the given lengths.

    Args:
        k: episodes an epoch.
        num_classes: C.
        sleeps_KE: [K, epochs] seconds of each episode.
        timeout: longest wait in seconds for the workers' start.
    """
    factory = functools.partial(StragglingTrainer, num_classes=num_classes, sleeps_KE=sleeps_KE)
    return build_engine(
        {"k": k, "epochs": len(sleeps_KE[0])},
        trainer_factory=factory,
        num_classes=num_classes,
        start_timeout_seconds=timeout,
    )


def measure(k: int, num_classes: int, epochs: int, costs: Costs, timeout: float) -> dict[str, float]:
    """Return the measured epochs and memory of K workers, and the model's epoch; the first epoch is a warm-up.

    Args:
        k: episodes an epoch.
        num_classes: C.
        epochs: measured epochs.
        costs: unit costs of the model.
        timeout: longest wait in seconds for the workers' start.
    """
    factors_KE = straggler_factors(k, Cluster.straggler_sigma, epochs=epochs + 1, seed=SEED)
    sleeps_KE = EPISODE_SECONDS * factors_KE
    started = time.perf_counter()
    algorithm = build(k, num_classes, tuple(map(tuple, sleeps_KE.tolist())), timeout)
    start_seconds = time.perf_counter() - started
    trained = trained_epochs(algorithm, num_classes, epochs + 1)
    assert algorithm.record is not None
    metrics_of_workers = [report.result.metrics for report in algorithm.record.reports if report.result]
    algorithm.stop()
    job = Job(k=k, num_classes=num_classes, num_images=1, num_val_images=1, image_bytes=1)
    model = float(sleeps_KE[:, 1:].max(axis=0).mean()) + engine_seconds(job, costs)
    seconds = statistics.mean(epoch.seconds for epoch in trained[1:])
    return {
        "epoch_seconds": seconds,
        "model_seconds": model,
        "ratio_to_model": seconds / model,
        "start_seconds": start_seconds,
        "workers": len({metrics["pid"] for metrics in metrics_of_workers}),
        "worker_gb": statistics.mean(metrics["private_gb"] for metrics in metrics_of_workers),
        "driver_gb": peak_gb(),
        "left_behind": alive_after([int(metrics["pid"]) for metrics in metrics_of_workers]),
    }


def alive_after(pids: list[int]) -> int:
    """Return how many of these processes are still alive after END_SECONDS; 0 as soon as all have ended."""
    ends_at = time.monotonic() + END_SECONDS
    while alive := sum(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > ends_at:
            return alive
        time.sleep(0.1)
    return 0


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--k", type=int, nargs="+", default=[1, 2, 4, 8, 64], help="episodes an epoch")
    arguments.add_argument("--classes", type=int, default=1000)
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--costs", type=Path, default=COSTS_FILE, help="output of scaling_costs.py --json")
    arguments.add_argument("--timeout", type=float, default=1800.0, help="longest wait for the workers' start")
    options = arguments.parse_args()
    costs = costs_of(json.loads(options.costs.read_text(encoding="utf-8")))
    ensure_ray(max(options.k))
    results = {f"k{k}": measure(k, options.classes, options.epochs, costs, options.timeout) for k in options.k}
    emit(f"{options.epochs} epochs of trivial trainers, {options.classes} classes", results, options.json)


if __name__ == "__main__":
    main()
