"""What a sweep's folder shows: table, CSV, page, figure, and TensorBoard's HParams page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from rlcas.errors import UserError
from rlcas.reports.canvas import drawing
from rlcas.reports.sweep_page import metric_by_setting, write_sweep_report
from rlcas.runs.sweep_folder import Sweep, Trial, read_sweep, sweep_table
from rlcas.tracking.hparams import write_hparams

REASON = "the loss is <b>not</b> finite in epoch 3"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Six trials over a learning rate and a reward; one failed, one waits."""
    trials = [
        Trial(
            name=f"{number:03d}",
            settings={"classifier.lr": lr, "sampler.reward": reward},
            pool="pools/01",
            num_epochs=8,
            status="finished",
            epochs=8,
            metric=metric,
            best_epoch=7,
            seconds=75.0,
        )
        for number, (lr, reward, metric) in enumerate(
            [(1e-3, "cubic", 0.5), (1e-3, "linear", 0.7), (1e-2, "cubic", 0.6), (1e-2, "linear", 0.4)], start=1
        )
    ]
    failed = Trial(
        name="005",
        settings={"classifier.lr": 0.1, "sampler.reward": "cubic"},
        pool="pools/01",
        num_epochs=8,
        status="failed",
        epochs=2,
        metric=0.9,
        reason=REASON,
    )
    waiting = Trial(
        name="006", settings={"classifier.lr": 0.1, "sampler.reward": "linear"}, pool="pools/01", num_epochs=8
    )
    made = Sweep(path=tmp_path, name="phantom", metric="f1", search="grid", trials=[*trials, failed, waiting])
    made.save()
    return made


def test_what_is_saved_is_read_again(sweep: Sweep) -> None:
    read = read_sweep(sweep.path)
    assert math.isnan(read.trials[-1].metric)
    read.trials[-1].metric = sweep.trials[-1].metric
    assert read == sweep


def test_the_best_comes_first_and_what_has_no_figure_last(sweep: Sweep) -> None:
    assert [trial.name for trial in sweep.ranked()] == ["002", "003", "001", "004", "005", "006"]
    table = sweep_table(sweep)
    cells = [str(cell) for column in table.columns for cell in list(column.cells)[:1]]
    assert cells == ["002", "0.001", "linear", "8/8", "0.700", "1 min 15 s", "finished"]
    lines = (sweep.path / "sweep.csv").read_text().splitlines()
    assert lines[1] == "002,0.001,linear,8,0.7,7,75.0,finished,"
    assert lines[5].startswith("005,0.1,cubic,2,0.9,0,0.0,failed,the loss is")


def test_the_page_is_whole_and_what_a_user_named_is_escaped(sweep: Sweep) -> None:
    page = write_sweep_report(sweep.path).read_text()
    assert "&lt;b&gt;not&lt;/b&gt;" in page and "<b>not</b>" not in page
    assert "1 of 6 trials have not ended" in page
    assert "<svg" in page and "<script" not in page and "<link" not in page
    assert page.index(">002<") < page.index(">003<") < page.index(">001<")


def test_the_figure_has_a_dot_a_trial_and_the_mean_of_each_value(sweep: Sweep) -> None:
    with drawing():
        lr, reward = metric_by_setting(sweep).axes
    assert (lr.get_xscale(), reward.get_xscale()) == ("log", "linear")
    *dots, means = lr.lines
    assert sum(len(line.get_xdata()) for line in dots) == 4, "the failed and the waiting one are left out"
    assert list(means.get_xdata()) == [1e-3, 1e-2]
    assert list(means.get_ydata()) == pytest.approx([0.6, 0.5])
    assert [text.get_text() for text in reward.get_xticklabels()] == ["cubic", "linear"]
    assert [text.get_text() for text in lr.get_legend().get_texts()] == ["reward cubic", "linear"]


def test_a_sweep_without_figures_yet_has_a_page(sweep: Sweep) -> None:
    for trial in sweep.trials:
        trial.status, trial.epochs = "waiting", 0
    sweep.save()
    page = write_sweep_report(sweep.path).read_text()
    assert "6 of 6 trials have not ended" in page and "<svg" not in page


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not a sweep's folder: it has no sweep\.json; name the --out of a sweep$"
    ):
        read_sweep(tmp_path)


def test_the_hparams_page_reads_settings_and_metric_back(tmp_path: Path) -> None:
    write_hparams(tmp_path, {"sampler.k": 1}, {"f1": 0.25}, step=2)
    tried = {"sampler.k": 3, "sampler.reward": "cubic", "classifier.pretrained": True, "classifier.width": None}
    write_hparams(tmp_path, {**tried, "synth.denoiser.channels": (32, 64)}, {"f1": 0.5}, step=4)
    events = EventAccumulator(str(tmp_path / "tensorboard/hparams")).Reload()
    (scalar,) = events.Scalars("hparam/f1")
    assert (scalar.step, scalar.value) == (4, 0.5)
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["sampler.k"].number_value == 3
    assert hparams["sampler.reward"].string_value == "cubic"
    assert hparams["classifier.pretrained"].string_value == "True"
    assert hparams["classifier.width"].string_value == "None"
    assert hparams["synth.denoiser.channels"].string_value == "32,64"
