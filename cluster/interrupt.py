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
TOLD = "rlcas: ends after this epoch, with a checkpoint; Ctrl-C again ends at once"


@dataclass
class Interrupt:
    """Whether the user has asked to end."""

    asked: bool = False


@contextmanager
def first_interrupt_waits() -> Iterator[Interrupt]:
    """Let the first signal inside ask to end, which the caller looks for; the second is a KeyboardInterrupt.

    Outside of the main thread, and where another program has a handler for Ctrl-C, signals stay what they are.
    """
    interrupt = Interrupt()
    default = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != default:
        yield interrupt
        return

    def wait(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, default)
        interrupt.asked = True
        print(TOLD, file=sys.stderr, flush=True)

    before = {each: signal.signal(each, wait) for each in SIGNALS}
    try:
        yield interrupt
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
