"""What the trials of a sweep reserve of Ray: how many run side by side, what each takes, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from cluster.runtime.placement import fitting
from cluster.runtime.resources import episode_resources
from rlcas.config import RunConfig
from rlcas.errors import UserError

TRIAL_CPUS = 1.0
Bundles = list[dict[str, float]]
"""A trial's own process, then one an episode."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is reserved for the trials."""

    bundles: dict[str, Bundles]
    """Of each trial that is to run, by name."""
    concurrent: int
    """Trials side by side."""


def concurrency(asked: int | None, configs: Sequence[RunConfig], total: Mapping[str, float]) -> int:
    """Return how many trials run side by side; `asked` None is as many as the GPUs or cores allow, one at least.

    Args:
        asked: the setting `sweep.concurrent`.
        configs: the settings of the trials.
        total: all CPUs and GPUs, as in `ray.cluster_resources()`.
    """
    if asked is None:
        # The trial that takes most decides, as any of them may run beside any other.
        asked = max(1, min(_side_by_side(config, total) for config in configs))
    return min(asked, len(configs))


def _side_by_side(config: RunConfig, total: Mapping[str, float]) -> int:
    cluster, k = config.cluster, config.sampler.num_workers
    if (num_gpus := total.get("GPU", 0.0)) and cluster.gpus_per_episode != 0:
        return int(num_gpus / (cluster.gpus_per_episode or 1.0) / k)
    assert cluster.threads_per_episode is not None, "a trial's settings are concrete"
    return int(total.get("CPU", 0.0) / cluster.threads_per_episode / k)


def trial_bundles(config: RunConfig, concurrent: int, total: Mapping[str, float]) -> Bundles:
    """Return what one of `concurrent` trials reserves: what its settings ask, or an even share of `total` if less.

    Raises:
        UserError: `concurrent` such trials ask for more than `total`; the text has the arithmetic.
    """
    cluster, k = config.cluster, config.sampler.num_workers
    num_cpus, num_gpus = total.get("CPU", 0.0), int(total.get("GPU", 0.0))
    if concurrent * TRIAL_CPUS >= num_cpus:
        raise UserError(
            f"sweep.concurrent {concurrent} x {TRIAL_CPUS:g} CPU of a trial = {concurrent * TRIAL_CPUS:g} CPUs, and "
            f"sampler.k {k} episodes each, but Ray has {num_cpus:g} CPUs: lower sweep.concurrent, or add CPUs"
        )
    asked = cluster.gpus_per_episode or 0.0
    room = (int(num_gpus / asked) if asked >= 1 else num_gpus * int(1 / asked)) if asked else math.inf
    if room < concurrent * k:
        raise UserError(
            f"sweep.concurrent {concurrent} x sampler.k {k} x cluster.gpus_per_episode {asked:g} = "
            f"{concurrent * k * asked:g} GPUs, but Ray has {num_gpus} (room for {room} episodes): lower one of them"
        )
    # One process of the trials is left in: `episode_resources` itself leaves a core for the driver.
    shared = {"CPU": num_cpus - (concurrent - 1) * TRIAL_CPUS, "GPU": float(num_gpus)}
    episode = episode_resources(cluster, concurrent * k, shared)
    # The first bundle is where Tune places the trial; the actors that it starts land in the others.
    return [{"CPU": TRIAL_CPUS}, *[fitting(episode)] * k]


def check_trials_fit(trials: Sequence[Bundles], timeout_seconds: float) -> None:
    """Check that Ray can reserve these trials side by side, now or in time, by doing so once.

    Raises:
        UserError: it cannot; the text has the arithmetic.
    """
    # Reserved by us once, as Tune would wait in silence for what Ray cannot give.
    groups = [placement_group(bundles) for bundles in trials]
    try:
        ready, _ = ray.wait(
            [group.ready() for group in groups], num_returns=len(groups), timeout=timeout_seconds
        )
    finally:
        # Before the groups are removed, for the error. Tune reserves each trial's group itself, so these must
        # go.
        free = ray.available_resources()
        for group in groups:
            remove_placement_group(group)
    if len(ready) < len(groups):
        asked = ", ".join(_described(bundles) for bundles in trials)
        left = ", ".join(f"{free.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        raise UserError(
            f"{len(trials)} trials side by side ask {asked}; of it Ray reserved {len(ready)} within "
            f"cluster.start_timeout_seconds {timeout_seconds:g}, and has {left} left: free or add nodes, or lower "
            "sweep.concurrent or sampler.k"
        )


def _described(bundles: Bundles) -> str:
    sums = {kind: sum(bundle.get(kind, 0) for bundle in bundles) for kind in ("CPU", "GPU")}
    return " and ".join(f"{amount:g} {kind}" for kind, amount in sums.items() if amount)
