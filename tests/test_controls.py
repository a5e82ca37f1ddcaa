"""Controls through the engine's own code: a recorded schedule replayed, by real commands and in Python."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from tiny import tiny_config
from trivial import TrivialTrainer

from rlcas import settings
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.runs import epoch_log, replay

NUM_CLASSES = 4


def recorded_run(folder: Path, actions_TC: list[list[int]], **sampler: Any) -> Path:
    """Write the settings and epochs of a run of K=2 whose second episode won every time with these actions."""
    folder.mkdir(parents=True)
    config = tiny_config(sampler={"epochs": len(actions_TC), **sampler})
    settings.save(config, folder)
    counts = replay.initial_counts(config.sampler, len(actions_TC[0]))
    lines = []
    for actions in actions_TC:
        counts = np.clip(counts + config.sampler.action_step * (np.array(actions) - 1), 0, 16)
        lines.append(
            {"winner": 1, "actions": [[1] * len(actions), actions], "compositions": [None, counts.tolist()]}
        )
    (folder / epoch_log.EPOCHS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


ACTIONS = [[0, 1, 2, 2], [2, 2, 2, 0], [1, 1, 0, 0]]
COMPOSITIONS = [[0, 2, 4, 4], [2, 4, 6, 2], [2, 4, 4, 0]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded_run(tmp_path / "run", ACTIONS)


def test_the_schedule_is_the_winners_actions_up_to_the_epochs_asked(run: Path) -> None:
    for epochs in (1, 2, 3):
        sampler = SamplerConfig(replay=run, epochs=epochs)
        recorded = replay.schedule(sampler, NUM_CLASSES)
        for j in range(sampler.k):
            np.testing.assert_array_equal(recorded.actions_TKC[:, j], ACTIONS[:epochs])
        np.testing.assert_array_equal(recorded.bases_TC, [[2, 2, 2, 2], *COMPOSITIONS][:epochs])
    assert replay.schedule(SamplerConfig(), NUM_CLASSES) is None


@pytest.mark.parametrize(
    ("sampler", "num_classes", "message"),
    [
        ({"epochs": 4}, 4, r"run has 3 recorded epochs, but sampler.epochs is 4: set sampler.epochs 3 at most"),
        ({}, 3, r"run is of 4 classes, but the data has 3: replay it on data of its own classes"),
        ({"action_step": 1}, 4, r"sampler.action_step is 1, but .*run was recorded with 2: leave it out"),
        ({"max_count": 8}, 4, r"sampler.max_count is 8, but .*run was recorded with 16: leave it out"),
        ({"episode": "share"}, 4, r"sampler.episode is share, but .*run was recorded with whole: leave it out"),
        ({"real_last": 0.5}, 4, r"sampler.real_last is 0.5, but .*run was recorded with 0.0: leave it out"),
        ({"initial_count": 3}, 4, r"sampler.initial_count is 3, but .*run was recorded with 2: leave it out"),
        ({"initial_count": (2, 2, 2, 0)}, 4, r"sampler.initial_count is \(2, 2, 2, 0\), but .* with 2: leave"),
        ({"agents": "pbt"}, 4, r"sampler.agents pbt beside sampler.replay .*run: leave one out"),
    ],
)
def test_what_does_not_fit_the_record_is_refused_with_both_values(
    run: Path, sampler: dict[str, Any], num_classes: int, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config = settings.of({"sampler": {"replay": run, "epochs": 3, **sampler}})
        replay.schedule(config.sampler, num_classes)
    assert "\n" not in str(caught.value)


def test_an_initial_count_is_as_recorded_however_it_is_written(run: Path) -> None:
    sampler = SamplerConfig(replay=run, epochs=3, initial_count=(2, 2, 2, 2))
    assert replay.schedule(sampler, NUM_CLASSES) is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"run has no recorded epochs: let it train one at least"),
        ("{\n", r"sampler.replay: .*epochs.jsonl line 1 is damaged \(.*\): restore or delete it"),
        ("{}\n", r"run: its epochs.jsonl is damaged \(KeyError"),
        (
            '{"winner": 0, "actions": [[1, 1]], "compositions": [[2, 4]]}\n',
            r"run: the composition of epoch 1 does not follow .* by its actions: replay another run",
        ),
    ],
)
def test_a_record_that_cannot_be_replayed_is_refused(run: Path, line: str, message: str) -> None:
    (run / epoch_log.EPOCHS_FILE).write_text(line)
    with pytest.raises(UserError, match=message):
        replay.schedule(SamplerConfig(replay=run, epochs=1), 2)


def test_a_population_is_not_replayed(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", ACTIONS, agents="pbt")
    with pytest.raises(
        UserError, match=r"run is a population's, whose winners do not .*: replay a run of agents"
    ):
        replay.base_settings({"sampler": {"replay": run}})


def test_a_folder_that_is_not_a_runs_is_refused_by_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sampler.replay: .* is not a run's folder: it has no config.yaml"):
        replay.base_settings({"sampler": {"replay": tmp_path}})


def test_the_replayed_runs_settings_lie_below_those_that_are_stated(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", ACTIONS, k=5, agents="state")
    base = replay.base_settings({"sampler": {"replay": str(run)}})
    config = settings.resolve(given={"sampler.replay": str(run), "sampler.k": "1"}, base=base)
    assert config.sampler.k == 1, "nothing is compared where nobody learns"
    assert config.sampler.model_copy(update={"k": 5, "replay": None}) == settings.load(run).sampler
    assert config.sampler.replay == run
    assert (config.classifier.width, config.classifier.batch_size) == (8, 16)
    assert (config.pool, config.out) == (str(run), tmp_path / "run-replay")


def test_a_run_on_a_pool_elsewhere_is_replayed_on_that_pool(run: Path) -> None:
    config = settings.load(run)
    for pool, expected in (("/pools/blood", "/pools/blood"), ("folder:/images", str(run))):
        settings.save(config.model_copy(update={"pool": pool}), run)
        base = replay.base_settings({"sampler": {"replay": run}})
        assert base is not None and base["pool"] == expected


@pytest.mark.parametrize("stated", [{"sampler": {"agents": "paper"}}, {"sampler": {}, "preset": "quick"}])
def test_agents_or_a_preset_beside_a_replay_are_refused(run: Path, stated: dict[str, Any]) -> None:
    stated["sampler"]["replay"] = run
    with pytest.raises(UserError, match=r"(sampler.agents paper|preset quick) beside sampler.replay .*run"):
        replay.base_settings(stated)


@pytest.mark.medium
def test_the_engine_trains_the_recorded_compositions_and_teaches_nobody(ray_session: None, run: Path) -> None:
    from cluster import RLCASConfig

    algorithm = (
        RLCASConfig()
        .training(k=2, epochs=3, replay=run)
        .episodes(
            trainer_factory=functools.partial(TrivialTrainer, num_classes=NUM_CLASSES), num_classes=NUM_CLASSES
        )
        .build_algo()
    )
    try:
        before = algorithm.on_learner(lambda learner: learner.arrays())
        records = [algorithm.record for _ in range(3) if algorithm.train()]
        after = algorithm.on_learner(lambda learner: learner.arrays())
    finally:
        algorithm.stop()
    for record, actions_C, counts_C in zip(records, ACTIONS, COMPOSITIONS, strict=True):
        assert [report.counts_C.tolist() for report in record.reports] == [counts_C] * 2
        np.testing.assert_array_equal(record.probabilities_C3, np.eye(3)[actions_C])
        assert record.baseline == 0.0
        assert all(np.isnan(report.advantage) for report in record.reports)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def rlcas(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of rlcas to its end."""
    command = [sys.executable, "-m", "rlcas", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of K=1 on its own synthetic images: the classes' shapes again, as a folder each."""
    from PIL import Image

    home = tmp_path_factory.mktemp("home")
    data = small_run.write_npz(home / "shapes.npz")
    with np.load(data) as arrays:
        images, labels = arrays["val_images"], arrays["val_labels"].ravel()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = home / "own" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    small = small_run.flags(
        sampler__k=1, synth__scoring__extractor="pixels", synth__scoring__pool_only_epochs=0
    )
    done = rlcas("train", "--data", "npz:shapes.npz", "--pool", "folder:own", *small, "--out", "run", cwd=home)
    assert done.returncode == 0, done.stderr
    return home / "run"


@pytest.fixture(scope="module")
def replayed(trained: Path) -> Path:
    """Its replay, by nothing but its name."""
    done = rlcas("train", "--sampler.replay", "run", cwd=trained.parent)
    assert done.returncode == 0, done.stderr
    return trained.with_name("run-replay")


@pytest.mark.medium
def test_a_replayed_run_of_one_episode_has_its_bits_again(trained: Path, replayed: Path) -> None:
    """With K=1 nothing but the policy differs, and the policy is the record."""
    first, second = epoch_log.read_epochs(trained), epoch_log.read_epochs(replayed)
    for name in ("compositions", "actions", "metrics", "val_losses", "rewards"):
        assert [line[name] for line in first] == [line[name] for line in second]
    assert (replayed / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert all(set(np.ravel(line["probabilities"])) == {0.0, 1.0} for line in second)


@pytest.mark.medium
def test_a_replay_resumes_without_the_record_of_the_other_run(trained: Path, replayed: Path) -> None:
    """As if killed after its first epoch, and the record gone: what lies in its own folder is enough."""
    whole = epoch_log.read_epochs(replayed)
    for name in ("metrics.json", "report.html", "model.safetensors"):
        (replayed / name).unlink()
    shutil.rmtree(replayed / "checkpoints/epoch-0002")
    for name in ("config.yaml", "epochs.jsonl"):
        (trained / name).unlink()
    done = rlcas("resume", "run-replay", cwd=trained.parent)
    assert done.returncode == 0, done.stderr
    assert "Resuming after epoch 1" in done.stdout
    assert timeless(epoch_log.read_epochs(replayed)) == timeless(whole)


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler.epochs", "9"], "run has 3 recorded epochs, but sampler.epochs is 9: set sampler.epochs 3"),
        (["--sampler.agents", "paper"], "rlcas: sampler.agents paper beside sampler.replay"),
        (["--sampler.replay", "nowhere"], "nowhere is not a run's folder: it has no config.yaml"),
    ],
)
def test_faults_of_a_replay_are_one_line_and_leave_no_folder(
    tmp_path: Path, words: list[str], message: str
) -> None:
    run = recorded_run(tmp_path / "run", [actions[:3] for actions in ACTIONS])
    config = settings.load(run)
    data = f"npz:{small_run.write_npz(tmp_path / 'shapes.npz')}"
    settings.save(config.model_copy(update={"data": data}), run)
    done = rlcas("train", "--sampler.replay", "run", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shapes.npz"]
