"""Noticing that Ray's head is lost, before Ray's client aborts the process after a minute of waiting."""

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

CHECK_EVERY_SECONDS = 2.0
LOST_SECONDS = 30.0
"""How long the head may be silent, as while it restarts; less than the minute after which Ray aborts the process."""


@contextmanager
def watched_head(folder: Path) -> Iterator[None]:
    """Exit the process with status 1 and one line where Ray's head is lost inside.

    The whole process has to exit: every call of Ray then blocks, those that clean up too. All files of the run's folder
    are complete at any moment. A head that cannot be reached from here, as behind Ray's client server, is not watched.

    Args:
        folder: the run's, which the line says how to resume.
    """
    address, ended = ray.get_runtime_context().gcs_address, threading.Event()
    if not _answers(address):
        yield
        return
    threading.Thread(target=_watch, args=(address, folder, ended), daemon=True).start()
    try:
        yield
    except Exception:
        # A failed call of Ray may show the loss before the thread's half minute is over.
        if not _answers(address):
            _exit_process(address, folder)
        raise
    finally:
        ended.set()


def _watch(address: str, folder: Path, ended: threading.Event) -> None:
    answered = time.monotonic()
    while not ended.wait(CHECK_EVERY_SECONDS):
        if _answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > LOST_SECONDS:
            _exit_process(address, folder)


def _answers(address: str) -> bool:
    try:
        check_answers(address)
    except UserError:
        return False
    return True


def _exit_process(address: str, folder: Path) -> NoReturn:
    again = f"`rlcas resume {shlex.quote(str(folder))}` continues from the last checkpoint"
    line = f"rlcas: Ray's head at {address} is lost: {again}, on the cluster that RAY_ADDRESS then names"
    try:
        print(line, file=sys.stderr, flush=True)
    finally:
        os._exit(1)  # sys.exit would end one thread only, and Ray's clean-up at exit would block
