import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcas.reinforce import (
    draw_actions,
    joint_log_prob,
    log_prob,
    normalised,
    policy_entropy,
    policy_loss,
    update_baseline,
)


def gradient_of_eq_1(logits_C3, actions_KC, rewards_K, baseline):
    """(1/K) sum_j (R_j - B) (onehot(a_i^j) - p_i), in float64: what eq. 1 adds to θ_i, times 1/η."""
    p_C3 = np.exp(logits_C3) / np.exp(logits_C3).sum(axis=1, keepdims=True)
    gradient_C3 = np.zeros_like(p_C3)
    for actions_C, reward in zip(actions_KC, rewards_K, strict=True):
        gradient_C3 += (reward - baseline) * (np.eye(3)[actions_C] - p_C3)
    return gradient_C3 / len(rewards_K)


@pytest.mark.parametrize(("num_classes", "k"), [(1, 1), (2, 3), (8, 3), (200, 5)])
def test_the_gradient_is_that_of_eq_1_written_by_hand(num_classes, k):
    rng = np.random.default_rng(7)
    logits_C3 = rng.normal(size=(num_classes, 3))
    actions_KC = rng.integers(0, 3, size=(k, num_classes))
    rewards_K = rng.random(k)
    parameter_C3 = torch.tensor(logits_C3, requires_grad=True)
    log_probs_K = joint_log_prob(parameter_C3, torch.from_numpy(actions_KC))
    policy_loss(log_probs_K, torch.from_numpy(rewards_K), 0.3).backward()
    expected_C3 = gradient_of_eq_1(logits_C3, actions_KC, rewards_K, 0.3)
    np.testing.assert_allclose(-parameter_C3.grad.numpy(), expected_C3, rtol=1e-12, atol=1e-15)


def test_the_joint_log_probability_sums_over_classes():
    logits_C3 = torch.zeros(5, 3)
    assert joint_log_prob(logits_C3, torch.ones(2, 5)).tolist() == pytest.approx([-5 * math.log(3)] * 2)


def test_logits_of_each_episode_give_the_same_as_shared_ones():
    logits_C3, actions_KC = torch.randn(4, 3), torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    stacked_KC3 = torch.stack([logits_C3, logits_C3])
    assert torch.equal(joint_log_prob(logits_C3, actions_KC), joint_log_prob(stacked_KC3, actions_KC))


def test_the_first_baseline_is_gamma_times_the_mean_reward():
    assert update_baseline(0.0, [0.1, 0.2, 0.6], 0.99) == pytest.approx(0.99 * 0.3, rel=1e-15)


def test_the_baseline_follows_eq_2():
    second = update_baseline(0.297, torch.tensor([0.5, 0.7], dtype=torch.float64), 0.99)
    assert second == pytest.approx(0.01 * 0.297 + 0.99 * 0.6, rel=1e-12)


def test_gamma_of_one_half_weighs_old_and_new_alike():
    assert update_baseline(0.2, torch.tensor([0.4]), 0.5) == pytest.approx(0.3)


@given(st.lists(st.floats(-8, 8), min_size=3, max_size=3), st.integers(0, 2**32))
def test_actions_follow_their_probabilities(logits, seed):
    p_3 = np.exp(logits) / np.exp(logits).sum()
    drawn = draw_actions(np.tile(p_3, (4000, 1)), np.random.default_rng(seed))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, p_3, atol=0.06)


def test_advantages_of_each_class_weigh_its_own_actions_alone():
    """d/dθ_i of (1/K) Σ_j A_i^j log p(a_i^j) is (1/K) Σ_j A_i^j (onehot - p_i), in float64."""
    rng = np.random.default_rng(3)
    logits_C3, actions_KC, advantages_KC = (
        rng.normal(size=(4, 3)),
        rng.integers(0, 3, (5, 4)),
        rng.normal(size=(5, 4)),
    )
    parameter_C3 = torch.tensor(logits_C3, requires_grad=True)
    policy_loss(
        log_prob(parameter_C3, torch.from_numpy(actions_KC)), torch.from_numpy(advantages_KC)
    ).backward()
    p_C3 = np.exp(logits_C3) / np.exp(logits_C3).sum(axis=1, keepdims=True)
    expected_C3 = np.einsum("kc,kca->ca", advantages_KC, np.eye(3)[actions_KC] - p_C3) / 5
    np.testing.assert_allclose(-parameter_C3.grad.numpy(), expected_C3, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_a_reward_that_all_share_gives_the_loss_of_the_joint_action(seed, k, num_classes):
    generator = torch.Generator().manual_seed(seed)
    logits_C3 = torch.randn(num_classes, 3, generator=generator, dtype=torch.float64)
    actions_KC = torch.randint(0, 3, (k, num_classes), generator=generator)
    rewards_K = torch.rand(k, generator=generator, dtype=torch.float64)
    joint = policy_loss(joint_log_prob(logits_C3, actions_KC), rewards_K, 0.3)
    split = policy_loss(log_prob(logits_C3, actions_KC), rewards_K[:, None], 0.3)
    torch.testing.assert_close(joint, split)


def test_the_baseline_of_rewards_by_class_follows_their_mean():
    rewards_KC = torch.tensor([[0.1, 0.3], [0.5, 0.7]], dtype=torch.float64)
    assert update_baseline(0.2, rewards_KC, 0.5) == pytest.approx(0.5 * 0.2 + 0.5 * 0.4)


def test_normalised_rewards_by_hand():
    """Centred over the two episodes: ±1 and ±3; the deviation over all four is √5."""
    rewards_KC = torch.tensor([[1.0, 10.0], [3.0, 4.0]], dtype=torch.float64)
    expected_KC = torch.tensor([[-1.0, 3.0], [1.0, -3.0]], dtype=torch.float64) / math.sqrt(5)
    torch.testing.assert_close(normalised(rewards_KC), expected_KC)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (3, 4)])
def test_rewards_that_are_all_the_same_have_no_advantage(shape):
    assert normalised(torch.full(shape, 0.4)).tolist() == torch.zeros(shape).tolist()


def test_the_entropy_is_that_of_the_joint_policy():
    p_C3 = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    expected = 1.5 * math.log(2) + math.log(3)
    assert policy_entropy(p_C3.log()).item() == pytest.approx(expected)
    assert policy_entropy(torch.stack([p_C3.log()] * 3)).item() == pytest.approx(expected)
