"""Ray Tune without its output and its hold on signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""A trial's folder holds our own log and events, and we tell of its end."""


@contextmanager
def preserving_signal_handlers() -> Iterator[None]:
    """Give the signals their handlers again that Ray Tune takes and keeps (2.60): the next Ctrl-C would go nowhere."""
    taken = (signal.SIGINT, signal.SIGUSR1) if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.getsignal(each) for each in taken}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
