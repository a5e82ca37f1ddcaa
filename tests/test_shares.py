"""Episodes that are shares of an epoch, in turn or merged: what they are in closed form, and to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_trainer import assert_same_bits, assert_same_result
from tiny import FIXED, MIXED, ZEROS, tiny_config, tiny_trainer
from trivial import TrivialTrainer

from envs import BatchCompositionEnv
from rlcas.batches.composition import composition_of, mean_composition, shows_synthetic
from rlcas.classifiers import snapshot
from rlcas.config import RunConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.rewards import without_trend
from rlcas.training.fit import fit
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import WHOLE, EpisodeReport, EpisodeTask, EpochResult, Incumbent, Share

MERGE = {"episode": "share", "handover": "merge"}


def share_config(k: int = 3, *, handover: str = "in_turn", batch_size: int = 4, **sampler: object) -> RunConfig:
    own = {"episode": "share", "handover": handover, "k": k, **sampler}
    return tiny_config(sampler=own, classifier={"batch_size": batch_size})


def in_turn(trainer: ClassifierTrainer, counts_C: np.ndarray, k: int, epochs: int = 1) -> Incumbent:
    """Return what K shares an epoch reach, each starting from what the one before it reached."""
    incumbent = trainer.initial(counts_C)
    for epoch in range(epochs):
        for j in range(k):
            trainer.train_share(incumbent, counts_C, epoch=epoch, episode_index=j, share=Share(j, k))
            incumbent = trainer.trained()
    return incumbent


def whole(trainer: ClassifierTrainer, counts_C: np.ndarray, epochs: int = 1) -> Incumbent:
    incumbent = trainer.initial(counts_C)
    for _ in range(epochs):
        trainer.train_epoch(incumbent, counts_C, episode_index=0)
        incumbent = trainer.trained()
    return incumbent


@given(num_steps=st.integers(1, 200), total=st.integers(1, 20))
def test_the_shares_of_an_epoch_are_its_steps_in_order_and_of_equal_length(num_steps: int, total: int) -> None:
    shares = [Share(number, total).steps(num_steps) for number in range(total)]
    assert [step for share in shares for step in share] == list(range(num_steps))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("sampler", [{}, {**FIXED, "max_count": 2}], ids=["append", "fixed_total"])
@pytest.mark.parametrize("counts_C", [ZEROS, MIXED, np.full(3, 1)], ids=str)
def test_shares_in_turn_under_one_composition_are_whole_epochs_bit_for_bit(
    sampler: dict[str, object], counts_C: np.ndarray
) -> None:
    """So shares without synthetic images are the plain Baseline, whatever K."""
    baseline = whole(tiny_trainer(tiny_config(sampler=sampler, classifier={"batch_size": 8})), counts_C, 2)
    for k in (1, 3):
        shares = tiny_trainer(share_config(k, batch_size=8, **sampler))
        assert_same_bits(in_turn(shares, counts_C, k, 2), baseline)


def test_proco_estimates_over_whole_epochs_in_shares_too() -> None:
    baseline = tiny_trainer(tiny_config(classifier={"method": "proco", "batch_size": 8}))
    config = share_config(3, batch_size=8)
    config = config.model_copy(update={"classifier": config.classifier.model_copy(update={"method": "proco"})})
    found, expected = in_turn(tiny_trainer(config), ZEROS, 3, 2), whole(baseline, ZEROS, 2)
    # ProCo draws noise in each share; what it counts does not depend on that.
    names = [name for name in baseline.model.state_dict() if "directions" in name and "count" in name]
    states = [snapshot.to_state_dict(each.arrays, baseline.model) for each in (found, expected)]
    assert names and all(torch.equal(states[0][name], states[1][name]) for name in names), names


def test_one_share_is_the_whole_epoch_with_its_result() -> None:
    trainer, shares = tiny_trainer(), tiny_trainer(share_config(1, batch_size=16))
    start = trainer.initial(MIXED)
    expected = trainer.train_epoch(start, MIXED, episode_index=0)
    found = shares.train_share(start, MIXED, epoch=0, episode_index=0, share=WHOLE)
    assert_same_result(found, expected)
    assert_same_bits(shares.trained(), trainer.trained())


def test_shares_at_once_draw_what_they_would_draw_in_turn() -> None:
    """Under one composition, no image of the pool is shown twice before all are shown once."""
    trainer = tiny_trainer(share_config(3, handover="merge"))
    start, maker = trainer.initial(MIXED), trainer.batch_maker
    expected = maker.plan(start, MIXED, 0).synthetic_by_class
    plans = [maker.plan(start, MIXED, j, share=Share(j, 3)) for j in range(3)]
    for c, indices in enumerate(expected):
        found = np.concatenate([plan.synthetic_by_class[c] for plan in plans])
        np.testing.assert_array_equal(found, indices)
    assert plans[-1].positions_C.tolist() == (maker.num_steps * MIXED).tolist()


def test_the_effective_prior_of_a_share_is_that_of_its_whole_epoch() -> None:
    trainer = tiny_trainer(share_config(3, prior="effective"))
    plan = trainer.batch_maker.plan(trainer.initial(MIXED), MIXED, 0, share=Share(1, 3))
    shown_C = plan.shown_C(np.sort(np.arange(41) % 3))
    assert shown_C.tolist() == (np.array([14, 14, 13]) + trainer.batch_maker.num_steps * MIXED).tolist()


def test_an_epoch_that_has_fewer_batches_than_shares_is_refused() -> None:
    trainer = tiny_trainer(share_config(4, batch_size=16))
    with pytest.raises(
        UserError,
        match=r"^sampler.episode share: sampler.k 4 episodes cannot divide the 3 mini-batches of an epoch: l",
    ):
        trainer.train_share(trainer.initial(ZEROS), ZEROS, epoch=0, episode_index=0, share=Share(0, 4))
    assert trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0).finite, (
        "a whole epoch is not divided"
    )


def episodes(trainer: ClassifierTrainer, compositions: list[np.ndarray]) -> list[Incumbent]:
    """Return what whole episodes train from one incumbent, each with its result."""
    start, trained = trainer.initial(ZEROS), []
    for j, counts_C in enumerate(compositions):
        result = trainer.train_epoch(start, counts_C, episode_index=j)
        trained.append(dataclasses.replace(trainer.trained(), result=result))
    return trained


def merge_trainer() -> ClassifierTrainer:
    return tiny_trainer(tiny_config(sampler={"episode": "whole", "handover": "merge"}))


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_the_mean_of_equal_episodes_is_one_of_them_bit_for_bit(k: int) -> None:
    trainer = merge_trainer()
    (one,) = episodes(trainer, [MIXED])
    merged = trainer.merged([one] * k)
    assert_same_bits(merged, one)
    assert merged.counts_C.tolist() == MIXED.tolist()
    assert merged.result is not None and one.result is not None
    assert merged.result.metrics == pytest.approx(one.result.metrics, nan_ok=True)
    assert merged.result.num_images == k * one.result.num_images


def test_merging_means_weights_and_moments_and_recalibrates_batch_norm() -> None:
    trainer = merge_trainer()
    trained = episodes(trainer, [ZEROS, MIXED, np.full(3, 2)])
    merged = trainer.merged(trained)
    states = [snapshot.to_state_dict(incumbent.arrays, trainer.model) for incumbent in [*trained, merged]]
    parameters = dict(trainer.model.named_parameters())
    for name in parameters:
        mean = torch.stack([state[name].double() for state in states[:3]]).mean(dim=0)
        torch.testing.assert_close(states[3][name].double(), mean, atol=1e-7, rtol=1e-6)
    moved = [name for name in states[3] if name.endswith("running_mean")]
    assert moved and any(
        not torch.allclose(states[3][name], torch.stack([state[name] for state in states[:3]]).mean(dim=0))
        for name in moved
    ), "the statistics are those of the mean classifier's own features"
    num_model = sum(state.numel() for state in states[3].values() if state.dtype == torch.float32)
    moments = [incumbent.arrays["float32"][num_model:] for incumbent in trained]
    np.testing.assert_allclose(
        merged.arrays["float32"][num_model:], np.mean(moments, axis=0, dtype=np.float64), rtol=1e-6, atol=1e-9
    )
    assert merged.counts_C.tolist() == [1, 2, 1]
    assert merged.positions_C.tolist() == np.max([one.positions_C for one in trained], axis=0).tolist()
    again = trainer.merged(trained)
    assert_same_bits(again, merged)


def test_a_mean_composition_is_in_whole_images() -> None:
    assert mean_composition([np.array([0, 2, 4]), np.array([2, 2, 0]), np.array([2, 2, 4])]).tolist() == [
        1,
        2,
        3,
    ]


def report(j: int, f1: float, signal_C: list[float], status: str = "ok") -> EpisodeReport:
    result = EpochResult(
        metrics={"f1": f1, "few": float("nan")},
        val_loss=1.0,
        train_loss=1.0,
        per_class={"recall": np.array(signal_C)},
        num_images=1,
        finite=True,
    )
    keep_C = np.ones(len(signal_C), np.int64)
    own = {"result": result} if status == "ok" else {}
    return EpisodeReport(epoch=1, episode_index=j, status=status, actions_C=keep_C, counts_C=keep_C, **own)


def test_the_trend_of_an_epoch_is_no_episodes_merit() -> None:
    before = report(0, 0.1, [0.2, 0.0]).result
    # Changes of .1, .3 and .2 about their mean of .2; the signal of class 1 changes by .1 a share.
    reports = [report(0, 0.2, [0.2, 0.1]), report(1, 0.5, [0.5, 0.2]), report(2, 0.7, [0.5, 0.3])]
    compared = [each.compared for each in without_trend(reports, before)]
    mean = np.mean([0.2, 0.5, 0.7])
    assert [each.metrics["f1"] for each in compared] == pytest.approx([mean - 0.1, mean + 0.1, mean])
    assert [each.per_class["recall"][0] for each in compared] == pytest.approx([0.3, 0.6, 0.3])
    assert [each.per_class["recall"][1] for each in compared] == pytest.approx([0.2] * 3)
    assert all(np.isnan(each.metrics["few"]) for each in compared)
    assert [each.result.metrics["f1"] for each in without_trend(reports, before)] == [0.2, 0.5, 0.7]


def test_before_the_first_epoch_the_first_share_changes_by_the_mean() -> None:
    reports = [report(0, 0.2, [0.1]), report(1, 0.5, [0.1]), report(2, 0.6, [0.1])]
    compared = [each.compared.metrics["f1"] for each in without_trend(reports, None)]
    mean = np.mean([0.2, 0.5, 0.6])
    assert compared == pytest.approx([mean, mean + 0.1, mean - 0.1])
    (alone,) = without_trend([report(0, 0.3, [0.1])], None)
    assert alone.compared.metrics["f1"] == 0.3


def test_a_failed_share_is_skipped_in_the_trend() -> None:
    reports = [report(0, 0.2, [0.1]), report(1, 0.0, [0.1], "exception"), report(2, 0.6, [0.1])]
    found = without_trend(reports, report(0, 0.0, [0.1]).result)
    assert found[1] is reports[1]
    assert [found[j].compared.metrics["f1"] for j in (0, 2)] == pytest.approx([0.3, 0.5])
    failed = [report(0, 0.0, [0.1], "died")]
    assert without_trend(failed, None) == failed


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (
            {"episode": "whole", "handover": "in_turn"},
            r"sampler.handover in_turn is for sampler.episode share, not for whole: use best or merge, or set",
        ),
        (
            {"episode": "share", "handover": "best"},
            r"sampler.handover best is for sampler.episode whole, not for share: use in_turn or merge, or set",
        ),
        (
            {"merge_from": 2},
            r"sampler.merge_from 2 is for whole episodes with sampler.handover merge, not for samp",
        ),
        ({**MERGE, "merge_from": 2}, r"sampler.merge_from 2 is for whole .* share with merge: leave it out"),
        (
            {"real_first": 0.6, "real_last": 0.5},
            r"real_first 0.6 and sampler.real_last 0.5 are more than all epochs",
        ),
        (
            {"agents": "pbt", "episode": "share"},
            r"sampler.agents pbt has members that train whole epochs and hand o",
        ),
        (
            {"agents": "pbt", "real_last": 0.5},
            r"sampler.agents pbt beside sampler.real_first 0 and .*real_last 0.5",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(sampler: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplerConfig(**sampler)


@pytest.mark.parametrize(
    ("sampler", "num_gpus", "episode", "handover", "workers", "passes"),
    [
        ({}, 0, "share", "in_turn", 1, 1),
        ({}, 2, "share", "in_turn", 1, 1),
        ({}, 3, "whole", "best", 3, 3),
        ({"handover": "merge"}, 0, "share", "merge", 3, 1),
        ({"handover": "merge"}, 3, "whole", "merge", 3, 3),
        ({"handover": "best"}, 0, "whole", "best", 3, 3),
        ({"handover": "in_turn"}, 8, "share", "in_turn", 1, 1),
        ({"agents": "pbt"}, 0, "whole", "best", 3, 3),
    ],
)
def test_auto_chooses_by_the_gpus(
    sampler: dict[str, object], num_gpus: int, episode: str, handover: str, workers: int, passes: int
) -> None:
    chosen = SamplerConfig(episode="auto", **sampler).concrete(num_gpus)
    assert (chosen.episode, chosen.handover, chosen.num_workers, chosen.passes) == (
        episode,
        handover,
        workers,
        passes,
    )
    stated = SamplerConfig(episode="whole")
    assert stated.concrete(8) == stated


def test_real_images_alone_in_the_first_and_last_epochs() -> None:
    sampler = SamplerConfig(epochs=10, real_first=0.4, real_last=0.2)
    assert [epoch for epoch in range(1, 11) if shows_synthetic(sampler, epoch)] == [5, 6, 7, 8]
    base_C, more_C = np.array([2, 4]), np.array([2, 2])
    assert composition_of(sampler, 4, base_C, more_C).tolist() == [0, 0]
    assert composition_of(sampler, 5, base_C, more_C).tolist() == [4, 6]
    config = tiny_config(sampler={"epochs": 3, "real_first": 1 / 3, "real_last": 1 / 3})
    trainer, baseline = tiny_trainer(config), tiny_trainer()
    images = [result.num_images for result in fit(trainer, MIXED, 3)[1]]
    assert images == [41, 41 + 3 * int(MIXED.sum()), 41]
    assert_same_bits(whole(baseline, ZEROS), _first_epoch(trainer))


def _first_epoch(trainer: ClassifierTrainer) -> Incumbent:
    trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0)
    return trainer.trained()


class WholeOnly(TrivialTrainer):
    """A user's trainer that knows whole epochs alone."""

    train_share = None
    merged = None


