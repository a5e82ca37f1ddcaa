"""A model of one epoch on several nodes: seconds and their parts, bytes over the network, memory.

The parts of an epoch in the order of time: K episodes train and validate in parallel, the epoch waits for the slowest,
the winner's state is sent to every other node, each actor copies it, and the driver selects, learns and writes. Parts
that may overlap in the code are added up, so that the model errs on the slow side:

- An episode's seconds are those of its images at the speed of its GPU, times a lognormal factor of mean 1: the
  stragglers. Episodes that share a GPU take turns.
- All other nodes get the state from the winner's node, one after another through one link.
- The actors of a node copy the state one after another.
- The metrics of an episode are computed on a core of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from scaling_inputs import Cluster, Costs, Job

from rlcas.batches.budget import expected_added
from rlcas.config import SamplerConfig
from rlcas.seeding import rng_for
from rlcas.types import Float64

GB = 1e9
DRIVER_STATES = 4
"""States in the driver's memory: incumbent and best, and both again in the checkpoint that is being written."""
SCORE_BYTES = 4 + 8 + 8
"""Bytes per validation image and class: logits in float32, their softmax in float64, its copy for the metrics."""
INDEX_BYTES = 8
"""Bytes per image in an epoch's plan."""
ACTOR_STATES = 2
"""States in an actor's own memory: its model with the optimiser, and the initial one."""


def mean_added(sampler: SamplerConfig, num_classes: int) -> float:
    """Return the mean number of images added to a mini-batch over a run whose agents act at random."""
    epochs = itertools.islice(expected_added(sampler, num_classes), sampler.epochs)
    return float(np.mean(list(epochs)))


def straggler_factors(k: int, sigma: float, *, epochs: int, seed: int) -> Float64:
    """Return [K, epochs] lognormal factors of mean 1; the rows for a smaller K are the first rows for a larger one.

    Args:
        k: episodes an epoch.
        sigma: standard deviation of the logarithm.
        epochs: number of epochs.
        seed: of the draws.
    """
    normal_KE = rng_for(seed, "stragglers").standard_normal((k, epochs))
    return np.exp(sigma * normal_KE - sigma**2 / 2)


def engine_seconds(job: Job, costs: Costs) -> float:
    """Return the engine's seconds in addition to the episodes and the hand-over."""
    per_class = costs.class_seconds + costs.episode_class_seconds * job.k
    return costs.epoch_seconds + costs.episode_seconds * job.k + per_class * job.num_classes


def plane(seconds_by_shape: dict[tuple[int, int], float]) -> dict[str, float]:
    """Return the coefficients a to d of the non-negative least squares fit a + b·K + c·C + d·K·C to seconds by (K, C).

    Columns are scaled to 1, as K·C is thousands of times larger than the constant.
    """
    from scipy.optimize import nnls

    terms = np.array([(1, k, c, k * c) for k, c in seconds_by_shape], dtype=float)
    scale = terms.max(axis=0)
    fitted, _ = nnls(terms / scale, np.array(list(seconds_by_shape.values())))
    names = ("epoch_seconds", "episode_seconds", "class_seconds", "episode_class_seconds")
    return dict(zip(names, (fitted / scale).tolist(), strict=True))


def seconds_by_part(
    job: Job, cluster: Cluster, costs: Costs, *, epochs: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Return the mean seconds of an epoch's parts over simulated epochs; their sum is the epoch.

    Args:
        job: the run.
        cluster: the machines.
        costs: unit costs.
        epochs: simulated epochs.
        seed: of the stragglers.
    """
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
    """Return K epochs of K=1 on one node over one epoch of K, divided by the GPUs that have work: 1 means no loss."""
    alone = sum(seconds_by_part(dataclasses.replace(job, k=1), one_node(cluster), costs).values())
    together = sum(seconds_by_part(job, cluster, costs).values())
    return job.k * alone / (min(job.k, num_gpus(cluster)) * together)


def gigabytes(job: Job, cluster: Cluster, costs: Costs) -> dict[str, float]:
    """Return the network traffic of an epoch and the memory of the fullest node, in GB of 1e9 bytes."""
    on_node, state = episodes_per_node(job, cluster), job.state_bytes
    scores = job.num_val_images * job.num_classes * SCORE_BYTES
    plan = INDEX_BYTES * (job.num_images + job.num_batches * job.added)
    pool = job.num_classes * job.pool_per_class
    bytes_of = {
        "network": (cluster.nodes - 1) * state + job.k * job.num_classes * costs.message_bytes,
        "store": (on_node + DRIVER_STATES) * state,
        "driver": costs.driver_gb * GB + DRIVER_STATES * state,
        "workers": on_node * (costs.worker_gb * GB + ACTOR_STATES * state + scores + plan),
        "images": (job.num_images + job.num_val_images) * job.image_bytes,
        "gpu": turns(job, cluster) * (job.num_images + job.num_val_images + pool) * job.image_bytes,
        "checkpoint": 2 * state,
        "line": job.k * job.num_classes * costs.line_bytes,
    }
    return {name: value / GB for name, value in bytes_of.items()}


def start_seconds(job: Job, cluster: Cluster, costs: Costs) -> dict[str, float]:
    """Return the seconds for a worker to open the images, and for the storage to send them to all nodes."""
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
    """Return the largest number of episodes that share a GPU."""
    return -(-job.k // num_gpus(cluster))


def episodes_per_node(job: Job, cluster: Cluster) -> int:
    """Return the number of episodes of the fullest node."""
    return -(-job.k // cluster.nodes)


def one_node(cluster: Cluster) -> Cluster:
    """Return one node of the cluster."""
    return dataclasses.replace(cluster, nodes=1)
