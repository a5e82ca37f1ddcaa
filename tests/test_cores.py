"""How many cores and how much memory a process may use: the machine's, less what limits of the process leave out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlcas.config import ClusterConfig, cores
from rlcas.config.cores import available_cores, cgroup_cores, describe_limits
from rlcas.doctor import machine
from rlcas.storage import memory
from rlcas.storage.memory import cgroup_free_bytes


def cgroup(folder: Path, lines: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Return the files that name a process's cgroups, and the root of their mounts."""
    for name, text in files.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(text)
    (folder / "of_process").write_text(lines)
    return folder / "of_process", folder / "root"


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job/cpu.max": "300000 100000\n", "job/step/cpu.max": "max 100000\n"}, 3),
        ("0::/job/step\n", {"job/cpu.max": "800000 100000\n", "job/step/cpu.max": "200000 100000\n"}, 2),
        ("0::/on/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "4:memory:/\n2:cpu,cpuacct:/pod\n0::/\n",
            {"cpu/pod/cpu.cfs_quota_us": "250000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"}, None),
        ("nonsense\n", {"cpu.max": ""}, None),
    ],
)
def test_a_quota_is_rounded_down_to_whole_cores_and_the_least_above_counts(
    lines: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    assert cgroup_cores(*cgroup(tmp_path, lines, files)) == expected


def test_a_system_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cgroup_cores(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "300\n"}, [700]),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "300\n"}, []),
        (
            "0::/job/step\n",
            {
                "job/memory.max": "1000\n",
                "job/memory.current": "900\n",
                "job/memory.stat": "anon 300\ninactive_file 600\n",
                "job/step/memory.max": "5000\n",
                "job/step/memory.current": "900\n",
            },
            [4100, 700],
        ),
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "1200\n"}, [0]),
        (
            "4:memory:/pod\n1:cpu:/\n0::/\n",
            {
                "memory/pod/memory.limit_in_bytes": "2000\n",
                "memory/pod/memory.usage_in_bytes": "1500\n",
                "memory/pod/memory.stat": "inactive_file 9\ntotal_inactive_file 500\n",
            },
            [1000],
        ),
        ("1:cpu:/\n", {"cpu/memory.max": "5\n"}, []),
    ],
)
def test_what_each_cgroup_has_left_of_its_memory(
    lines: str, files: dict[str, str], expected: list[int], tmp_path: Path
) -> None:
    assert cgroup_free_bytes(*cgroup(tmp_path, lines, files)) == expected


def test_the_least_of_machine_and_cgroups_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory.available_memory_bytes()
    of_process, root = cgroup(tmp_path, "0::/\n", {"memory.max": "123456\n"})
    monkeypatch.setattr(memory, "CGROUP_OF_PROCESS", of_process)
    monkeypatch.setattr(memory, "CGROUP_ROOT", root)
    assert memory.available_memory_bytes() == 123456 < whole


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine of eight cores without limits."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP_OF_PROCESS", tmp_path / "none")
    return monkeypatch


def test_without_limits_all_cores_count(eight_cores: pytest.MonkeyPatch) -> None:
    assert available_cores() == 8
    assert ClusterConfig().concrete(3).threads_per_episode == 2
    assert machine.cores().found.startswith("8; ")


def test_the_least_of_affinity_and_quota_counts_and_the_doctor_names_it(
    eight_cores: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    eight_cores.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert available_cores() == 4
    assert machine.cores().found.startswith("4 of 8, limited by the CPU affinity; ")
    of_process, root = cgroup(tmp_path, "0::/\n", {"cpu.max": "250000 100000\n"})
    eight_cores.setattr(cores, "CGROUP_OF_PROCESS", of_process)
    eight_cores.setattr(cores, "CGROUP_ROOT", root)
    assert available_cores() == 2
    assert ClusterConfig().concrete(1).threads_per_episode == 2
    assert machine.cores().found.startswith("2 of 8, limited by the cgroup CPU quota; ")


def test_a_limit_that_leaves_all_cores_is_not_named() -> None:
    assert describe_limits({}, 8) == "8"
