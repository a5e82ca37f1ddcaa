"""The overhead of an epoch in addition to its episodes: RLCAS against a bare Ray loop that does the same.

Overhead is the wall-clock time of an epoch minus its slowest episode. The bare loop has three plain actors, passes the
incumbent by reference, holds it at the driver (where checkpoints are written and the loss of a node does not lose it)
and updates the paper's policy by REINFORCE and Adam in NumPy. Both take turns in one run; the figures are medians.
Goal: a ratio of 2 at most, at 8 and at 1000 classes.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import numpy as np
import ray
from common import emit, parser
from engines import build_engine
from sleeping import SleepingTrainer

from cluster.runtime.connection import ensure_ray
from rlcas.types import Incumbent, Int64

K = 3
NUM_CLASSES = (2, 8, 100, 1000)


@ray.remote(max_restarts=-1, max_task_retries=3)
class BareActor:
    """The same episode without environment, report or checks."""

    def __init__(self, num_classes: int) -> None:
        self._trainer = SleepingTrainer(num_classes=num_classes)

    @ray.method(num_returns=2)
    def episode(self, incumbent: Incumbent, actions_C: Int64) -> tuple[tuple[float, float], Incumbent]:
        """Return ((metric, seconds), the trained classifier)."""
        start = time.perf_counter()
        counts_C = np.clip(incumbent.counts_C + 2 * (actions_C - 1), 0, 16)
        result = self._trainer.train_epoch(incumbent, counts_C, episode_index=0)
        return (result.metrics["f1"], time.perf_counter() - start), self._trainer.trained()


class BareLoop:
    """Section 2.2 of the paper with Ray and NumPy only."""

    def __init__(self, num_classes: int) -> None:
        self._actors = [BareActor.remote(num_classes) for _ in range(K)]
        self._incumbent = ray.put(SleepingTrainer(num_classes=num_classes).initial(np.full(num_classes, 2)))
        self._rng = np.random.default_rng(0)
        self._logits_C3 = 1e-3 * self._rng.standard_normal((num_classes, 3))
        self._moments = np.zeros_like(self._logits_C3), np.zeros_like(self._logits_C3)
        self._held = ray.get(self._incumbent)
        self._baseline, self._epoch = 0.0, 0

    def epoch_overhead(self) -> float:
        """Run an epoch and return its wall-clock time minus its slowest episode, in seconds."""
        start = time.perf_counter()
        p_C3 = np.exp(self._logits_C3)
        p_C3 /= p_C3.sum(1, keepdims=True)
        uniform_KC1 = self._rng.random((K, len(p_C3), 1))
        actions_KC = (uniform_KC1 >= p_C3.cumsum(1)[:, :2]).sum(-1)
        calls = [
            actor.episode.remote(self._incumbent, actions_C)
            for actor, actions_C in zip(self._actors, actions_KC, strict=True)
        ]
        metrics_K, seconds_K = np.array(ray.get([metric_and_seconds for metric_and_seconds, _ in calls])).T
        self._incumbent = calls[metrics_K.argmax()][1]
        self._held = ray.get(self._incumbent)
        self._learn(p_C3, actions_KC, (metrics_K + 0.04) ** 3)
        return time.perf_counter() - start - seconds_K.max()

    def stop(self) -> None:
        """Kill the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def _learn(self, p_C3: np.ndarray, actions_KC: np.ndarray, rewards_K: np.ndarray) -> None:
        self._epoch += 1
        self._baseline = 0.01 * self._baseline + 0.99 * rewards_K.mean()
        scores_KC3 = np.eye(3)[actions_KC] - p_C3
        gradient_C3 = -((rewards_K - self._baseline)[:, None, None] * scores_KC3).mean(0)
        first_C3, second_C3 = self._moments
        self._moments = 0.9 * first_C3 + 0.1 * gradient_C3, 0.999 * second_C3 + 0.001 * gradient_C3**2
        first_C3 = self._moments[0] / (1 - 0.9**self._epoch)
        second_C3 = self._moments[1] / (1 - 0.999**self._epoch)
        self._logits_C3 -= 1e-3 * first_C3 / (np.sqrt(second_C3) + 1e-8)


def compare(num_classes: int, repeats: int) -> dict[str, float]:
    """Return the median overheads of both, taking turns, and their ratio."""
    algorithm = build_engine(
        {"k": K, "epochs": repeats + 1, "agents": "paper"},
        trainer_factory=functools.partial(SleepingTrainer, num_classes=num_classes),
        num_classes=num_classes,
    )
    bare = BareLoop(num_classes)

    def engine_overhead() -> float:
        start = time.perf_counter()
        algorithm.train()
        return time.perf_counter() - start - max(report.seconds for report in algorithm.record.reports)

    cases: tuple[Callable[[], float], ...] = engine_overhead, bare.epoch_overhead
    for case in cases:
        case()
    overheads = [[case() for case in cases] for _ in range(repeats)]
    engine, plain = (statistics.median(values) for values in zip(*overheads, strict=True))
    algorithm.stop()
    bare.stop()
    return {"ratio_to_bare_ray": engine / plain, "rlcas_ms": 1e3 * engine, "bare_ray_ms": 1e3 * plain}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=20, help="epochs of each")
    options = arguments.parse_args()
    ensure_ray(2 * K)
    results = {f"classes_{num}": compare(num, options.repeats) for num in NUM_CLASSES}
    emit(f"An epoch's wall-clock time minus its slowest episode, K={K}", results, options.json)


if __name__ == "__main__":
    main()
