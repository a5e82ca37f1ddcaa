"""Whole comparisons, by the real command, on a data set that takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from signalled import signalled
from tiny_clip import write_tiny_clip

from rlcas import settings
from rlcas.cli import main
from rlcas.comparison.cell import Cell, read_predictions
from rlcas.comparison.folder import Comparison, read_comparison
from rlcas.runs.epoch_log import read_epochs

OF_ALL = ("--compare.seeds", 2, "--compare.epochs", 3, "--pool", "folder:own")
ROWS = ("--methods", "baseline,syn_sketch,rlcas,lift")
FAULTY = '''
"""Rows that go wrong."""

import os
import signal
from pathlib import Path

from rlcas.methods.method import Method
from rlcas.methods.objective import LossOnLogits


class Failing(LossOnLogits):
    def loss(self, batch, counts_C):
        raise RuntimeError("made to fail\\nat once")


class DyingOnce(LossOnLogits):
    def start_epoch(self, epoch, num_epochs):
        if epoch == 1 and not (died := Path(__file__).with_name("died")).exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


FAILING = Method(title="Failing", source="", objective=Failing)
DYING_ONCE = Method(title="Dying once", source="", objective=DyingOnce)
'''


def rlcas(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, env=environment)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "rlcas", *map(str, words)]


def compare(*words: object, out: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return rlcas(
        "compare", "--data", "npz:shapes.npz", *small_run.flags(), *OF_ALL, *words, "--out", out, cwd=cwd
    )


def cells_of(path: Path) -> dict[tuple[str, int, bool], Cell]:
    return {(cell.method, cell.seed, cell.equal_compute): cell for cell in read_comparison(path).cells}


def bytes_below(path: Path) -> Mapping[str, tuple[int, bytes]]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a pool of our own and rows that go wrong."""
    from PIL import Image

    home = tmp_path_factory.mktemp("comparisons")
    with np.load(small_run.write_npz(home / "shapes.npz")) as arrays:
        images, labels = arrays["val_images"], arrays["val_labels"].ravel()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (home / "own" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image).save(home / "own" / str(label) / f"{i}.png")
    (home / "faulty.py").write_text(FAULTY)
    return home


@pytest.fixture(scope="module")
def finished(home: Path) -> Path:
    """A finished comparison of four rows under two seeds."""
    done = compare(*ROWS, out="out", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    return home / "out"


@pytest.mark.medium
def test_a_comparison_fills_its_cells_with_results_and_costs(finished: Path) -> None:
    cells = cells_of(finished)
    assert [key for key, cell in cells.items() if cell.status == "finished"] == [
        *[("baseline", seed, False) for seed in (0, 1)],
        *[("syn_sketch", seed, False) for seed in (0, 1)],
        *[("rlcas", seed, equal) for equal in (False, True) for seed in (0, 1)],
    ]
    baseline, mixed, ours = (cells[row, 1, False] for row in ("baseline", "syn_sketch", "rlcas"))
    assert (baseline.epochs, baseline.steps, baseline.images, baseline.passes) == (3, 12, 192, 192)
    assert (mixed.epochs, mixed.images) == (2, 2 * (64 + 4 * 4)), "a quarter as many again, 4 a batch"
    assert ours.epochs == 2 and ours.passes > 1.5 * ours.images, "K = 2 episodes"
    assert cells["rlcas", 1, True].epochs == 1
    for cell in cells.values():
        if cell.status == "finished":
            assert [point["epoch"] for point in cell.curve] == list(range(1, cell.epochs + 1))
            assert cell.curve[-1]["images"] == cell.images
            best = cell.curve[cell.best_epoch - 1]
            assert cell.validation["f1"] == best["f1"] == max(point["f1"] for point in cell.curve)
            assert cell.test["n"] == 18 and cell.seconds > 0 and cell.device


@pytest.mark.medium
def test_its_tables_hold_settings_versions_and_the_pools_figures(finished: Path) -> None:
    facts = json.loads((finished / "compare.json").read_text())
    assert len(facts["cells"]) == 10
    assert facts["settings"]["compare"]["epochs"] == 3
    assert set(facts["versions"]) >= {"rlcas", "torch", "ray"} and facts["date"]
    assert facts["pools"]["sketch"]["fid"] >= 0 and "kid" in facts["pools"]["sketch"]
    assert {path.name for path in finished.iterdir()} >= {"compare.csv", "compare.md", "report.html", "figures"}
    names = {path.name for path in (finished / "cells/rlcas/0").iterdir()}
    assert names >= {"config.yaml", "epochs.jsonl", "model.safetensors", "cell.json", "test.npz"}
    assert "checkpoints" not in names
    assert not [path for path in finished.rglob("*") if path.name.endswith(".tmp")], "nothing half-written"


@pytest.mark.medium
def test_a_row_without_its_weights_is_left_out_and_says_how_to_give_them(finished: Path) -> None:
    cell = cells_of(finished)["lift", 0, False]
    assert cell.status == "left_out"
    assert cell.reason.startswith("weights not given: --method.lift.pretrained takes them")
    text = (finished.parent / "stdout.txt").read_text()
    assert f"note: row lift is left out: {cell.reason}" in text


@pytest.mark.medium
def test_the_console_reports_each_cell_with_the_time_left(finished: Path) -> None:
    text = (finished.parent / "stdout.txt").read_text()
    assert [f"{n} of 8: " in text for n in range(1, 9)] == [True] * 8
    assert "baseline seed 1  validation f1 0." in text and "  left " in text
    assert "rlcas seed 0 at equal compute" in text
    assert text.count("/own: done in ") == 1, "the pool is one for all rows and seeds"
    first = next(line for line in text.splitlines() if line.startswith("1 of 8: "))
    assert "rlcas" in first, "the longest cells start first"


@pytest.mark.medium
def test_the_baseline_is_what_the_plain_loop_trains_to_the_last_bit(finished: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    from rlcas.data import open_prepared
    from rlcas.devices import torch_threads
    from rlcas.training.baseline import train_baseline

    config, data = settings.load(finished / "cells/baseline/1"), open_prepared(finished / "prepared")
    assert config.seed == 1
    with torch_threads(1):
        train_baseline(tmp_path, data.train, data, config, 3, torch.device("cpu"))
    weights = [load_file(folder / "model.safetensors") for folder in (tmp_path, finished / "cells/baseline/1")]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].tobytes() == weights[1][name].tobytes() for name in weights[0])


