"""Broken files for every reader, 100,000 of them: what each was given, and how many it refused in one line.

Anything else ends it: a crash, a hang, a traceback. By hypothesis, the same files for the same seed; with
`--engine atheris` by atheris, which starts with some of hypothesis's files and changes them as coverage guides it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import MutableSequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, fields
from pathlib import Path
from types import FunctionType

import torch
from common import emit, parser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzed_readers import READERS
from fuzzing import Reader, Tally, examples, fuzz, limited_memory

INPUTS = 100_000
CORPUS_FILES = 100
"""Of hypothesis's, with which atheris starts beside the whole file."""

GUIDING = (
    "rlcas", "synth", "cluster", "csv", "json", "numpy.lib", "pydicom", "torch.serialization", "yaml", "zipfile",
)  # fmt: skip
"""Modules whose coverage guides atheris."""


def share(inputs: int, number: int, of: int) -> int:
    """Return part `number` of `inputs`, which are divided among `of`."""
    return inputs * (number + 1) // of - inputs * number // of


def by_hypothesis(name: str, inputs: int, seed: int) -> Tally:
    """Return what a reader made of its inputs."""
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(READERS[name](Path(folder)), Path(folder), inputs, seed)


def by_atheris(name: str, inputs: int, seed: int) -> Tally:
    """Return what a reader made of atheris's inputs, in a process of its own, which atheris ends."""
    _let_coverage_be_seen()
    processes = multiprocessing.get_context("fork")
    figures = processes.Array("d", len(fields(Tally)))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        reader = READERS[name](Path(folder))
        whole = (Path(folder) / reader.file).read_bytes()
        for number, content in enumerate([whole, *examples(reader.contents, CORPUS_FILES, seed)]):
            (Path(corpus) / str(number)).write_bytes(content)
        words = [f"-runs={inputs}", f"-seed={seed + 1}", f"-artifact_prefix={corpus}/", corpus]
        guided = processes.Process(target=_guided, args=(reader, Path(folder), words, figures))
        guided.start()
        guided.join()
        if guided.exitcode != 0:
            kept = shutil.copy(Path(folder) / reader.file, f"broken-{name}{Path(reader.file).suffix}")
            sys.exit(f"{name}: atheris found a file that it fails at: {kept}")
    tried, told, *seconds = figures
    return Tally(int(tried), int(told), *seconds)


@functools.cache
def _let_coverage_be_seen() -> None:
    """Instrument the functions of the modules that guide; once, for all processes that are forked then."""
    import atheris

    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith(GUIDING):
            atheris.instrument_func(function)


def _guided(reader: Reader, folder: Path, words: list[str], figures: MutableSequence[float]) -> None:
    import atheris

    tally = Tally()

    def try_one(content: bytes) -> None:
        tally.try_one(reader, folder, content)
        figures[:] = astuple(tally)

    with limited_memory(), contextlib.redirect_stdout(None):
        atheris.Setup([sys.argv[0], "-rss_limit_mb=0", "-verbosity=0", *words], try_one)
        atheris.Fuzz()


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--inputs", type=int, default=INPUTS, help=f"in all [{INPUTS}]")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="READER")
    arguments.add_argument("--engine", choices=ENGINES, default="hypothesis")
    arguments.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="readers at a time [the cores]"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.engine == "atheris":
        _let_coverage_be_seen()
    names, forked = options.readers, multiprocessing.get_context("fork")
    shares = [share(options.inputs, number, len(names)) for number in range(len(names))]
    results: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(options.processes, forked) as processes:
        tallies = processes.map(ENGINES[options.engine], names, shares, [options.seed] * len(names))
        for name, tally in zip(names, tallies, strict=True):
            results[name] = {
                "inputs": tally.inputs,
                "refused": tally.refused,
                "seconds": round(tally.seconds, 2),
                "slowest_seconds": round(tally.slowest_seconds, 3),
            }
            print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    total = {key: sum(figures[key] for figures in results.values()) for key in ("inputs", "refused", "seconds")}
    emit("Broken files, reader by reader", {**results, "all": total}, options.json)


if __name__ == "__main__":
    main()
