"""Machines of a network of their own, as Linux network namespaces: one switch, an address each."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

NETWORK = "10.77.0"


@contextlib.contextmanager
def machines(number: int) -> Iterator[list[tuple[str, tuple[str, ...]]]]:
    """Yield the address of each machine, and the words that run a command on it; the switch stands on the first.

    Nothing of this machine's own network is touched.

    Raises:
        PermissionError: this user may not make network namespaces.
    """
    names = [f"rlcas-{os.getpid()}-{i}" for i in range(number)]
    addresses = [f"{NETWORK}.{i + 1}" for i in range(number)]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _switch(names[0], addresses[0])
        for i in range(1, number):
            _plug(names[i], addresses[i], names[0], addresses[0], f"port{i}")
        yield [(address, ("ip", "netns", "exec", name)) for name, address in zip(names, addresses, strict=True)]
    finally:
        for name in names:
            with contextlib.suppress(PermissionError):
                _ip("netns", "del", name)


def _switch(name: str, address: str) -> None:
    for words in (
        "link add switch type bridge",
        f"addr add {address}/24 dev switch",
        "link set switch up",
        "route add default dev switch",  # Ray asks by which address this machine would leave
    ):
        _ip("-n", name, *words.split())


def _plug(name: str, address: str, first: str, gateway: str, port: str) -> None:
    _ip("-n", first, *f"link add {port} type veth peer name cable netns {name}".split())
    _ip("-n", first, *f"link set {port} master switch up".split())
    for words in (
        f"addr add {address}/24 dev cable",
        "link set cable up",
        f"route add default via {gateway}",
    ):
        _ip("-n", name, *words.split())


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PermissionError("there is no `ip` here") from error
    if done.returncode != 0:
        raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")
