"""Agents dose: designs, the fit of planted responses, and where the dose ends."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlcas.agents import build_agents
from rlcas.agents.designs import designed_actions
from rlcas.agents.dose_response import PRIOR_SCALE, fit_response, rarity
from rlcas.config import SamplerConfig

NUM_CLASSES = 8
CLASS_COUNTS_C = np.array([1679, 977, 565, 325, 186, 107, 61, 35])
MOST = 8.0
"""The largest dose, in steps."""


def make(num_classes=NUM_CLASSES, **settings):
    agents = build_agents(
        SamplerConfig(**{"agents": "dose", "max_count": 16, **settings}), num_classes, 1, seed=0
    )
    agents.begin(CLASS_COUNTS_C[:num_classes])
    return agents


def planted_run(signal_of, seed, num_epochs=24, noise=0.08, **settings):
    """Return the agents after a run whose classes' signals are `signal_of(counts_C)` and noise, half of it common."""
    agents, rng = make(**settings), np.random.default_rng(seed)
    for epoch in range(1, num_epochs + 1):
        actions_KC = agents.design(agents.sampler.k, rng)
        counts_KC = np.clip(agents.centre(None) + agents.sampler.action_step * (actions_KC - 1), 0, 16)
        noise_KC = rng.normal(size=counts_KC.shape) + 0.5 * rng.normal(size=(len(counts_KC), 1))
        # A rise that all episodes of an epoch share must not be taken for an effect of the images.
        signals_KC = np.stack([signal_of(counts_C) for counts_C in counts_KC]) + noise * noise_KC + epoch
        agents.learn(torch.tensor(counts_KC), torch.tensor(signals_KC), epoch / num_epochs)
    return agents


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_designed_episodes_are_antithetic_pairs(num_episodes, num_classes, seed):
    signs_KC = designed_actions(num_episodes, num_classes, np.random.default_rng(seed))
    assert signs_KC.shape == (num_episodes, num_classes) and signs_KC.dtype == np.int64
    assert set(np.unique(signs_KC)) <= {-1, 1}
    paired_KC = signs_KC[: num_episodes - num_episodes % 2]
    np.testing.assert_array_equal(paired_KC[::2], -paired_KC[1::2])
    assert (paired_KC.sum(axis=0) == 0).all(), "every class is raised as often as it is lowered"


@pytest.mark.parametrize(("num_classes", "num_pairs"), [(2, 2), (3, 4), (5, 8), (8, 8), (8, 16)])
def test_with_pairs_enough_no_class_is_taken_for_another(num_classes, num_pairs):
    signs_KC = designed_actions(2 * num_pairs, num_classes, np.random.default_rng(0))
    np.testing.assert_array_equal(signs_KC.T @ signs_KC, 2 * num_pairs * np.eye(num_classes))


def test_pairs_of_an_epoch_differ_and_the_last_of_an_odd_number_is_drawn_afresh():
    rng = np.random.default_rng(1)
    signs_KC = designed_actions(9, 8, rng)
    first_PC = signs_KC[:8:2]
    assert np.linalg.matrix_rank(first_PC) == 4
    lone_TC = np.stack([designed_actions(3, 8, rng)[-1] for _ in range(400)])
    assert np.abs(lone_TC.mean(axis=0)).max() < 0.2 and np.abs(np.corrcoef(lone_TC.T) - np.eye(8)).max() < 0.2


def test_rarity_grows_from_the_head_to_one_and_is_one_where_all_are_equal():
    rarity_C = rarity(CLASS_COUNTS_C)
    assert (rarity_C.diff() > 0).all() and rarity_C[-1] == 1
    assert rarity_C[0].item() == pytest.approx(np.log(2) / np.log(1 + 1679 / 35))
    assert rarity(np.array([7, 7, 7])).tolist() == [1, 1, 1]
    assert rarity(np.array([5, 0])).isfinite().all(), "a class without real images"


