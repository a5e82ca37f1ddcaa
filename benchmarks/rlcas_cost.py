"""What an epoch of RL-CAS costs beside an epoch of the plain classifier with the same images.

- share: K episodes that are shares of the epoch, in turn, in this process. Goal: 1.10 at most.
- share_on_an_actor: the same on a worker of Ray, as `rlcas run` trains them. Only wall time, as the CPU time is spent
  in another process.
- whole: K whole episodes, one after another in this process, as the paper's.

The plain epoch is `ClassifierTrainer.train_epoch` under the same constant composition: restoring the incumbent, making
batches, steps, validation. Both kinds of epochs take turns; the ratios are of the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from common import emit, noise, parser

from cluster.rllib.algorithm import RLCAS, RLCASConfig
from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig, SamplerConfig
from rlcas.config.cores import available_cores
from rlcas.devices import choose_device, torch_threads
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import TrainingData

NUM_CLASSES, K, COUNT = 2, 3, 2
NUM_TRAIN, NUM_VAL, SIZE_PX = 546, 78, 28
"""Those of BreastMNIST."""
CASES: dict[str, dict[str, str]] = {
    "share": {"episode": "share", "episode_runner": "in_process"},
    "share_on_an_actor": {"episode": "share", "episode_runner": "actors"},
    "whole": {"episode": "whole", "episode_runner": "in_process"},
}


def trainer_of(sampler: SamplerConfig) -> ClassifierTrainer:
    """Return a trainer on images of noise; repeated training images stand for the synthetic ones."""
    config = RunConfig.model_validate(
        {"classifier": {"width": 16, "batch_size": 64}, "sampler": sampler.model_dump()}
    )
    train, val = (
        noise(num_images, size_px=SIZE_PX, num_classes=NUM_CLASSES, seed=seed)
        for seed, num_images in enumerate((NUM_TRAIN, NUM_VAL))
    )
    data = TrainingData(name="noise", class_names=("a", "b"), train=train, val=val)
    return ClassifierTrainer(data, config, pool=RealImages(train), device=choose_device("auto"))


def algorithm_of(episode: str, episode_runner: str, epochs: int) -> RLCAS:
    """Return the sampler with agents that never act, so that every epoch has the same images."""
    return (
        RLCASConfig()
        .training(k=K, epochs=epochs, agents="constant", initial_count=COUNT, episode=episode)
        .episodes(
            trainer_factory=trainer_of,
            num_classes=NUM_CLASSES,
            episode_runner=episode_runner,
            threads_per_episode=available_cores(),
        )
        .debugging(seed=0, log_level="ERROR")
        .build_algo()
    )


def ratios(epoch: Callable[[], object], plain_epoch: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return the ratio of an epoch's wall and CPU time to that of a plain epoch."""
    seconds: dict[str, list[tuple[float, float]]] = {"own": [], "plain": []}
    for repeat in range(1 + repeats):
        for name, work in (("own", epoch), ("plain", plain_epoch)):
            started = time.perf_counter(), time.process_time()
            work()
            if repeat:  # the first of each kind warms up
                seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    own, plain = (
        [statistics.median(times) for times in zip(*seconds[name], strict=True)] for name in ("own", "plain")
    )
    return {"wall_ratio": own[0] / plain[0], "cpu_ratio": own[1] / plain[1], "epoch_seconds": own[0]}


def measured(episode: str, episode_runner: str, repeats: int) -> dict[str, float]:
    """Return the figures of a case."""
    plain = trainer_of(SamplerConfig(epochs=2 + repeats))
    counts_C = np.full(NUM_CLASSES, COUNT)
    start = plain.initial(counts_C)

    def plain_epoch() -> None:
        with torch_threads(available_cores()):
            plain.train_epoch(start, counts_C, episode_index=0)
            plain.trained()

    algorithm = algorithm_of(episode, episode_runner, epochs=2 + repeats)
    try:
        figures = ratios(algorithm.train, plain_epoch, repeats)
    finally:
        algorithm.stop()
    if episode_runner == "actors":
        del figures["cpu_ratio"]
    return figures


def main() -> None:
    """Measure all cases."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--repeats", type=int, default=15, help="epochs of each kind")
    options = arguments.parse_args()
    results = {name: measured(**case, repeats=options.repeats) for name, case in CASES.items()}
    emit(f"RL-CAS beside a plain classifier, K={K}, {NUM_TRAIN} training images", results, options.json)


if __name__ == "__main__":
    main()
