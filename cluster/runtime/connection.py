"""Connecting to a cluster of Ray, or starting Ray on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.services import find_bootstrap_address, find_gcs_addresses
from ray.exceptions import AuthenticationError

from cluster.runtime.package_shadowing import check_not_hidden
from rlcas.config import ClusterConfig
from rlcas.config.cores import available_cores
from rlcas.doctor.ray_folders import ray_obstacle
from rlcas.errors import UserError, first_line

CONNECT_SECONDS = 10.0
AUTO, LOCAL = "auto", "local"
"""Ray's own names for the cluster whose head is on this machine, and for a new one."""
MAX_PORT = 65_535
NICENESS_VARIABLE = "RAY_worker_niceness"
"""Ray's own setting: what it adds to the niceness of its daemon in its workers."""


def ensure_ray(k: int, worker_niceness: int | None = None) -> None:
    """Connect to the cluster that RAY_ADDRESS or the job names; without one, start Ray on this machine.

    A Ray that is started here has at least K + 1 logical cores, so that K workers and a Tune trial fit a laptop. It has
    no dashboard, and other machines cannot reach its ports. Its workers have this process's niceness: at Ray's own
    15 they would give way to any other work. A variable RAY_worker_niceness takes precedence.

    Args:
        k: workers at the same time.
        worker_niceness: how much nicer the workers of a Ray that is started here are. None: the default of
            `cluster.worker_niceness`.

    Raises:
        UserError: as `check_can_start`; or the cluster of RAY_ADDRESS has another token.
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
        with (
            _on_loopback(),
            _niceness(ClusterConfig().worker_niceness if worker_niceness is None else worker_niceness),
        ):
            ray.init(address=LOCAL, num_cpus=num_cpus, include_dashboard=False, **quiet)


def check_can_start() -> None:
    """Raise what `ensure_ray` would raise, before the long work that precedes it.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer, a Ray on this machine could not make its files, or
            the current folder holds packages that hide those of rlcas.
    """
    if ray.is_initialized():
        return
    check_not_hidden()
    address = os.environ.get("RAY_ADDRESS")
    if address and address != LOCAL:
        check_answers(address)
    else:
        check_starts_here()


def check_starts_here() -> None:
    """Check that a Ray on this machine could make its sockets, logs and token.

    Raises:
        UserError: it could not; the line says which folder to use instead.
    """
    if obstacle := ray_obstacle(os.environ, Path.home()):
        raise UserError(f"Ray cannot start: {obstacle.found}: {obstacle.fix}")


@contextlib.contextmanager
def own_ray_ends() -> Iterator[None]:
    """Disconnect from Ray at the end, and end it where it was started inside; an earlier connection stays."""
    started_here = not ray.is_initialized()
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started inside listen on 127.0.0.1 alone; else it listens on all of the machine's addresses.

    On macOS and Windows Ray does this itself, by the same constant, which its `services.get_node_ip_address` reads. No
    public setting does it: `_node_ip_address="127.0.0.1"` would be passed to other machines as this one's address.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _niceness(worker_niceness: int) -> Iterator[None]:
    """Let a Ray that is started inside make its workers as nice; its daemon reads the variable when it starts."""
    stated = NICENESS_VARIABLE in os.environ
    os.environ.setdefault(NICENESS_VARIABLE, str(worker_niceness))
    try:
        yield
    finally:
        if not stated:
            del os.environ[NICENESS_VARIABLE]


def _join(address: str, quiet: dict[str, Any]) -> None:
    try:
        ray.init(**quiet)  # no address: Ray reads RAY_ADDRESS itself
    except (ConnectionError, ValueError, AuthenticationError) as error:
        raise UserError(
            f"RAY_ADDRESS {address!r} refuses the connection ({first_line(error)}): check that Ray runs there, and set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        ) from error


def quiet_ray() -> None:
    """Suppress Ray's notices, which a user of rlcas can do nothing about; its errors are still shown.

    The level is set on the handlers, because Ray resets its loggers' levels while it starts.
    """
    for name in ("ray", "ray.rllib", "ray.data"):
        for handler in logging.getLogger(name).handlers:
            handler.setLevel(logging.ERROR)


def check_answers(address: str) -> None:
    """Open and close a connection to `address`: Ray itself would wait for minutes.

    Raises:
        UserError: nothing answers, or it is not the address of a cluster.
    """
    if address == LOCAL:
        return
    named = repr(address)
    if address == AUTO:
        address = _address_of_this_machine()
        named += f" ({address})"
    # An IPv6 address is in brackets, which are not part of the name that a socket connects to.
    match = re.fullmatch(r"(?:ray://)?(?:\[([\da-fA-F:]+)\]|([^:/\s]+)):(\d+)", address)
    if not match or int(match[3]) > MAX_PORT:
        raise UserError(
            f"RAY_ADDRESS {named} is not a cluster's address: write HOST:6379 or ray://HOST:10001 (a dashboard's, "
            "with http://, is for `rlcas submit --address`)"
        )
    try:
        socket.create_connection((match[1] or match[2], int(match[3])), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {named} does not answer ({error}): start it (ray start --head), correct the "
            "address, or unset RAY_ADDRESS to run on this machine"
        ) from error


def _address_of_this_machine() -> str:
    """Return the address that the last `ray start` on this machine recorded; its head may no longer run."""
    address = find_bootstrap_address(None) or next(iter(find_gcs_addresses()), None)
    if address is None:
        raise UserError(
            f"RAY_ADDRESS {AUTO!r} finds no Ray on this machine: start it (ray start --head), or unset RAY_ADDRESS"
        )
    return str(address)
