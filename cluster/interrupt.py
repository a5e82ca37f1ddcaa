"""Ctrl-C while epochs train: the first one ends the run after the epoch, the second at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

TOLD = "rlcas: ends after this epoch, with a checkpoint; Ctrl-C again ends at once"


@dataclass
class Interrupt:
    """Whether the user has asked to end."""

    asked: bool = False


@contextmanager
def first_interrupt_waits() -> Iterator[Interrupt]:
    """Let the first Ctrl-C inside ask to end, which the caller looks for; the second is a KeyboardInterrupt.

    Outside of the main thread, and where another program's handler is in place, Ctrl-C stays what it is.
    """
    interrupt = Interrupt()
    default = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != default:
        yield interrupt
        return

    def wait(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, default)
        interrupt.asked = True
        print(TOLD, file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, wait)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, default)
