"""The algorithm whose episodes are shares of an epoch, in turn or merged: the same bits wherever they are trained."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_config, tiny_factory
from trivial import TrivialTrainer

from cluster.episodes.checkpoint import load_into, save
from rlcas import settings
from rlcas.batches.composition import composition_of
from rlcas.config import SamplerConfig
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.runs.epoch_log import append_epoch
from rlcas.types import EpochRecord, Incumbent

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures("ray_session")]

NUM_CLASSES, K = 4, 3
MODES: dict[str, dict[str, Any]] = {
    "in_turn": {"episode": "share"},
    "merged shares": {"episode": "share", "handover": "merge"},
    "merged epochs": {"handover": "merge", "merge_from": 2},
}


def build(
    mode: str, *, faults: dict[tuple[int, int], str] | None = None, runner: str = "in_process", **sampler: Any
):
    from cluster import RLCASConfig

    factory = functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults=faults or {})
    settings = {"k": K, "epochs": 5, "agents": "state", **MODES[mode], **sampler}
    return (
        RLCASConfig()
        .training(**settings)
        .episodes(
            trainer_factory=factory, num_classes=NUM_CLASSES, episode_runner=runner, threads_per_episode=1
        )
        .debugging(seed=3)
        .build_algo()
    )


def train(algorithm: Any, epochs: int) -> tuple[list[EpochRecord], Incumbent]:
    records = []
    for _ in range(epochs):
        algorithm.train()
        records.append(algorithm.record)
    return records, algorithm.incumbent


def trained(mode: str, epochs: int = 4, **options: Any) -> tuple[list[EpochRecord], Incumbent]:
    algorithm = build(mode, **options)
    try:
        return train(algorithm, epochs)
    finally:
        algorithm.stop()


def assert_same(
    found: tuple[list[EpochRecord], Incumbent], expected: tuple[list[EpochRecord], Incumbent]
) -> None:
    for one, other in zip(found[0], expected[0], strict=True):
        assert (one.reports, one.winner, one.baseline) == (other.reports, other.winner, other.baseline)
        assert one.probabilities_C3.tobytes() == other.probabilities_C3.tobytes()
        assert one.counts_C.tolist() == other.counts_C.tolist()
    assert found[1].arrays["float32"].tobytes() == expected[1].arrays["float32"].tobytes()
    assert found[1].counts_C.tolist() == expected[1].counts_C.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_actors_give_the_bits_of_one_process_and_a_killed_one_changes_none(mode: str, tmp_path: Path) -> None:
    expected = trained(mode)
    faults = {(2, 1): str(tmp_path / "died")}
    found = trained(mode, runner="actors", faults=faults)
    assert_same(found, expected)
    assert [record.retries for record in found[0]] == [0, 1, 0, 0]
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_has_the_same_bits(mode: str, tmp_path: Path) -> None:
    expected = trained(mode)
    first, second = build(mode), build(mode)
    try:
        train(first, 2)
        save(first, tmp_path)
        load_into(second, tmp_path)
        found = train(second, 2)
    finally:
        first.stop()
        second.stop()
    assert_same(found, (expected[0][2:], expected[1]))


@pytest.mark.parametrize("mode", MODES)
def test_all_episodes_act_on_one_composition_and_the_mean_is_handed_over(mode: str) -> None:
    sampler = SamplerConfig(k=K, epochs=5, agents="state", **MODES[mode])
    base_C = np.full(NUM_CLASSES, 2)
    for record in trained(mode)[0]:
        assert record.base_C.tolist() == base_C.tolist()
        for report in record.reports:
            expected_C = composition_of(sampler, record.epoch, base_C, report.actions_C)
            assert report.counts_C.tolist() == expected_C.tolist()
        mean_C = np.rint(np.mean([report.counts_C for report in record.reports], axis=0))
        best = mode == "merged epochs" and record.epoch == 1
        base_C = record.reports[record.winner].counts_C if best else mean_C
        assert record.counts_C.tolist() == base_C.tolist()
        assert record.winner == (
            None if "merged" in mode and not best else 2 if mode == "in_turn" else record.winner
        )


def test_shares_in_turn_start_where_the_one_before_stopped() -> None:
    algorithm = build("in_turn")
    try:
        incumbent = algorithm.incumbent
        algorithm.train()
        trainer = TrivialTrainer(num_classes=NUM_CLASSES)
        for report in algorithm.record.reports:
            trainer.train_epoch(incumbent, report.counts_C, episode_index=0)
            incumbent = trainer.trained()
        assert algorithm.incumbent.arrays["float32"].tobytes() == incumbent.arrays["float32"].tobytes()
        assert algorithm.epoch == 1
    finally:
        algorithm.stop()


@pytest.mark.parametrize("fault", ["exception", "non_finite", "out_of_memory"])
def test_a_share_that_fails_is_skipped(fault: str) -> None:
    """The next one starts from what the one before it reached; the last valid one is handed over."""
    records, _ = trained("in_turn", 2, faults={(1, 1): fault, (2, 2): fault})
    assert [[report.status for report in record.reports] for record in records] == [
        ["ok", fault, "ok"],
        ["ok", "ok", fault],
    ]
    assert [record.winner for record in records] == [2, 1]
    assert [record.num_images for record in records] == [
        sum(report.result.num_images for report in record.reports if report.result) for record in records
    ]


def test_a_worker_that_dies_again_and_again_fails_all_its_shares() -> None:
    from cluster.episodes.selection import EpisodeError

    with pytest.raises(
        EpisodeError, match=r"(?s)epoch 1: none of the 3 episodes is valid \(died, died, died\).*episode 2:"
    ):
        trained("in_turn", 1, runner="actors", faults={(1, 1): "kill"})


def test_merging_leaves_out_a_failed_episode() -> None:
    records, _ = trained(
        "merged shares", 2, faults={(1, 0): "exception", (2, 0): "exception", (2, 1): "exception"}
    )
    assert [record.winner for record in records] == [None, 2], "one valid episode is handed over as it is"


def test_in_turn_there_is_one_worker() -> None:
    algorithm = build("in_turn", runner="actors")
    try:
        assert len(algorithm._runner._actors) == 1
    finally:
        algorithm.stop()


def test_agents_rest_in_epochs_of_real_images_alone() -> None:
    records, incumbent = trained("in_turn", 5, real_first=0.4, real_last=0.2, lr=0.5)
    assert [sum(report.counts_C.sum() for report in record.reports) > 0 for record in records] == [
        False,
        False,
        True,
        True,
        False,
    ]
    for record in (*records[:2], records[4]):
        assert record.probabilities_C3.tolist() == [[0, 1, 0]] * NUM_CLASSES
        assert record.counts_C.tolist() == record.base_C.tolist()
        assert all(np.isnan(report.advantage) for report in record.reports)
    assert records[2].base_C.tolist() == [2] * NUM_CLASSES
    assert np.ptp(records[3].probabilities_C3) > 0.01, "they have learnt from the epoch before"
    assert incumbent.counts_C.tolist() == records[4].base_C.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_trains_with_what_every_episode_was_trained_with(mode: str, tmp_path: Path) -> None:
    expected = trained(mode, 5, real_last=0.2)
    settings.save(tiny_config(sampler={"epochs": 5, "k": K, "real_last": 0.2, **MODES[mode]}), tmp_path)
    for record in expected[0]:
        append_epoch(tmp_path, record)
    found = trained(mode, 5, real_last=0.2, replay=tmp_path, agents="paper")
    for one, other in zip(found[0], expected[0], strict=True):
        assert one.base_C.tolist() == other.base_C.tolist()
        if one.handover != "best":
            assert [report.counts_C.tolist() for report in one.reports] == [
                report.counts_C.tolist() for report in other.reports
            ]
    if mode != "merged epochs":
        assert found[1].arrays["float32"].tobytes() == expected[1].arrays["float32"].tobytes()


def test_a_replay_of_shares_needs_as_many(tmp_path: Path) -> None:
    settings.save(tiny_config(sampler={"epochs": 5, "k": K, "episode": "share"}), tmp_path)
    for record in trained("in_turn", 5)[0]:
        append_epoch(tmp_path, record)
    with pytest.raises(
        UserError, match=r"sampler.k is 2, but sampler.replay .* was recorded with 3: leave it out"
    ):
        trained("in_turn", 1, k=2, replay=tmp_path)


def test_real_shares_in_turn_without_images_are_the_baseline_bit_for_bit() -> None:
    from tiny import ZEROS, tiny_trainer

    from cluster import RLCASConfig
    from rlcas.training.fit import fit

    config = tiny_config(classifier={"batch_size": 8}, sampler={"epochs": 2})
    with torch_threads(1):  # as the episodes: another number changes the last bits
        expected, _ = fit(tiny_trainer(config), ZEROS, 2)
    algorithm = (
        RLCASConfig()
        .training(k=K, epochs=2, episode="auto", agents="constant", initial_count=0)
        .episodes(
            trainer_factory=tiny_factory(config),
            num_classes=3,
            episode_runner="in_process",
            threads_per_episode=1,
        )
        .debugging(seed=config.seed)
        .build_algo()
    )
    try:
        assert (algorithm.config.episode, algorithm.config.handover) == ("share", "in_turn")
        train(algorithm, 2)
        assert algorithm.best.epoch == expected.epoch
        for name, array in expected.arrays.items():
            assert algorithm.best.arrays[name].tobytes() == array.tobytes()
    finally:
        algorithm.stop()
