"""The memory that this process can still get: a container or a batch system may leave it less than the machine has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlcas.config.cores import CGROUP_OF_PROCESS, CGROUP_ROOT, cgroup_folders, read_or_empty

MACHINE = Path("/proc/meminfo")


def available_memory_bytes() -> float:
    """Return the memory that a program can still get, in bytes; all memory where the system does not report it."""
    if sys.platform != "linux":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available_kib = next(
        int(line.split()[1]) for line in MACHINE.read_text().splitlines() if line.startswith("MemAvailable:")
    )
    return min([1024 * available_kib, *cgroup_free_bytes(CGROUP_OF_PROCESS, CGROUP_ROOT)])


def cgroup_free_bytes(of_process: Path, root: Path) -> list[int]:
    """Return what each limited cgroup of a process has left, its own and those above.

    Args:
        of_process: as /proc/self/cgroup, which names the process's cgroups.
        root: where the cgroup file systems are mounted.
    """
    found = (_free_bytes(folder) for folder in cgroup_folders(of_process, root, "memory"))
    return [free for free in found if free is not None]


def _free_bytes(folder: Path) -> int | None:
    """Return what one cgroup has left; None where it has no limit."""
    # Version 2, then version 1.
    for limit_file, usage_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = read_or_empty(folder / limit_file).strip()
        # Without a limit, version 2 says "max", and version 1 a number beyond any memory.
        if limit.isdigit():
            used = _number(read_or_empty(folder / usage_file))
            # Pages of files that nobody has used lately are freed before a program is refused memory.
            stat = dict(
                line.split(maxsplit=1) for line in read_or_empty(folder / "memory.stat").splitlines() if line
            )
            return max(0, int(limit) - max(0, used - _number(stat.get(cache, ""))))
    return None


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0
