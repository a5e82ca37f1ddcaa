"""The epochs within a budget of images: the Markov chain of a class by hand and against simulated agents."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlcas.agents import build_agents
from rlcas.batches.budget import epochs_within, expected_added, expected_count, num_moving
from rlcas.batches.composition import apply_actions
from rlcas.config import SamplerConfig


def first(number: int, **sampler: object) -> list[float]:
    walk = expected_added(SamplerConfig.model_validate(sampler), num_classes=2)
    return list(itertools.islice(walk, number))


def test_a_walk_from_2_by_2_is_clamped_at_0_and_so_drifts_upwards() -> None:
    walk = expected_count(2, step=2, max_count=16)
    assert next(walk) == pytest.approx((0 + 2 + 4) / 3)
    assert next(walk) == pytest.approx((3 * 0 + 3 * 2 + 2 * 4 + 1 * 6) / 9)
    assert next(walk) == pytest.approx((9 * 0 + 8 * 2 + 6 * 4 + 3 * 6 + 1 * 8) / 27)


def test_a_walk_is_clamped_at_the_maximum_too() -> None:
    walk = expected_count(0, step=2, max_count=5)
    assert next(walk) == pytest.approx((2 * 0 + 1 * 2) / 3)
    assert next(walk) == pytest.approx((5 * 0 + 3 * 2 + 1 * 4) / 9)
    assert next(walk) == pytest.approx((13 * 0 + 9 * 2 + 4 * 4 + 1 * 5) / 27)


@pytest.mark.parametrize("agents", ["paper", "uniform", "state"])
def test_the_expected_counts_are_the_mean_of_many_walks(agents: str) -> None:
    sampler = SamplerConfig(agents=agents, initial_count=3, action_step=2, max_count=7)
    rng, counts_W = np.random.default_rng(0), np.full(100_000, 3)
    for expected in itertools.islice(expected_added(sampler, num_classes=1), 12):
        counts_W = apply_actions(counts_W, rng.integers(3, size=len(counts_W)), step=2, max_count=7)
        assert counts_W.mean() == pytest.approx(expected, abs=0.03)


def test_where_the_mean_is_handed_over_the_expected_counts_are_those_of_many_means() -> None:
    sampler = SamplerConfig(episode="share", k=3, initial_count=1, action_step=2, max_count=7)
    rng, base_W = np.random.default_rng(0), np.full(50_000, 1)
    for expected in itertools.islice(expected_added(sampler, num_classes=1), 6):
        actions_3W = rng.integers(3, size=(3, len(base_W)))
        counts_3W = apply_actions(base_W, actions_3W, step=2, max_count=7)
        assert counts_3W.mean() == pytest.approx(expected, abs=0.03)
        base_W = np.rint(counts_3W.mean(axis=0)).astype(np.int64)


@pytest.mark.parametrize("agents", ["dose", "dose_permuted"])
@pytest.mark.parametrize(("k", "exploration"), [(2, 0.4), (3, 0.5), (4, 1.0), (1, 0.01)])
def test_agents_dose_add_what_perturbations_around_their_first_dose_add(
    agents: str, k: int, exploration: float
) -> None:
    """Doses of 0, of less than a step, between, of less than a step below the most, and the most."""
    sampler = SamplerConfig(
        agents=agents,
        k=k,
        exploration=exploration,
        lr=0.0,
        initial_count=(0, 1, 4, 6, 7),
        action_step=2,
        max_count=7,
    )
    dosing, rng = build_agents(sampler, 5, 5, 0), np.random.default_rng(0)
    incumbent_C = np.zeros(5, np.int64)
    added = []
    for _ in range(4000):
        base_C = dosing.centre(incumbent_C)
        designed_KC = dosing.design(k, rng)
        assert designed_KC is not None
        counts_KC = [apply_actions(base_C, of_C, step=2, max_count=7) for of_C in designed_KC]
        added.append(np.sum(counts_KC) / k)
    for expected in itertools.islice(expected_added(sampler, num_classes=5), 3):
        assert np.mean(added) == pytest.approx(expected, abs=5 * np.std(added) / len(added) ** 0.5 + 1e-9)


def test_what_agents_dose_are_expected_to_add_by_hand() -> None:
    """Steps of 2 around 0, 1, 4 and 7 of at most 7: up by 2, 2, 2 and 0, down by 0, 1, 2 and 2."""
    counts = {"initial_count": (0, 1, 4, 7), "action_step": 2, "max_count": 7}
    expected = expected_added(SamplerConfig(agents="dose", exploration=0.5, **counts), num_classes=4)
    assert next(expected) == next(expected) == pytest.approx(12 + 0.5 * ((2 - 0) + (2 - 1) + 0 + (0 - 2)) / 2)


def test_nothing_is_added_in_epochs_of_real_images_alone() -> None:
    sampler = SamplerConfig(epochs=4, real_first=0.25, real_last=0.5, agents="constant", initial_count=2)
    assert list(itertools.islice(expected_added(sampler, num_classes=3), 4)) == [0.0, 6.0, 0.0, 0.0]


def test_of_a_population_the_share_that_moves_acts_after_the_first_epoch() -> None:
    """Members of equal worth, of which `cluster.population.exchange.exchanged` replaces some by others."""
    from trivial import TrivialTrainer

    from cluster.population.exchange import exchanged

    sampler, rng = (
        SamplerConfig(agents="pbt", k=5, initial_count=1, action_step=1, max_count=4),
        np.random.default_rng(0),
    )
    blank = TrivialTrainer(num_classes=2)
    seen_TK = np.zeros((4, 5))
    for run in range(1500):
        parents, actions_KC = [blank.initial(np.array([1, 1]))] * 5, list(rng.integers(3, size=(5, 2)))
        for epoch in range(4):
            parents = [
                blank.initial(apply_actions(parent.counts_C, actions_C, step=1, max_count=4))
                for parent, actions_C in zip(parents, actions_KC, strict=True)
            ]
            seen_TK[epoch] += [parent.counts_C.sum() for parent in parents]
            keys_K = [(score, 0.0) for score in rng.random(5)]
            parents, actions_KC = exchanged(parents, keys_K, 2, run * 10 + epoch)
    expected = list(itertools.islice(expected_added(sampler, num_classes=2), 4))
    np.testing.assert_allclose(seen_TK.mean(axis=1) / 1500, expected, atol=0.06)
    assert num_moving(5) == 2


def test_constant_agents_stay_and_counts_of_each_class_add_up() -> None:
    assert first(3, agents="constant", initial_count=(1, 4)) == [5, 5, 5]
    assert first(1, initial_count=(0, 16)) == pytest.approx([2 / 3 + 16 - 2 / 3])


@pytest.mark.parametrize(
    ("budget", "added", "epochs", "at_most"),
    [
        (300, [0, 0, 0, 0], 3, 3),
        (300, [50, 50, 50], 2, 2),
        (370, [50, 50, 50], 2, 2),
        (380, [50, 50, 50], 3, 2),
        (375, [50, 50, 50], 2, 2),  # as near to 300 as to 450
        (40, [0, 0], 1, 1),
        (700, [10, 40, 80, 150, 300], 4, 4),  # 110, 250, 430, 680, 1080
    ],
)
def test_the_epochs_are_those_nearest_to_the_budget_or_the_most_within_it(
    budget: float, added: list[float], epochs: int, at_most: int
) -> None:
    assert epochs_within(budget, 100, added, at_most=False) == epochs
    assert epochs_within(budget, 100, added, at_most=True) == at_most
