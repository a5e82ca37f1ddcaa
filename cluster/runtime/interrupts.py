"""Ctrl-C or SIGTERM while epochs train: the first one ends the run after the epoch, the second at once.

Slurm and Kubernetes send SIGTERM some time before they kill.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RAY_MODULES = ("ray._private.worker", "ray.tune.tune")
"""Modules whose signal handlers are not the user's: one ends the process with a stack dump, the other is what Ray Tune
leaves behind after a search."""

ENDING_NOTICE = "rlcas: ends after this epoch, with a checkpoint; Ctrl-C again ends at once"


@dataclass
class Interrupt:
    """Whether the user has asked to end."""

    asked: bool = False


@contextmanager
def first_interrupt_waits() -> Iterator[Interrupt]:
    """Let the first signal inside only set `Interrupt.asked`, for the caller to check; the second interrupts as usual.

    Outside of the main thread no handler is set, and a signal that a user's program handles or ignores keeps its own.
    """
    interrupt = Interrupt()
    # Python lets no other thread set a handler.
    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [each for each in SIGNALS if in_main_thread and _is_free(each)]

    def wait(number: int, frame: FrameType | None) -> None:
        for each in taken:
            # Both handlers: the next signal of either kind raises KeyboardInterrupt.
            signal.signal(each, signal.default_int_handler)
        interrupt.asked = True
        print(ENDING_NOTICE, file=sys.stderr, flush=True)

    before = {each: signal.signal(each, wait) for each in taken}
    try:
        yield interrupt
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _is_free(number: signal.Signals) -> bool:
    """Return whether the signal's handler is Python's or Ray's own, rather than the user's."""
    handler = signal.getsignal(number)
    by_ray = getattr(handler, "__module__", None) in RAY_MODULES
    # SIG_IGN is not among them: a background job that ignores Ctrl-C goes on ignoring it.
    return by_ray or handler in (signal.default_int_handler, signal.SIG_DFL)
