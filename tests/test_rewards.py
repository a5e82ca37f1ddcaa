import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcas import rewards
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.rewards import REWARDS, against_others, reward_named, with_advantages
from rlcas.types import EpisodeReport, EpochResult

NAN = float("nan")


def result(f1, signals_C=(0.0, 0.0)):
    return EpochResult(
        metrics={"f1": f1, "acc": 0.9},
        val_loss=0.0,
        train_loss=0.0,
        per_class={"log_likelihood": np.array(signals_C)},
        num_images=1,
        finite=True,
    )


def report(episode_index, f1=0.5, signals_C=(0.0, 0.0), **changes):
    counts_C = np.zeros(2, np.int64)
    whole = {
        "epoch": 1,
        "episode_index": episode_index,
        "status": "ok",
        "actions_C": counts_C,
        "counts_C": counts_C,
    }
    return EpisodeReport(**whole | {"result": result(f1, signals_C)} | changes)


def sampler(**settings):
    """Settings of agents that any reward may teach."""
    return SamplerConfig(k=3, **settings)


def with_rewards(reports, sampler):
    """Reward the episodes by the setting `sampler.reward`."""
    return rewards.with_rewards(reports, reward_named(sampler.reward), sampler)


def half(result, metric):
    return result.metrics[metric] / 2, {"whole": result.metrics[metric]}


@pytest.mark.parametrize(
    ("name", "expected"), [("cubic", 0.5**3), ("linear", 0.46), ("rank", 0.46), ("per_class", 0.46)]
)
def test_rewards_of_one_episode_by_hand(name, expected):
    reward, parts = REWARDS[name](result(0.46), "f1")
    assert reward == pytest.approx(expected)
    assert parts == {"f1": 0.46}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cubic", [0.343, 0.343, 0.512]), ("linear", [0.66, 0.66, 0.76]), ("rank", [0.25, 0.25, 1.0])],
)
def test_shared_rewards_of_three_episodes_by_hand(name, expected):
    results = [result(0.66), result(0.66), result(0.76)]
    rewards_K1, parts = REWARDS[name].together(results, sampler(reward=name))
    assert rewards_K1.tolist() == pytest.approx(np.array(expected)[:, None])
    assert parts == [{"f1": 0.66}, {"f1": 0.66}, {"f1": 0.76}]


def test_each_class_is_rewarded_by_its_own_signal_and_a_share_of_the_teams():
    """Own: against the mean of the others. Class 2 has no validation images."""
    results = [result(0.5, (-1.0, -3.0, NAN)), result(0.6, (-2.0, -3.0, NAN)), result(0.7, (-3.0, -6.0, NAN))]
    rewards_KC, parts = REWARDS["per_class"].together(results, sampler(reward="per_class", team_share=2))
    team_K = [2 * -0.15, 0.0, 2 * 0.15]
    own_KC = [[1.5, 1.5, 0], [0, 1.5, 0], [-1.5, -3, 0]]
    np.testing.assert_allclose(rewards_KC, np.add(own_KC, np.array(team_K)[:, None]), atol=1e-12)
    assert [part["own"] for part in parts] == pytest.approx([1.0, 0.5, -1.5])
    assert [part["team"] for part in parts] == pytest.approx(team_K)
    assert [part["f1"] for part in parts] == [0.5, 0.6, 0.7]


def test_the_ranks_of_one_valid_episode_is_the_middle_and_its_own_reward_nothing():
    assert REWARDS["rank"].together([result(0.3)], sampler(reward="rank"))[0].tolist() == [[0.5]]
    rewards_KC, _ = REWARDS["per_class"].together([result(0.3, (-1, -2))], sampler(reward="per_class"))
    assert rewards_KC.tolist() == [[0, 0]]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", REWARDS)
