"""Starting Ray, and what of it one episode gets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.services import find_bootstrap_address, find_gcs_addresses
from ray.exceptions import AuthenticationError

from cluster.runtime.package_shadowing import check_not_hidden
from rlcas.cores import available_cores
from rlcas.errors import UserError, first_line

KNOCK_SECONDS = 10.0
AUTO, LOCAL = "auto", "local"
"""Ray's own words for the cluster whose head is on this machine, and for a new one."""
MAX_PORT = 65_535


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
        num_cpus = max(available_cores(), k + 1)
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
def own_ray_ends() -> Iterator[None]:
    """Shut down at the end the Ray that is started or connected to inside; one that was connected before stays."""
    started_here = not ray.is_initialized()
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()


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
