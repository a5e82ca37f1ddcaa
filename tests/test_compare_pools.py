"""The pools of a comparison: what they share is what each would have trained again."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_run

from cluster.comparison.cell_plan import cells_of
from cluster.comparison.compare import create
from cluster.comparison.engines import (
    FORMER_PROGRESS_FILE,
    PROGRESS_FILE,
    passes_done,
    remove_progress,
    trained_from,
)
from cluster.comparison.plan import plan
from cluster.comparison.pools import make_pools, parts_taken_over
from cluster.comparison.schedule import Clock
from rlcas import data as datasets
from rlcas import settings
from rlcas.comparison.folder import read_comparison
from rlcas.console import Progress
from rlcas.runs.folder import RunFolder

POOL_ROWS = {"class": "syn_class", "mgdm": "mgdm", "image": "syn_image"}
SMALL = {**small_run.SETTINGS, "synth.mgdm.max_steps": 4, "synth.mgdm.ddim_steps": 2}


def made(home: Path, methods: str) -> Path:
    """Return a comparison's folder with the pools that the rows need."""
    given = {"data": f"npz:{home / 'shapes.npz'}", "out": str(home / methods), "compare.methods": methods}
    planned = plan(settings.stated(given={**SMALL, **given}))
    out = planned.config.out
    create(planned, datasets.load(planned.config), out)
    assert make_pools(out, planned.pools) == {}
    return out


def images_of(comparison: Path, pool: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((comparison / "pools" / pool / "pool").rglob("shard-*.npy"))]


@pytest.mark.medium
def test_what_pools_take_over_from_each_other_changes_no_image(tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")
    alone = {name: made(tmp_path, row) for name, row in POOL_ROWS.items()}
    together = made(tmp_path, "syn_sketch,syn_image,syn_class,mgdm")
    for name, comparison in alone.items():
        assert len(images_of(comparison, name)) == 3
        assert images_of(together, name) == images_of(comparison, name)
    assert images_of(together, "class") != images_of(together, "sketch")
    logs = {
        name: (together / "pools" / name / "synthesis_log.jsonl").read_text()
        for name in ("sketch", "class", "mgdm")
    }
    assert ['"autoencoder"' in log for log in logs.values()] == [True, False, False]
    assert ['"denoiser"' in log for log in logs.values()] == [True, True, False]
    assert not (together / "pools/image/synthesis_log.jsonl").exists(), "it trains nothing"
    assert read_comparison(together).pool_seconds["image"] > 0, "its images are made here"
    assert parts_taken_over("class", ["sketch"]) == {"autoencoder"}
    assert parts_taken_over("mgdm", ["sketch", "class"]) == {"autoencoder", "denoiser"}
    assert parts_taken_over("image", ["sketch"]) == {"autoencoder", "denoiser"}
    assert parts_taken_over("mgdm", []) == set()
    assert RunFolder(together / "pools/class").judge.resolve() == together / "judge"
    before = {path: path.stat().st_mtime_ns for path in (together / "pools").rglob("*")}
    assert make_pools(together, ["sketch", "image", "class", "mgdm"]) == {}
    assert {path: path.stat().st_mtime_ns for path in (together / "pools").rglob("*")} == before


def test_the_time_left_follows_from_the_passes_done_and_the_bar_never_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("cluster.comparison.schedule.time.monotonic", lambda: now[0])
    shown: list[int] = []
    clock = Clock(Progress(lambda done, note: shown.append(done)), total=400)
    now[0] += 10
    clock.count_running(100)
    assert clock.left == "30 s"
    clock.count_running(50)
    clock.count_ended(200)
    now[0] += 10
    clock.count_running(0)
    assert clock.left == "20 s" and shown == [100, 200]


@pytest.mark.parametrize("log", [PROGRESS_FILE, FORMER_PROGRESS_FILE])
def test_the_epochs_of_a_cell_in_training_count_by_its_log(tmp_path: Path, log: str) -> None:
    compare = {"methods": ["baseline", "baseline_best_of_k"], "seeds": 1, "epochs": 4}
    planned = plan({"data": "phantom", "out": str(tmp_path), "compare": compare, "sampler": {"k": 2}})
    from tiny import tiny_data

    plain, best_of_k, _ = cells_of(planned, tiny_data())
    for cell in (plain, best_of_k):
        assert passes_done(tmp_path, cell) == 0
        (tmp_path / cell.name).mkdir(parents=True)
        (tmp_path / cell.name / log).write_text("{}\n" * 2)
    assert passes_done(tmp_path, plain) == plain.passes // 2
    assert passes_done(tmp_path, best_of_k) == best_of_k.passes // 4
    remove_progress(tmp_path / plain.name)
    assert passes_done(tmp_path, plain) == 0


def test_the_curve_of_episodes_is_the_winners_and_the_passes_are_everybodys() -> None:
    def line(epoch: int, winner: int, images: list[int]) -> dict[str, object]:
        metrics = [{"f1": 0.1 * epoch + 0.01 * j} for j in range(2)]
        losses = {"train_losses": [1.0, 2.0], "val_losses": [3.0, 4.0]}
        facts = {"epoch": epoch, "winner": winner, "images": images, "metrics": metrics, "best_epoch": 1}
        return {**facts, **losses, "seconds": 2.0}

    trained = trained_from([line(1, 1, [10, 20]), line(2, 0, [30, 40])])
    assert [point["images"] for point in trained.curve] == [20, 50]
    assert [(point["f1"], point["val_loss"]) for point in trained.curve] == [(0.11, 4.0), (0.2, 3.0)]
    assert (trained.passes, trained.best_epoch, trained.seconds) == (100, 1, 4.0)
