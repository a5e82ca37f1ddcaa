"""The cost of K parallel episodes of one thread each, against one episode on all cores and one on a single core.

ResNet-18 of width 16 on 28 px images, batch 128, real classifier trainer, through the whole engine; the cases take
turns in one run, and the figures are ratios of the median epochs. `k3_over_k1` is K=3 against K=1 on all cores: 3 means
as slow as three of these one after another. `k2_over_one_core` is K=2 against K=1 on one core: 1 means no loss on two
cores. On a GPU the actors share it, and `k3_over_in_turn` is K=3 in parallel against three episodes one after another.
"""

from __future__ import annotations

import functools
import os

import torch
from common import emit, interleaved_medians, noise, parser
from engines import build_engine

from cluster import RLCAS
from cluster.runtime.connection import ensure_ray
from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig, SamplerConfig
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import TrainingData

NUM_CLASSES = 8
NUM_TRAIN, NUM_VAL = 512, 128
SIZE_PX = 28


def noise_data(num_train: int, num_val: int) -> TrainingData:
    """Return training and validation images of noise: the cost of an epoch does not depend on their content."""
    train, val = (
        noise(number, size_px=SIZE_PX, num_classes=NUM_CLASSES, seed=seed)
        for seed, number in enumerate((num_train, num_val))
    )
    names = tuple(f"class {i}" for i in range(NUM_CLASSES))
    return TrainingData(name="noise", class_names=names, train=train, val=val)


def build_trainer(config: RunConfig, sampler: SamplerConfig) -> ClassifierTrainer:
    """Return the classifier's trainer, on the GPU that Ray assigned or on the CPU."""
    config = config.model_copy(update={"sampler": sampler})
    data = noise_data(NUM_TRAIN, NUM_VAL)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ClassifierTrainer(data, config, pool=RealImages(data.train), device=device)


def build(k: int, num_threads: int, epochs: int) -> RLCAS:
    """Return the engine with K episodes of `num_threads` threads."""
    config = RunConfig.model_validate({"classifier": {"width": 16}, "sampler": {"k": k, "epochs": epochs}})
    return build_engine(
        dict(config.sampler),
        trainer_factory=functools.partial(build_trainer, config),
        num_classes=NUM_CLASSES,
        threads_per_episode=num_threads,
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5, help="epochs of each")
    options = arguments.parse_args()
    ensure_ray(7)
    num_cores = os.cpu_count() or 1
    shapes = {"k3": (3, 1), "k2": (2, 1), "k1": (1, num_cores), "one_core": (1, 1)}
    algorithms = {
        name: build(k=k, num_threads=num_threads, epochs=options.repeats + 1)
        for name, (k, num_threads) in shapes.items()
    }
    cases = {name: functools.partial(algorithm.train) for name, algorithm in algorithms.items()}
    seconds = interleaved_medians(cases, options.repeats)
    for algorithm in algorithms.values():
        algorithm.stop()
    figures = {
        "k3_over_k1": seconds["k3"] / seconds["k1"],
        "k2_over_one_core": seconds["k2"] / seconds["one_core"],
        "k3_over_in_turn": seconds["k3"] / (3 * seconds["k1"]),
        **{f"{name}_seconds": value for name, value in seconds.items()},
    }
    emit("Epochs of K parallel episodes", {"resnet18_w16_28px": figures}, options.json)


if __name__ == "__main__":
    main()
