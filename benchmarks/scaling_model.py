"""A model of one epoch on several nodes: seconds and their parts, bytes over the network, memory.

What the engine does in an epoch, in the order of time: K episodes train and validate side by side, the epoch waits for
the slowest, the winner's state goes to every other node, each actor copies it, and the driver chooses, learns and
writes. Parts that the code may overlap are added up, so that the model errs towards slow:

- An episode's seconds are those of its images at the speed of its GPU, times a lognormal factor of mean 1: the
  stragglers. Episodes that share a GPU take turns.
- All other nodes get the state from the winner's node, through one link, one after another.
- The actors of a node copy the state in turn.
- The metrics of an episode are computed on a core of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from rlcas.batches.budget import expected_added
from rlcas.batches.composition import batch_starts
from rlcas.config import SamplerConfig
from rlcas.seeding import rng_for
from rlcas.types import Float64

GB = 1e9
HELD = 4
"""States that the driver holds: incumbent and best, and those two of the checkpoint that is being written."""
SCORE_BYTES = 4 + 8 + 8
"""A validation image and class: logits in float32, their softmax in float64, its copy for the metrics."""
INDEX_BYTES = 8
"""An image of an epoch's plan."""
OWN_STATES = 2
"""States that an actor holds for itself: its model with the optimiser, and the initial one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Unit costs, as `scaling_costs.py` measures them on one machine."""

    epoch_seconds: float
    """Of the engine, beside the episodes: of any epoch, …"""
    episode_seconds: float
    """… for each episode, …"""
    class_seconds: float
    """… for each class, …"""
    episode_class_seconds: float
    """… and for each class of each episode."""
    hand_over_seconds_per_gb: float
    """From the object store into an actor's model and optimiser."""
    score_seconds: float
    """Of all validation metrics, for an image and class, over log2 of the images: the AUC sorts them."""
    validation_speed: float
    """Images validated in the time of training on one."""
    open_seconds_per_gb: float
    """A worker's reading of the images at its start."""
    checkpoint_seconds_per_gb: float
    message_bytes: float
    """Of an episode's call and report, for each class."""
    line_bytes: float
    """Of epochs.jsonl, for each episode and class."""
    driver_gb: float
    worker_gb: float
    """Memory that a worker shares with none, before it holds a classifier."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is assumed of the machines, which are alike."""

    nodes: int = 1
    gpus_per_node: int = 8
    images_per_second: float = 2000.0
    """Training speed of one episode that has a GPU for itself."""
    network_gb_per_second: float = 1.25
    storage_gb_per_second: float = 1.0
    """Of the storage that the nodes share, in all."""
    straggler_sigma: float = 0.1
    """Standard deviation of the logarithm of an episode's seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run, by its sizes."""

    k: int
    num_classes: int
    num_images: int
    num_val_images: int
    image_bytes: int
    state_bytes: float = 134e6
    """Weights, buffers and optimiser: a ResNet-18 with AdamW."""
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


def mean_added(sampler: SamplerConfig, num_classes: int) -> float:
    """Return the images that are added to a mini-batch in the mean of a run whose agents act by chance."""
    epochs = itertools.islice(expected_added(sampler, num_classes), sampler.epochs)
    return float(np.mean(list(epochs)))


def straggler_factors(k: int, sigma: float, *, epochs: int, seed: int) -> Float64:
    """Return [K, epochs]: lognormal factors of mean 1; those of fewer episodes are the first rows of those of more."""
    normal_KE = rng_for(seed, "stragglers").standard_normal((k, epochs))
    return np.exp(sigma * normal_KE - sigma**2 / 2)


def engine_seconds(job: Job, costs: Costs) -> float:
    """Return what the engine takes beside the episodes and the hand-over."""
    per_class = costs.class_seconds + costs.episode_class_seconds * job.k
    return costs.epoch_seconds + costs.episode_seconds * job.k + per_class * job.num_classes


def plane(seconds_by_shape: dict[tuple[int, int], float]) -> dict[str, float]:
    """Return the least squares fit a + b·K + c·C + d·K·C, no term below 0, of seconds by (K, C)."""
    from scipy.optimize import nnls

    terms = np.array([(1, k, c, k * c) for k, c in seconds_by_shape], dtype=float)
    scale = terms.max(axis=0)
    fitted, _ = nnls(terms / scale, np.array(list(seconds_by_shape.values())))
    names = ("epoch_seconds", "episode_seconds", "class_seconds", "episode_class_seconds")
    return dict(zip(names, (fitted / scale).tolist(), strict=True))


