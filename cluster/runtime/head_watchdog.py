"""The loss of Ray's head, for which Ray's client would wait a minute before it aborts the process."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import ray

from cluster.runtime.connection import check_answers
from rlcas.errors import UserError

KNOCKS_EVERY_SECONDS = 2.0
LOST_SECONDS = 30.0
"""How long the head may be silent, as while it starts again; Ray's own minute must not be over."""


@contextmanager
def watched_head(folder: Path) -> Iterator[None]:
    """End the process with status 1 and one line where Ray's head is lost inside.

    Nothing less would do: what asks Ray then, to clean up too, does not return. What the run's folder holds is whole.
    A head that cannot be reached from here, as behind Ray's client server, is not watched.

    Args:
        folder: of the run, which the line says how to go on with.
    """
    address, left = ray.get_runtime_context().gcs_address, threading.Event()
    if not _answers(address):
        yield
        return
    threading.Thread(target=_watch, args=(address, folder, left), daemon=True).start()
    try:
        yield
    except Exception:
        if not _answers(address):
            _end(address, folder)
        raise
    finally:
        left.set()


def _watch(address: str, folder: Path, left: threading.Event) -> None:
    answered = time.monotonic()
    while not left.wait(KNOCKS_EVERY_SECONDS):
        if _answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > LOST_SECONDS:
            _end(address, folder)


def _answers(address: str) -> bool:
    try:
        check_answers(address)
    except UserError:
        return False
    return True


def _end(address: str, folder: Path) -> NoReturn:
    again = f"`rlcas resume {shlex.quote(str(folder))}` goes on from the last checkpoint"
    line = f"rlcas: Ray's head at {address} is lost: {again}, on the cluster that RAY_ADDRESS then names"
    try:
        print(line, file=sys.stderr, flush=True)
    finally:
        os._exit(1)
