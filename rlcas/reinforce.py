"""REINFORCE with the paper's moving baseline: eqs. 1 and 2 of section 2.2, for all C agents at once.

Shapes: K episodes, C classes (one agent each), 3 actions (-step, 0, +step).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlcas.types import Float64, Int64


def update_baseline(baseline: float, rewards_K: Tensor | Sequence[float], gamma: float) -> float:
    """Return B^t = (1 - gamma) B^(t-1) + gamma mean_j R_j (eq. 2); B^0 is 0.

    Args:
        baseline: B^(t-1).
        rewards_K: rewards of the valid episodes alone.
        gamma: weight of the new mean.
    """
    return (1.0 - gamma) * baseline + gamma * torch.as_tensor(rewards_K, dtype=torch.float64).mean().item()


def joint_log_prob(logits: Tensor, actions_KC: Tensor) -> Tensor:
    """Return [K]: log g(a^j) = sum_i log p(a_i^j), the joint log-probability of each episode's actions.

    Args:
        logits: [C, 3], or [K, C, 3] where the agents saw something else in each episode.
        actions_KC: [K, C] indices 0, 1, 2.
    """
    log_probs_KC3 = torch.log_softmax(logits, dim=-1).expand(*actions_KC.shape, 3)
    return log_probs_KC3.gather(-1, actions_KC.long().unsqueeze(-1)).squeeze(-1).sum(dim=-1)


def policy_loss(log_probs_K: Tensor, rewards_K: Tensor | Sequence[float], baseline: float) -> Tensor:
    """Return -(1/K) sum_j (R_j - B^t) log g(a^j): its descent is the ascent of eq. 1.

    Args:
        log_probs_K: `joint_log_prob` of the valid episodes.
        rewards_K: their rewards.
        baseline: B^t, after its update with these rewards.
    """
    advantages_K = torch.as_tensor(rewards_K, dtype=log_probs_K.dtype, device=log_probs_K.device) - baseline
    return -(advantages_K * log_probs_K).mean()


def draw_actions(probabilities_C3: Float64, rng: np.random.Generator) -> Int64:
    """Return [C] int64: one index 0, 1, 2 for each agent, drawn from its row of probabilities."""
    cumulative_C2 = probabilities_C3.cumsum(axis=1)[:, :2]
    return (rng.random(len(probabilities_C3))[:, None] >= cumulative_C2).sum(axis=1)
