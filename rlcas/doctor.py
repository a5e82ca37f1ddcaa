"""`rlcas doctor`: what is installed and at hand, what is wrong with it, and how to mend it.

Each check gathers facts and hands them to a `judge_…` function, which is pure, so that each fault is tested.
What may crash on import is imported in a process of its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

Level = Literal["ok", "warn", "fault"]

OLDEST_PYTHON = (3, 11)
ENOUGH_DISK_GB = 5.0
ENOUGH_MEMORY_GB = 4.0
ENOUGH_SHARED_MEMORY_GB = 1.0
IMPORT_TIMEOUT_SECONDS = 180
ONE_INDEX = (
    "uninstall torch and torchvision, then install both in one command from one index "
    "(both CPU builds or both CUDA builds)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: Level
    found: str
    mend: str = ""


def diagnose(deep: bool = False) -> list[Finding]:
    """Look at the installation and the machine; `deep` also starts Ray. A check that breaks is a fault."""
    checks: dict[str, Callable[[], Finding | list[Finding]]] = {
        "python": lambda: judge_python(sys.version_info[:3]),
        "packages": check_packages,
        "torch builds": check_torch_builds,
        "torchvision.ops": lambda: check_import("torchvision.ops", "import torchvision.ops", ONE_INDEX),
        "diffusers": lambda: check_import("diffusers", "from diffusers import UNet2DModel", ONE_INDEX),
        "ray": lambda: check_import("ray", "import ray", "pip install 'ray[tune,rllib]~=2.60.0'"),
        "gpu": check_gpu,
        "cores": lambda: judge_threads(_usable_cores(), os.environ.get("OMP_NUM_THREADS")),
        "memory": check_memory,
        "disk": check_disk,
        "data": lambda: check_data(os.environ.get("RLCAS_DATA")),
    }
    if deep:
        checks["ray starts"] = check_ray_starts
    return [finding for name, check in checks.items() for finding in _carried_out(name, check)]


def main_report(deep: bool = False) -> int:
    """Print the findings as a table; return 1 where there is a fault, else 0."""
    from rich.table import Table
    from rich.text import Text

    from rlcas.console import console, say

    findings = diagnose(deep)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("", "what", "found"):
        table.add_column(head, overflow="fold")
    for finding in findings:
        style = {"ok": "green", "warn": "yellow", "fault": "bold red"}[finding.level]
        table.add_row(Text(finding.level, style), Text(finding.name), Text(finding.found))
    console().print(table)
    for finding in findings:
        if finding.mend:
            say(f"{finding.name}: {finding.mend}")
    faults = sum(finding.level == "fault" for finding in findings)
    say(f"{faults} fault{'' if faults == 1 else 's'} found" if faults else "no fault found")
    return 1 if faults else 0


def _carried_out(name: str, check: Callable[[], Finding | list[Finding]]) -> Iterator[Finding]:
    try:
        findings = check()
    except Exception as error:  # a doctor must not die of what it examines
        yield Finding(name, "fault", f"the check itself failed: {type(error).__name__}: {error}")
        return
    yield from findings if isinstance(findings, list) else [findings]


def judge_python(version: tuple[int, ...]) -> Finding:
    """Judge the Python version."""
    found = ".".join(str(part) for part in version)
    if version < OLDEST_PYTHON:
        return Finding("python", "fault", found, "install Python 3.11 or newer and make the environment again")
    return Finding("python", "ok", f"{found} on {platform.system()} {platform.machine()}")


def check_packages() -> list[Finding]:
    """Compare what rlcas requires with what is installed; ray's pin of gymnasium too."""
    try:
        required = metadata.requires("rlcas") or []
    except metadata.PackageNotFoundError:
        return [Finding("rlcas", "fault", "not installed", "pip install -e . in the repository")]
    pins = [line for line in _requires("ray") if line.startswith("gymnasium") and "rllib" in line]
    lines = [line for line in required if "extra ==" not in line]
    lines += [line.partition(";")[0] for line in pins]
    installed = {Requirement(line).name: _version(Requirement(line).name) for line in lines}
    return judge_packages(lines, installed)


