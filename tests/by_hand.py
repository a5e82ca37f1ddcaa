"""Nodes started by `ray start`, with a token, ports and a folder of their own; ended by their handles."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder whose name is short enough for Ray's sockets, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="rlcas-nodes-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment_with_token() -> dict[str, str]:
    """Return this process's environment with a new token, and with this installation's programs found first."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**os.environ, **token, "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def head(
    folder: Path, environment: dict[str, str], *more: str, before: tuple[str, ...] = (), ip: str = LOOPBACK
) -> Iterator[str]:
    """Start a head without cores; yield its address."""
    port = free_port()
    words = ["--head", f"--port={port}", "--num-cpus=0", f"--ray-client-server-port={free_port()}", *more]
    with node("head", folder, environment, *words, before=before, ip=ip):
        yield f"{ip}:{port}"


@contextlib.contextmanager
def node(
    name: str,
    folder: Path,
    environment: dict[str, str],
    *words: str,
    before: tuple[str, ...] = (),
    ip: str = LOOPBACK,
) -> Iterator[subprocess.Popen[str]]:
    """Start a node, behind the command `before` if given; yield its process when Ray reports that it runs."""
    at_once = {**environment, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    command = [
        *before, str(RAY), "start", "--block", *words, f"--node-name={name}", f"--node-ip-address={ip}",
        f"--temp-dir={folder}/ray", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0",
        f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={100 << 20}",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=at_once, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        said = []
        while not any("Ray runtime started" in line for line in said):
            said.append(process.stdout.readline())
            assert said[-1], "".join(said)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
