"""100,000 broken files for the readers: how many each read, and how many it refused in one line.

Anything else stops the benchmark: a crash, a hang, a traceback. The files come from hypothesis, the same for the same
seed; with `--engine atheris` from atheris, which starts with some of hypothesis's files and mutates them by coverage.
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
"""Files of hypothesis that atheris starts with, in addition to the intact file."""

GUIDING = (
    "rlcas", "synth", "cluster", "csv", "json", "numpy.lib", "pydicom", "torch.serialization", "yaml", "zipfile",
)  # fmt: skip
"""Prefixes of the modules whose coverage guides atheris."""


def share(inputs: int, number: int, of: int) -> int:
    """Return the size of part `number` of `inputs` divided into `of` nearly equal parts."""
    return inputs * (number + 1) // of - inputs * number // of


def by_hypothesis(name: str, inputs: int, seed: int) -> Tally:
    """Return how a reader handled hypothesis's inputs."""
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(READERS[name](Path(folder)), Path(folder), inputs, seed)


def by_atheris(name: str, inputs: int, seed: int) -> Tally:
    """Return how a reader handled atheris's inputs, in a process of its own, because atheris ends its process.

    Raises:
        SystemExit: the reader failed; the file is kept in the current folder.
    """
    _instrument()
    processes = multiprocessing.get_context("fork")
    figures = processes.Array("d", len(fields(Tally)))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        reader = READERS[name](Path(folder))
        whole = (Path(folder) / reader.file).read_bytes()
        for number, content in enumerate([whole, *examples(reader.contents, CORPUS_FILES, seed)]):
            (Path(corpus) / str(number)).write_bytes(content)
        options = [f"-runs={inputs}", f"-seed={seed + 1}", f"-artifact_prefix={corpus}/", corpus]
        guided = processes.Process(target=_guided, args=(reader, Path(folder), options, figures))
        guided.start()
        guided.join()
        if guided.exitcode != 0:
            copy = shutil.copy(Path(folder) / reader.file, f"broken-{name}{Path(reader.file).suffix}")
            sys.exit(f"{name}: atheris found a file that it fails at: {copy}")
    inputs_tried, refused, *seconds = figures
    return Tally(int(inputs_tried), int(refused), *seconds)


@functools.cache
def _instrument() -> None:
    """Instrument the functions of the guiding modules, once for all processes that are forked later."""
    import atheris

    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith(GUIDING):
            atheris.instrument_func(function)


def _guided(reader: Reader, folder: Path, options: list[str], figures: MutableSequence[float]) -> None:
    import atheris

    tally = Tally()

    def try_one(content: bytes) -> None:
        tally.try_one(reader, folder, content)
        figures[:] = astuple(tally)

    with limited_memory(), contextlib.redirect_stdout(None):
        atheris.Setup([sys.argv[0], "-rss_limit_mb=0", "-verbosity=0", *options], try_one)
        atheris.Fuzz()


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--inputs", type=int, default=INPUTS, help=f"total of all readers [{INPUTS}]")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="READER")
    arguments.add_argument("--engine", choices=ENGINES, default="hypothesis")
    arguments.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="readers in parallel [number of cores]"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.engine == "atheris":
        _instrument()
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
