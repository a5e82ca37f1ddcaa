"""Code run in a process of its own, so that a broken package cannot crash the doctor."""

from __future__ import annotations

import subprocess
import sys


def run_python(code: str, limit_seconds: float) -> str:
    """Return the output of `code`, run in a fresh interpreter.

    Raises:
        RuntimeError: it failed (the message is the last line of its stderr), or took longer than the limit.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=limit_seconds
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {limit_seconds:g} s") from error
    if done.returncode != 0:
        last_line = done.stderr.strip().splitlines()[-1:]  # of a traceback, the line with the error
        raise RuntimeError(last_line[0] if last_line else f"it ended with status {done.returncode}")
    return done.stdout
