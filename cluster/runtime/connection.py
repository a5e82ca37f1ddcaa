"""Starting Ray, and what of it one episode gets."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import ray
import torch
from ray._private import ray_constants
from ray._private.services import find_bootstrap_address, find_gcs_addresses
from ray.exceptions import AuthenticationError

from cluster.runtime.package_shadowing import check_not_hidden
from cluster.runtime.placement import Node, check_room, fitting, nodes_of_ray
from rlcas.config import ClusterConfig, RunConfig
from rlcas.errors import UserError, first_line

KNOCK_SECONDS = 10.0
AUTO, LOCAL = "auto", "local"
"""Ray's own words for the cluster whose head is on this machine, and for a new one."""
MAX_PORT = 65_535
MIN_CPUS = 0.01
"""Share of a core that a worker asks where Ray has none to spare; it runs all the same."""


def ensure_ray(k: int) -> None:
    """Connect to the cluster that RAY_ADDRESS or the job names; without one, start Ray on this machine.

    A Ray of our own gets at least K + 1 logical cores, so that K workers and a Tune trial fit a laptop. It has no
    dashboard, and other machines cannot reach its ports.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer, or that has another token; or the current folder
            hides packages of rlcas.
    """
    if ray.is_initialized():
        return
    check_can_start()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address, quiet)
    else:
        num_cpus = max(os.cpu_count() or 1, k + 1)
        with _on_loopback():
            ray.init(address=LOCAL, num_cpus=num_cpus, include_dashboard=False, **quiet)


def check_can_start() -> None:
    """Find what would keep `ensure_ray` from Ray, before the long work that comes before it.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer, or the current folder hides packages of rlcas.
    """
    if ray.is_initialized():
        return
    check_not_hidden()
    if address := os.environ.get("RAY_ADDRESS"):
        check_answers(address)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started meanwhile listen on 127.0.0.1 alone; else it listens on all of the machine's addresses.

    Ray does so by itself on macOS and Windows, by this constant of its `services.get_node_ip_address`. There is no
    public way: `_node_ip_address="127.0.0.1"` is taken for the address that other machines know.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _join(address: str, quiet: dict[str, Any]) -> None:
    try:
        ray.init(**quiet)
    except (ConnectionError, ValueError, AuthenticationError) as error:
        raise UserError(
            f"RAY_ADDRESS {address!r} does not let us in ({first_line(error)}): look whether Ray runs there, and set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        ) from error


def check_demand(config: RunConfig) -> None:
    """Refuse a run that asks for more GPUs than there are, before anything starts or is made.

    The cluster that RAY_ADDRESS names is asked; without one, this machine is, and Ray is not started.

    Raises:
        UserError: the episodes or the sampling workers do not fit; the text has the arithmetic. Or the cluster
            of RAY_ADDRESS does not answer, or the current folder hides packages of rlcas, which would else be told
            after phase one.
    """
    if config.cluster.episode_runner == "actors":
        check_can_start()
    asked = config.cluster.concrete(config.sampler.k, config.device)
    if not asked.gpus_per_episode and not asked.gpus_per_sampler:
        return
    nodes = _nodes_there()
    total = {kind: sum(has.get(kind, 0.0) for _, has in nodes) for kind in ("CPU", "GPU")}
    check_room(fitting(episode_resources(asked, config.sampler.k, total)), config.sampler.k, nodes)
    if config.pool is None and config.device != "cpu":
        sampler_resources(asked, config.synth.generation.threads, total)


def _nodes_there() -> list[Node]:
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return [("this machine", {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()})]
    started_here = not ray.is_initialized()
    ensure_ray(k=1)
    nodes = nodes_of_ray()
    if started_here:
        ray.shutdown()
    return nodes


def quiet_ray() -> None:
    """Leave out Ray's notices, which a user of rlcas can do nothing about; its errors stay.

    Ray sets its loggers' levels again while it starts, so the handlers are told.
    """
    for name in ("ray", "ray.rllib", "ray.data"):
        for handler in logging.getLogger(name).handlers:
            handler.setLevel(logging.ERROR)


def check_answers(address: str) -> None:
    """Knock at `address`: Ray itself would wait for minutes.

    Raises:
        UserError: nobody answers, or it is no cluster's address.
    """
    if address == LOCAL:
        return
    told = repr(address)
    if address == AUTO:
        address = _found_here()
        told += f" ({address})"
    match = re.fullmatch(r"(?:ray://)?(?:\[([\da-fA-F:]+)\]|([^:/\s]+)):(\d+)", address)
    if not match or int(match[3]) > MAX_PORT:
        raise UserError(
            f"RAY_ADDRESS {told} is no cluster's address: write HOST:6379 or ray://HOST:10001 (a dashboard's, "
            "with http://, is for `rlcas submit --address`)"
        )
    try:
        socket.create_connection((match[1] or match[2], int(match[3])), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {told} does not answer ({error}): start it (ray start --head), mend the "
            "address, or unset RAY_ADDRESS to run on this machine"
        ) from error


def _found_here() -> str:
    """Return the address that the last `ray start` on this machine noted, though its head may be gone."""
    address = find_bootstrap_address(None) or next(iter(find_gcs_addresses()), None)
    if address is None:
        raise UserError(
            f"RAY_ADDRESS {AUTO!r} finds no Ray on this machine: start it (ray start --head), or unset RAY_ADDRESS"
        )
    return str(address)


def episode_resources(cluster: ClusterConfig, k: int, total: Mapping[str, float]) -> dict[str, float]:
    """Return the CPUs and GPUs of one episode, such that K of them fit into `total` (`ray.cluster_resources()`).

    CPUs: `threads_per_episode` where there are enough beside the driver's one, else an even share. GPUs:
    `gpus_per_episode`; None is one each where there are K, an even share of each where there are fewer.

    Raises:
        UserError: `gpus_per_episode` asks for more GPUs than there are.
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
        UserError: `gpus_per_sampler` asks for more GPUs than there are.
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
        raise UserError(f"{setting} {asked:g} is more than one GPU and no whole number: set {int(asked)}")
    if asked is None:
        return 0.0 if num_gpus == 0 else 1.0 / -(-number // num_gpus)
    if asked == 0:
        return 0.0
    room = int(num_gpus / asked) if asked >= 1 else num_gpus * int(1 / asked)
    if room < number:
        raise UserError(
            f"{setting} {asked:g} x {counted_by} {number} = {asked * number:g} GPUs, but Ray has {num_gpus} "
            f"(room for {room}): set {setting} {_gpus_each(None, number, num_gpus, setting, counted_by):.2g}, "
            f"or lower {counted_by}"
        )
    return asked
