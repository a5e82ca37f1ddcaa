"""Losses of long-tailed classification: pure functions of logits, labels and real training counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcas.config import CbFocalConfig

# So that the defaults of a loss and of the method `cbfocal` are declared in one place.
CB_FOCAL = CbFocalConfig()
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits [N, C], labels [N] and the training images of each class [C] to a scalar."""


def cross_entropy(logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
    """Return the mean cross-entropy; the counts are not used."""
    return F.cross_entropy(logits_NC, labels_N)


def balanced_softmax(logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
    """Return the mean of -log(n_y e^z_y / Σ_c n_c e^z_c) (Ren et al. 2020, eq. 4).

    Args:
        logits_NC: [N, C] logits z.
        labels_N: [N] int64 labels y.
        counts_C: [C] training images of each class n, all above 0.
    """
    # The log-softmax of z + log n is the logarithm in eq. 4; at prediction z alone is used.
    return F.cross_entropy(logits_NC + counts_C.to(logits_NC).log(), labels_N)


def logit_adjusted(logits_NC: Tensor, labels_N: Tensor, counts_C: Tensor) -> Tensor:
    """Return the mean cross-entropy of z + log π (Menon et al. 2021, eq. 10, τ = 1).

    The class prior π = n / Σn differs from n by a factor that the softmax cancels: this equals `balanced_softmax`.
    """
    counts_C = counts_C.to(logits_NC)
    return F.cross_entropy(logits_NC + (counts_C / counts_C.sum()).log(), labels_N)


def class_balanced_weights(counts_C: Tensor, beta: float) -> Tensor:
    """Return [C]: w_c ∝ (1 - β) / (1 - β^n_c) with Σ_c w_c = C (Cui et al. 2019, eq. 2, and their code)."""
    # 1 / E_n, with the effective number of images E_n = (1 - β^n) / (1 - β).
    weights_C = (1 - beta) / (1 - beta**counts_C)
    return weights_C * len(weights_C) / weights_C.sum()


def class_balanced_focal(
    logits_NC: Tensor,
    labels_N: Tensor,
    counts_C: Tensor,
    *,
    beta: float = CB_FOCAL.beta,
    gamma: float = CB_FOCAL.gamma,
) -> Tensor:
    """Return the class-balanced sigmoid focal loss (Cui et al. 2019, eqs. 5 and 10, as in their code).

    The C outputs are C one-against-all problems with p_t = σ(±z); an image weighs w_y of
    `class_balanced_weights`. The sum is divided by N.

    Args:
        logits_NC: [N, C] logits z.
        labels_N: [N] int64 labels y.
        counts_C: [C] training images of each class, all above 0.
        beta: β of the weights.
        gamma: γ of the focal factor (1 - p_t)^γ.
    """
    weights_C = class_balanced_weights(counts_C.to(logits_NC), beta)
    targets_NC = F.one_hot(labels_N, logits_NC.shape[1]).to(logits_NC)
    cross_entropy_NC = F.binary_cross_entropy_with_logits(logits_NC, targets_NC, reduction="none")
    # (1 - p_t)^γ as the exponential of its logarithm: 1 - p_t itself underflows for large logits.
    modulator_NC = torch.exp(-gamma * (targets_NC * logits_NC + F.softplus(-logits_NC)))
    # Over all C outputs, but divided by N: one positive output an image, as in the authors' code.
    return (weights_C[labels_N, None] * modulator_NC * cross_entropy_NC).sum() / len(labels_N)


def class_balanced_softmax_focal(
    logits_NC: Tensor,
    labels_N: Tensor,
    counts_C: Tensor,
    *,
    beta: float = CB_FOCAL.beta,
    gamma: float = CB_FOCAL.gamma,
) -> Tensor:
    """Return the mean of w_y (1 - p_y)^γ (-log p_y), p the softmax: the form in wide use.

    Args:
        logits_NC: [N, C] logits.
        labels_N: [N] int64 labels y.
        counts_C: [C] training images of each class, all above 0.
        beta: β of the weights.
        gamma: γ of the focal factor.
    """
    weights_C = class_balanced_weights(counts_C.to(logits_NC), beta)
    cross_entropy_N = F.cross_entropy(logits_NC, labels_N, reduction="none")
    # 1 - p_y; without the lower bound its gradient at p_y = 1 is 0 x inf, which is NaN, for γ < 1.
    missing_N = (-torch.expm1(-cross_entropy_N)).clamp_min(torch.finfo(logits_NC.dtype).tiny)
    return (weights_C[labels_N] * missing_N**gamma * cross_entropy_N).mean()


LOSSES: dict[str, Loss] = {
    "balanced_softmax": balanced_softmax,
    "ce": cross_entropy,
    "logit_adjust": logit_adjusted,
    "cb_focal": class_balanced_focal,
    "cb_softmax_focal": class_balanced_softmax_focal,
}
"""Loss functions by the name that `classifier.loss` takes."""