def drawn(seed, num_epochs=12, k=3, noise_correlation=0.0):
    """Return observations of a response that is drawn from the prior, and its parameters [C, 3]."""
    rng = np.random.default_rng(seed)
    rarity_C, sigma_C = rarity(CLASS_COUNTS_C).numpy(), np.linspace(0.02, 0.2, NUM_CLASSES)
    deviations_C3 = PRIOR_SCALE * np.stack([rarity_C, rarity_C, np.full(8, 8**-0.5)], axis=1)
    true_C3 = sigma_C[:, None] * deviations_C3 * rng.normal(size=(8, 3))
    steps_TKC = np.stack([4 + designed_actions(k, 8, rng) for _ in range(num_epochs)]).astype(float)
    common_TK1 = rng.normal(size=(num_epochs, k, 1))
    noise_TKC = np.sqrt(1 - noise_correlation) * rng.normal(size=steps_TKC.shape)
    noise_TKC = sigma_C * (noise_TKC + np.sqrt(noise_correlation) * common_TK1)
    inputs_TKC3 = np.stack(
        [steps_TKC, steps_TKC**2 / MOST, 0 * steps_TKC + steps_TKC.sum(2, keepdims=True)], -1
    )
    signals_TKC = (inputs_TKC3 * true_C3).sum(-1) + noise_TKC + rng.normal(size=(num_epochs, 1, 8))
    return torch.tensor(steps_TKC), torch.tensor(signals_TKC), true_C3


def fitted(steps_TKC, signals_TKC, weights_T=None):
    weights_T = torch.ones(len(steps_TKC)).double() if weights_T is None else weights_T
    return fit_response(steps_TKC, signals_TKC, weights_T, rarity(CLASS_COUNTS_C), MOST)


def test_a_planted_matrix_is_recovered():
    steps_TKC, signals_TKC, true_C3 = drawn(0, num_epochs=2000)
    response = fitted(steps_TKC, signals_TKC)
    true_CC = np.diag(true_C3[:, 0] + 2 * true_C3[:, 1] * 4 / MOST) + true_C3[:, 2:]
    found_CC = response.matrix(torch.full((8,), 4.0).double()).numpy()
    np.testing.assert_allclose(found_CC, true_CC, atol=0.004)
    clear_C = np.abs(true_CC.diagonal()) > 0.01
    assert clear_C.sum() >= 4
    np.testing.assert_array_equal(np.sign(found_CC.diagonal())[clear_C], np.sign(true_CC.diagonal())[clear_C])
    slope_C, _ = response.slope(torch.full((8,), 4.0).double())
    np.testing.assert_allclose(slope_C, true_CC.mean(axis=0), atol=0.003)


def test_the_fit_is_that_of_weighted_least_squares_with_the_prior_as_rows():
    """Of one class against NumPy, by explicit levels of the epochs."""
    steps_TKC, signals_TKC, _ = drawn(3, num_epochs=5)
    weights_T = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.1]).double()
    response, c = fitted(steps_TKC, signals_TKC, weights_T), 6
    roots_N = np.repeat(weights_T.sqrt().numpy(), 3)
    own_N, total_N = steps_TKC[..., c].flatten().numpy(), steps_TKC.sum(-1).flatten().numpy()
    levels_NT = np.repeat(np.eye(5), 3, axis=0)
    design_NP = roots_N[:, None] * np.column_stack([own_N, own_N**2 / MOST, total_N, levels_NT])
    rarity_c = rarity(CLASS_COUNTS_C)[c].item()
    prior_3P = np.diag(1 / (PRIOR_SCALE * np.array([rarity_c, rarity_c, 8**-0.5])))
    prior_3P = np.hstack([prior_3P, np.zeros((3, 5))])
    target_N = np.concatenate([roots_N * signals_TKC[..., c].flatten().numpy(), np.zeros(3)])
    full = np.vstack([design_NP, prior_3P])
    expected_P, squares, *_ = np.linalg.lstsq(full, target_N, rcond=None)
    np.testing.assert_allclose(response.mean_C3[c], expected_P[:3], rtol=1e-8)
    degrees = 2 * weights_T.sum().item()
    expected_33 = squares.item() / degrees * np.linalg.inv(full.T @ full)[:3, :3]
    np.testing.assert_allclose(response.covariance_C33[c], expected_33, rtol=1e-8)
    assert response.degrees == pytest.approx(degrees)


