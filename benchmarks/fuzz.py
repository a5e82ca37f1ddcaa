"""Broken files for every reader, 100,000 of them: what each was given, and how many it refused in one line.

Anything else ends it: a crash, a hang, a traceback. By hypothesis, the same files for the same seed; with
`--engine atheris` by atheris, which coverage guides, one reader at a time, until it is stopped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import emit, parser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing import READERS, Tally, fuzz, harness, limited_memory

INPUTS = 100_000


def share(inputs: int, number: int, of: int) -> int:
    """Return part `number` of `inputs`, which are divided among `of`."""
    return inputs * (number + 1) // of - inputs * number // of


def by_hypothesis(name: str, inputs: int, seed: int) -> dict[str, float]:
    """Return what a reader made of its inputs."""
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(READERS[name](Path(folder)), Path(folder), inputs, seed)
    figures = {
        "inputs": tally.inputs,
        "refused": tally.told,
        "seconds": round(tally.seconds, 2),
        "slowest_seconds": round(tally.slowest_seconds, 3),
    }
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return figures


def by_atheris(name: str, libfuzzer_words: list[str]) -> None:
    """Let atheris look for files that a reader fails at; it ends the process."""
    import atheris

    with tempfile.TemporaryDirectory() as folder, limited_memory():
        test: Any = harness(READERS[name](Path(folder)), Path(folder), Tally(), inputs=1, seed=0)
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *libfuzzer_words], test.hypothesis.fuzz_one_input)
        atheris.Fuzz()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--inputs", type=int, default=INPUTS, help=f"in all [{INPUTS}]")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="READER")
    arguments.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    options, words = arguments.parse_known_args()
    torch.set_num_threads(1)
    if options.engine == "atheris":
        by_atheris(options.readers[0], words)
        return
    results = {
        name: by_hypothesis(name, share(options.inputs, number, len(options.readers)), options.seed)
        for number, name in enumerate(options.readers)
    }
    total = {key: sum(figures[key] for figures in results.values()) for key in ("inputs", "refused", "seconds")}
    emit("Broken files, reader by reader", {**results, "all": total}, options.json)


if __name__ == "__main__":
    main()
