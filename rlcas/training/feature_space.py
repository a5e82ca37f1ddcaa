"""What a dose of synthetic images does to a linear classifier of features: an episode in a fraction of a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlcas.metrics import LEAST_PROBABILITY
from rlcas.training.out_of_fold import Fold, Labelled
from rlcas.types import Float64, Int64

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties that a head without synthetic images is tried with."""
MOST_STEPS = 60
"""L-BFGS steps of a head; it starts from the head of no synthetic images, near its end."""
LEAST_PENALTY = 1e-9
"""Of the bias, whose level the softmax leaves free."""


class FeatureSpace:
    """The last layer of each fold's classifier, trained anew under a composition, and measured on held-out images.

    The loss is the cross-entropy of z + log ñ (Balanced Softmax), where ñ_c = n_c + w_s m_c counts the m_c synthetic
    images of class c that an epoch shows by their weight w_s; z alone predicts. The ridge penalty is the one of
    `RIDGES` that is best without synthetic images, so that these gain nothing by merely outweighing it.

    Args:
        folds: of `rlcas.training.out_of_fold.out_of_fold`.
        num_classes: C.
        batch_size: real images of a mini-batch.
        synthetic_weight: w_s, the weight of a synthetic image in the loss.
        measured_by: `held_out`, or `others` for the images beside training and pool.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        num_classes: int,
        batch_size: int,
        *,
        synthetic_weight: float = 1.0,
        measured_by: str = "held_out",
    ) -> None:
        self.num_classes = num_classes
        self._folds = folds
        self._batch_size = batch_size
        self._synthetic_weight = synthetic_weight
        self._measured = [getattr(fold, measured_by) for fold in folds]
        self.labels_N: Int64 = torch.cat([own.labels_N for own in self._measured]).numpy()
        """[N] classes of the images that it is measured on."""
        self.groups_N: NDArray[np.int64] = (
            np.concatenate([fold.held_out_groups_N for fold in folds])
            if measured_by == "held_out"
            # Each fold's classifier sees the same images.
            else np.tile(np.arange(len(self._measured[0].labels_N)), len(folds))
        )
        self.class_counts_C: Int64 = np.max(
            [np.bincount(fold.train.labels_N, minlength=num_classes) for fold in folds], axis=0
        )
        """[C] training images of each class in a fold."""
        self._zeros = np.zeros(num_classes, np.int64)
        self.ridge = max(RIDGES, key=self._quality_without)
        self._starts = self._heads(self._zeros, [None] * len(folds), self.ridge)

    def heads(self, counts_C: Int64) -> list[Tensor]:
        """Return the head [D + 1, C] of each fold under a composition; the last row is the bias."""
        return self._heads(counts_C, self._starts, self.ridge)

    def log_likelihoods(self, counts_C: Int64) -> Float64:
        """Return [N]: log p of the true class of each image, p at least 1e-4, under a composition."""
        return self._log_likelihoods(self.heads(counts_C))

    def by_class(self, values_N: Float64) -> Float64:
        """Return [C]: the mean of each class's images; NaN for a class without."""
        number_C = np.bincount(self.labels_N, minlength=self.num_classes)
        sums_C = np.bincount(self.labels_N, values_N, self.num_classes)
        return np.divide(sums_C, number_C, out=np.full(self.num_classes, np.nan), where=number_C > 0)

    def _quality_without(self, ridge: float) -> float:
        heads = self._heads(self._zeros, [None] * len(self._folds), ridge)
        return float(np.nanmean(self.by_class(self._log_likelihoods(heads))))

    def _heads(self, counts_C: Int64, starts: Sequence[Tensor | None], ridge: float) -> list[Tensor]:
        return [
            self._head(fold, counts_C, start, ridge) for fold, start in zip(self._folds, starts, strict=True)
        ]

    def _head(self, fold: Fold, counts_C: Int64, start: Tensor | None, ridge: float) -> Tensor:
        real_C = torch.bincount(fold.train.labels_N, minlength=self.num_classes).double()
        num_steps = -(-len(fold.train.labels_N) // self._batch_size)
        added_C = self._synthetic_weight * num_steps * torch.from_numpy(counts_C).double()
        shown = added_C[fold.pool.labels_N] > 0
        pool_C = torch.bincount(fold.pool.labels_N, minlength=self.num_classes)
        labels_N = torch.cat([fold.train.labels_N, fold.pool.labels_N[shown]])
        # The images of an epoch are spread evenly over those of the pool.
        spread_C = added_C / pool_C.clamp_min(1)
        weights_N = torch.cat(
            [torch.ones(len(fold.train.labels_N)).double(), spread_C[fold.pool.labels_N[shown]]]
        )
        return fit_head(
            with_bias(torch.cat([fold.train.features_ND, fold.pool.features_ND[shown]])),
            labels_N,
            # Over the real images, whatever is added: the ridge then weighs the same under any composition.
            weights_N / len(fold.train.labels_N),
            (real_C + added_C).clamp_min(1),
            ridge,
            start,
        )

    def _log_likelihoods(self, heads: Sequence[Tensor]) -> Float64:
        own = [_own_log_p(images, head) for images, head in zip(self._measured, heads, strict=True)]
        return torch.cat(own).clamp_min(np.log(LEAST_PROBABILITY)).numpy()


def with_bias(features_ND: Tensor) -> Tensor:
    """Return [N, D + 1]: the features, and a column of ones."""
    return torch.cat([features_ND, torch.ones_like(features_ND[:, :1])], dim=1)


def fit_head(
    inputs_NE: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    prior_C: Tensor,
    ridge: float,
    start_EC: Tensor | None,
) -> Tensor:
    """Return [E, C]: the minimum of Σ_n w_n CE(x_n W + log prior, y_n) + ridge/2 |W|², by L-BFGS.

    Args:
        inputs_NE: float64, the last column ones, whose weights are hardly penalised.
        labels_N: int64.
        weights_N: of each image.
        prior_C: class counts, above 0.
        ridge: the penalty.
        start_EC: where it starts; None for zeros.
    """
    # In coordinates in which the weighted images are uncorrelated and of one scale: outliers, such as images of noise,
    # would take L-BFGS hundreds of steps. The penalty in the matrix keeps it regular.
    penalty_E1 = torch.full((inputs_NE.shape[1], 1), ridge).double()
    penalty_E1[-1] = LEAST_PENALTY
    gram_EE = inputs_NE.T @ (weights_N[:, None] * inputs_NE) + torch.diag(penalty_E1[:, 0])
    factor_EE = torch.linalg.cholesky(gram_EE)
    whitened_NE = torch.linalg.solve_triangular(factor_EE, inputs_NE.T, upper=False).T.contiguous()
    start_EC = torch.zeros(inputs_NE.shape[1], len(prior_C)).double() if start_EC is None else start_EC
    weights_EC = (factor_EE.T @ start_EC).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights_EC],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )
    log_prior_C = prior_C.log()

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses_N = F.cross_entropy(whitened_NE @ weights_EC + log_prior_C, labels_N, reduction="none")
        head_EC = torch.linalg.solve_triangular(factor_EE.T, weights_EC, upper=True)
        loss = weights_N @ losses_N + (penalty_E1 * head_EC.square()).sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.linalg.solve_triangular(factor_EE.T, weights_EC.detach(), upper=True)


def _own_log_p(images: Labelled, head_EC: Tensor) -> Tensor:
    log_p_NC = (with_bias(images.features_ND) @ head_EC).log_softmax(dim=1)
    return log_p_NC.gather(1, images.labels_N[:, None])[:, 0]
