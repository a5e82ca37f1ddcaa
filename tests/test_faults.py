"""What goes wrong in a run, done for real: each fault gives the bits of a run without it, or one clear error."""

import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import trivial
from tiny import poisoned_trainer, tiny_config
from trivial import TrivialTrainer

from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import RunError, UserError
from rlcas.types import EpisodeTask

pytestmark = pytest.mark.medium

NUM_CLASSES, SEED = 4, 5


def make_config(factory, k=3, num_classes=NUM_CLASSES, **cluster):
    from cluster import RLCASConfig

    return (
        RLCASConfig()
        .training(k=k, epochs=30, lr=0.05)
        .episodes(trainer_factory=factory, num_classes=num_classes, **cluster)
        .debugging(seed=SEED)
    )


def epochs_of(factory, num_epochs, **options):
    """Return the record of each epoch, and the last incumbent."""
    algorithm = make_config(factory, **options).build_algo()
    try:
        records = [algorithm.record for _ in range(num_epochs) if algorithm.train()]
        return records, algorithm.incumbent
    finally:
        algorithm.stop()


def test_a_killed_actor_changes_no_bit_and_is_counted(ray_session, tmp_path):
    faults = {(2, 1): str(tmp_path / "died")}
    records, incumbent = epochs_of(functools.partial(TrivialTrainer, faults=faults), 3)
    expected, undisturbed = epochs_of(TrivialTrainer, 3)
    assert [record.reports for record in records] == [record.reports for record in expected]
    assert incumbent.arrays["float32"].tobytes() == undisturbed.arrays["float32"].tobytes()
    assert [[report.retries for report in record.reports] for record in records] == [
        [0, 0, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]
    assert [record.retries for record in records] == [0, 1, 0]


FAULTS = {
    "exception": ("exception", r"Traceback .*in _fault.*set to fail"),
    "exit": ("exception", r"Traceback .*in _fault.*SystemExit: the trivial trainer was set to exit"),
    "allocate": ("out_of_memory", r"Traceback .*in _fault.*can't allocate memory: you tried to allocate 11529"),
    "kill": (
        "died",
        r"It wrote no stack: it was killed from outside, as the kernel or Ray's memory monitor does",
    ),
    "segfault": ("died", r"Fatal Python error: Segmentation fault.*in string_at.*in _fault"),
}


def test_one_episode_that_fails_again_and_again_is_an_outcome_that_cannot_win(ray_session):
    """A fault an epoch, each followed by one where all is well."""
    faults = {(1 + 2 * i, 1): fault for i, fault in enumerate(FAULTS)}
    records, _ = epochs_of(functools.partial(TrivialTrainer, faults=faults), 10, k=2, episode_retries=1)
    for record, (status, text) in zip(records[::2], FAULTS.values(), strict=True):
        assert [report.status for report in record.reports] == ["ok", status]
        assert record.winner == 0
        assert re.search(text, record.reports[1].traceback, re.DOTALL)
        before = records[record.epoch - 2]
        parent_C = before.reports[before.winner].counts_C if record.epoch > 1 else 2
        assert np.abs(record.reports[1].counts_C - parent_C).max() <= 2
    for record in records[1::2]:
        assert [report.status for report in record.reports] == ["ok", "ok"], "its process was started again"


def test_if_all_episodes_die_again_and_again_the_error_says_how(ray_session):
    from cluster.episodes.actor_runner import EpisodeActors
    from cluster.episodes.selection import choose

    faults = {(1 + i, episode_index): fault for i, fault in enumerate(FAULTS) for episode_index in range(2)}
    factory = functools.partial(TrivialTrainer, faults=faults)
    runner = EpisodeActors(factory, SamplerConfig(k=2), ClusterConfig(episode_retries=1))
    actions_C = np.ones(NUM_CLASSES, np.int64)
    incumbent = ray.get(runner.initial(actions_C))
    for parent, (status, text) in enumerate(FAULTS.values()):
        reference = ray.put(dataclasses.replace(incumbent, epoch=parent))
        tasks = [
            EpisodeTask(epoch=parent + 1, episode_index=j, actions_C=actions_C, base_C=actions_C)
            for j in range(2)
        ]
        reports, _ = runner.train_epoch([reference] * 2, [[task] for task in tasks])
        whole = rf"(?s)epoch {parent + 1}: none of the 2 episodes is valid \({status}, {status}\).*episode 1:.*{text}"
        with pytest.raises(RunError, match=whole):
            choose(reports, "f1")
    runner.close()


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (trivial.breaks, r"in breaks.*RuntimeError: the trainer's parts do not fit"),
        (trivial.exits, r"the trainer's factory called sys.exit\(7\)"),
    ],
)
def test_a_worker_that_cannot_be_built_is_named_with_its_traceback(ray_session, factory, text):
    with pytest.raises(RunError, match=rf"(?s)worker 0 of 2 cannot be built: .*{text}"):
        epochs_of(factory, 1, k=2, episode_retries=1)


