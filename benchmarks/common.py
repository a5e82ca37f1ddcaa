"""Shared by the benchmarks: timing, images of noise, a table, `--json`."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlcas.types import ImageSet


def interleaved_medians(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each case; the cases take turns, so that other load on the machine affects all."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_seconds(
    work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median time of one call."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        work()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def noise(num_images: int, *, size_px: int, num_classes: int, seed: int = 0) -> ImageSet:
    """Return gray images of noise, which stand for any images where only time is measured.

    Args:
        num_images: N.
        size_px: side of the images.
        num_classes: C; labels are 0 to C-1 in turn.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    return ImageSet(
        images_NCHW=rng.integers(0, 256, (num_images, 1, size_px, size_px), dtype=np.uint8),
        labels_N=np.arange(num_images) % num_classes,
    )


def peak_bytes() -> int:
    """Return the peak memory of this process.

    On Linux from /proc: `ru_maxrss` also counts the memory that the parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (peak_kib,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak_kib) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def emit(title: str, results: dict[str, dict[str, float]], as_json: bool) -> None:
    """Print `{case: {figure: number}}` as one JSON object, or as a table under `title`."""
    if as_json:
        print(json.dumps(results))
        return
    figures = list(dict.fromkeys(figure for row in results.values() for figure in row))
    width = max(len("case"), *(len(case) for case in results))
    print(title)
    print("  ".join([f"{'case':<{width}}", *(f"{figure:>20}" for figure in figures)]))
    for case, row in results.items():
        cells = [f"{row[figure]:>20.4g}" if figure in row else f"{'':>20}" for figure in figures]
        print("  ".join([f"{case:<{width}}", *cells]))


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with `--json`."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", action="store_true", help="print one object: {case: {figure: number}}")
    return arguments
