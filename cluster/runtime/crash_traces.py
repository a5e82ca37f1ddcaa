"""Crash reports: a worker that crashes writes its stack into a file among Ray's logs on its node."""

from __future__ import annotations

import faulthandler
from pathlib import Path

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

READ_SECONDS = 30.0
CRASH = "Fatal Python error"
NO_STACK = (
    "It wrote no stack: it was killed from outside, as the kernel or Ray's memory monitor does when memory is "
    "short (see dmesg and the logs of Ray), or exited by itself."
)


def record_crashes() -> None:
    """Let a crash of this actor's process, such as a segfault or an abort, write its stack."""
    # The file stays open: faulthandler writes to its descriptor. Appended, because a restarted actor keeps
    # its id, and so its file where it starts on the same node.
    faulthandler.enable(_path(ray.get_runtime_context().get_actor_id()).open("a"), all_threads=False)


def crash_report(actor: ray.actor.ActorHandle, error: RayError) -> str:
    """Return Ray's error for the actor's death, and the stack of its last crash, from whichever node it ran on."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    stacks = [stack for node_id in nodes if (stack := _read_on(node_id, actor._actor_id.hex()))]
    if not stacks and isinstance(error, ActorDiedError):
        return str(error)  # raised in the actor's constructor: Ray's text has the whole traceback
    return f"{error}\n{stacks[-1] if stacks else NO_STACK}"


def _read_on(node_id: str, actor_id: str) -> str:
    """Return the crash's stack on one node; empty where the node has none or does not answer."""
    on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
    # num_cpus=0: the episodes may hold every core.
    reading = ray.remote(num_cpus=0, scheduling_strategy=on_node)(_read).remote(actor_id)
    try:
        return ray.get(reading, timeout=READ_SECONDS)
    except RayError:
        return ""


def _read(actor_id: str) -> str:
    path = _path(actor_id)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    start = text.rfind(CRASH)
    # Without the list of C modules with which Python ends the dump.
    return text[start:].partition("\n\nExtension modules")[0] if start >= 0 else ""


def _path(actor_id: str) -> Path:
    # Ray has no public name for the folder of its logs (2.60).
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / f"rlcas-{actor_id}.crash"
