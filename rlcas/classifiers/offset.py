"""The decision offset δ: predictions are argmax(z − δ) and probabilities softmax(z − δ) of logits z.

δ is fitted on validation images by the class-balanced log-likelihood: log p(own class), averaged over each class's
images and then over the classes. So it suits macro figures, whatever prior the training had:

    δ_c = τ (log π_c − mean log π) + f_c

with π the class shares of the training images, and f_c = 0 for a class with fewer than `FEWEST_IMAGES` validation
images. What the images do not say is decided by a normal prior on τ and on each f_c, which also bounds δ where the
classes are separable. The problem is convex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rlcas.types import Float64, Int64

FEWEST_IMAGES = 20
"""Validation images of a class from which on it has a part of its own in δ."""
SCALE_SD = 1.0
"""Standard deviation of τ before any image is seen: 0 corrects nothing, 1 the whole training prior."""
FREE_SD = 0.5
"""Standard deviation of f_c, in nats."""
DECIMALS = 4
"""Of a stored δ: the last bits of logits, which the number of threads decides, do not reach it."""


def with_offset(logits_NC: Tensor, offset_C: Sequence[float] | None) -> Tensor:
    """Return z − δ; the very logits where there is no δ."""
    if offset_C is None:
        return logits_NC
    return logits_NC - torch.tensor(offset_C, dtype=logits_NC.dtype, device=logits_NC.device)


def fit_offset(logits_NC: Float64, labels_N: Int64, train_counts_C: Int64) -> Float64:
    """Return [C]: the offset δ that suits the validation images best, in nats, to `DECIMALS` decimals.

    Images with logits that are not finite do not count. Classes without images are no alternative to the others while
    δ is fitted, and get the scalar form. It is 0 where fewer than two classes have images.

    Args:
        logits_NC: [N, C] of the validation images.
        labels_N: [N] int64 true classes.
        train_counts_C: [C] training images; a class without any counts as one of one.
    """
    finite_N = np.isfinite(logits_NC).all(axis=1)
    logits_NC, labels_N = logits_NC[finite_N].astype(np.float64), labels_N[finite_N]
    counts_C = np.bincount(labels_N, minlength=logits_NC.shape[1])
    basis_CP = offset_basis(counts_C, train_counts_C)
    present = np.flatnonzero(counts_C)
    if len(present) < 2:
        return np.zeros(len(counts_C))
    sizes = counts_C[present]
    # C² / Σ 1/n_c: as many images, evenly over the classes, have as precise a mean over the classes.
    num_images = len(present) ** 2 / (1 / sizes).sum()
    losses = _balanced_loss(logits_NC[:, present], np.searchsorted(present, labels_N), sizes)
    precision_P = np.array([1 / SCALE_SD**2] + [1 / FREE_SD**2] * (basis_CP.shape[1] - 1))

    def objective(parameters_P: Float64) -> tuple[float, Float64]:
        loss, gradient = losses((basis_CP @ parameters_P)[present])
        prior = 0.5 * (precision_P * parameters_P**2).sum()
        return num_images * loss + prior, num_images * gradient @ basis_CP[present] + precision_P * parameters_P

    return (basis_CP @ _least(objective, basis_CP.shape[1])).round(DECIMALS)


def offset_basis(counts_C: Int64, train_counts_C: Int64) -> Float64:
    """Return [C, 1 + M]: δ is its product with τ and the free parts of the M classes with enough images.

    The free parts sum to 0: together they would move only the other classes, which have too few images for it.

    Args:
        counts_C: [C] validation images.
        train_counts_C: [C] training images.
    """
    log_counts_C = np.log(np.maximum(train_counts_C, 1))
    free = np.flatnonzero(counts_C >= FEWEST_IMAGES)
    parts_CM = np.zeros((len(counts_C), len(free)))
    parts_CM[free, np.arange(len(free))] = 1
    parts_CM[free] -= 1 / max(1, len(free))
    return np.column_stack([log_counts_C - log_counts_C.mean(), parts_CM])


def _balanced_loss(
    logits_NC: Float64, labels_N: Int64, counts_C: Int64
) -> Callable[[Float64], tuple[float, Float64]]:
    """Return a function of δ [C]: minus the class-balanced log-likelihood, and its gradient [C]."""
    from scipy.special import log_softmax  # scipy takes a while to import

    weights_N = 1 / (len(counts_C) * counts_C[labels_N])
    rows_N = np.arange(len(labels_N))

    def losses(offset_C: Float64) -> tuple[float, Float64]:
        log_p_NC = log_softmax(logits_NC - offset_C, axis=1)
        loss = -(weights_N @ log_p_NC[rows_N, labels_N])
        # Each class has 1/C of the weights.
        return float(loss), 1 / len(counts_C) - weights_N @ np.exp(log_p_NC)

    return losses


def _least(objective: Callable[[Float64], tuple[float, Float64]], size: int) -> Float64:
    """Return where a strictly convex function, which comes with its gradient, is least."""
    from scipy.optimize import minimize

    # ftol 0: until the gradient is flat, which bounds the error, as the priors bound the curvature from below.
    options = {"gtol": 1e-7, "ftol": 0.0, "maxiter": 1000}
    return minimize(objective, np.zeros(size), jac=True, method="L-BFGS-B", options=options).x