@pytest.mark.parametrize("noise_correlation", [0.0, 0.6])
def test_the_probability_of_a_benefit_is_calibrated(noise_correlation):
    """Over responses from the prior: of the benefits with probability p a share p is one, and is known of many."""
    doses_C = torch.full((8,), 4.0).double()
    probabilities, benefits = [], []
    for seed in range(250):
        steps_TKC, signals_TKC, true_C3 = drawn(seed, noise_correlation=noise_correlation)
        probabilities.append(fitted(steps_TKC, signals_TKC).benefit_probability(doses_C).numpy())
        true_C = (4 * true_C3[:, 0] + 16 / MOST * true_C3[:, 1]) / 8 + 4 * true_C3[:, 2].mean()
        benefits.append(true_C > 0)
    p_N, is_N = np.concatenate(probabilities), np.concatenate(benefits)
    for low, high in [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1)]:
        within_N = (p_N >= low) & (p_N <= high)
        assert within_N.sum() > 80
        assert is_N[within_N].mean() == pytest.approx(p_N[within_N].mean(), abs=0.08)


def test_noise_that_classes_share_makes_the_common_effect_less_certain():
    alone, shared = (fitted(*drawn(1, 200, noise_correlation=r)[:2]).team_covariance_C33 for r in (0.0, 0.9))
    assert (shared[:, 2, 2] > 3 * alone[:, 2, 2]).all()
    assert (torch.linalg.eigvalsh(shared) > 0).all()


def test_nothing_is_said_before_episodes_can_be_compared():
    unseen_TKC = torch.full((4, 3, 8), torch.nan).double()
    response = fitted(unseen_TKC, unseen_TKC)
    assert response.benefit_probability(torch.ones(8).double()).tolist() == [0.5] * 8
    steps_TKC, signals_TKC, _ = drawn(0, 1)
    alone = fitted(steps_TKC[:, :1], signals_TKC[:, :1])
    assert alone.degrees == 0 and not alone.mean_C3.any()


def test_a_class_without_images_to_measure_it_by_and_a_failed_episode_are_left_out():
    steps_TKC, signals_TKC, _ = drawn(0, 30)
    signals_TKC[..., 2] = torch.nan
    signals_TKC[3, 1] = torch.nan
    response = fitted(steps_TKC, signals_TKC)
    assert not response.mean_C3[2].any() and response.degrees == 30 * 2 - 1
    without_2 = [0, 1, 3, 4, 5, 6, 7]
    own_C = response.mean_C3[without_2, 0]
    np.testing.assert_allclose(response.team_mean_C3[without_2, 0], own_C / 7, rtol=1e-12)
    assert response.benefit(torch.ones(8).double())[0].isfinite().all()


def test_one_episode_an_epoch_is_compared_with_those_of_other_epochs():
    steps_TKC, _, _ = drawn(0, 60, k=1)
    signals_TKC = 0.05 * steps_TKC * (torch.arange(8) == 7) + 3
    response = fitted(steps_TKC, signals_TKC)
    assert response.degrees == 59
    assert response.slope(torch.full((8,), 4.0).double())[0].argmax() == 7


BEST_C = np.array([0, 0, 2, 4, 6, 10, 12, 16])


def quality(counts_C):
    return 1 - ((counts_C - BEST_C) / 16) ** 2


def test_doses_climb_where_images_help_and_stay_at_zero_where_they_do_not():
    ends_SC = np.stack([planted_run(quality, seed).centre(None) for seed in range(12)])
    mean_C = ends_SC.mean(axis=0)
    assert (mean_C[:2] < 1.5).all() and (mean_C[5:] > 5).all() and mean_C[7] > 12
    gained_S = [quality(end_C).mean() - quality(0 * end_C).mean() for end_C in ends_SC]
    best = 1 - quality(np.zeros(8)).mean()
    assert np.mean(gained_S) > 0.75 * best


def test_images_that_harm_or_do_nothing_end_at_a_dose_of_zero():
    def harm(counts_C):
        return -0.02 * counts_C - 0.003 * counts_C.sum()

    for seed in range(8):
        assert not planted_run(harm, seed).centre(None).any()
    nothing_SC = np.stack([planted_run(lambda counts_C: 0 * counts_C, seed).centre(None) for seed in range(12)])
    assert (nothing_SC == 0).mean() > 0.8
    sure_SC = [
        planted_run(lambda counts_C: 0 * counts_C, seed, benefit_probability=0.99).centre(None)
        for seed in range(12)
    ]
    assert np.mean(np.stack(sure_SC) == 0) > 0.97


def test_at_lr_zero_the_episodes_are_perturbed_and_the_dose_stays():
    agents = planted_run(quality, 0, lr=0, initial_count=4)
    assert agents.centre(None).tolist() == [4] * 8
    assert agents.response().slope(torch.full((8,), 2.0).double())[0][7] > 0


