"""Whole runs, by the real commands, on a data set that takes seconds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
import yaml

from rlcas.runs import epoch_log

pytestmark = [pytest.mark.medium]
TEST_FIGURES = {"acc", "f1", "recall", "precision", "auc", "many", "medium", "few", "per_class_recall", "ece"}


def rlcas(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of rlcas to its end."""
    command = [sys.executable, "-m", "rlcas", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder whose name has spaces."""
    home = tmp_path_factory.mktemp("a folder with spaces")
    small_run.write_npz(home / "shapes.npz")
    done = rlcas("run", "--data", "npz:shapes.npz", *small_run.flags(), "--out", "runs/a run", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    return home / "runs/a run"


def test_a_run_leaves_all_that_it_promises(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["test"]) >= TEST_FIGURES
    synthesis = metrics["synthesis"]
    assert set(synthesis) >= {
        "fid",
        "kid",
        "sketch_skill",
        "copy_rate",
        "prdc",
        "auth_pct",
        "distance_ratio",
        "held_out_copy_rate",
    }
    assert synthesis["copy_rate"] == 0.0 and len(synthesis["per_class"]) == 3
    assert (finished / "pool/copies.json").exists()
    assert metrics["test"]["n"] == 18
    for name in ("config.yaml", "epochs.jsonl", "model.safetensors", "report.html", "gallery.npz"):
        assert (finished / name).stat().st_size > 0, name
    assert list((finished / "figures").glob("*.png"))
    assert list((finished / "tensorboard").rglob("events.out.tfevents.*"))


def test_every_epoch_records_k_compositions_and_updates_every_agent(finished: Path) -> None:
    first, second = epoch_log.read_epochs(finished)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    for line in (first, second):
        assert np.shape(line["compositions"]) == (2, 3)
        assert len(line["rewards"]) == len(line["metrics"]) == 2
        assert np.shape(line["probabilities"]) == (3, 3)
    moved_C3 = np.abs(np.subtract(second["probabilities"], first["probabilities"]))
    assert (moved_C3.max(axis=1) > 0).all()


def test_the_resolved_settings_hold_absolute_paths_and_every_flag(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["data"] == f"npz:{finished.parents[1] / 'shapes.npz'}"
    assert config["sampler"]["k"] == 2
    assert config["classifier"]["width"] == 8


def test_class_names_are_escaped_in_the_report(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "&lt;b&gt;cross&lt;/b&gt;" in page
    assert "<b>cross</b>" not in page


def test_a_log_has_a_plain_line_an_epoch(finished: Path) -> None:
    lines = (finished.parents[1] / "stdout.txt").read_text().splitlines()
    assert sum("epoch 1/2" in line or "epoch 2/2" in line for line in lines) == 2
    assert not any("\x1b" in line for line in lines)


def test_a_second_run_into_the_same_folder_is_refused(finished: Path) -> None:
    done = rlcas(
        "run", "--data", "npz:shapes.npz", *small_run.flags(), "--out", "runs/a run", cwd=finished.parents[1]
    )
    assert done.returncode == 2
    assert (
        "exists and is not an empty folder: name another with --out, or resume it by `rlcas resume"
        in done.stderr
    )


def test_resume_shows_a_finished_run_and_changes_nothing(finished: Path) -> None:
    before = (finished / "metrics.json").read_bytes()
    done = rlcas("resume", finished, cwd=finished.parent)
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout
    assert (finished / "metrics.json").read_bytes() == before
    # As text and by the function, too.
    assert importlib.import_module("rlcas").resume(str(finished)) == finished
    assert (finished / "metrics.json").read_bytes() == before


def test_evaluate_needs_test_arrays_alone(finished: Path) -> None:
    home = finished.parents[1]
    with np.load(home / "shapes.npz") as arrays:
        np.savez(home / "test_only.npz", test_images=arrays["test_images"], test_labels=arrays["test_labels"])
    done = rlcas("evaluate", finished, "--data", "npz:test_only.npz", cwd=home)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((finished / "metrics.json").read_text())["test"]
    assert f"{recorded['f1']:.3f}" in done.stdout


def test_report_can_be_written_again(finished: Path) -> None:
    page = finished / "report.html"
    page.unlink()
    done = rlcas("report", finished, cwd=finished.parent)
    assert done.returncode == 0, done.stderr
    assert page.stat().st_size > 0


def test_training_never_sees_the_test_images(finished: Path, tmp_path: Path) -> None:
    """Invariant 6: with other test images, all but the test figures has the same bits."""
    home = finished.parents[1]
    with np.load(home / "shapes.npz") as arrays:
        poisoned = {**arrays, "test_images": 255 - arrays["test_images"]}
    np.savez(tmp_path / "poisoned.npz", **poisoned)
    done = rlcas(
        "train",
        "--data",
        "npz:poisoned.npz",
        "--pool",
        finished,
        *small_run.flags(),
        "--out",
        "r",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert same_epochs(tmp_path / "r", finished)
    assert (tmp_path / "r/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_own_synthetic_images_skip_the_synthesiser(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    with np.load(finished.parents[1] / "shapes.npz") as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"].ravel()
    for label in range(3):
        folder = tmp_path / "own" / str(label)
        folder.mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:5]):
            Image.fromarray(image).save(folder / f"{i}.png")
    data = f"npz:{finished.parents[1] / 'shapes.npz'}"
    done = rlcas("run", "--data", data, "--pool", "folder:own", *small_run.flags(), "--out", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "note: all 5 synthetic images of class 'disc' are copies of training images; they are kept"
        in done.stdout
    )
    assert not (tmp_path / "r/synth").exists()
    assert len(epoch_log.read_epochs(tmp_path / "r")) == 2


def test_the_synthesiser_alone_then_its_pool_then_its_score(finished: Path, tmp_path: Path) -> None:
    """The three commands of phase one; the pool is that of the whole run, byte for byte."""
    data = f"npz:{finished.parents[1] / 'shapes.npz'}"
    done = rlcas("synth", "train", "--data", data, *small_run.flags(), "--out", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unsampled = rlcas("synth", "score", "s", cwd=tmp_path)
    assert unsampled.returncode == 2
    assert "has no pool: make it with `rlcas synth sample" in unsampled.stderr
    assert rlcas("synth", "sample", "s", cwd=tmp_path).returncode == 0
    for shard in sorted((finished / "pool").rglob("*.npy")):
        assert (tmp_path / "s/pool" / shard.relative_to(finished / "pool")).read_bytes() == shard.read_bytes()
    scored = rlcas("synth", "score", "s", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "penultimate features of the Baseline's resnet18 of width 8 (D = 64)" in scored.stdout
    assert "<b>cross</b>" in scored.stdout and "held-out real images by the same rules" in scored.stdout
    figures = json.loads((tmp_path / "s/scores.json").read_text())
    assert figures["n_synthetic"] + figures["num_copies"] == 18
    assert figures["per_class"] == json.loads((finished / "metrics.json").read_text())["synthesis"]["per_class"]
    for name in ("scores.csv", "contact_sheet.png"):
        assert (tmp_path / "s" / name).stat().st_size > 0
    again = rlcas("synth", "score", "s", "--synth.scoring.extractor", "pixels", cwd=tmp_path)
    assert again.returncode == 0 and "in pixels of images shrunk to 32 px at most (D = 576)" in again.stdout
    wrong = rlcas("synth", "score", "s", "--synth.scoring.extractor", "pixel", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(
        "rlcas: synth.scoring.extractor 'pixel' is unknown: use classifier, pixels, "
    )


def test_the_demo_is_shown_the_second_time_and_refuses_other_settings(tmp_path: Path) -> None:
    small = [*small_run.flags(), "--dataset.phantom.num_images", 400]
    assert rlcas("demo", *small, cwd=tmp_path).returncode == 0
    again = rlcas("demo", *small, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "runs/demo is finished" in again.stdout
    other = rlcas("demo", *small, "--seed", 1, cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a run of other settings: name another folder with --out, or delete it" in other.stderr


def test_a_lost_report_is_written_again_on_resume(finished: Path) -> None:
    page = finished / "report.html"
    page.unlink()
    assert rlcas("resume", finished, cwd=finished.parent).returncode == 0
    assert page.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pool", "nowhere"], "nowhere"),
        (["--pool", "folder:nowhere"], "nowhere"),
        (["--device", "cuda"], "rlcas: device 'cuda' is not available: torch finds no GPU"),
        (
            ["--shots.many", "7", "--shots.few", "0"],
            "rlcas: shots.many holds class 7, but the data set has classes",
        ),
        (["--data", "npz:untested.npz"], "--dataset.test_from_train"),
        (
            ["--synth.scoring.extractor", "resnet18", "--synth.scoring.extractor_weights", "shapes.npz"],
            "shapes.npz are not the weights of timm's resnet18 (",
        ),
        (["--out", "shapes.npz/x"], "cannot be made: Not a directory: name another folder with --out"),
    ],
)
def test_a_fault_that_is_found_early_leaves_no_folder(words: list[str], message: str, tmp_path: Path) -> None:
    data = small_run.write_npz(tmp_path / "shapes.npz")
    with np.load(data) as arrays:
        np.savez(tmp_path / "untested.npz", **{key: arrays[key] for key in arrays if "test" not in key})
    done = rlcas("run", "--data", "npz:shapes.npz", *small_run.flags(), "--out", "r", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("rlcas: ") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes.npz", "untested.npz"]


def same_epochs(folder: Path, other: Path) -> bool:
    """Return whether two runs' epochs are the same in everything but time."""

    def timeless(path: Path) -> list[dict[str, object]]:
        lines = epoch_log.read_epochs(path)
        return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]

    return timeless(folder) == timeless(other)
