"""What a dead worker leaves behind: the stack of a crash, in a file among Ray's logs on its node."""

from __future__ import annotations

import faulthandler
from pathlib import Path

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

READ_SECONDS = 30.0
CRASH = "Fatal Python error"
NO_STACK = (
    "It left no stack: it was ended from outside, as the kernel or Ray's memory monitor does when memory is "
    "short (see dmesg and the logs of Ray), or ended itself."
)


def record_crashes() -> None:
    """Let a crash of this actor's process, as a segfault or an abort, leave its stack behind."""
    faulthandler.enable(_path(ray.get_runtime_context().get_actor_id()).open("a"), all_threads=False)


def crash_report(actor: ray.actor.ActorHandle, error: RayError) -> str:
    """Return what Ray says of the actor's death, and the stack of its last crash, from whichever node it ran on."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    stacks = [stack for node_id in nodes if (stack := _read_on(node_id, actor._actor_id.hex()))]
    if not stacks and isinstance(
        error, ActorDiedError
    ):  # of an error in its constructor, which Ray tells whole
        return str(error)
    return f"{error}\n{stacks[-1] if stacks else NO_STACK}"


def _read_on(node_id: str, actor_id: str) -> str:
    """Return the words on one node; none where it does not answer."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    reading = ray.remote(num_cpus=0, scheduling_strategy=there)(_read).remote(actor_id)
    try:
        return ray.get(reading, timeout=READ_SECONDS)
    except RayError:
        return ""


def _read(actor_id: str) -> str:
    path = _path(actor_id)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    start = text.rfind(CRASH)
    return text[start:].partition("\n\nExtension modules")[0] if start >= 0 else ""


def _path(actor_id: str) -> Path:
    # Ray has no public name for the folder of its logs.
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / f"rlcas-{actor_id}.crash"