def test_a_dose_moves_by_a_step_at_most_and_falls_to_zero_at_once():
    agents, rng = make(initial_count=6), np.random.default_rng(0)
    before_C = agents.centre(None)
    for epoch in range(1, 12):
        counts_KC = np.clip(before_C + 2 * (agents.design(3, rng) - 1), 0, 16)
        signals_KC = np.stack([quality(counts_C) for counts_C in counts_KC]) + 0.05 * rng.normal(size=(3, 8))
        agents.learn(torch.tensor(counts_KC), torch.tensor(signals_KC), epoch / 30)
        after_C = agents.centre(None)
        assert (np.abs(after_C - before_C)[after_C > 0] <= 2).all()
        before_C = after_C


@pytest.mark.parametrize("count", [0, 1, 4, 16])
@pytest.mark.parametrize("exploration", [0.01, 0.5, 1.0])
def test_the_probabilities_are_the_shares_of_the_designs(count, exploration):
    agents, rng = make(initial_count=count, exploration=exploration), np.random.default_rng(0)
    p_C3 = agents(torch.zeros(1, 8, 1))[0].softmax(-1).numpy()
    actions_KC = np.concatenate([agents.design(4, rng) for _ in range(800)])
    shares_C3 = np.stack([(actions_KC == action).mean(axis=0) for action in range(3)], axis=1)
    np.testing.assert_allclose(p_C3, shares_C3, atol=0.05)
    counts_KC = count + 2 * (actions_KC - 1)
    assert (counts_KC > -2).all() and (counts_KC <= (18 if count < 16 else 16)).all()
    perturbed = (actions_KC != 1).any(axis=1)
    assert perturbed.mean() > 0.4, "exploration never stops"


def test_a_dose_that_was_found_before_holds_until_the_run_says_otherwise():
    found_C, probability_C = np.array([0, 0, 0, 0, 0, 0, 4, 8]), np.array([0.1] * 6 + [0.97, 0.99])
    agents = make()
    agents.begin(CLASS_COUNTS_C, found_C, probability_C)
    assert agents.centre(np.full(8, 2)).tolist() == found_C.tolist()
    rng = np.random.default_rng(0)
    doses = []
    for epoch in range(1, 13):
        counts_KC = np.clip(agents.centre(None) + 2 * (agents.design(3, rng) - 1), 0, 16)
        signals_KC = -0.1 * counts_KC + 0.01 * rng.normal(size=(3, 8))
        agents.learn(torch.tensor(counts_KC), torch.tensor(signals_KC), epoch / 30)
        doses.append(agents.centre(None))
    assert not doses[-1].any()
    neutral = make()
    neutral.begin(CLASS_COUNTS_C, found_C, probability_C)
    response = neutral.response()
    p_C = neutral.benefit_probability(response, torch.tensor(found_C).double())
    assert p_C[7] > 0.8 and (p_C[:6] < 0.5).all()


def test_a_learner_that_resumes_has_the_same_bits():
    agents, other = planted_run(quality, 0, num_epochs=5), make()
    other.load_state_dict(agents.state_dict())
    for each in (agents, other):
        each.learn(torch.ones(3, 8).long(), torch.arange(24.0).reshape(3, 8), 0.5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(agents.state_dict().values(), other.state_dict().values(), strict=True)
        if not a.isnan().any()
    )
    assert torch.equal(agents.curves(), other.curves())


def test_curves_are_of_the_own_class_against_no_images():
    agents = planted_run(quality, 0, noise=0.01, num_epochs=60)
    curves_CG = agents.curves()
    assert curves_CG.shape == (8, 9) and (curves_CG[:, 0] == 0).all()
    assert curves_CG[7].argmax() >= 6 and curves_CG[0].argmax() == 0
    assert make().curves().isnan().all()


def test_students_distribution_is_scipys():
    steps_TKC, signals_TKC, _ = drawn(0, 3)
    response = fitted(steps_TKC, signals_TKC)
    mean_C, deviation_C = response.benefit(torch.ones(8).double())
    expected_C = stats.t.cdf((mean_C / deviation_C).numpy(), 6)
    np.testing.assert_allclose(response.benefit_probability(torch.ones(8).double()), expected_C)
