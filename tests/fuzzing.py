"""Broken files for a reader: each must be read, or refused in one line that names it, and nothing else.

`tests/test_fuzzing.py` tries a few hundred inputs, `benchmarks/fuzz.py` a hundred thousand.
"""

from __future__ import annotations

import contextlib
import gc
import io
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from broken_files import Files

from rlcas.errors import UserError

HANG_SECONDS = 20.0
"""Of processor time, so that a busy machine does not count as a hang."""
BOUT_INPUTS = 300
"""Inputs of one call of hypothesis, which keeps them to its end."""
MEMORY_BYTES = 4 << 30
"""What a reader may take beside what the process has."""


class Hang(BaseException):
    """A reader did not end. No reader takes it for a fault of its file: TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader with a folder in which all is whole."""

    file: str
    """The file that is broken, below the folder."""
    contents: Files
    read: Callable[[], object]
    beside: Callable[[], object] = lambda: None
    """Called after the file is written: digests that a stranger would write too."""


@dataclass(slots=True)
class Tally:
    """The counts and times of a reader's inputs."""

    inputs: int = 0
    refused: int = 0
    """Those that ended in a UserError."""
    seconds: float = 0.0
    slowest_seconds: float = 0.0

    def try_one(self, reader: Reader, folder: Path, content: bytes) -> None:
        """Give a reader one input and count it; any error but a UserError is raised."""
        started = time.process_time()
        self.inputs += 1
        self.refused += refuses(reader, folder, content)
        seconds = time.process_time() - started
        self.seconds += seconds
        self.slowest_seconds = max(self.slowest_seconds, seconds)


def fuzz(reader: Reader, folder: Path, inputs: int, seed: int) -> Tally:
    """Give a reader this many inputs, the same ones for the same seed; any error but a UserError is raised."""
    tally = Tally()
    with limited_memory(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        while tally.inputs < inputs:
            bout = min(BOUT_INPUTS, inputs - tally.inputs)
            drawing(reader.contents, bout, seed)(lambda content: tally.try_one(reader, folder, content))()
            gc.collect()
            seed += 1
    return tally


def examples(contents: Files, count: int, seed: int) -> list[bytes]:
    """Return so many inputs, the same for the same seed."""
    seen: list[bytes] = []
    drawing(contents, count, seed)(lambda content: seen.append(content))()
    return seen


def drawing(contents: Files, inputs: int, seed: int) -> Callable[[Callable[[bytes], None]], Any]:
    """Return the decorator that calls a function with each of so many inputs."""

    def decorate(check: Callable[[bytes], None]) -> Any:
        test = hypothesis.settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=(hypothesis.Phase.generate,),
            suppress_health_check=list(hypothesis.HealthCheck),
        )(hypothesis.given(contents)(check))
        return hypothesis.seed(seed)(test)

    return decorate


def refuses(reader: Reader, folder: Path, content: bytes) -> bool:
    """Return whether the reader refuses such a file, in one line that names the file or its folder."""
    (folder / reader.file).write_bytes(content)
    reader.beside()
    with ends():
        try:
            reader.read()
        except UserError as error:
            message = str(error)
        else:
            return False
    assert len(message.splitlines()) == 1 and len(message) < 2000, message
    assert str(folder) in message, message
    return True


@contextlib.contextmanager
def ends() -> Iterator[None]:
    """Raise Hang where the body takes too much of the processor."""

    def stop(*_: object) -> None:
        raise Hang(f"the reader hangs: {HANG_SECONDS:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let a reader that asks for gigabytes get a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
