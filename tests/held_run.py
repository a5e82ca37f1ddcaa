"""Runs whose epoch under way can be held up, by a loss that waits as long as there is a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_run
from test_chaos import train_words, write_own_pool
from test_run import rlcas

HOLD, WAITING = "hold", "waiting"
LOSS = f"""
import pathlib
import time

import ray

from rlcas.losses import cross_entropy

HOLD, WAITING = (pathlib.Path(__file__).with_name(name) for name in ({HOLD!r}, {WAITING!r}))


def loss(logits_NC, labels_N, counts_C):
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        while HOLD.exists():
            WAITING.touch()
            time.sleep(0.05)
    return cross_entropy(logits_NC, labels_N, counts_C)
"""


def make_home(path: Path) -> Path:
    """Write data, images of one's own and the loss to a folder, and train there, undisturbed."""
    write_own_pool(path)
    (path / "held.py").write_text(LOSS)
    with pytest.MonkeyPatch.context() as patch:
        find_loss(path, patch)
        done = rlcas(*words("undisturbed"), *small_run.IN_PROCESS, cwd=path)
    assert done.returncode == 0, done.stderr
    return path


def find_loss(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Let all processes that start from now on find the loss."""
    patch.setenv("PYTHONPATH", str(home), prepend=os.pathsep)


def words(out: str) -> list[str]:
    return [*train_words(), "--classifier.loss", "held:loss", "--out", out]


@contextlib.contextmanager
def started(home: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start or resume a run whose coming epoch is held up; yield it when that is under way. In the end it is killed."""
    (home / HOLD).touch()
    (home / WAITING).unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "rlcas", *command],
        cwd=home,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (home / WAITING).exists():
            assert process.poll() is None, process.communicate()[1]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(line: str, process: subprocess.Popen[str]) -> None:
    """Read what the run says until it says this."""
    assert process.stderr is not None
    said = []
    while line not in said:
        said.append(process.stderr.readline().rstrip("\n"))
        assert process.poll() is None, said


def release(home: Path) -> None:
    """Let the epoch continue."""
    (home / HOLD).unlink()
