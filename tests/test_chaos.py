"""Long runs with a death at every turn, against runs without one."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import small_run
from test_faults import make_config
from test_run import rlcas, same_epochs
from trivial import TrivialTrainer

from rlcas.seeding import rng_for

pytestmark = pytest.mark.slow
EPOCHS = 8
EPISODE_SECONDS = 0.3


def bits(algorithm) -> tuple[object, ...]:
    """Return what must not change: reports (compositions and rewards), winner, baseline, weights."""
    record, incumbent = algorithm.record, algorithm.incumbent
    return record.reports, record.winner, record.baseline, incumbent.arrays["float32"].tobytes()


def kill_one(algorithm, rng: np.random.Generator) -> threading.Timer:
    """Kill the process of a random actor at a random moment of the coming epoch."""
    actor = algorithm._runner._actors[rng.integers(3)]
    pid = ray.get(actor.__ray_call__.options(max_task_retries=-1).remote(lambda self: os.getpid()))
    timer = threading.Timer(rng.uniform(0, EPISODE_SECONDS), os.kill, (pid, signal.SIGKILL))
    timer.start()
    return timer


def test_an_actor_killed_in_every_epoch_changes_no_bit(ray_session) -> None:
    factory = functools.partial(TrivialTrainer, sleep_seconds=EPISODE_SECONDS)
    algorithm = make_config(factory).build_algo()
    rng, disturbed, retries = np.random.default_rng(0), [], 0
    for _ in range(EPOCHS):
        timer = kill_one(algorithm, rng)
        algorithm.train()
        timer.join()
        disturbed.append(bits(algorithm))
        retries += algorithm.record.retries
    algorithm.stop()
    undisturbed = make_config(TrivialTrainer, episode_runner="in_process").build_algo()
    for epoch in range(EPOCHS):
        undisturbed.train()
        assert bits(undisturbed) == disturbed[epoch]
    undisturbed.stop()
    assert retries >= EPOCHS // 3, "the kills came while the episodes ran"


@pytest.fixture(scope="module")
def own_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, images of one's own, and an undisturbed run on them."""
    home = tmp_path_factory.mktemp("home")
    write_own_pool(home)
    done = rlcas(*train_words(), *small_run.IN_PROCESS, "--out", "undisturbed", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def write_own_pool(home: Path) -> None:
    """Write shapes.npz, and images of each class in a folder `own`."""
    from PIL import Image

    small_run.write_npz(home / "shapes.npz")
    with np.load(home / "shapes.npz") as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"].ravel()
    for label in range(3):
        folder = home / "own" / str(label)
        folder.mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:5]):
            Image.fromarray(255 - image).save(folder / f"{i}.png")


def train_words() -> list[str]:
    flags = small_run.flags(sampler__epochs=6, synth__scoring__extractor="pixels")
    return ["train", "--data", "npz:shapes.npz", "--pool", "folder:own", *flags]


def same_run(folder: Path, other: Path) -> bool:
    models = [(run / "model.safetensors").read_bytes() for run in (folder, other)]
    return same_epochs(folder, other) and models[0] == models[1]


def test_a_driver_killed_at_a_random_moment_changes_no_bit(own_pool: Path) -> None:
    """SIGKILL while epochs run, at any moment from the first on; then `rlcas resume`."""
    run = own_pool / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "rlcas", *train_words(), "--out", "killed"],
        cwd=own_pool,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and epochs_logged(run) == 0:
        time.sleep(0.01)
    time.sleep(rng_for(0, "kills").uniform(0, 0.2))
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = rlcas("resume", "killed", cwd=own_pool)
    assert done.returncode == 0, done.stderr
    assert same_run(run, own_pool / "undisturbed")


def epochs_logged(run: Path) -> int:
    path = run / "epochs.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_disk_that_is_full_at_a_checkpoint_is_reported_in_one_line_and_resumed(own_pool: Path) -> None:
    run = own_pool / "full"
    run.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", run], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"this user may not mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlcas", *train_words(), *small_run.IN_PROCESS, "--out", "full"],
            cwd=own_pool,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not list(run.glob("checkpoints/epoch-*")):
            time.sleep(0.01)
        filler = run / "filler"
        fill(filler)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 2, error
        assert error.startswith("rlcas: ") and error.count("\n") == 1
        assert (
            "No space left on device" in error and "free disk space, then continue with `rlcas resume`" in error
        )
        assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
        filler.unlink()
        done = rlcas("resume", "full", cwd=own_pool)
        assert done.returncode == 0, done.stderr
        assert same_run(run, own_pool / "undisturbed")
    finally:
        subprocess.run(["umount", "-l", run], check=True)


def fill(path: Path) -> None:
    """Write until the disk has no room left."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return