def judge_packages(requirements: list[str], installed: Mapping[str, str | None]) -> list[Finding]:
    """Judge installed versions (None: absent) against requirement lines; one ok finding if all are met."""
    faults = []
    for requirement in map(Requirement, requirements):
        version, mend = installed[requirement.name], f"pip install '{requirement}'"
        if version is None:
            faults.append(Finding(requirement.name, "fault", "not installed", mend))
        elif not requirement.specifier.contains(version, prereleases=True):
            faults.append(
                Finding(requirement.name, "fault", f"{version}, but {requirement.specifier} is required", mend)
            )
    return faults or [Finding("packages", "ok", f"{len(installed)} requirements met")]


def _requires(package: str) -> list[str]:
    return (metadata.requires(package) or []) if _version(package) else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_torch_builds() -> Finding:
    """Find torch and torchvision of different builds, without importing torchvision."""
    import torch

    return judge_torch_builds(torch.__version__, torch.version.cuda, _version("torchvision"))


def judge_torch_builds(torch_version: str, torch_cuda: str | None, torchvision_version: str | None) -> Finding:
    """Judge by versions whether torch and torchvision are of one build.

    A CPU wheel has the local suffix +cpu, or no CUDA version; CUDA wheels of an index of their own have +cu130
    or the like; those of the default index have none. A mix fails with "operator torchvision::nms does not
    exist".
    """
    if torchvision_version is None:
        return Finding("torch builds", "fault", f"torch {torch_version}, no torchvision", ONE_INDEX)
    found = f"torch {torch_version} (CUDA {torch_cuda or 'none'}), torchvision {torchvision_version}"
    torch_local, vision_local = Version(torch_version).local, Version(torchvision_version).local
    torch_is_cpu, vision_is_cpu = torch_local == "cpu", vision_local == "cpu"
    if torch_is_cpu != vision_is_cpu and not (vision_is_cpu and torch_cuda is None):
        return Finding("torch builds", "fault", f"{found}: different builds", ONE_INDEX)
    if torch_local and vision_local and torch_local != vision_local:
        return Finding("torch builds", "fault", f"{found}: different builds", ONE_INDEX)
    return Finding("torch builds", "ok", found)


def check_import(name: str, statement: str, mend: str) -> Finding:
    """Run an import in a process of its own; its last line of error is what was found."""
    done = subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, timeout=IMPORT_TIMEOUT_SECONDS
    )
    if done.returncode == 0:
        return Finding(name, "ok", f"`{statement}` works")
    last_line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return Finding(name, "fault", f"`{statement}` fails: {last_line}", mend)


def check_ray_starts() -> Finding:
    """Start a local Ray with one worker, run one task on it and stop it."""
    statement = (
        "import ray; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False); "
        "assert ray.get(ray.remote(lambda: 7).remote()) == 7; ray.shutdown()"
    )
    mend = "see the folder /tmp/ray/session_latest/logs; free memory and space in /dev/shm, then try again"
    finding = check_import("ray starts", statement, mend)
    return Finding("ray starts", "ok", "a worker ran a task") if finding.level == "ok" else finding


