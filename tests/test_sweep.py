"""Whole sweeps, by the real command, on a data set that takes seconds."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_run
from signalled import signalled

from rlcas.cli import main
from rlcas.runs.sweep_folder import read_sweep

OVER = ("--over", "sampler.k=1,2", "--over", "sampler.baseline_gamma=0.5,0.99", "--sweep.concurrent", 2)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "rlcas", "sweep", *map(str, words)]


def rlcas(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data."""
    home = tmp_path_factory.mktemp("sweeps")
    small_run.write_npz(home / "shapes.npz")
    return home


@pytest.fixture(scope="module")
def finished(home: Path) -> Path:
    """A finished sweep of four trials, two side by side."""
    done = rlcas("--data", "npz:shapes.npz", *small_run.flags(), *OVER, "--out", "out", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    (home / "stderr.txt").write_text(done.stderr)
    return home / "out"


@pytest.mark.medium
def test_a_sweep_leaves_a_table_a_page_and_a_run_a_trial(finished: Path) -> None:
    sweep = read_sweep(finished)
    assert [trial.status for trial in sweep.trials] == ["finished"] * 4
    assert {tuple(trial.settings.values()) for trial in sweep.trials} == {
        (1, 0.5),
        (1, 0.99),
        (2, 0.5),
        (2, 0.99),
    }
    with (finished / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = [float(row["metric"]) for row in rows]
    assert metrics == sorted(metrics, reverse=True)
    page = (finished / "sweep.html").read_text()
    assert "<svg" in page and "http" not in page.replace("http://www.w3.org", "")
    assert (finished / "sweep.png").stat().st_size > 0
    for trial in sweep.trials:
        names = {path.name for path in sweep.folder(trial).iterdir()}
        assert names >= {"config.yaml", "epochs.jsonl", "model.safetensors", "tensorboard", "pool", "prepared"}
        assert list((sweep.folder(trial) / "tensorboard/hparams").glob("events.out.tfevents.*"))


@pytest.mark.medium
def test_phase_one_is_done_once_and_test_images_are_not_read(finished: Path) -> None:
    text = (finished.parent / "stdout.txt").read_text()
    assert text.count("Training the synthesiser: done") == 1
    assert [path.name for path in (finished / "pools").iterdir()] == ["01"]
    assert not list(finished.rglob("metrics.json"))
    assert '"test"' not in (finished / "sweep.json").read_text()


@pytest.mark.medium
def test_the_console_reports_each_trial_and_prints_nothing_of_tunes(finished: Path) -> None:
    text = (finished.parent / "stdout.txt").read_text()
    assert [f"{n} of 4: trial " in text for n in (1, 2, 3, 4)] == [True] * 4
    assert "Epochs of all trials: 100 %" in text and "left " in text
    assert f"tensorboard --logdir {finished / 'trials'}" in text
    assert "ray" not in (finished.parent / "stderr.txt").read_text().lower()
    assert "Current time" not in text and "experiment" not in text.lower()


@pytest.mark.medium
def test_a_trial_can_be_evaluated_and_a_finished_sweep_is_only_shown(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished / "trials/002")]) == 0
    assert "test of 18 images" in capsys.readouterr().out
    before = (finished / "sweep.json").read_bytes()
    assert main(["sweep", "--resume", str(finished)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["report", str(finished)]) == 0
    assert (finished / "sweep.json").read_bytes() == before


@pytest.mark.medium
def test_a_dry_run_lists_the_trials_and_their_demand(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", f"npz:{home / 'shapes.npz'}", *small_run.flags(), *map(str, OVER), "--dry-run"]
    assert main(["sweep", *words, "--out", str(home / "none")]) == 0
    text = capsys.readouterr().out
    assert "trial 003: sampler.k=2 sampler.baseline_gamma=0.5, on pools/01" in text
    assert "demand: 4 trials of 8 epochs in all, 2 side by side" in text
    assert not (home / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "sampler.k"], "rlcas: --over sampler.k: write SETTING=VALUES, as in --over sampler.k=1,3"),
        (
            ["--over", "seed=1,2", "--over", "seed=3,4"],
            "rlcas: --over seed=3,4: seed is swept twice: list all its",
        ),
        (["--over", "sampler.k=0,3"], "rlcas: sweep.over sampler.k=0: sampler.k is '0': input should be"),
        (["--sweep.serch", "grid"], "rlcas: unknown setting sweep.serch: did you mean sweep.search?"),
        (
            ["--resume", "nowhere"],
            "rlcas: nowhere is not a sweep's folder: it has no sweep.json; name the --out",
        ),
        (
            ["--resume", "x", "--seed", "1"],
            "rlcas: --resume x continues with the sweep's own settings: leave out --seed",
        ),
        (["--resume", "x", "--dry-run"], "leave out --dry-run"),
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
        status = main(["sweep", *words])
    except SystemExit as exit:
        status = exit.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_refuses_what_is_a_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--sweep.search", "asha"])
    assert "sweep.search is a setting of `rlcas sweep` alone: leave it out" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").touch()
    assert main(["sweep", "--data", "phantom", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        "exists and is not an empty folder: name another with --out, or resume it by `rlcas sweep --res"
        in error
    )


def test_a_python_that_tune_cannot_start_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/home/a user/python")
    assert main(["sweep", "--data", "phantom", "--out", str(tmp_path / "out")]) == 2
    assert "/home/a user/python has a space, at which Ray Tune splits the line" in capsys.readouterr().err


def ended(out: Path) -> dict[str, float | None]:
    """Return the seconds of each trial that has ended."""
    if not (out / "sweep.json").exists():
        return {}
    return {trial.name: trial.seconds for trial in read_sweep(out).trials if trial.ended}


def epochs_logged(out: Path) -> int:
    return sum(path.read_text().count("\n") for path in out.glob("trials/*/epochs.jsonl"))


@pytest.mark.slow
def test_an_interrupted_and_killed_sweep_resumes_to_the_same_table(home: Path) -> None:
    over = ("--over", "sampler.baseline_gamma=0.5,0.9,0.95,0.99", "--sweep.concurrent", 2)
    flags = ["--data", "npz:shapes.npz", *small_run.flags(sampler__k=1), *small_run.IN_PROCESS, *over]
    done = rlcas(*flags, "--out", "whole", cwd=home)
    assert done.returncode == 0, done.stderr
    whole, out = home / "whole", home / "interrupted"
    signalled(signal.SIGINT, lambda: ended(out), command(*flags, "--out", out), home)
    before = epochs_logged(out)
    signalled(signal.SIGKILL, lambda: epochs_logged(out) != before, command("--resume", out), home)
    kept = ended(out)
    assert 1 <= len(kept) < 4
    done = rlcas("--resume", out, cwd=home)
    assert done.returncode == 0, done.stderr
    expected, resumed = read_sweep(whole), read_sweep(out)
    for one, other in zip(expected.trials, resumed.trials, strict=True):
        assert (one.settings, one.metric, one.best_epoch) == (other.settings, other.metric, other.best_epoch)
        assert other.seconds == kept.get(other.name, other.seconds), "a finished trial is not done again"
        weights = [sweep.folder(one) / "model.safetensors" for sweep in (expected, resumed)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
