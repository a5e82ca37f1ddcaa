"""`rlcas resume RUN --sampler.epochs N`: more epochs for a run that is finished or was interrupted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import small_run
from fake_comparison import write_fake_comparison
from fake_run import write_run
from test_controls import ACTIONS, recorded_run
from test_run import rlcas, same_epochs

from cluster.comparison import resume as any_resume
from cluster.runs.more_epochs import epochs_of_results, is_finished, set_epochs
from rlcas import settings
from rlcas.errors import UserError
from rlcas.reports.facts import read_run
from rlcas.runs.folder import RunFolder

CONSTANT = {"classifier__lr_schedule": "constant", "synth__scoring__pool_only_epochs": 0}


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """A run of 3 epochs, with figures that do not say so, as those of earlier versions."""
    folder = RunFolder(write_run(tmp_path / "run", num_classes=2, epochs=3))
    settings.save(settings.override(settings.load(folder.path), {"sampler.epochs": 3}), folder.path)
    return folder


def test_a_finished_run_gets_more_epochs_and_keeps_its_figures_until_they_are_trained(
    finished: RunFolder,
) -> None:
    before = json.loads(finished.metrics.read_text())
    assert is_finished(finished, settings.load(finished.path)) and not read_run(finished.path).missing
    set_epochs(finished, {"sampler.epochs": "5"})
    config = settings.load(finished.path)
    assert config.sampler.epochs == 5 and not is_finished(finished, config)
    assert epochs_of_results(finished, config) == 3
    assert json.loads(finished.metrics.read_text()) == {**before, "epochs": 3}
    assert read_run(finished.path).missing == ["test figures of all 5 epochs"]
    # The command again, after an interruption; a number as Python has it.
    set_epochs(finished, {"sampler.epochs": 5})
    set_epochs(finished, {"sampler": {"epochs": 5}})
    assert settings.load(str(finished.path)) == config


def test_an_interrupted_run_gets_another_number_of_epochs(finished: RunFolder) -> None:
    finished.metrics.unlink()
    set_epochs(finished, {"sampler.epochs": 9})
    set_epochs(finished, {"sampler.epochs": 4})
    assert settings.load(finished.path).sampler.epochs == 4
    with pytest.raises(
        UserError, match=r"^sampler\.epochs 2: .*run has trained 3 epochs already: name a larger"
    ):
        set_epochs(finished, {"sampler.epochs": 2})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"sampler.epochs": 3},
            r"^sampler\.epochs 3: .*run has trained 3 epochs already: name a larger number$",
        ),
        ({"sampler.epochs": "0"}, r"^sampler\.epochs is '?0'?: "),
        ({"sampler.epochs": "many"}, r"^sampler\.epochs is 'many': "),
        (
            {"sampler.epochs": 9, "sampler.k": 2},
            r"^sampler\.k is not a setting that a run is resumed with, as samp",
        ),
        ({"sampler": {"epochs": 9, "k": 2}}, r"^sampler\.k is not a setting that a run is resumed with"),
        ({"sampler.metric": "acc"}, r"^sampler\.metric is not a setting .*: start a new run with it$"),
    ],
)
def test_what_cannot_change_is_one_line_and_changes_nothing(
    finished: RunFolder, given: dict[str, Any], message: str
) -> None:
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        set_epochs(finished, given)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == before


def test_a_replay_has_no_more_epochs_than_its_record(finished: RunFolder, tmp_path: Path) -> None:
    record = recorded_run(tmp_path / "record", [row[:2] for row in ACTIONS])
    replaying = {"replay": str(record), "epochs": 3, "k": 1}
    config = settings.of({"data": "breastmnist", "sampler": replaying})
    settings.save(config, finished.path)
    message = r"record has 3 recorded epochs, but sampler\.epochs is 4: set sampler\.epochs 3 at most"
    with pytest.raises(UserError, match=message):
        set_epochs(finished, {"sampler.epochs": 4})
    assert settings.load(finished.path) == config


@pytest.mark.parametrize(("file", "kind"), [("sweep.yaml", "sweep"), ("compare.yaml", "comparison")])
def test_a_part_of_a_sweep_or_comparison_keeps_its_epochs(file: str, kind: str, tmp_path: Path) -> None:
    part = RunFolder(write_run(tmp_path / "cells/rlcas/0", num_classes=2, epochs=3))
    (tmp_path / file).touch()
    with pytest.raises(
        UserError, match=rf"^sampler\.epochs: .* belongs to the {kind} .*: run its config\.yaml with"
    ):
        set_epochs(part, {"sampler.epochs": 99})


def test_a_comparison_keeps_its_settings_but_for_missing_weights(tmp_path: Path) -> None:
    folder = write_fake_comparison(tmp_path, num_classes=2, seeds=1, rows=("baseline",))
    message = (
        r"^sampler\.epochs is not a setting that a comparison is resumed with: it keeps its own, but for method"
    )
    with pytest.raises(UserError, match=message):
        any_resume.resume(folder, {"sampler.epochs": "9"})


@pytest.mark.medium
def test_more_epochs_end_as_a_run_that_had_them_from_the_start(tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")

    def trained(out: str, epochs: int) -> Path:
        words = [*small_run.flags(sampler__epochs=epochs, **CONSTANT), *small_run.IN_PROCESS]
        done = rlcas("run", "--data", "npz:shapes.npz", *words, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path / out

    further, whole = trained("further", 2), trained("whole", 4)
    model = (further / "model.safetensors").read_bytes()
    page = (further / "report.html").read_text()
    done = rlcas("resume", further, "--sampler.epochs", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Resuming after epoch 2" in done.stdout and "epoch 4/4" in done.stdout
    assert (further / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes() != model
    assert same_epochs(further, whole)
    of_further, of_whole = (json.loads((folder / "metrics.json").read_text()) for folder in (further, whole))
    assert (of_further["test"], of_further["epochs"]) == (of_whole["test"], 4)
    assert f"test of {of_whole['test']['n']} images: acc {of_whole['test']['acc']:.3f}" in done.stdout
    assert "4 of 4 epochs" in (further / "report.html").read_text() and "2 of 2 epochs" in page
    for words, message in (
        (["--sampler.epochs", 4], f"sampler.epochs 4: {further} has trained 4 epochs already: name a larger"),
        (["--sampler.k", 3], "sampler.k is not a setting of `rlcas resume`, which keeps the run's own"),
    ):
        refused = rlcas("resume", further, *words, cwd=tmp_path)
        assert refused.returncode == 2
        assert re.fullmatch(rf"rlcas: {re.escape(message)}.*\n", refused.stderr)