def check_gpu() -> Finding:
    """Report the GPU that torch sees, or why it sees none."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        memory_gb = properties.total_memory / 1e9
        count = torch.cuda.device_count()
        return Finding("gpu", "ok", f"{count} × {properties.name}, {memory_gb:.0f} GB, {bf16}, {_driver()}")
    return judge_no_gpu(_driver(), torch.version.cuda)


def judge_no_gpu(driver: str, torch_cuda: str | None) -> Finding:
    """Judge a torch that sees no GPU: a fault only if there is one."""
    if driver == "no driver":
        return Finding("gpu", "ok", "none: everything runs on the CPU")
    if torch_cuda is None:
        return Finding(
            "gpu", "fault", f"{driver}, but torch is a CPU build", f"{ONE_INDEX}: here the CUDA builds"
        )
    mend = f"install a driver for CUDA {torch_cuda}, or torch of an older CUDA; look at CUDA_VISIBLE_DEVICES"
    return Finding("gpu", "fault", f"{driver}, but torch (CUDA {torch_cuda}) cannot use it", mend)


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "no driver"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_SECONDS)
    versions = done.stdout.split()
    return f"driver {versions[0]}" if done.returncode == 0 and versions else "no driver"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def judge_threads(num_cores: int, omp_num_threads: str | None) -> Finding:
    """Judge OMP_NUM_THREADS against the cores: more threads than cores slow every episode down."""
    found = f"{num_cores} usable, OMP_NUM_THREADS {omp_num_threads or 'not set'}"
    if omp_num_threads and omp_num_threads.isdigit() and int(omp_num_threads) > num_cores:
        return Finding("cores", "warn", found, f"set OMP_NUM_THREADS to {num_cores} at most, or unset it")
    return Finding("cores", "ok", found)


def check_memory() -> Finding:
    """Report the free memory of the machine, where the system tells it."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return Finding("memory", "ok", "this system does not tell")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return judge_room("memory", int(lines["MemAvailable"].split()[0]) / 1e6, ENOUGH_MEMORY_GB)


def check_disk() -> list[Finding]:
    """Report the room in the current folder, the temporary one and Ray's shared memory."""
    places = {Path.cwd(): ENOUGH_DISK_GB, Path(tempfile.gettempdir()): ENOUGH_DISK_GB}
    places |= {Path("/dev/shm"): ENOUGH_SHARED_MEMORY_GB}
    return [
        judge_room(f"room in {place}", shutil.disk_usage(place).free / 1e9, enough)
        for place, enough in places.items()
        if place.exists()
    ]


def judge_room(name: str, free_gb: float, enough_gb: float) -> Finding:
    """Judge free gigabytes against what a run wants."""
    found = f"{free_gb:.1f} GB free"
    if free_gb < enough_gb:
        return Finding(name, "warn", found, f"make {enough_gb:g} GB free; a run may stop for want of it")
    return Finding(name, "ok", found)


def check_data(folder: str | None) -> Finding | list[Finding]:
    """Check the MedMNIST files in `folder` (RLCAS_DATA) against the md5 sums that medmnist publishes."""
    if folder is None:
        return Finding("data", "ok", "RLCAS_DATA is not set: downloads go to ~/.medmnist")
    if not Path(folder).is_dir():
        mend = "make the folder, or set RLCAS_DATA to one that exists"
        return Finding("data", "fault", f"RLCAS_DATA {folder} is not a folder", mend)
    known = medmnist_md5s()
    present = sorted(path for path in Path(folder).glob("*.npz") if path.name in known)
    if not present:
        return Finding("data", "ok", f"no MedMNIST file in {folder} yet: they are downloaded when asked for")
    return [judge_md5(path, known[path.name]) for path in present]


def judge_md5(path: Path, expected: str) -> Finding:
    """Judge one file by its md5."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 == expected:
        return Finding(path.name, "ok", f"as published, in {path.parent}")
    mend = f"delete {path}; it is downloaded again when it is asked for"
    return Finding(path.name, "fault", f"md5 {md5}, but {expected} is published", mend)


def medmnist_md5s() -> dict[str, str]:
    """Return file name -> md5 of every MedMNIST file of every size."""
    from medmnist import INFO

    sizes = ("", "_64", "_128", "_224")
    return {
        f"{flag}{size}.npz": info[f"MD5{size}"]
        for flag, info in INFO.items()
        for size in sizes
        if f"MD5{size}" in info
    }
