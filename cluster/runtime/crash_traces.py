"""Crash reports: a worker that crashes writes its stack into a file among Ray's logs on its node."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

READ_SECONDS = 30.0
CRASH = "Fatal Python error"
NO_STACK = (
    "It wrote no stack: it was killed from outside, as the kernel or Ray's memory monitor does when memory is "
    "short (see dmesg and the logs of Ray), or exited by itself."
)


class Crash(NamedTuple):
    """A crash of an actor's process on one node."""

    seconds: float
    """When it wrote its stack, by the clock of its node."""
    stack: str


def record_crashes() -> None:
    """Let a crash of this actor's process, such as a segfault or an abort, write its stack."""
    # The file stays open: faulthandler writes to its descriptor. Appended, because a restarted actor keeps
    # its id, and so its file where it starts on the same node.
    faulthandler.enable(_path(ray.get_runtime_context().get_actor_id()).open("a"), all_threads=False)


def crash_report(actor: ray.actor.ActorHandle, error: RayError) -> str:
    """Return Ray's error for the actor's death, and the stack of its last crash, from whichever node it ran on."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    stack = newest(_read_on(node_id, actor._actor_id.hex()) for node_id in nodes)
    if stack is None and isinstance(error, ActorDiedError):
        return str(error)  # raised in the actor's constructor: Ray's text has the whole traceback
    return f"{error}\n{stack or NO_STACK}"


def newest(crashes: Iterable[Crash | None]) -> str | None:
    """Return the stack of the last crash; a restarted actor may have crashed on several nodes."""
    known = [crash for crash in crashes if crash is not None]
    return max(known).stack if known else None


def _read_on(node_id: str, actor_id: str) -> Crash | None:
    """Return the actor's last crash on one node; None where the node has none or does not answer."""
    on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
    # num_cpus=0: the episodes may hold every core.
    reading = ray.remote(num_cpus=0, scheduling_strategy=on_node)(_read).remote(actor_id)
    try:
        return ray.get(reading, timeout=READ_SECONDS)
    except RayError:
        return None


def _read(actor_id: str) -> Crash | None:
    return last_crash(_path(actor_id))


def last_crash(path: Path) -> Crash | None:
    """Return the last crash in an actor's file; None where there is no file, or no crash in it."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    start = text.rfind(CRASH)
    if start < 0:
        return None
    # Without the list of C modules with which Python ends the dump.
    return Crash(path.stat().st_mtime, text[start:].partition("\n\nExtension modules")[0])


def _path(actor_id: str) -> Path:
    # Ray has no public name for the folder of its logs (2.60).
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / f"rlcas-{actor_id}.crash"