def test_rewards_follow_their_episodes_wherever_they_stand(name, k, num_classes, seed):
    rng = np.random.default_rng(seed)
    results = [result(rng.choice([0.2, 0.5, 0.9]), rng.normal(size=num_classes)) for _ in range(k)]
    rewards_KX, parts = REWARDS[name].together(results, sampler(reward=name))
    assert rewards_KX.shape in ((k, 1), (k, num_classes))
    assert np.isfinite(rewards_KX).all()
    order = rng.permutation(k)
    moved_KX, moved_parts = REWARDS[name].together([results[j] for j in order], sampler(reward=name))
    np.testing.assert_allclose(moved_KX, rewards_KX[order], atol=1e-12)
    for j, part in zip(order, moved_parts, strict=True):
        assert part == pytest.approx(parts[j], abs=1e-12)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_what_all_episodes_share_is_nobodys_merit(k, seed):
    values_KC = np.random.default_rng(seed).normal(size=(k, 3))
    compared_KC = against_others(values_KC)
    np.testing.assert_allclose(compared_KC.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(against_others(values_KC + 5), compared_KC, atol=1e-12)
    np.testing.assert_allclose(compared_KC[0], values_KC[0] - values_KC[1:].mean(axis=0))


def test_an_episode_that_failed_is_left_out_of_what_the_others_are_compared_with():
    failed = report(1, status="exception", result=None)
    reports = [report(0, 0.5, (-1.0, -2.0)), failed, report(2, 0.7, (-1.0, -4.0))]
    first, second, third = with_rewards(reports, sampler(reward="per_class", team_share=0.0))
    assert second is failed
    assert first.rewards_C.tolist() == [0, 2]
    assert third.rewards_C.tolist() == [0, -2]
    assert (first.reward, third.reward) == (1, -1)
    assert first.reward_parts == {"f1": 0.5, "own": 1, "team": 0}


def test_the_reported_advantage_is_the_one_that_the_sampler_weighs_by():
    reports = [report(0, 0.2), report(1, status="died"), report(2, 0.6)]
    against_baseline = sampler(reward="linear")
    weighed = with_advantages(with_rewards(reports, against_baseline), 0.3, against_baseline)
    np.testing.assert_allclose([each.advantage for each in weighed], [0.2 - 0.3, NAN, 0.6 - 0.3])
    against_each_other = sampler(reward="linear", advantages="normalised")
    weighed = with_advantages(with_rewards(reports, against_each_other), 0.3, against_each_other)
    np.testing.assert_allclose([each.advantage for each in weighed], [-1, NAN, 1])


def test_the_advantage_of_agents_with_rewards_of_their_own_is_the_mean():
    own = sampler(reward="per_class", team_share=0.0, advantages="normalised")
    weighed = with_advantages(
        with_rewards([report(0, 0.5, (0.0, 0.0)), report(1, 0.5, (2.0, -6.0))], own), 0.3, own
    )
    deviation = np.sqrt((1 + 9) / 2)
    np.testing.assert_allclose([each.advantage for each in weighed], [2 / 2 / deviation, -2 / 2 / deviation])


def test_a_function_from_outside_is_shared_by_all_agents():
    first, second = with_rewards([report(0, 0.5), report(1, 0.7)], sampler(reward=f"{__name__}:half"))
    assert (first.reward, second.reward) == (0.25, 0.35)
    assert first.reward_parts == {"whole": 0.5}
    assert first.rewards_C is None


def test_a_signal_that_the_trainer_does_not_measure_is_refused_with_those_it_does():
    with pytest.raises(UserError, match=r"^sampler.signal 'recall' is unknown: use one of log_likelihood$"):
        with_rewards([report(0), report(1)], sampler(reward="per_class", signal="recall"))


def test_reports_that_differ_in_what_each_agent_was_taught_by_are_not_equal():
    one = report(0, rewards_C=np.array([0.1, 0.2]))
    assert one == dataclasses.replace(one, rewards_C=np.array([0.1, 0.2]))
    assert one != dataclasses.replace(one, rewards_C=np.array([0.1, 0.3]))


def test_a_reward_from_outside_that_cannot_be_called_is_refused():
    with pytest.raises(UserError, match=r"^sampler.reward 'math:pi' is not a function: name a function of an "):
        reward_named("math:pi")
