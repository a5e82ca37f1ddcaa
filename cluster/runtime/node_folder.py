"""Folders of the driver on the nodes of its actors: by their path where a node reaches them, else as a copy.

A copy is made once a node, below `cluster.cache`; its bytes come as objects of Ray, a few at a time, and count when
their sha256 is what the driver's node says. The driver itself does nothing for it, and nothing is hashed or copied
where all is one node.
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
"""Chunks on their way to one node: what a copy takes of the object store, whatever its size."""


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """A folder that lies on one node and can be opened on all; small, so that an actor may be built with it."""

    path: Path
    node_id: str | None
    """Where it lies. None: no Ray, so there is this process alone."""
    cache: Path | None
    digests_of: Callable[[Path], Digests] = digests_of

    @classmethod
    def of(cls, path: Path, cache: Path | None, digests_of: Callable[[Path], Digests] = digests_of) -> Self:
        """Return the folder `path` of this node, whose contents stay as they are from now on.

        Args:
            path: absolute.
            cache: `cluster.cache`, absolute.
            digests_of: tells what such a folder holds; a function of a module.
        """
        return cls(
            for_ray(path), _this_node() if ray.is_initialized() else None, cache and for_ray(cache), digests_of
        )

    def here(self) -> Path:
        """Return the folder on the node that calls: itself, what is the same there, or a copy of it.

        Raises:
            UserError: it cannot be read where it lies, or does not arrive as it was sent.
        """
        if self.node_id is None or self.node_id == _this_node():
            return self.path
        digests = self._ask(self.digests_of, self.path)
        if holds(self.path, digests, self.digests_of):
            return self.path
        return copied(digests, self._read, cache_folder(self.cache), self.digests_of)

    def _read(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of a file from the node where it lies."""
        path = self.path / name
        size = self._ask(_size, path)
        offsets = range(0, size, CHUNK_BYTES)
        coming = [self._start(_chunk, path, offset) for offset in offsets[:IN_FLIGHT]]
        for number in range(len(offsets)):
            yield memoryview(_got(coming.pop(0)))
            coming += [self._start(_chunk, path, offset) for offset in offsets[number + IN_FLIGHT :][:1]]

    def _ask(self, function: Callable[..., Any], *words: Any) -> Any:
        return _got(self._start(function, *words))

    def _start(self, function: Callable[..., Any], *words: Any) -> ray.ObjectRef:
        """Call a function on the node where the folder lies."""
        assert self.node_id is not None
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        return ray.remote(num_cpus=0)(function).options(scheduling_strategy=there).remote(*words)


def for_ray(path: Path) -> Path:
    """Return a path that goes to other processes, which have other working folders: it must be absolute."""
    assert path.is_absolute(), f"{path} would be another folder elsewhere"
    return path


def check_reached(folder: Path, file: str) -> None:
    """Refuse to work in a folder that this node does not reach: what is written here, no other node would find.

    Args:
        folder: which all nodes must share.
        file: what it holds wherever it is reached.

    Raises:
        UserError: it is not there.
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


def _got(answer: ray.ObjectRef) -> Any:
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()
