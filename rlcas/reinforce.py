"""REINFORCE with the paper's moving baseline: eqs. 1 and 2 of section 2.2, for all C agents at once.

Shapes: K episodes, C classes (one agent each), 3 actions (-step, 0, +step). Rewards and advantages are [K],
[K, 1] (shared by all agents) or [K, C] (each agent's own).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlcas.types import Float64, Int64

LEAST_DEVIATION = 1e-8  # rewards that are all the same have deviation 0 and get advantages 0, not NaN


def update_baseline(baseline: float, rewards: Tensor | Sequence[float], gamma: float) -> float:
    """Return B^t = (1 - gamma) B^(t-1) + gamma mean R (eq. 2); B^0 is 0.

    Args:
        baseline: B^(t-1).
        rewards: rewards of the valid episodes alone; the mean is over all of them.
        gamma: weight of the new mean.
    """
    # gamma weighs the new mean: with the paper's 0.99, B^t is nearly the mean of this epoch's rewards.
    return (1.0 - gamma) * baseline + gamma * torch.as_tensor(rewards, dtype=torch.float64).mean().item()


def log_prob(logits: Tensor, actions_KC: Tensor) -> Tensor:
    """Return [K, C]: log p(a_i^j), of each agent's action in each episode.

    Args:
        logits: [C, 3], or [K, C, 3] where the agents saw something else in each episode.
        actions_KC: [K, C] indices 0, 1, 2.
    """
    # [C, 3] or [K, C, 3] -> [K, C, 3]
    log_probs_KC3 = torch.log_softmax(logits, dim=-1).expand(*actions_KC.shape, 3)
    return log_probs_KC3.gather(-1, actions_KC.long().unsqueeze(-1)).squeeze(-1)


def joint_log_prob(logits: Tensor, actions_KC: Tensor) -> Tensor:
    """Return [K]: log g(a^j) = sum_i log p(a_i^j), the joint log-probability of each episode's actions."""
    return log_prob(logits, actions_KC).sum(dim=-1)


def policy_loss(log_probs: Tensor, rewards: Tensor | Sequence[float], baseline: float = 0.0) -> Tensor:
    """Return -(1/K) sum_j sum_i (R_i^j - B^t) log p(a_i^j): its descent is the ascent of eq. 1.

    Args:
        log_probs: [K, C] `log_prob` of the valid episodes; `joint_log_prob` [K] for one shared reward.
        rewards: theirs, which broadcast to the same shape.
        baseline: B^t, after its update with these rewards; 0 where `rewards` are advantages already.
    """
    advantages = torch.as_tensor(rewards, dtype=log_probs.dtype, device=log_probs.device) - baseline
    # Summed over agents, not averaged: log g(a) = sum_i log p(a_i), so each agent has its own gradient.
    return -(advantages * log_probs).sum() / len(log_probs)


def advantages(rewards: Tensor, baseline: float, kind: str) -> Tensor:
    """Return the advantages of the valid episodes by `sampler.advantages`, in the shape of `rewards`.

    Args:
        rewards: [K, 1] or [K, C].
        baseline: B^t, after its update with these rewards.
        kind: "baseline" for the rewards minus B^t, or "normalised".
    """
    return normalised(rewards) if kind == "normalised" else rewards - baseline


def normalised(rewards: Tensor) -> Tensor:
    """Return the rewards minus their mean over the K episodes, divided by the deviation over K and C.

    One episode alone, or rewards that are all the same, give zeros.
    """
    centred = rewards - rewards.mean(dim=0)
    return centred / (centred.square().mean().sqrt() + LEAST_DEVIATION)


def policy_entropy(logits: Tensor) -> Tensor:
    """Return sum_i H(p_i) in nats, the entropy of the joint policy; the mean over episodes of [K, C, 3]."""
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=(-2, -1)).mean()


def draw_actions(probabilities_C3: Float64, rng: np.random.Generator) -> Int64:
    """Return [C] int64: one index 0, 1, 2 for each agent, drawn from its row of probabilities."""
    # Without the last column: where rounding leaves it below 1, a draw above it would give index 3.
    cumulative_C2 = probabilities_C3.cumsum(axis=1)[:, :2]
    return (rng.random(len(probabilities_C3))[:, None] >= cumulative_C2).sum(axis=1)
