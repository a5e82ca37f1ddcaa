"""Ray Tune without its output, its signal handlers and its draws from global random generators."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator

import numpy as np

QUIET_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Environment in which Tune prints nothing and writes no logs: runs and trials write their own.

A trial saves after every epoch, which Tune would warn of where its experiment's state is written as often.
"""
QUIET_TUNE_WITHOUT_SIGINT = {**QUIET_TUNE, "TUNE_DISABLE_SIGINT_HANDLER": "1"}
"""The same for a population: an interrupt ends its run as it ends any other. A sweep leaves the signal to Tune, which
saves what its trials have reported before it ends."""


@contextlib.contextmanager
def preserving_global_random_state() -> Iterator[None]:
    """Restore the states of Python's and NumPy's global generators, which Tune draws from."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def environment_variables(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def preserving_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that Ray Tune replaces for good (2.60): the next Ctrl-C would have no effect."""
    taken = (signal.SIGINT, signal.SIGUSR1) if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.getsignal(each) for each in taken}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
