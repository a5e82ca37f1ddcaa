"""Filling a pool in one process, on Ray Data, after a killed worker, on a full disk: always the same bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from tiny_synth import tiny_config, tiny_data

from cluster.runtime.resources import sampler_resources
from rlcas.config import ClusterConfig, RunConfig
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.storage import atomic
from rlcas.storage.atomic import sha256_of
from rlcas.types import Uint8
from synth.generate import MicroBatch, SampleAll, fill_pool
from synth.ldm.train import train_synthesiser
from synth.pool import SyntheticPool

CPU = torch.device("cpu")
SIZES = [26, 9]
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def synthesiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    train_synthesiser(tiny_data(), tiny_config(), folder, device=CPU, progress=False)
    return folder


@pytest.fixture(scope="module")
def alone(synthesiser: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool filled by one process."""
    folder = tmp_path_factory.mktemp("pools") / "alone"
    return fill(synthesiser, folder, tiny_config())


def fill(synthesiser: Path, folder: Path, config: RunConfig, sample_all: SampleAll | None = None) -> Path:
    fill_pool(synthesiser, folder, SIZES, config, device=CPU, progress=False, sample_all=sample_all)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of every file of the pool."""
    return {
        file.relative_to(folder).as_posix(): sha256_of(file)
        for file in folder.rglob("*")
        if file.is_file() and file.name != "verified.json"
    }


def on_ray(workers: int = 3, **cluster: float) -> RunConfig:
    settings = ClusterConfig(sampling_workers=workers, **cluster)
    return tiny_config().model_copy(update={"cluster": settings, "device": "cpu"})


def test_the_order_in_which_micro_batches_arrive_changes_nothing(
    synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    from synth.generate import open_sampler, sample_micro_batch

    config = tiny_config()
    sampler = open_sampler(synthesiser, config, CPU)

    def backwards(wanted: Sequence[MicroBatch]) -> Iterator[tuple[MicroBatch, Uint8]]:
        assert {batch.class_id for batch in wanted} == {0, 1}
        return ((batch, sample_micro_batch(sampler, batch, config, CPU)) for batch in reversed(wanted))

    assert contents(fill(synthesiser, tmp_path / "pool", config, backwards)) == contents(alone)


def test_the_callers_threads_change_nothing(synthesiser: Path, alone: Path, tmp_path: Path) -> None:
    with torch_threads(2):
        assert contents(fill(synthesiser, tmp_path / "pool", tiny_config())) == contents(alone)
        assert torch.get_num_threads() == 2


def test_a_second_process_makes_the_shards_that_an_interrupted_one_did_not(
    synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    from synth.generate import open_sampler, sample_micro_batch

    config = tiny_config()
    sampler = open_sampler(synthesiser, config, CPU)
    sampled = []

    def some(wanted: Sequence[MicroBatch], stop: int) -> Iterator[tuple[MicroBatch, Uint8]]:
        for batch in wanted[:stop]:
            sampled.append(batch)
            yield batch, sample_micro_batch(sampler, batch, config, CPU)
        if stop < len(wanted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(synthesiser, tmp_path, config, lambda wanted: some(wanted, 5))
    whole = sorted(tmp_path.rglob("*.npy"))
    assert len(whole) == 2 and not (tmp_path / "manifest.json").exists()
    before = len(sampled)
    fill(synthesiser, tmp_path, config, lambda wanted: some(wanted, len(wanted)))
    assert contents(tmp_path) == contents(alone)
    assert {batch.class_id for batch in sampled[before:]} == {0, 1}
    assert len(sampled) - before < 12


@pytest.mark.medium
def test_a_workers_error_is_raised_unchanged(ray_session: None, synthesiser: Path, tmp_path: Path) -> None:
    from cluster.synthesis.ray_data import SamplingWorkers

    config = on_ray(workers=2)
    elsewhere = SamplingWorkers(tmp_path / "none", config)
    with pytest.raises(UserError, match="none/pipeline holds no synthesiser: train one"):
        fill(synthesiser, tmp_path / "pool", config, elsewhere)


@pytest.mark.medium
def test_a_worker_that_does_not_answer_is_waited_for_until_the_timeout(
    ray_session: None, synthesiser: Path, tmp_path: Path
) -> None:
    from cluster.synthesis.ray_data import SamplingWorkers

    config = on_ray(workers=2, sampling_timeout_seconds=0.01)
    with pytest.raises(
        UserError, match=r"within cluster.sampling_timeout_seconds 0\.01: raise it, or look for"
    ):
        fill(synthesiser, tmp_path, config, SamplingWorkers(synthesiser, config))


@pytest.mark.medium
def test_three_workers_on_ray_write_the_bytes_of_one_process(
    ray_session: None, synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    from cluster.synthesis.ray_data import SamplingWorkers

    config = on_ray()
    fill(synthesiser, tmp_path / "pool", config, SamplingWorkers(synthesiser, config))
    assert contents(tmp_path / "pool") == contents(alone)


@pytest.mark.medium
def test_a_worker_that_is_killed_in_the_middle_changes_nothing(
    ray_session: None, synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    from cluster.synthesis.ray_data import SamplingWorkers

    config, killed = on_ray(workers=2), []

    def kills_one(wanted: Sequence[MicroBatch]) -> Iterator[tuple[MicroBatch, Uint8]]:
        for pair in SamplingWorkers(synthesiser, config)(wanted):
            if not killed:
                killed.append(sampling_processes()[0])
                os.kill(killed[0], signal.SIGKILL)
            yield pair

    fill(synthesiser, tmp_path / "pool", config, kills_one)
    assert killed and killed[0] not in sampling_processes()
    assert contents(tmp_path / "pool") == contents(alone)


def sampling_processes() -> list[int]:
    """Return the workers of Ray Data that descend from this process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return [pid for pid in parents if _descends(pid, parents) and "SamplingWorker" in _command(pid)]


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != os.getpid():
        pid = parents[pid]
    return pid == os.getpid()


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    return ""


