"""What K=3 episodes cost against one: three actors with a thread each, one actor with two threads.

ResNet-18 of width 16 on 28 px images, batch 128, real classifier trainer, through the whole engine; the two
take turns in one run, and the figure is the ratio of the median epochs. On 2 cores 3 would be the work itself.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from common import emit, interleaved_medians, parser

from cluster import RLCAS, RLCASConfig
from cluster.start import ensure_ray
from rlcas.config import RunConfig
from rlcas.sources import RealImages
from rlcas.trainer import ClassifierTrainer
from rlcas.types import ImageSet, TrainingData

NUM_CLASSES = 8
NUM_TRAIN, NUM_VAL = 512, 128
SIZE_PX = 28


def noise(num_images: int, seed: int) -> ImageSet:
    """Return images of noise: the cost of an epoch does not depend on what they show."""
    rng = np.random.default_rng(seed)
    return ImageSet(
        images_NCHW=rng.integers(0, 256, (num_images, 1, SIZE_PX, SIZE_PX), dtype=np.uint8),
        labels_N=np.arange(num_images) % NUM_CLASSES,
    )


def build_trainer(config: RunConfig) -> ClassifierTrainer:
    """Return the classifier's trainer, on the GPU that Ray gave or on the CPU."""
    names = tuple(f"class {i}" for i in range(NUM_CLASSES))
    data = TrainingData(name="noise", class_names=names, train=noise(NUM_TRAIN, 0), val=noise(NUM_VAL, 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ClassifierTrainer(data, config, pool=RealImages(data.train), device=device)


def build(k: int, num_threads: int, epochs: int) -> RLCAS:
    """Return the engine with K episodes of `num_threads` threads."""
    config = RunConfig.model_validate({"classifier": {"width": 16}, "sampler": {"k": k, "epochs": epochs}})
    return (
        RLCASConfig()
        .training(**dict(config.sampler))
        .episodes(
            trainer_factory=functools.partial(build_trainer, config),
            num_classes=NUM_CLASSES,
            threads_per_episode=num_threads,
        )
        .debugging(log_level="ERROR")
        .build_algo()
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5, help="epochs of each")
    options = arguments.parse_args()
    ensure_ray(5)
    algorithms = {
        "k3": build(k=3, num_threads=1, epochs=options.repeats + 1),
        "k1": build(k=1, num_threads=2, epochs=options.repeats + 1),
    }
    cases = {name: functools.partial(algorithm.train) for name, algorithm in algorithms.items()}
    seconds = interleaved_medians(cases, options.repeats)
    for algorithm in algorithms.values():
        algorithm.stop()
    figures = {
        "k3_over_k1": seconds["k3"] / seconds["k1"],
        "k3_seconds": seconds["k3"],
        "k1_seconds": seconds["k1"],
    }
    emit("An epoch of K=3 episodes against one of K=1", {"resnet18_w16_28px": figures}, options.json)


if __name__ == "__main__":
    main()
