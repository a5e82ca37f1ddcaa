"""The cores that this process may compute on: a batch system or a container may leave it fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

CGROUP_OF_PROCESS, CGROUP_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Return how many cores this process may use: the machine's, its affinity or its CPU quota, whichever is least."""
    return min((machine_cores(), *core_limits().values()))


def machine_cores() -> int:
    """Return how many cores the machine has, 1 where the system does not say."""
    return os.cpu_count() or 1


def core_limits() -> dict[str, int]:
    """Return the limits that leave this process fewer cores than the machine has, by what sets them."""
    limits = {"CPU affinity": _affinity(), "cgroup CPU quota": cgroup_cores(CGROUP_OF_PROCESS, CGROUP_ROOT)}
    return {name: cores for name, cores in limits.items() if cores is not None and cores < machine_cores()}


def _affinity() -> int | None:
    """Return the cores that the scheduler may place this process on; None where the system has no such limit."""
    # Slurm and taskset limit a process so; os.cpu_count does not know of it. macOS has no such call.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cgroup_cores(of_process: Path, root: Path) -> int | None:
    """Return the least CPU quota of a process's cgroups in whole cores, 1 at least; None where there is none.

    Args:
        of_process: as /proc/self/cgroup, which names the process's cgroups.
        root: where the cgroup file systems are mounted.
    """
    quotas = [
        quota for folder in cgroup_folders(of_process, root, "cpu") if (quota := _quota(folder)) is not None
    ]
    # A quota holds for all cgroups below it, so the least of them counts.
    return max(1, int(min(quotas))) if quotas else None


def cgroup_folders(of_process: Path, root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's cgroups that a controller may limit, and of all cgroups above them.

    In a container the process may be named by its place on the host, which is not mounted: then only the root counts.

    Args:
        of_process: as /proc/self/cgroup, which names the process's cgroups.
        root: where the cgroup file systems are mounted.
        controller: its name in version 1 of cgroups, such as cpu.
    """
    for line in read_or_empty(of_process).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 names no controllers, and is mounted at the root.
        mount = root / controller if controllers else root
        place = PurePosixPath(name.lstrip("/"))
        yield from (mount / above for above in (place, *place.parents))


def _quota(folder: Path) -> float | None:
    """Return the quota of one cgroup in cores; None where it has none."""
    quota, period, *_ = *read_or_empty(folder / "cpu.max").split(), "", ""  # version 2
    if not quota:
        quota, period = (read_or_empty(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    # Without a quota, version 2 says "max" and version 1 says -1.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def read_or_empty(path: Path) -> str:
    """Return the text of a file of the system; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    # No such controller, no permission, or a system without cgroups: none of these is a limit.
    except (OSError, ValueError):
        return ""


def describe_limits(limits: Mapping[str, int], machine: int) -> str:
    """Return, for example, "2 of 64, limited by the cgroup CPU quota"; without limits the machine's number alone."""
    if not limits:
        return f"{machine}"
    least = min(limits, key=lambda name: limits[name])
    return f"{limits[least]} of {machine}, limited by the {least}"
