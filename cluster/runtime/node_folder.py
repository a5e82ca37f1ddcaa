"""Folders of the driver on the nodes of its actors: by their path where a node reaches them, else as a copy.

A copy is made once a node, below `cluster.cache`; its bytes come as objects of Ray, a few at a time, and are used when
their sha256 is that of the driver's node. The driver itself takes no part, and nothing is hashed or copied where all
processes are on one node.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlcas.errors import UserError
from rlcas.storage.digests import Digests, cache_folder, copied, digests_of, holds
from rlcas.types import Uint8

CHUNK_BYTES = 16 << 20
IN_FLIGHT = 2
"""Chunks on their way to one node at a time: they bound what a copy takes of the object store, whatever its size."""


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """A folder that lies on one node and can be opened on all; small, so that an actor may be built with it."""

    path: Path
    node_id: str | None
    """The node that has it. None: Ray does not run, and this process is the only one."""
    cache: Path | None
    digests_of: Callable[[Path], Digests] = digests_of

    @classmethod
    def of(cls, path: Path, cache: Path | None, digests_of: Callable[[Path], Digests] = digests_of) -> Self:
        """Return the folder `path` of this node, whose contents stay as they are from now on.

        Args:
            path: absolute.
            cache: `cluster.cache`, absolute.
            digests_of: returns the digests of such a folder's files; a function of a module, as Ray pickles it.
        """
        return cls(
            for_ray(path), _this_node() if ray.is_initialized() else None, cache and for_ray(cache), digests_of
        )

    def here(self) -> Path:
        """Return the folder on the calling node: itself, an equal one at the same path, or a copy.

        Raises:
            UserError: it cannot be read on its own node, or does not arrive as it was sent.
        """
        if self.node_id is None or self.node_id == _this_node():
            return self.path
        digests = self._ask(self.digests_of, self.path)
        if holds(self.path, digests, self.digests_of):
            return self.path
        return copied(digests, self._read, cache_folder(self.cache), self.digests_of)

    def _read(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of a file from the node that has it."""
        path = self.path / name
        size = self._ask(_size, path)
        offsets = range(0, size, CHUNK_BYTES)
        # While the caller writes one chunk, the next is on its way.
        coming = [self._start(_chunk, path, offset) for offset in offsets[:IN_FLIGHT]]
        for number in range(len(offsets)):
            yield memoryview(_result(coming.pop(0)))
            coming += [self._start(_chunk, path, offset) for offset in offsets[number + IN_FLIGHT :][:1]]

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _result(self._start(function, *arguments))

    def _start(self, function: Callable[..., Any], *arguments: Any) -> ray.ObjectRef:
        """Call a function on the node that has the folder."""
        assert self.node_id is not None
        on_node = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        # num_cpus=0: the episodes may hold every core of that node, and the call must not wait for them.
        return ray.remote(num_cpus=0)(function).options(scheduling_strategy=on_node).remote(*arguments)


def for_ray(path: Path) -> Path:
    """Return a path that is sent to other processes: it must be absolute, as these have other working folders."""
    assert path.is_absolute(), f"{path} would be another folder elsewhere"
    return path


def check_reached(folder: Path, file: str) -> None:
    """Refuse to work in a folder that this node does not reach: no other node would find what is written here.

    Args:
        folder: the folder, which all nodes must share.
        file: a file that it has on every node that reaches it.

    Raises:
        UserError: the file does not exist here.
    """
    if not (folder / file).is_file():
        raise UserError(
            f"node {socket.gethostname()} does not reach {folder}, which is written by all nodes: name with --out a "
            "folder on storage that they mount at the same path, or use one node"
        )


def _size(path: Path) -> int:
    return path.stat().st_size


def _chunk(path: Path, offset: int) -> Uint8:
    return np.fromfile(path, np.uint8, count=CHUNK_BYTES, offset=offset)


def _result(answer: ray.ObjectRef) -> Any:
    """Return the result of a call; a UserError that was raised on the other node is raised here as such."""
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()
