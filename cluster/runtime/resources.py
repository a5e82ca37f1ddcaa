"""The CPUs and GPUs of Ray or of this machine, and the share of an episode or a sampling worker."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import ray
import torch

from cluster.runtime.connection import check_can_start, ensure_ray, own_ray_ends
from cluster.runtime.placement import NodeResources, check_room, fitting, nodes_of_ray
from rlcas.config import ClusterConfig, Part, RunConfig
from rlcas.config.cores import available_cores
from rlcas.errors import UserError

MIN_CPUS = 0.01
"""Share of a core that a worker reserves where Ray has none to spare: Ray does not limit what it then computes on."""


def check_demand(config: RunConfig) -> None:
    """Refuse a run that asks for more GPUs than exist, before anything is started or written.

    Counted are the GPUs of the cluster that RAY_ADDRESS names; without one those of this machine, and Ray is not
    started.

    Raises:
        UserError: the episodes or the sampling workers do not fit; the text has the arithmetic. Or Ray cannot be
            started or reached, as `check_can_start` says: without this check that would show only after phase one.
    """
    if uses_ray(config):
        check_can_start()
    workers = config.sampler.num_workers
    asked = config.cluster.concrete(workers, config.device)
    if not asked.gpus_per_episode and not asked.gpus_per_sampler:
        return
    nodes = _reachable_nodes()
    total = {kind: sum(has.get(kind, 0.0) for _, has in nodes) for kind in ("CPU", "GPU")}
    check_room(fitting(episode_resources(asked, workers, total)), workers, nodes)
    if config.pool is None and config.device != "cpu":
        sampler_resources(asked, config.synth.generation.threads, total)


def with_chosen_episodes(config: Part) -> Part:
    """Return the settings with `sampler.episode` auto replaced by what the reachable GPUs allow."""
    if config.sampler.episode != "auto":
        return config
    cluster = config.cluster
    on_gpus = config.device != "cpu" and cluster.gpus_per_episode != 0 and cluster.episode_runner == "actors"
    num_gpus = sum(has.get("GPU", 0.0) for _, has in _reachable_nodes()) if on_gpus else 0
    return config.model_copy(update={"sampler": config.sampler.concrete(num_gpus)})


def uses_ray(config: RunConfig) -> bool:
    """Return whether some part of a run works on workers of Ray."""
    workers = config.cluster.synth_workers > 1 or config.cluster.sampling_workers > 1
    return config.cluster.episode_runner == "actors" or (workers and config.pool is None)


def _reachable_nodes() -> list[NodeResources]:
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return [("this machine", this_machine())]
    with own_ray_ends():
        ensure_ray(k=1)
        return nodes_of_ray()


def episode_resources(cluster: ClusterConfig, k: int, total: Mapping[str, float]) -> dict[str, float]:
    """Return the CPUs and GPUs of one episode, such that K of them fit into `total` (`ray.cluster_resources()`).

    CPUs: `threads_per_episode` where that many are left beside the driver's one, else an even share. GPUs:
    `gpus_per_episode`; None is one each where there are K, an even share of each where there are fewer.

    Raises:
        UserError: `gpus_per_episode` asks for more GPUs than exist.
    """
    num_cpus, num_gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    threads = cluster.concrete(k).threads_per_episode
    assert threads is not None
    cpus = _cpus_each(threads, k, num_cpus - 1)
    return {"CPU": cpus, "GPU": gpus_per_episode(cluster.gpus_per_episode, k, int(num_gpus))}


def gpus_per_episode(asked: float | None, k: int, num_gpus: int) -> float:
    """Return the GPUs of one episode; `asked` None is one each, or an even share of each where there are fewer.

    Raises:
        UserError: K episodes that each ask so much do not fit.
    """
    return _gpus_each(asked, k, num_gpus, "cluster.gpus_per_episode", "sampler.k")


def sampler_resources(cluster: ClusterConfig, threads: int, total: Mapping[str, float]) -> dict[str, float]:
    """Return the CPUs and GPUs of one sampling worker, such that all of them fit into `total`.

    Raises:
        UserError: `gpus_per_sampler` asks for more GPUs than exist.
    """
    workers = cluster.sampling_workers
    gpus = _gpus_each(
        cluster.gpus_per_sampler,
        workers,
        int(total.get("GPU", 0.0)),
        "cluster.gpus_per_sampler",
        "cluster.sampling_workers",
    )
    return {"CPU": _cpus_each(threads, workers, total.get("CPU", 0.0)), "GPU": gpus}


def _cpus_each(asked: int, number: int, num_cpus: float) -> float:
    """Return the CPUs of each of `number` workers: what is asked, or an even share where there are fewer."""
    hundredths = math.floor(100 * num_cpus / number)
    return min(float(asked), max(MIN_CPUS, hundredths / 100))


def _gpus_each(asked: float | None, number: int, num_gpus: int, setting: str, counted_by: str) -> float:
    """Return the GPUs of each of `number` workers; `asked` None is one, or an even share where there are fewer."""
    if asked is not None and asked > 1 and asked != int(asked):
        raise UserError(f"{setting} {asked:g} is more than one GPU and not a whole number: set {int(asked)}")
    if asked is None:
        # 1 / ceil(number / GPUs): a whole number of such shares fits into each GPU.
        return 0.0 if num_gpus == 0 else 1.0 / -(-number // num_gpus)
    if asked == 0:
        return 0.0
    # Ray takes a share from one GPU: what is left over on several cannot be added up.
    room = int(num_gpus / asked) if asked >= 1 else num_gpus * int(1 / asked)
    if room < number:
        raise UserError(
            f"{setting} {asked:g} x {counted_by} {number} = {asked * number:g} GPUs, but Ray has {num_gpus} "
            f"(room for {room}): set {setting} {_gpus_each(None, number, num_gpus, setting, counted_by):.2g}, "
            f"or lower {counted_by}"
        )
    return asked


def this_machine() -> dict[str, float]:
    """Return the CPUs and GPUs that a Ray on this machine would have."""
    return {"CPU": float(available_cores()), "GPU": float(torch.cuda.device_count())}


def reachable_resources() -> Mapping[str, float]:
    """Return the CPUs and GPUs of the cluster that RAY_ADDRESS names or that is connected, else of this machine."""
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return this_machine()
    ensure_ray(k=1)
    return ray.cluster_resources()
