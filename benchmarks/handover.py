"""How long a classifier and its Adam state take from the winner to the K episodes of a node.

A ResNet-18 with AdamW, 134 MB, as `rlcas.classifiers.snapshot` flattens it. One actor returns it, as the winning
episode does; then K=3 actors copy it into their own model and optimiser. It is compared with copying the same arrays K
times in one process. Both take turns in one run; the figures are medians. Goal: a ratio of 2 at most.
"""

from __future__ import annotations

import numpy as np
import ray
import torch
from common import emit, interleaved_medians, parser

from cluster.runtime.connection import ensure_ray
from rlcas.classifiers import build_classifier, snapshot
from rlcas.config import ClassifierConfig
from rlcas.training.trainer import build_optimizer
from rlcas.types import Incumbent

K = 3
NUM_CLASSES = 8


class Holder:
    """A model and its optimiser, as an episode actor holds them."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        config = ClassifierConfig(optimizer="adamw")
        self.model = build_classifier(config, channels=3, num_classes=NUM_CLASSES, size_px=28)
        self.optimizer = build_optimizer(config, self.model.parameters())
        snapshot.materialise(self.optimizer)
        self.trained = incumbent(snapshot.take(self.model, self.optimizer))

    def trained_classifier(self) -> Incumbent:
        """Return the classifier, as a finished episode does."""
        return self.trained

    def restore(self, incoming: Incumbent) -> int:
        """Restore the classifier, as the start of an episode does."""
        snapshot.restore(self.model, self.optimizer, incoming.arrays)
        return incoming.epoch


def incumbent(arrays: dict[str, np.ndarray]) -> Incumbent:
    """Return the arrays as an incumbent."""
    counts_C = np.zeros(NUM_CLASSES, np.int64)
    return Incumbent(epoch=1, arrays=arrays, counts_C=counts_C, positions_C=counts_C)


def measure(repeats: int) -> dict[str, float]:
    """Return the medians of a hand-over to K actors and of K copies, and their ratio."""
    holders = [ray.remote(Holder).remote() for _ in range(K)]
    arrays = Holder().trained.arrays

    def hand_over() -> None:
        incoming = holders[0].trained_classifier.remote()
        ray.get([holder.restore.remote(incoming) for holder in holders])

    def copy() -> None:
        copies = [{name: array.copy() for name, array in arrays.items()} for _ in range(K)]
        assert len(copies) == K

    seconds = interleaved_medians({"hand_over": hand_over, "copies": copy}, repeats)
    for holder in holders:
        ray.kill(holder)
    return {
        "ratio_to_copies": seconds["hand_over"] / seconds["copies"],
        "hand_over_ms": 1e3 * seconds["hand_over"],
        "copies_ms": 1e3 * seconds["copies"],
        "megabytes": sum(array.nbytes for array in arrays.values()) / 1e6,
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=20, help="hand-overs of each kind")
    options = arguments.parse_args()
    ensure_ray(K)
    results = {"resnet18_adamw": measure(options.repeats)}
    emit(f"From the winner to K={K} actors", results, options.json)


if __name__ == "__main__":
    main()