def test_a_hanging_episode_ends_the_run_with_one_line_that_names_it(ray_session):
    factory = functools.partial(TrivialTrainer, faults={(1, 1): "sleep"})
    with pytest.raises(
        UserError,
        match=r"^epoch 1: episodes \[1\] of 2 did not answer within cluster.epoch_timeout_seconds 0.25 "
        r"\(each asks 1 CPU and 0 GPU; Ray has 8 CPU of which \d+ free, 0 GPU of which 0 free\): raise it, or look",
    ):
        epochs_of(factory, 1, k=2, epoch_timeout_seconds=0.25, threads_per_episode=1)


def test_a_real_classifier_whose_loss_is_not_finite_cannot_win(ray_session):
    """Episode 0 of epoch 2 trains from weights that are not numbers."""
    config = tiny_config(sampler={"k": 2})
    factory = functools.partial(poisoned_trainer, config, epoch=2, episode_index=0)
    records, incumbent = epochs_of(factory, 3, k=2, num_classes=3)
    assert [[report.status for report in record.reports] for record in records] == [
        ["ok", "ok"],
        ["non_finite", "ok"],
        ["ok", "ok"],
    ]
    assert records[1].winner == 1
    assert "a loss of epoch 2 is not finite (train nan" in records[1].reports[0].traceback
    assert np.isfinite(incumbent.arrays["float32"]).all()


@pytest.fixture(scope="module")
def with_lost_nodes():
    """What `node_loss.py` prints."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("node_loss.py")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith('{"same_bits"'))
    )  # Ray prints too


@pytest.mark.slow
def test_a_lost_node_changes_no_bit(with_lost_nodes):
    """All actors and the incumbent are on the node that is lost: in mid-epoch, then before the winner is fetched."""
    outcome = with_lost_nodes
    assert outcome["same_bits"] == [True] * 5
    assert outcome["retries"][1] >= 3 and outcome["retries"][3] >= 1
    assert "gpus_per_episode 1 x sampler.k 3 = 3 GPUs, but Ray has 2" in outcome["demand"]
    assert outcome["fetched"] == [True, False, False], "only the winner's weights travel to the driver"


@pytest.mark.slow
def test_episodes_spread_over_three_nodes_lose_one_and_gain_one_to_the_same_bits(with_lost_nodes):
    outcome = with_lost_nodes["of_three"]
    assert outcome["same_bits"] == [True] * 5
    before, after = outcome["nodes"]["1"], outcome["nodes"]["3"]
    assert len(set(before)) == 3, "an episode on each node"
    assert before[0] not in after and after[1:] == before[1:], "only those of the lost node move"
    assert outcome["retries"][1] >= 1 and outcome["retries"][2:] == [0, 0, 0]
    assert outcome["packed"] == 1
    assert outcome["left_behind"] == [], "no actor, no placement group"