def test_a_trainer_of_whole_epochs_alone_is_named() -> None:
    env = BatchCompositionEnv({"sampler": {"epochs": 2}}, trainer=WholeOnly(num_classes=3))
    keep_C = np.ones(3, np.int64)
    task = EpisodeTask(epoch=1, episode_index=0, actions_C=keep_C, base_C=keep_C, share=Share(0, 2))
    env.reset(options={"task": task})
    with pytest.raises(
        UserError, match=r"^sampler.episode share: WholeOnly has no train_share, which trains a part"
    ):
        env.train(keep_C)
    with pytest.raises(
        UserError, match=r"^sampler.handover merge: WholeOnly has no merged, which averages classif"
    ):
        env.merged([env.incumbent])


def test_a_task_acts_on_its_own_base_and_in_its_own_epoch() -> None:
    env = BatchCompositionEnv({"sampler": {"epochs": 4}}, trainer=TrivialTrainer(num_classes=3))
    more_C = np.full(3, 2)
    task = EpisodeTask(
        epoch=3, episode_index=1, actions_C=more_C, base_C=np.array([0, 4, 16]), share=Share(1, 2)
    )
    env.reset(options={"task": task})
    found = env.train(more_C)
    assert (found.epoch, found.episode_index, found.num_clamped) == (3, 1, 1)
    assert found.counts_C.tolist() == [2, 6, 16]
    assert env.incumbent.epoch == 3
