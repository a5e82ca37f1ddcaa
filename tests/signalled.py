"""Commands that get a signal at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 600


def signalled(sent: signal.Signals, condition: Callable[[], object], words: list[str], cwd: Path) -> None:
    """Start a command, send it a signal as soon as the condition holds, and see that it ends by that."""
    deadline = time.monotonic() + START_SECONDS
    with subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not condition():
            assert process.poll() is None, "it ended before it was to be ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, sent)
        process.communicate()
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
