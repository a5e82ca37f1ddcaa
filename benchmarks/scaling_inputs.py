"""The inputs of the model of an epoch: unit costs, the machines of a cluster, the sizes of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

from rlcas.batches.composition import batch_starts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Unit costs, measured by `scaling_costs.py` on one machine."""

    epoch_seconds: float
    """Overhead of the engine in addition to the episodes: for each epoch, …"""
    episode_seconds: float
    """… for each episode, …"""
    class_seconds: float
    """… for each class, …"""
    episode_class_seconds: float
    """… and for each class of each episode."""
    hand_over_seconds_per_gb: float
    """From the object store into an actor's model and optimiser."""
    score_seconds: float
    """All validation metrics, per image and class and log2 of the number of images, because the AUC sorts them."""
    validation_speed: float
    """Images validated in the time of training on one."""
    open_seconds_per_gb: float
    """A worker's opening of the images at its start."""
    checkpoint_seconds_per_gb: float
    message_bytes: float
    """Bytes of an episode's call and report, per class."""
    line_bytes: float
    """Bytes of a line of epochs.jsonl, per episode and class."""
    driver_gb: float
    worker_gb: float
    """Private memory of a worker without a classifier."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Assumptions about the machines, which are identical."""

    nodes: int = 1
    gpus_per_node: int = 8
    images_per_second: float = 2000.0
    """Training speed of one episode with a GPU of its own."""
    network_gb_per_second: float = 1.25
    storage_gb_per_second: float = 1.0
    """Total speed of the storage that the nodes share."""
    straggler_sigma: float = 0.1
    """Standard deviation of the logarithm of an episode's seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The sizes of a run."""

    k: int
    num_classes: int
    num_images: int
    num_val_images: int
    image_bytes: int
    state_bytes: float = 134e6
    """Weights, buffers and optimiser; the default is a ResNet-18 with AdamW."""
    batch_size: int = 128
    added: float = 0.0
    """Synthetic images appended to a mini-batch."""
    pool_per_class: int = 1000

    @property
    def num_batches(self) -> int:
        """Return the mini-batches of an episode."""
        return len(batch_starts(self.num_images, self.batch_size))

    @property
    def trained_images(self) -> float:
        """Return the images that an episode trains on, real and synthetic."""
        return self.num_images + self.num_batches * self.added


def costs_of(results: dict[str, Any]) -> Costs:
    """Return the costs from the output of `scaling_costs.py --json`."""
    return Costs(**results["costs"])