@pytest.mark.parametrize(
    ("asked", "workers", "gpus", "expected"),
    [
        (None, 3, 0, {"CPU": 1.0, "GPU": 0.0}),
        (None, 3, 4, {"CPU": 1.0, "GPU": 1.0}),
        (None, 3, 2, {"CPU": 1.0, "GPU": 0.5}),
        (0.25, 4, 1, {"CPU": 1.0, "GPU": 0.25}),
        (None, 16, 0, {"CPU": 0.5, "GPU": 0.0}),
    ],
)
def test_samplers_share_the_available_resources(
    asked: float | None, workers: int, gpus: int, expected: dict[str, float]
) -> None:
    cluster = ClusterConfig(sampling_workers=workers, gpus_per_sampler=asked)
    assert sampler_resources(cluster, 1, {"CPU": 8, "GPU": gpus}) == pytest.approx(expected)


def test_too_many_gpus_for_samplers_are_refused_with_the_arithmetic() -> None:
    text = (
        r"cluster.gpus_per_sampler 0.5 x cluster.sampling_workers 3 = 1.5 GPUs, but Ray has 1 \(room for 2\): "
        r"set cluster.gpus_per_sampler 0.33, or lower cluster.sampling_workers"
    )
    with pytest.raises(UserError, match=text):
        sampler_resources(ClusterConfig(sampling_workers=3, gpus_per_sampler=0.5), 1, {"CPU": 8, "GPU": 1})


def rlcas(*words: object, cwd: Path, limit_kilobytes: str = "unlimited") -> subprocess.CompletedProcess[str]:
    """Run a command of rlcas with a limit on the size of its files."""
    command = ["bash", "-c", f'ulimit -f {limit_kilobytes}; exec "$@"', "-", sys.executable, "-m", "rlcas"]
    return subprocess.run([*command, *map(str, words)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a trained synthesiser."""
    home = tmp_path_factory.mktemp("home")
    small_run.write_npz(home / "shapes.npz")
    settings = small_run.flags(synth__generation__per_class=24, synth__generation__shard_images=8)
    done = rlcas("synth", "train", "--data", "npz:shapes.npz", *settings, "--out", "run", cwd=home)
    assert done.returncode == 0, done.stderr
    return home / "run"


@pytest.mark.medium
def test_a_full_disk_is_a_one_line_error_and_the_next_command_resumes(trained: Path) -> None:
    """Files of 4 KB are allowed: the plan fits, a shard of 8 images of 24 px (4.7 KB) does not."""
    full = rlcas("synth", "sample", trained, cwd=trained.parent, limit_kilobytes="4")
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "class-000/shard-000.npy cannot be written (File too large): free disk space" in full.stderr
    assert not list((trained / "pool").rglob("*.npy")) and not list((trained / "pool").rglob("*.tmp"))
    again = rlcas("synth", "sample", trained, "--cluster.sampling_workers", "2", cwd=trained.parent)
    assert again.returncode == 0, again.stderr
    pool = SyntheticPool(trained / "pool")
    assert pool.class_sizes_C.tolist() == [24, 24, 24]
    assert "Traceback" not in again.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not MEMORY.is_dir(), reason="only root may mount a small disk")
def test_complete_shards_stay_when_the_disk_is_full(synthesiser: Path, alone: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(
            UserError, match=r"cannot be written \(.*No space left on device\): free disk space"
        ):
            fill(synthesiser, disk / "pool", tiny_config())
        whole = contents(disk / "pool")
        assert 1 < len(whole) < len(contents(alone)) and whole.items() <= contents(alone).items()
        assert not list(disk.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=200k", disk], check=True)
        assert contents(fill(synthesiser, disk / "pool", tiny_config())) == contents(alone)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_recognised_by_error_number_or_message() -> None:
    assert atomic.no_room(OSError(28, "No space left on device"))
    assert atomic.no_room(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not atomic.no_room(OSError(13, "Permission denied"))
    assert not atomic.no_room(RuntimeError("another"))


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3).T, np.array(["é", "abc"]), np.float32(2.5)])
def test_an_array_is_written_as_numpy_writes_it(array: np.ndarray, tmp_path: Path) -> None:
    atomic.write_array(tmp_path / "a.npy", array)
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.asarray(array).dtype