@pytest.mark.medium
def test_a_cell_is_a_run_that_can_be_evaluated_to_the_same_figures(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = cells_of(finished)["rlcas", 0, False]
    assert main(["evaluate", str(finished / "cells/rlcas/0")]) == 0
    assert f"test of 18 images: acc {cell.test['acc']:.3f}  f1 {cell.test['f1']:.3f}" in capsys.readouterr().out
    p_NC, labels_N = read_predictions(finished / "cells/rlcas/0")
    np.testing.assert_allclose(p_NC.sum(axis=1), 1)
    assert (p_NC.argmax(axis=1) == labels_N).mean() == cell.test["acc"]


@pytest.mark.medium
def test_a_finished_comparison_is_only_shown(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bytes_below(finished / "cells")
    for words in (["compare", "--resume"], ["resume"], ["report"]):
        assert main([*words, str(finished)]) == 0
    text = capsys.readouterr().out
    assert text.count("is finished") == 2 and str(finished / "report.html") in text
    assert bytes_below(finished / "cells") == before


@pytest.mark.medium
def test_a_row_that_lacked_its_weights_is_trained_once_they_are_named_beside_resume(home: Path) -> None:
    out, clip = home / "completed", write_tiny_clip(home / "clip")
    done = compare(
        "--methods", "ce,lift", "--compare.seeds", 1, "--compare.epochs", 1, out="completed", cwd=home
    )
    assert done.returncode == 0, done.stderr
    assert cells_of(out)["lift", 0, False].status == "left_out"
    before = bytes_below(out / "cells/ce")
    done = rlcas("compare", "--resume", "completed", "--method.lift.pretrained", "clip", cwd=home)
    assert done.returncode == 0, done.stderr
    cell = cells_of(out)["lift", 0, False]
    assert (cell.status, cell.reason) == ("finished", "") and cell.test["n"] == 18
    assert bytes_below(out / "cells/ce") == before
    assert settings.read_yaml(out / "compare.yaml")["method"]["lift"]["pretrained"] == str(clip)
    again = rlcas("compare", "--resume", "completed", "--method.lift.pretrained", "other", cwd=home)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    assert f"method.lift.pretrained other: {out} has trained with {clip}: leave it out, or" in again.stderr


@pytest.mark.medium
def test_the_usefulness_of_a_pool_is_measured_once_and_shown_beside_its_distances(finished: Path) -> None:
    facts = json.loads((finished / "compare.json").read_text())
    useful = facts["pools"]["sketch"]["usefulness"]
    assert (useful["seeds"], useful["epochs"], useful["classifier"]) == (2, 1, "resnet18 of width 8")
    assert set(useful["auc"]) == {"difference", "low", "high", "pool", "repeats"}
    assert len(useful["per_class"]["average_precision"]) == 3
    rows = {row["method"]: row for row in facts["rows"]}
    assert rows["syn_sketch"]["pool_figures"]["usefulness"] == useful
    assert "AUC − repeats [95 %]" in (finished / "compare.md").read_text()
    # One arm for all pools, as it does not depend on them.
    shared = finished / "usefulness/repeats"
    assert (finished / "pools/sketch/usefulness/repeats").resolve() == shared
    assert sorted(path.name for path in shared.iterdir()) == ["0.npz", "1.npz"]
    assert sorted(path.name for path in (finished / "pools/sketch/usefulness/pool").iterdir()) == [
        "0.npz", "1.npz",
    ]  # fmt: skip


@pytest.mark.medium
def test_the_same_command_again_says_how_to_resume(finished: Path, home: Path) -> None:
    again = compare(*ROWS, out="out", cwd=home)
    assert again.returncode == 2
    assert f"or resume it by `rlcas compare --resume {finished}`" in again.stderr


@pytest.mark.medium
def test_a_dry_run_lists_rows_budgets_and_demand(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    words = ["--data", "npz:shapes.npz", *small_run.flags(), *map(str, OF_ALL), *ROWS, "--dry-run"]
    assert main(["compare", *words, "--compare.concurrent", "2", "--out", "none"]) == 0
    text = capsys.readouterr().out
    assert "row syn_sketch: 2 epochs + 2,1,1 a batch, 160 passes over images" in text
    assert "row rlcas at equal compute: 1 epochs + 2,2,2 a batch" in text
    assert "row lift: left out, weights not given" in text
    assert "demand: 8 cells and 0 trials of settings, 2 side by side, 1 cores and 0 GPUs each" in text
    assert "time, from a few steps on this machine: usefulness " in text and ", cells " in text
    assert not (home / "none").exists()


@pytest.mark.medium
def test_a_failing_row_ends_with_status_1_beside_the_others_and_is_tried_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(home)
    rows = ("--methods", "faulty:FAILING,faulty:DYING_ONCE,ce", "--compare.seeds", 1)
    done = compare(*rows, out="faults", cwd=home)
    assert done.returncode == 1, done.stderr
    cells = cells_of(home / "faults")
    failed = cells["faulty:FAILING", 0, False]
    assert (failed.status, failed.reason) == ("failed", "made to fail")
    assert "faulty:FAILING seed 0  failed: made to fail" in done.stdout
    traceback = home / "faults/cells/faulty-FAILING/0/error.txt"
    assert 'raise RuntimeError("made to fail' in traceback.read_text() and str(traceback) in done.stdout
    assert (home / "died").exists()
    assert cells["faulty:DYING_ONCE", 0, False].status == "finished", "a killed worker's cell is trained again"
    before = bytes_below(home / "faults/cells/ce")
    repaired = FAULTY.replace(
        'raise RuntimeError("made to fail\\nat once")', "return super().loss(batch, counts_C)"
    )
    (home / "faulty.py").write_text(repaired)
    again = rlcas("resume", "faults", cwd=home)
    assert again.returncode == 0, again.stderr
    assert cells_of(home / "faults")["faulty:FAILING", 0, False].status == "finished"
    assert not traceback.exists() and bytes_below(home / "faults/cells/ce") == before


@pytest.mark.medium
def test_tuning_tries_as_many_settings_of_each_row_and_takes_what_validation_says(home: Path) -> None:
    rows = ("--methods", "baseline,syn_sketch", "--compare.tune", 3)
    done = compare(*rows, out="tuned", cwd=home)
    assert done.returncode == 0, done.stderr
    for (method, _, _), cell in cells_of(home / "tuned").items():
        assert len(cell.tried) == 3
        assert cell.tried[0]["settings"]["classifier.lr"] == 1e-3, "the authors' first"
        best = max(cell.tried, key=lambda tried: tried["metric"])["settings"]
        assert cell.settings.items() >= best.items()
        folder = home / "tuned/cells" / method
        assert settings.load(folder / str(cell.seed)).classifier.lr == best["classifier.lr"]
        assert not list((folder / "tried").rglob("test.npz")), "trials read no test image"
    assert "compare.synthetic_ratio" in cells_of(home / "tuned")["syn_sketch", 0, False].tried[1]["settings"]
    before = bytes_below(home / "tuned/cells")
    (home / "tuned/cells/baseline/1/cell.json").unlink()
    assert rlcas("resume", "tuned", cwd=home).returncode == 0
    after = bytes_below(home / "tuned/cells")
    changed = {name for name in before if before[name] != after[name]}
    assert all(name.startswith("baseline/1/") for name in changed), "what is finished is not done again"


@pytest.fixture(scope="module")
def replaying(home: Path) -> Path:
    """A comparison of `rlcas_dose` and of its compositions replayed."""
    # So low that the dose to start from has images, although the judge hardly recognises any.
    dosing = ("--sampler.agents", "dose", "--sampler.benefit_probability", 0.1, "--compare.concurrent", 1)
    done = compare(*dosing, "--methods", "ce,rlcas_dose,rlcas_dose_replayed", out="replaying", cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "replaying"


def trained_with(cell: Path) -> list[Any]:
    """Return what the K episodes of each epoch of a cell trained with."""
    return [line["compositions"] for line in read_epochs(cell)]


@pytest.mark.medium
def test_a_row_replays_the_compositions_of_the_other_seed_with_its_settings(replaying: Path) -> None:
    cells = cells_of(replaying)
    recorded = [trained_with(replaying / f"cells/rlcas_dose/{seed}") for seed in (0, 1)]
    assert recorded[0] != recorded[1] and np.sum(recorded) > 0
    for seed, other in ((0, 1), (1, 0)):
        own, dose = replaying / f"cells/rlcas_dose_replayed/{seed}", replaying / f"cells/rlcas_dose/{other}"
        assert trained_with(own) == trained_with(dose)
        assert not (own / "dose.json").exists() and (dose / "dose.json").exists()
        assert (own / "model.safetensors").read_bytes() != (dose / "model.safetensors").read_bytes()
        of_own, of_dose = settings.load(own), settings.load(dose)
        assert (of_own.seed, of_own.sampler.replay) == (seed, dose)
        assert of_own.sampler.model_copy(update={"replay": None}) == of_dose.sampler
        assert cells["rlcas_dose_replayed", seed, False].test["n"] == 18


@pytest.mark.medium
def test_a_cell_that_replays_a_failed_one_fails_with_the_reason_and_is_mended_by_a_resume(
    replaying: Path,
) -> None:
    before = bytes_below(replaying / "cells")
    dose, own = (replaying / f"cells/{name}" for name in ("rlcas_dose/1", "rlcas_dose_replayed/0"))
    shutil.rmtree(own)
    (own.parent / "1/cell.json").unlink()
    # A file where the run's folder keeps its checkpoints lets this cell fail.
    shutil.rmtree(dose)
    dose.mkdir()
    (dose / "checkpoints").touch()
    done = rlcas("resume", "replaying", cwd=replaying.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    cells = cells_of(replaying)
    assert cells["rlcas_dose", 1, False].status == "failed"
    failed = cells["rlcas_dose_replayed", 0, False]
    assert failed.status == "failed" and "\n" not in failed.reason
    assert failed.reason.startswith("it replays cells/rlcas_dose/1, which failed: ")
    assert cells["rlcas_dose_replayed", 1, False].status == "finished"
    (dose / "checkpoints").unlink()
    assert rlcas("resume", "replaying", cwd=replaying.parent).returncode == 0
    assert trained_with(own) == trained_with(dose)
    after = bytes_below(replaying / "cells")
    kept = {name for name in before if name.startswith("rlcas_dose/0/")}
    assert kept and all(after[name] == before[name] for name in kept), "what is finished is not done again"
    models = {name for name in before if name.endswith("model.safetensors")}
    assert all(after[name][1] == before[name][1] for name in models)


@pytest.mark.medium
def test_a_pool_that_cannot_be_made_fails_its_rows_alone(home: Path) -> None:
    done = compare("--methods", "syn_class,ce", "--synth.autoencoder.lr", "1e12", out="no-pool", cwd=home)
    assert done.returncode == 1, done.stdout + done.stderr
    cells = cells_of(home / "no-pool")
    assert {cells["ce", seed, False].status for seed in (0, 1)} == {"finished"}
    failed = cells["syn_class", 0, False]
    assert failed.status == "failed" and failed.reason.startswith("pool class: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "nope"], "rlcas: compare.methods 'nope' is unknown: use one of baseline, "),
        (["--compare.pools", "sketch"], "rlcas: --compare.pools sketch: write NAME=DIR, as in --compare.pools"),
        (
            ["--compare.pools", "sketch=a,sketch=b"],
            "rlcas: --compare.pools sketch=b: sketch is set twice: leave one out",
        ),
        (["--compare.pools", "nope=a"], "rlcas: compare.pools nope=a: there is no pool 'nope': use one of"),
        (["--compare.seeds", "none"], "rlcas: compare.seeds is 'none': input should be a valid integer"),
        (["--resume", "nowhere"], "rlcas: nowhere is not a comparison's folder: it has no compare.yaml; name"),
        (
            ["--resume", "x", "--seed", "1"],
            "rlcas: --resume x continues with the comparison's own settings: leave out --seed",
        ),
        (
            ["--resume", "x", "--method.lift.pretrained", "clip", "--method.lift.scale", "2"],
            "rlcas: --resume x continues with the comparison's own settings: leave out --method.lift.scale",
        ),
        (
            ["--resume", "x", "--synth.skin_sdm.pretrained", "sd"],
            "rlcas: x is not a comparison's folder: it has",
        ),
        (["--data", "npz:gone.npz"], "gone.npz"),
        (["--methods", "ce", "--data", "nope"], "rlcas: data 'nope' is unknown"),
        (["--methods", "rlcas", "--pool", "gone"], "rlcas: pool sketch: "),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_status_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["compare", *words])
    except SystemExit as exit:
        status = exit.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_commands_refuse_its_settings_but_take_its_section_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--compare.seeds", "2"])
    assert "compare.seeds is a setting of `rlcas compare` alone: leave it out" in capsys.readouterr().err
    stated: dict[str, Any] = {"seed": 3, "compare": {"seeds": 2}, "sweep": {"trials": 4}}
    assert settings.of(stated) == settings.of({"seed": 3})
    assert settings.of_sweep(stated).sweep.trials == 4
    assert settings.of_comparison(stated).compare.seeds == 2


def test_a_comparisons_folder_is_not_taken_for_a_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compare.yaml").touch()
    assert main(["evaluate", str(tmp_path)]) == 2
    assert (
        "is a comparison's folder: continue it with `rlcas resume`, or name one of" in capsys.readouterr().err
    )


def cells_with_progress(out: Path) -> list[Path]:
    return list(out.glob("cells/*/*/test.npz"))


def timeless(comparison: Comparison) -> list[Any]:
    return [{**vars_of(cell), "seconds": 0} for cell in comparison.cells]


def vars_of(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in Cell.__dataclass_fields__}


@pytest.mark.slow
def test_an_interrupted_and_killed_comparison_resumes_to_the_same_cells(finished: Path, home: Path) -> None:
    out = home / "interrupted"
    flags = [*small_run.flags(), *OF_ALL, "--methods", "baseline,rlcas"]
    words = command("compare", "--data", "npz:shapes.npz", *flags, "--out", out)
    signalled(signal.SIGINT, lambda: len(cells_with_progress(out)) >= 2, words, home)
    before_kill = len(cells_with_progress(out))
    signalled(signal.SIGKILL, lambda: len(cells_with_progress(out)) > before_kill, command("resume", out), home)
    kept = {path.parent for path in out.glob("cells/*/*/cell.json") if (path.parent / "test.npz").exists()}
    before = {folder: bytes_below(folder) for folder in kept}
    assert 3 <= len(kept) < 6
    done = rlcas("resume", out, cwd=home)
    assert done.returncode == 0, done.stderr
    assert {folder: bytes_below(folder) for folder in kept} == before, "a finished cell is not done again"
    expected = [cell for cell in timeless(read_comparison(finished)) if cell["method"] in ("baseline", "rlcas")]
    assert timeless(read_comparison(out)) == expected
    for model in out.glob("cells/*/*/model.safetensors"):
        assert (finished / model.relative_to(out)).read_bytes() == model.read_bytes()


@pytest.mark.medium
def test_a_cluster_that_does_not_answer_is_reported_before_anything_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = compare(*ROWS, out="nowhere", cwd=home)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "RAY_ADDRESS '127.0.0.1:1' does not answer" in done.stderr
    assert not (home / "nowhere").exists()
