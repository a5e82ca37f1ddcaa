"""Checks of the machine: GPU, cores, memory and disks."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcas.config.cores import core_limits, describe_limits, machine_cores
from rlcas.doctor.finding import Finding, fault, ok, warn
from rlcas.doctor.probe import run_python
from rlcas.storage.memory import available_memory_bytes

GB = 1e9
DISK_FAULT_BYTES, DISK_WARN_BYTES = 2 * GB, 10 * GB
MEMORY_WARN_BYTES = 4 * GB
RAY_SHARE_OF_MEMORY = 0.3
RAY_SHM_THRESHOLD_BYTES = 10 * GB  # ray_constants.REQUIRE_SHM_SIZE_THRESHOLD of Ray 2.60
"""Ray keeps its objects in /tmp if /dev/shm is smaller than this and than that share of memory (its services.py)."""
TORCH_LIMIT_SECONDS = 300.0
# Emulated bf16 does not count: it is slower than fp32 (see `rlcas.devices.autocast`).
TORCH_FACTS = """
import json, torch
gpus = []
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    properties = torch.cuda.get_device_properties(i)
    with torch.cuda.device(i):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    gpus.append([properties.name, properties.total_memory, bf16])
print(json.dumps([torch.version.cuda or torch.version.hip, gpus]))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    memory_bytes: int
    bf16: bool


def gpu() -> Finding:
    """Ask torch for its GPUs."""
    gpus, toolkit = torch_gpus()
    return judge_gpu(gpus, toolkit, _has_driver())


@functools.cache
def torch_gpus() -> tuple[list[Gpu], str | None]:
    """Return the GPUs that torch finds, and the CUDA or ROCm that it is built with."""
    toolkit, gpus = json.loads(run_python(TORCH_FACTS, TORCH_LIMIT_SECONDS))
    return [Gpu(*one) for one in gpus], toolkit


def judge_gpu(gpus: Sequence[Gpu], toolkit: str | None, driver: bool) -> Finding:
    """Judge the GPUs; a machine without a GPU is fine if it has no driver either.

    Args:
        gpus: the GPUs that torch finds.
        toolkit: version of the CUDA or ROCm that torch is built with; None in a CPU build.
        driver: whether NVIDIA's driver is installed.
    """
    if gpus:
        return ok("; ".join(_describe(one) for one in gpus))
    if not driver:
        return ok("none: everything runs on the CPU")
    if toolkit is None:
        return warn(
            "a GPU driver is installed, but torch is built without CUDA",
            "pip uninstall -y torch torchvision, then both CUDA builds in one command from one index",
        )
    return warn(
        f"a GPU driver is installed, but torch (CUDA {toolkit}) finds no GPU",
        "compare the CUDA version that nvidia-smi prints, and CUDA_VISIBLE_DEVICES; runs use the CPU till then",
    )


def cores() -> Finding:
    """Report the cores, and the threads of one episode."""
    from rlcas.config import ClusterConfig, SamplerConfig

    threads = ClusterConfig().concrete(SamplerConfig().k).threads_per_episode
    assert threads is not None
    counted = describe_limits(core_limits(), machine_cores())
    return describe_cores(counted, os.environ.get("OMP_NUM_THREADS"), threads)


def describe_cores(counted: str, omp_num_threads: str | None, threads_per_episode: int) -> Finding:
    """Report the cores and threads; any value is fine, because episodes set their own number of threads."""
    return ok(
        f"{counted}; OMP_NUM_THREADS {omp_num_threads or 'not set'}; "
        f"an episode takes {threads_per_episode} (cluster.threads_per_episode)"
    )


def memory() -> Finding:
    """Check the memory that is free."""
    return judge_memory(available_memory_bytes())


def judge_memory(available_bytes: float) -> Finding:
    """Judge the available memory: Ray's daemons take 0.5 GB, each episode's worker about 0.9 GB."""
    found = f"{_gb(available_bytes)} available"
    if available_bytes < MEMORY_WARN_BYTES:
        return warn(found, "end other programs, or lower sampler.k: each of the K workers takes about 0.9 GB")
    return ok(found)


def disk_here() -> Finding:
    """Check the disk of the current folder, where runs are written."""
    return _disk(Path.cwd())


def disk_temporary() -> Finding:
    """Check the disk of the temporary folder, where Ray writes its logs and spills."""
    return _disk(Path(tempfile.gettempdir()))


def judge_disk(folder: Path, free_bytes: float) -> Finding:
    """Judge the free space of a folder's disk."""
    found = f"{_gb(free_bytes)} free in {folder}"
    fix = "free some space, or use another disk (--out DIR for runs, TMPDIR for temporary files)"
    if free_bytes < DISK_FAULT_BYTES:
        return fault(found, fix)
    return warn(found, fix) if free_bytes < DISK_WARN_BYTES else ok(found)


def shared_memory() -> Finding:
    """Check /dev/shm, where Ray keeps its objects on Linux."""
    folder = Path("/dev/shm")
    free_bytes = shutil.disk_usage(folder).free if folder.is_dir() else None
    return judge_shared_memory(free_bytes, available_memory_bytes())


def judge_shared_memory(free_bytes: float | None, memory_bytes: float) -> Finding:
    """Judge /dev/shm by Ray's rule: the object store takes 30 % of memory, and is on the disk if that does not fit.

    Args:
        free_bytes: None on a system without /dev/shm.
        memory_bytes: available memory.
    """
    if free_bytes is None:
        return ok("no /dev/shm here: Ray keeps its objects in the temporary folder")
    needed_bytes = min(RAY_SHARE_OF_MEMORY * memory_bytes, RAY_SHM_THRESHOLD_BYTES)
    if free_bytes < needed_bytes:
        return warn(
            f"{_gb(free_bytes)} free in /dev/shm: Ray keeps its objects on the disk, slowly",
            f"delete files in /dev/shm, or start the container with --shm-size={1.1 * needed_bytes / GB:.1f}g",
        )
    return ok(f"{_gb(free_bytes)} free in /dev/shm")


def _describe(gpu: Gpu) -> str:
    return f"{gpu.name}, {_gb(gpu.memory_bytes)}, {'bf16' if gpu.bf16 else 'no bf16'}"


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _disk(folder: Path) -> Finding:
    return judge_disk(folder, shutil.disk_usage(folder).free)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB"
