"""Trials under Ray Tune: what they leave, how the searches treat them, and what a fault does."""

from __future__ import annotations

import pickle
import signal
import time
from pathlib import Path

import pytest
import ray
import trivial_trial
from ray._private.state import actors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2
from trivial_trial import IN_PROCESS, DyingTrial, LateSavingTrial, planned_sweep, run_sweep, swept

from cluster.sweeps.trial import TUNE_FOLDER, earlier_checkpoints
from rlcas import settings
from rlcas.runs import epoch_log
from rlcas.runs.folder import ERROR_FILE
from rlcas.runs.sweep_folder import Sweep
from rlcas.settings.search_space import draws, space_of

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module", autouse=True)
def held_before(ray_session: None) -> set[str]:
    """What other tests hold; the trials' code is sent along with them."""
    ray.cloudpickle.register_pickle_by_value(trivial_trial)
    return held()


@pytest.fixture(scope="module")
def three_trials(held_before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A grid of three trials, two side by side, of which the second fails."""
    over = {"sampler.initial_count": [16, trivial_trial.FAILING_COUNT, 3]}
    return swept(tmp_path_factory.mktemp("sweeps") / "grid", concurrent=2, sweep={"over": over})


def held() -> set[str]:
    """Return the ids of the actors that live and of the placement groups that are held."""
    living = {key for key, actor in actors().items() if actor["State"] == "ALIVE"}
    groups = ray.util.placement_group_table()
    return living | {key for key, group in groups.items() if group["state"] != "REMOVED"}


def left_behind(held_before: set[str]) -> set[str]:
    """Return what is held now and was not before, after a while for what is ending."""
    deadline = time.monotonic() + 60
    while (left := held() - held_before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def test_a_trial_that_fails_is_reported_and_the_others_continue(three_trials: Sweep) -> None:
    assert [trial.status for trial in three_trials.trials] == ["finished", "failed", "finished"]
    failed = three_trials.trials[1]
    assert failed.epochs == 1
    assert failed.reason == "epoch 2: none of the 1 episodes is valid (exception)"
    traceback = (three_trials.folder(failed) / ERROR_FILE).read_text()
    assert "set to fail" in traceback and "Traceback" in traceback


def test_nothing_is_left_behind(three_trials: Sweep, held_before: set[str]) -> None:
    assert left_behind(held_before) == set()


def test_the_best_trial_comes_first_and_the_failed_last(three_trials: Sweep) -> None:
    ranked = three_trials.ranked()
    assert [trial.name for trial in ranked] == ["003", "001", "002"]
    assert ranked[0].metric > ranked[1].metric
    lines = (three_trials.path / "sweep.csv").read_text().splitlines()
    assert lines[0].startswith("trial,sampler.initial_count,epochs,metric")
    assert lines[1].startswith("003,3,4,")
    assert lines[3].startswith("002,14,1,") and ",failed,epoch 2: none of" in lines[3]


def test_a_trials_figures_are_those_of_its_log(three_trials: Sweep) -> None:
    for trial in three_trials.trials[::2]:
        lines = epoch_log.read_epochs(three_trials.folder(trial))
        assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
        assert trial.metric == max(line["metrics"][line["winner"]]["f1"] for line in lines)
        assert trial.best_epoch == lines[-1]["best_epoch"]
        assert trial.seconds == pytest.approx(sum(line["seconds"] for line in lines))


def test_tune_keeps_the_best_and_the_last_checkpoint_and_they_are_ours(three_trials: Sweep) -> None:
    for trial in three_trials.trials[::2]:
        kept = earlier_checkpoints(three_trials.path, trial.name)
        epochs = {int(path.name.rpartition("-")[2]) for folder in kept for path in folder.iterdir()}
        assert len(kept) <= 2 and {4, trial.best_epoch} <= epochs
        files = {path.suffix for folder in kept for path in folder.rglob("*") if path.is_file()}
        assert files == {".json", ".safetensors"}


def test_the_hparams_page_has_each_trials_settings_and_metric(three_trials: Sweep) -> None:
    for trial in three_trials.trials[::2]:
        events = EventAccumulator(str(three_trials.folder(trial) / "tensorboard/hparams")).Reload()
        assert events.Scalars("hparam/f1")[0].value == pytest.approx(trial.metric, rel=1e-6)
        content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert start.hparams["sampler.initial_count"].number_value == trial.settings["sampler.initial_count"]


def test_a_sweep_resumes_beside_tunes_files_of_a_version_whose_classes_had_other_modules(
    tmp_path: Path,
) -> None:
    over = {"sweep": {"over": {"sampler.initial_count": [3, 16]}}, "sampler.epochs": 1, **IN_PROCESS}
    planned = planned_sweep(tmp_path / "sweep", **over)
    before = tmp_path / "sweep" / TUNE_FOLDER / "0001"
    before.mkdir(parents=True)
    (before / "tuner.pkl").write_bytes(b"ccluster.trial\nSweepTrial\n.")
    (before / "experiment_state-2026-01-01_00-00-00.json").write_text('{"trial_data": [["SweepTrial", "{}"]]}')
    with pytest.raises(ModuleNotFoundError, match=r"cluster\.trial"):
        pickle.loads((before / "tuner.pkl").read_bytes())
    assert [trial.status for trial in run_sweep(planned).trials] == ["finished"] * 2
    assert sorted(path.name for path in before.parent.iterdir()) == ["0001", "0002"], (
        "Tune starts anew beside it"
    )


def test_asha_stops_what_is_bad_and_keeps_its_classifier(tmp_path: Path) -> None:
    sweep = {
        "search": "asha",
        "trials": 4,
        "grace_epochs": 1,
        "over": {"sampler.initial_count": [3, 2, 12, 16]},
    }
    ctrl_c = signal.getsignal(signal.SIGINT)
    done = swept(tmp_path / "asha", **{"sampler.epochs": 9, "sweep": sweep})
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    statuses = {trial.settings["sampler.initial_count"]: trial.status for trial in done.trials}
    assert statuses[16] == "stopped" and "finished" in statuses.values()
    for trial in done.trials:
        assert (done.folder(trial) / "model.safetensors").exists()
        assert trial.epochs == len(epoch_log.read_epochs(done.folder(trial)))
        assert (trial.epochs < 9) == (trial.status == "stopped")


@pytest.mark.slow
def test_a_member_of_a_population_continues_with_other_settings_and_its_folder_has_them(
    tmp_path: Path, held_before: set[str]
) -> None:
    over = {"sampler.max_count": "2..40"}
    sweep = {"search": "pbt", "trials": 3, "exchange_epochs": 2, "over": over}
    drawn = [point["sampler.max_count"] for point in draws(space_of(over, {}), 3, seed=0)]
    stated = {"sampler.epochs": 6, "sweep": sweep, **IN_PROCESS}
    done = swept(tmp_path / "pbt", LateSavingTrial, concurrent=2, **stated)
    assert [trial.status for trial in done.trials] == ["finished"] * 3
    assert [trial.epochs for trial in done.trials] == [6, 6, 6]
    ended = [trial.settings["sampler.max_count"] for trial in done.trials]
    assert ended != drawn, "one went on from the better one's epoch with settings near its"
    for trial in done.trials:
        max_count = settings.load(done.folder(trial)).sampler.max_count
        assert max_count == trial.settings["sampler.max_count"], (
            "its folder has the settings that it ended with"
        )
    assert left_behind(held_before) == set()
    before, after = [[trained_at(done.folder(trial), epoch) for trial in done.trials] for epoch in (2, 3)]
    assert max(before) < min(after), "where two train side by side, they wait for the third"


def trained_at(folder: Path, epoch: int) -> float:
    """Return when an epoch was written for TensorBoard."""
    events = EventAccumulator(str(folder / "tensorboard/epochs")).Reload()
    return next(event.wall_time for event in events.Scalars("metrics/f1") if event.step == epoch)


@pytest.mark.slow
def test_a_trial_whose_process_dies_resumes_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    over = {"sweep": {"over": {"sampler.initial_count": [3, 16]}}, "sampler.epochs": 5, **IN_PROCESS}
    whole, died = swept(tmp_path / "whole", **over), swept(tmp_path / "died", DyingTrial, **over)
    for one, other in zip(whole.trials, died.trials, strict=True):
        assert (died.folder(other) / "died").exists()
        assert (one.metric, one.best_epoch, other.epochs) == (other.metric, other.best_epoch, 5)
        models = [sweep.folder(one) / "model.safetensors" for sweep in (whole, died)]
        assert models[0].read_bytes() == models[1].read_bytes()
        assert len(epoch_log.read_epochs(died.folder(other))) == 5
