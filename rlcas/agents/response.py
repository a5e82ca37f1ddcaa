"""Agents that fit their class's response to synthetic images and step towards its peak."""

from __future__ import annotations

import torch
from torch import Tensor

from rlcas.agents.base import Agents
from rlcas.batches.composition import ACTIONS
from rlcas.config import SamplerConfig

RIDGE = 0.1
"""Prior precision of the slopes, in observations: the curve is flat until something was seen."""
FLAT = 1e-9
"""A curve that spans less counts as flat."""
LEAST_SHARE = 1e-12  # in place of probability 0, whose logit is -inf


class ResponseAgents(Agents):
    """Each class's signal as a quadratic of its own count s and a line in the epoch t: α + β₁u + β₂u² + β₃τ.

    u = 2s/max_count - 1 and τ = 2t/T - 1. The line takes up what the classifier learns whatever the counts
    do: counts and epochs grow together, so without it more images would seem to help. The fit is ridge
    regression, the level α unpenalised, on moments that decay by exp(-1/memory_epochs) an epoch. An agent
    steps towards the peak with probability 1 - exploration, else acts by chance; by chance too while its
    curve is flat, as before the first epoch or without validation images.
    """

    counts_G: Tensor
    """The counts 0, step, … that the curves are evaluated at."""
    moments_CZZ: Tensor
    """Σ w z zᵀ over what was seen, z = (1, u, u², τ, signal)."""
    progress: Tensor
    """t/T of the last epoch seen."""

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__(num_classes, num_features, sampler)
        assert sampler.exploration is not None and sampler.memory_epochs is not None, (
            "agents response have them"
        )
        self.exploration = sampler.exploration
        self.decay = float(torch.tensor(-1 / sampler.memory_epochs, dtype=torch.float64).exp())
        self._own_count = self.seen.index("composition")
        counts_G = torch.arange(0, sampler.max_count + 1, sampler.action_step, dtype=torch.float64)
        self.register_buffer("counts_G", counts_G, persistent=False)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("moments_CZZ", torch.zeros(num_classes, 5, 5, dtype=torch.float64))

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3]."""
        counts_BC = features_BCF[..., self._own_count].double() * self.sampler.max_count
        steps_BC = (self.peaks() - counts_BC) / self.sampler.action_step
        # NaN, a flat curve, becomes 0 only to be an index: its share of greed below is 0.
        towards_BC = steps_BC.nan_to_num().round().clamp(-1, 1).long() + 1
        chosen_BC3 = torch.nn.functional.one_hot(towards_BC, len(ACTIONS))
        chance_BC3 = torch.full_like(chosen_BC3, 1 / len(ACTIONS), dtype=torch.float64)
        greed_BC1 = (1 - self.exploration) * (~steps_BC.isnan()).double()[..., None]
        probabilities_BC3 = greed_BC1 * chosen_BC3 + (1 - greed_BC1) * chance_BC3
        return probabilities_BC3.clamp_min(LEAST_SHARE).log().to(features_BCF.dtype)

    def learn(self, counts_KC: Tensor, signals_KC: Tensor, progress: float) -> None:
        """Add the valid episodes of an epoch to the moments."""
        seen_KC = ~signals_KC.isnan()
        u_KC = self._centred(counts_KC.double())
        self.progress.fill_(progress)
        tau_KC = (2 * self.progress - 1).expand_as(u_KC)
        z_KCZ = torch.stack(
            [torch.ones_like(u_KC), u_KC, u_KC**2, tau_KC, signals_KC.double().nan_to_num()], dim=-1
        )
        # Zeros for a class without validation images; its NaN were replaced before, as 0 * NaN is NaN.
        z_KCZ = z_KCZ * seen_KC[..., None]
        # One call an epoch, so an observation of age a has the weight decay**a = exp(-a / memory_epochs).
        self.moments_CZZ.mul_(self.decay).add_(torch.einsum("kcy,kcz->cyz", z_KCZ, z_KCZ))

    def curves(self) -> Tensor:
        """Return [C, G] float64: the signal expected at the counts 0, step, … in this epoch.

        NaN for a class without observations.
        """
        means_C3, level_C, slopes_C3 = self._fit()
        u_G = self._centred(self.counts_G)
        tau_G = (2 * self.progress - 1).expand_as(u_G)
        x_G3 = torch.stack([u_G, u_G**2, tau_G], dim=-1)
        curves_CG = level_C[:, None] + ((x_G3 - means_C3[:, None]) * slopes_C3[:, None]).sum(dim=-1)
        # The first moment is the sum of weights: 0 where nothing was seen.
        return curves_CG.where(self.moments_CZZ[:, :1, 0] > 0, torch.nan)

    def peaks(self) -> Tensor:
        """Return [C] float64: the count at which each curve peaks; NaN where the curve is flat."""
        curves_CG = self.curves()
        span_C = curves_CG.amax(dim=1) - curves_CG.amin(dim=1)
        # NaN > FLAT is false: a class not seen is flat.
        return self.counts_G[curves_CG.argmax(dim=1)].where(span_C > FLAT, torch.nan)

    def _fit(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means [C, 3] of (u, u², τ), the mean signal [C] and the slopes [C, 3]."""
        # Clamped: a class that was not seen gets means of 0, not 0 / 0.
        weight_C11 = self.moments_CZZ[:, :1, :1].clamp_min(torch.finfo(torch.float64).tiny)
        means_C4 = self.moments_CZZ[:, 0, 1:] / weight_C11[:, 0]
        # About the means, so that the ridge leaves the level α free.
        centred_C44 = self.moments_CZZ[:, 1:, 1:] - weight_C11 * means_C4[:, :, None] * means_C4[:, None]
        ridge_33 = RIDGE * torch.eye(3, dtype=torch.float64, device=means_C4.device)
        slopes_C3 = torch.linalg.solve(centred_C44[:, :3, :3] + ridge_33, centred_C44[:, :3, 3])
        return means_C4[:, :3], means_C4[:, 3], slopes_C3

    def _centred(self, counts: Tensor) -> Tensor:
        return 2 * counts / self.sampler.max_count - 1
