"""Checkpoints written on a thread of their own, so that no epoch waits for the disk."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.episodes.checkpoint import BEST, NUM_KEPT, Resumable, Snapshot, write
from rlcas.storage.remote import publish
from rlcas.types import Incumbent


class CheckpointWriter:
    """Writes snapshots, the newest alone where the disk is slower than the epochs; its end waits for the last.

    At most one snapshot is being written and one waits, so memory is bounded.

    Args:
        folder: the folder of checkpoints.

    Example:
        with CheckpointWriter(folder) as writer:
            while training:
                algorithm.train()
                writer.save(algorithm)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # No lock: a deque's append and popleft are atomic, and only the worker thread takes from it.
        self._waiting: deque[Snapshot] = deque(maxlen=1)
        self._writes: list[Future[None]] = []
        # Those still on the disk, the older first.
        self._bests: deque[tuple[Path, Incumbent]] = deque(maxlen=NUM_KEPT)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")

    def save(self, trainee: Resumable) -> None:
        """Hand over the state of `trainee` as it is now.

        Raises:
            UserError: an earlier checkpoint could not be written.
        """
        # Before anything else: a run that can write no checkpoint should not train on to its last epoch.
        self._raise_errors([write for write in self._writes if write.done()])
        self._waiting.append(trainee.snapshot())  # taken on this thread: the next epoch changes the trainee
        self._writes.append(self._executor.submit(self._write_newest))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last checkpoint; raise its error, unless another one is being raised."""
        self._executor.shutdown(wait=True)
        if error is None:
            self._raise_errors(self._writes)

    def _raise_errors(self, writes: list[Future[None]]) -> None:
        self._writes = [write for write in self._writes if write not in writes]
        for done in writes:
            done.result()

    def _write_newest(self) -> None:
        if not self._waiting:
            return  # a newer snapshot took its place and was written
        snapshot = self._waiting.popleft()
        best = snapshot.incumbents[BEST]
        checkpoint = write(snapshot, self._folder, self._checkpoint_with(best))
        self._bests.append((checkpoint, best))
        publish(self._folder)  # to the run's address, if it has one: whole checkpoints only

    def _checkpoint_with(self, best: Incumbent) -> Path | None:
        """Return the last checkpoint but one where `best` was its best too.

        Two checkpoints in a row never share a file, so that damage to one leaves the other whole.
        """
        if len(self._bests) < NUM_KEPT:
            return None
        checkpoint, its_best = self._bests[0]
        return checkpoint if its_best is best else None
