"""Whole runs and comparisons with a decision offset, by the real commands, on a data set that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
import torch
from tiny import CPU

from rlcas.comparison.folder import read_comparison
from rlcas.metrics import BEFORE_OFFSET, METRICS
from rlcas.training.saved_classifier import MODEL_FILE, load_classifier

pytestmark = [pytest.mark.medium]
CALIBRATED = ("--classifier.offset", "calibrated")


def rlcas(*words: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "rlcas", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("offset")
    small_run.write_npz(home / "shapes.npz")
    words = ["run", "--data", "npz:shapes.npz", *small_run.flags(), *small_run.IN_PROCESS]
    rlcas(*words, *CALIBRATED, "--out", "run", cwd=home)
    return home


def test_a_run_records_its_offset_and_its_report_names_it(home: Path) -> None:
    metrics = json.loads((home / "run/metrics.json").read_text())
    meta = load_classifier(home / "run", CPU).meta
    assert meta.offset is not None and metrics["offset"] == list(meta.offset)
    assert any(meta.offset), "an offset of zeros would show nothing"
    page = (home / "run/report.html").read_text()
    assert f"fitted on validation: disc {meta.offset[0]:+.2f}, bar {meta.offset[1]:+.2f}" in page
    shown = f"test of 18 images: acc {metrics['test']['acc']:.3f}  f1 {metrics['test']['f1']:.3f}"
    assert shown in rlcas("evaluate", "run", cwd=home)


def test_a_resumed_run_fits_the_same_offset(home: Path) -> None:
    before = (home / "run" / MODEL_FILE).read_bytes()
    for name in (MODEL_FILE, "metrics.json"):
        (home / "run" / name).unlink()
    rlcas("resume", "run", cwd=home)
    assert (home / "run" / MODEL_FILE).read_bytes() == before
    assert json.loads((home / "run/metrics.json").read_text())["offset"]


def test_every_row_of_a_comparison_gets_an_offset_and_keeps_the_figures_before_it(home: Path) -> None:
    words = ["compare", "--data", "npz:shapes.npz", *small_run.flags(), "--pool", "run/pool"]
    words += ["--methods", "baseline,logit_adjust,ncl,glmc,baseline_best_of_k,rlcas,oversampling"]
    words += ["--compare.seeds", 1, "--compare.epochs", 1, "--compare.equal_compute", "False"]
    for name, more in (("calibrated", CALIBRATED), ("plain", ())):
        rlcas(*words, *more, "--out", name, cwd=home)
    calibrated, plain = (read_comparison(home / name) for name in ("calibrated", "plain"))
    pairs = list(zip(calibrated.cells, plain.cells, strict=True))
    assert len(pairs) == 7
    for cell, without in pairs:
        key = cell.method, 0, False
        assert len(cell.offset) == 3 and without.offset == () and any(cell.offset), cell.method
        assert cell.validation == without.validation and cell.curve == without.curve
        np.testing.assert_array_equal(calibrated.uncorrected[key], plain.probabilities[key])
        moved_NC = np.log(calibrated.uncorrected[key]) - cell.offset
        moved_NC = np.exp(moved_NC) / np.exp(moved_NC).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(calibrated.probabilities[key], moved_NC)
        for name in BEFORE_OFFSET:
            assert cell.test[name] == without.test[name]
    assert any(cell.test[name] != without.test[name] for cell, without in pairs for name in METRICS)
    written = json.loads((home / "calibrated/compare.json").read_text())["cells"]
    assert [cell["offset"] for cell in written] == [list(cell.offset) for cell, _ in pairs]
    assert not any("offset" in cell for cell in json.loads((home / "plain/compare.json").read_text())["cells"])


def test_the_trials_of_a_sweep_are_saved_with_their_own_offset(home: Path) -> None:
    words = ["sweep", "--data", "npz:shapes.npz", *small_run.flags(), "--pool", "run/pool"]
    rlcas(*words, "--over", "classifier.offset=none,calibrated", "--out", "swept", cwd=home)
    trials = [load_classifier(path.parent, CPU) for path in sorted(home.glob(f"swept/trials/*/{MODEL_FILE}"))]
    plain, calibrated = sorted(trials, key=lambda trial: trial.meta.classifier.offset == "calibrated")
    assert plain.meta.offset is None and calibrated.meta.offset is not None and any(calibrated.meta.offset)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, calibrated.model.state_dict()[name]), name