def seconds_by_part(
    job: Job, cluster: Cluster, costs: Costs, *, epochs: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Return the mean seconds of an epoch's parts, whose sum is the epoch, over simulated epochs."""
    speed = cluster.images_per_second / turns(job, cluster)
    scores = job.num_val_images * job.num_classes * math.log2(max(2, job.num_val_images)) * costs.score_seconds
    train = job.trained_images / speed
    validate = job.num_val_images / (speed * costs.validation_speed) + scores
    factors_KE = straggler_factors(job.k, cluster.straggler_sigma, epochs=epochs, seed=seed)
    slowest = float(factors_KE.max(axis=0).mean() / factors_KE[0].mean())
    state_gb = job.state_bytes / GB
    return {
        "train": train,
        "validate": validate,
        "wait": (train + validate) * (slowest - 1),
        "network": (cluster.nodes - 1) * state_gb / cluster.network_gb_per_second,
        "hand_over": episodes_per_node(job, cluster) * state_gb * costs.hand_over_seconds_per_gb,
        "engine": engine_seconds(job, costs),
    }


def efficiency(job: Job, cluster: Cluster, costs: Costs) -> float:
    """Return the epoch of K=1 on one node, K times, over that of K on as many GPUs as have work: 1 is no loss."""
    alone = sum(seconds_by_part(dataclasses.replace(job, k=1), one_node(cluster), costs).values())
    together = sum(seconds_by_part(job, cluster, costs).values())
    return job.k * alone / (min(job.k, num_gpus(cluster)) * together)


def gigabytes(job: Job, cluster: Cluster, costs: Costs) -> dict[str, float]:
    """Return what an epoch moves and what the fullest node holds, in GB of 1e9 bytes."""
    here, state = episodes_per_node(job, cluster), job.state_bytes
    scores = job.num_val_images * job.num_classes * SCORE_BYTES
    plan = INDEX_BYTES * (job.num_images + job.num_batches * job.added)
    pool = job.num_classes * job.pool_per_class
    bytes_of = {
        "network": (cluster.nodes - 1) * state + job.k * job.num_classes * costs.message_bytes,
        "store": (here + HELD) * state,
        "driver": costs.driver_gb * GB + HELD * state,
        "workers": here * (costs.worker_gb * GB + OWN_STATES * state + scores + plan),
        "images": (job.num_images + job.num_val_images) * job.image_bytes,
        "gpu": turns(job, cluster) * (job.num_images + job.num_val_images + pool) * job.image_bytes,
        "checkpoint": 2 * state,
        "line": job.k * job.num_classes * costs.line_bytes,
    }
    return {name: value / GB for name, value in bytes_of.items()}


def start_seconds(job: Job, cluster: Cluster, costs: Costs) -> dict[str, float]:
    """Return what every worker does before the first epoch, and what the storage takes to feed all nodes once."""
    images_gb = gigabytes(job, cluster, costs)["images"]
    return {
        "open": images_gb * costs.open_seconds_per_gb,
        "read": cluster.nodes * images_gb / cluster.storage_gb_per_second,
    }


def simulate(job: Job, cluster: Cluster, costs: Costs) -> dict[str, float]:
    """Return all figures of a job on a cluster, named with their units."""
    parts = seconds_by_part(job, cluster, costs)
    memory = gigabytes(job, cluster, costs)
    return {
        "epoch_seconds": sum(parts.values()),
        "efficiency": efficiency(job, cluster, costs),
        **{f"{name}_seconds": value for name, value in parts.items()},
        **{f"{name}_gb": value for name, value in memory.items()},
        **{f"{name}_seconds": value for name, value in start_seconds(job, cluster, costs).items()},
        "checkpoint_seconds": memory["checkpoint"] * costs.checkpoint_seconds_per_gb,
    }


def num_gpus(cluster: Cluster) -> int:
    """Return the GPUs of all nodes."""
    return cluster.nodes * cluster.gpus_per_node


def turns(job: Job, cluster: Cluster) -> int:
    """Return the episodes that share a GPU, where some do."""
    return -(-job.k // num_gpus(cluster))


def episodes_per_node(job: Job, cluster: Cluster) -> int:
    """Return the episodes of the fullest node."""
    return -(-job.k // cluster.nodes)


def one_node(cluster: Cluster) -> Cluster:
    """Return one node of the cluster."""
    return dataclasses.replace(cluster, nodes=1)


def costs_of(results: dict[str, Any]) -> Costs:
    """Return the costs that `scaling_costs.py --json` printed."""
    return Costs(**results["costs"])
