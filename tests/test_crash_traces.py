"""The stacks that crashed workers leave behind; `tests/test_faults.py` lets actors crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster.runtime.crash_traces import Crash, last_crash, newest

CRASHING = """
import faulthandler, os, sys
faulthandler.enable(open(sys.argv[1], "a"), all_threads=False)
exec(f"def {sys.argv[2]}(): os.abort()")
globals()[sys.argv[2]]()
"""


def crash(path: Path, function: str, seconds: float) -> None:
    """Let a process crash in a function of this name, and say that it was then."""
    done = subprocess.run([sys.executable, "-c", CRASHING, str(path), function], capture_output=True)
    assert done.returncode < 0
    os.utime(path, (seconds, seconds))


def test_the_stack_is_that_of_the_last_crash_on_whichever_node_it_was(tmp_path: Path) -> None:
    # Two nodes; the actor crashed on the first, then on the second, then on the first again.
    first, second, unused = (tmp_path / f"{name}.crash" for name in ("first", "second", "unused"))
    crash(first, "earliest", 1e9)
    crash(second, "between", 2e9)
    found = newest(map(last_crash, (first, second, unused)))
    assert found is not None and " in between" in found and " in earliest" not in found
    crash(first, "latest", 3e9)
    found = newest(map(last_crash, (first, second, unused)))
    assert found is not None and " in latest" in found and " in earliest" not in found
    assert found.startswith("Fatal Python error: Aborted") and "Extension modules" not in found


def test_without_a_crash_there_is_no_stack(tmp_path: Path) -> None:
    (tmp_path / "empty.crash").touch()
    assert last_crash(tmp_path / "empty.crash") is None
    assert newest([None, None]) is None
    assert newest([None, Crash(0.0, "stack")]) == "stack"
