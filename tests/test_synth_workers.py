"""Training the synthesiser on one process and on several, and after kill -9, by the real commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_run
from test_chaos import same_run

from cluster.synthesis.local import SynthesisLog
from rlcas.errors import UserError
from rlcas.runs.epoch_log import read_lines
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import sha256_of
from synth.training.workers import ALONE, Workers

RLCAS_COMMAND = [sys.executable, "-m", "rlcas"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "rlcas"]


def call(command: list[str], *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, on one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, words)], cwd=cwd, capture_output=True, text=True, env=environment
    )


def curve(folder: Path) -> list[dict[str, object]]:
    return read_lines(RunFolder(folder).synthesis_log)


def weights(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for part in ("synth", "pool")
        for path in (folder / part).rglob("*")
        if path.suffix in (".safetensors", ".npy")
    }


@pytest.mark.medium
@pytest.mark.parametrize(
    ("command", "more"),
    [(TORCHRUN, {}), (RLCAS_COMMAND, {"cluster__synth_workers": 2})],
    ids=["torchrun", "ray"],
)
def test_two_workers_have_the_loss_curve_of_one(command: list[str], more: dict, tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")
    words = ["synth", "train", "--data", "npz:shapes.npz"]
    steps = {
        "synth__autoencoder__max_steps": 10,
        "synth__denoiser__max_steps": 20,
        "synth__denoiser__channels": "32,32,32,32",  # fewer in a group make rounding errors grow fast
        "synth__denoiser__lr": 1e-4,
    }
    for name, started, flags in (("one", RLCAS_COMMAND, {}), ("two", command, more)):
        done = call(started, *words, *small_run.flags(**steps, **flags), "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 30
    for own, shared in zip(one, two, strict=True):
        assert own.pop("part") == shared.pop("part")
        assert own == pytest.approx(shared, rel=2e-3)
    assert not (tmp_path / "two/ray").exists()


@pytest.mark.medium
def test_a_users_fault_on_a_worker_is_one_line(tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")
    flags = small_run.flags(cluster__synth_workers=2, synth__denoiser__lr=1e30)
    done = call(RLCAS_COMMAND, "synth", "train", "--data", "npz:shapes.npz", *flags, "--out", "r", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("rlcas: denoiser, step 2: loss is nan: lower synth.denoiser.lr 1e+30")


@pytest.mark.slow
def test_a_run_killed_in_every_part_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Invariant 4: kill -9 in both parts of the synthesiser and after an epoch, and the bits are the same."""
    small_run.write_npz(tmp_path / "shapes.npz")
    words = ["run", "--data", "npz:shapes.npz", *KILLED]
    done = call(RLCAS_COMMAND, *words, "--out", "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, whole = RunFolder(tmp_path / "r"), RunFolder(tmp_path / "whole")
    kill_when(lambda: trained(run, "autoencoder", 20), [*words, "--out", "r"], tmp_path)
    kill_when(lambda: trained(run, "denoiser", 44), ["resume", "r"], tmp_path)
    assert not (run.path / "synth/synthesiser.json").exists(), "it was killed too late"
    kill_when(lambda: list(run.path.glob("checkpoints/epoch-*")), ["resume", "r"], tmp_path)
    assert not (run.path / "metrics.json").exists(), "it was killed too late"
    done = call(RLCAS_COMMAND, "resume", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert weights(run.path) == weights(whole.path)
    assert curve(run.path) == curve(whole.path)
    assert same_run(run.path, whole.path)


KILLED = small_run.flags(
    synth__autoencoder__max_steps=60,
    synth__denoiser__max_steps=100,
    synth__checkpoint_steps=7,
    sampler__epochs=4,
    cluster__episode_runner="in_process",
)


def trained(run: RunFolder, part: str, step: int) -> bool:
    """Return whether a part of the synthesiser has come to that step."""
    return any(line["part"] == part and line["step"] >= step for line in read_lines(run.synthesis_log))


def kill_when(condition: Callable[[], object], words: list[str], home: Path) -> None:
    """Start a command, and kill it and all that it started once the condition holds."""
    process = subprocess.Popen(
        [*RLCAS_COMMAND, *words],
        cwd=home,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not condition():
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_batch_that_workers_cannot_share_is_found_before_anything_is_made(tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")
    flags = small_run.flags(cluster__synth_workers=3)
    done = call(RLCAS_COMMAND, "run", "--data", "npz:shapes.npz", *flags, "--out", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert "synth.autoencoder.batch_size 32 cannot be shared by 3 workers: make it a multiple" in done.stderr
    assert not (tmp_path / "r").exists()


def test_the_log_of_an_interrupted_training_continues_at_its_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for start in (1, 3):
        log = SynthesisLog(folder, ("a", "b"))
        with log:
            for step in range(start, 5):
                log.write("denoiser", step, 9, {"loss": 0.5 * start})
        with folder.synthesis_log.open("a") as lines:
            lines.write('{"part": "den')
    assert [(line["step"], line["loss"]) for line in curve(tmp_path)] == [
        (1, 0.5),
        (2, 0.5),
        (3, 1.5),
        (4, 1.5),
    ]
    with SynthesisLog(folder, ("a", "b")) as log:
        log.write("classifier", 1, 9, {"loss": 2.0})
    assert [line["part"] for line in curve(tmp_path)] == ["denoiser"] * 4 + ["classifier"]


def test_what_the_first_worker_finds_is_returned_in_a_single_process_too() -> None:
    def fault() -> None:
        raise UserError("out is taken")

    assert ALONE.run_on_first(lambda: 3) == 3
    with pytest.raises(UserError, match="out is taken"):
        ALONE.run_on_first(fault)
    with pytest.raises(UserError, match="cannot be shared by 3 workers"):
        Workers(size=3).check_divides(32, "synth.denoiser.batch_size")
