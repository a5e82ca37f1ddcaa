"""How the classes' signals respond to the classes' doses: Bayesian regression with a prior by rarity.

Shapes: T epochs, K episodes, C classes, N = TK.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import stdtr
from torch import Tensor

from rlcas.types import Int64

PRIOR_SCALE = 0.5
"""Prior standard deviation of a step's effect on the rarest class, in standard deviations of its signal's noise."""
LEAST_DEGREES = 1e-9  # in place of 0, which would be divided by


@dataclass(frozen=True, slots=True)
class DoseResponse:
    """Posterior of the response to doses, counts in units of `sampler.action_step`.

    Signal i of an episode is α + a_i x_i + q_i x_i²/x_max + b_i Σ_c x_c and noise; the team's is Σ_i v_i of these.
    """

    mean_C3: Tensor
    """(a, q, b) of each class."""
    covariance_C33: Tensor
    """Of each class's own (a, q, b)."""
    team_mean_C3: Tensor
    """(v_c a_c, v_c q_c, Σ_i v_i b_i): what the images of class c do to the team's signal."""
    team_covariance_C33: Tensor
    """Of these three, with the correlation of the noise of the classes in it."""
    degrees: float
    """Degrees of freedom of the noise's estimate; 0 where nothing was seen."""
    most: float
    """x_max."""

    def matrix(self, doses_C: Tensor) -> Tensor:
        """Return A [C, C] at a composition: the effect on signal i of a step more of class c, diag(a) + b 1ᵀ.

        Args:
            doses_C: the composition, in steps.
        """
        own_C = self.mean_C3[:, 0] + 2 * self.mean_C3[:, 1] * doses_C / self.most
        return torch.diag(own_C) + self.mean_C3[:, 2:]

    def slope(self, doses_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [C] of Σ_i v_i A_ic, at a composition in steps."""
        return self._team(torch.stack([torch.ones_like(doses_C), 2 * doses_C / self.most], dim=1))

    def benefit(self, doses_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [C] of what each class's images add to the team's signal.

        Args:
            doses_C: how many of them, in steps; the other classes' stay as they are.
        """
        return self._team(torch.stack([doses_C, doses_C**2 / self.most], dim=1))

    def benefit_probability(self, doses_C: Tensor) -> Tensor:
        """Return [C]: the probability that `benefit` is above 0; one half where nothing was seen."""
        mean_C, deviation_C = self.benefit(doses_C)
        # The noise is estimated: Student's t, not the normal distribution.
        t_C = torch.where(deviation_C > 0, mean_C / deviation_C, torch.zeros_like(mean_C))
        below_C = stdtr(max(self.degrees, LEAST_DEGREES), t_C.cpu().numpy())
        return torch.as_tensor(below_C, dtype=t_C.dtype, device=t_C.device)

    def _team(self, own_C2: Tensor) -> tuple[Tensor, Tensor]:
        # The common effect is one of all images, each counted once: it grows as the first own one does.
        weights_C3 = torch.cat([own_C2, own_C2[:, :1]], dim=1)
        variance_C = torch.einsum("cy,cyz,cz->c", weights_C3, self.team_covariance_C33, weights_C3)
        return (weights_C3 * self.team_mean_C3).sum(dim=1), variance_C.clamp_min(0).sqrt()


def rarity(class_counts_C: Int64 | Tensor) -> Tensor:
    """Return [C] float64 in (0, 1]: log(1 + n_max/n_c) over the largest such; 1 for all where all are equal."""
    counts_C = torch.as_tensor(class_counts_C).double().clamp_min(1)
    logs_C = torch.log1p(counts_C.max() / counts_C)
    return logs_C / logs_C.max()


def fit_response(
    steps_TKC: Tensor, signals_TKC: Tensor, weights_T: Tensor, rarity_C: Tensor, most: float
) -> DoseResponse:
    """Return the posterior of the response, each class's signal weighing alike in the team's.

    The level α is free in every epoch, so that only differences between episodes of one epoch count; epochs of one
    episode have one level for all. Given the noise
    σ_i of class i, the prior of its (a, q, b) is normal with mean 0 and standard deviations σ_i·(λρ_i, λρ_i, λ/√C),
    λ = `PRIOR_SCALE` and ρ_i its rarity: what synthetic images do grows with a class's rarity, and is nothing until
    shown. σ_i² has the prior 1/σ_i². Of two classes' noise the correlation is that of their residuals.

    Args:
        steps_TKC: the compositions in steps; NaN for an episode that is missing.
        signals_TKC: NaN for an episode that is missing, or a class without images to measure it by.
        weights_T: weight of each epoch.
        rarity_C: ρ in (0, 1].
        most: x_max, the largest dose in steps.
    """
    num_classes = len(rarity_C)
    seen_TKC = ~(signals_TKC.isnan() | steps_TKC.isnan())
    steps_TKC = steps_TKC.nan_to_num()
    total_TKC = steps_TKC.sum(dim=2, keepdim=True).expand_as(steps_TKC)
    values_TKC4 = torch.stack([steps_TKC, steps_TKC**2 / most, total_TKC, signals_TKC.nan_to_num()], dim=-1)
    rows_TKC4 = weights_T.sqrt()[:, None, None, None] * _centred(values_TKC4, seen_TKC, weights_T)
    # [T, K, C, Z] -> [C, N, Z]
    inputs_CN3, outputs_CN = rows_TKC4.permute(2, 0, 1, 3).flatten(1, 2).split([3, 1], dim=-1)
    outputs_CN = outputs_CN[..., 0]
    degrees_C = _degrees(seen_TKC, weights_T)
    deviations_C3 = PRIOR_SCALE * torch.stack(
        [rarity_C, rarity_C, torch.full_like(rarity_C, num_classes**-0.5)], dim=1
    )
    inverse_C33 = torch.linalg.inv(inputs_CN3.mT @ inputs_CN3 + torch.diag_embed(deviations_C3**-2))
    estimator_C3N = inverse_C33 @ inputs_CN3.mT
    mean_C3 = (estimator_C3N @ outputs_CN[..., None])[..., 0]
    residuals_CN = outputs_CN - (inputs_CN3 @ mean_C3[..., None])[..., 0]
    # yᵀ(y - X mean): the squared residuals and what the prior takes for them.
    squares_C = (outputs_CN * residuals_CN).sum(dim=1).clamp_min(0)
    sigma_C = (squares_C / degrees_C.clamp_min(LEAST_DEGREES)).sqrt()
    covariance_C33 = sigma_C[:, None, None] ** 2 * inverse_C33
    heard_C = degrees_C > 0
    shares_C = heard_C.double() / heard_C.sum().clamp_min(1)
    team_mean_C3, team_covariance_C33 = _team(
        mean_C3, covariance_C33, estimator_C3N, _cross_noise(residuals_CN, sigma_C), shares_C
    )
    degrees = degrees_C[heard_C].min().item() if heard_C.any() else 0.0
    return DoseResponse(mean_C3, covariance_C33, team_mean_C3, team_covariance_C33, degrees, most)


def _centred(values_TKCZ: Tensor, seen_TKC: Tensor, weights_T: Tensor) -> Tensor:
    """Return the values minus their level: the mean of the epoch, or of all that are alone in theirs; 0 if not seen."""
    seen_TKC1 = seen_TKC[..., None].double()
    sums_TCZ, number_TC1 = (values_TKCZ * seen_TKC1).sum(dim=1), seen_TKC1.sum(dim=1)
    alone_TC1 = weights_T[:, None, None] * (number_TC1 == 1)
    alone_mean_CZ = (alone_TC1 * sums_TCZ).sum(dim=0) / alone_TC1.sum(dim=0).clamp_min(LEAST_DEGREES)
    levels_TCZ = torch.where(number_TC1 == 1, alone_mean_CZ, sums_TCZ / number_TC1.clamp_min(1))
    return (values_TKCZ - levels_TCZ[:, None]) * seen_TKC1


def _degrees(seen_TKC: Tensor, weights_T: Tensor) -> Tensor:
    """Return [C]: observations minus levels, by weight."""
    number_TC = seen_TKC.sum(dim=1)
    together_C = (weights_T[:, None] * (number_TC - 1).clamp_min(0)).sum(dim=0)
    return together_C + ((weights_T[:, None] * (number_TC == 1)).sum(dim=0) - 1).clamp_min(0)


def _cross_noise(residuals_CN: Tensor, sigma_C: Tensor) -> Tensor:
    """Return [C, C]: the covariance of the noise of two classes; 0 on the diagonal."""
    units_CN = torch.nn.functional.normalize(residuals_CN, dim=1)
    covariance_CC = sigma_C[:, None] * (units_CN @ units_CN.T) * sigma_C
    return covariance_CC - torch.diag(covariance_CC.diagonal())


def _team(
    mean_C3: Tensor, covariance_C33: Tensor, estimator_C3N: Tensor, noise_CC: Tensor, shares_C: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean [C, 3] and covariance [C, 3, 3] of (v_c a_c, v_c q_c, Σ_i v_i b_i).

    The estimates of two classes vary together as their noise does: Cov(θ_i, θ_k) = noise_ik E_i E_kᵀ, E the matrix
    that makes the estimate of the signals.
    """
    common = (shares_C * mean_C3[:, 2]).sum()
    own_C2 = shares_C[:, None] * mean_C3[:, :2]
    # Σ_i v_i noise_ic E_i[b], a row of numbers over the episodes for each class c.
    beside_CN = noise_CC @ (shares_C[:, None] * estimator_C3N[:, 2])
    # Cov(θ_c, Σ_i v_i b_i), of class c itself and of all others.
    cross_C3 = shares_C[:, None] * covariance_C33[:, :, 2] + (estimator_C3N @ beside_CN[..., None])[..., 0]
    team_covariance_C33 = torch.empty_like(covariance_C33)
    team_covariance_C33[:, :2, :2] = shares_C[:, None, None] ** 2 * covariance_C33[:, :2, :2]
    team_covariance_C33[:, :2, 2] = team_covariance_C33[:, 2, :2] = shares_C[:, None] * cross_C3[:, :2]
    team_covariance_C33[:, 2, 2] = (shares_C * cross_C3[:, 2]).sum()
    return torch.cat([own_C2, common.expand(len(own_C2), 1)], dim=1), team_covariance_C33
