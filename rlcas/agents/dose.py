"""Agents that measure in designed episodes what their images do to the team, and dose them by it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rlcas.agents.base import Agents
from rlcas.agents.designs import designed_actions
from rlcas.agents.dose_response import DoseResponse, fit_response, rarity
from rlcas.agents.policies import NEVER
from rlcas.batches.budget import num_perturbed
from rlcas.batches.composition import KEEP, initial_counts
from rlcas.config import SamplerConfig
from rlcas.types import Float64, Int64

MEMORIES = 3
"""Epochs older than this many `memory_epochs` are forgotten: their weight is below exp(-3) = 0.05."""
SURE_DEVIATIONS = 3.0
"""A slope of as many standard deviations moves a dose all the way."""
SUREST = 0.999
"""A probability of before the run counts as no more than this, and no less than 1 minus it."""


class DoseAgents(Agents):
    """The episodes of an epoch act around a common composition, the dose, which follows what they measure.

    Each epoch `design` perturbs the classes by a step up or down; a class of dose 0 is perturbed upwards alone. The
    response (`fit_response`) of the classes' signals says in which direction the team's signal grows, and how surely:
    at a slope of `SURE_DEVIATIONS` standard deviations a class goes from its first dose to the most it may have, or to
    0; at less, that share of the way. So a dose that nothing speaks against stays near the first one, and noise does
    not add up over the epochs. It moves by lr · step an epoch at most, and is 0 unless the class's images are a benefit
    against none with a probability above `sampler.benefit_probability`. Of a class whose images are less probably a
    benefit than not before the run, none is ever shown. With `sampler.lr` 0 the dose stays where it was at first.
    """

    dose_C: Tensor
    """The dose, in images; `centre` rounds it."""
    first_C: Tensor
    most_C: Tensor
    """The largest dose: twice one that was known before the run, else `sampler.max_count`."""
    rarity_C: Tensor
    log_odds_C: Tensor
    """Of a benefit, by what is known before the run."""
    steps_HKC: Tensor
    """The compositions of the last H epochs in steps, the newest first; NaN where there were none."""
    signals_HKC: Tensor

    def __init__(self, num_classes: int, num_features: int, sampler: SamplerConfig) -> None:
        super().__init__(num_classes, num_features, sampler)
        assert sampler.memory_epochs is not None
        assert sampler.benefit_probability is not None, "agents dose have it, as those above"
        self._decay = math.exp(-1 / sampler.memory_epochs)
        self._benefit_probability = sampler.benefit_probability
        self._num_perturbed = num_perturbed(sampler, num_classes)
        dose_C = torch.from_numpy(initial_counts(sampler, num_classes)).double()
        self.register_buffer("dose_C", dose_C)
        self.register_buffer("first_C", dose_C.clone())
        self.register_buffer("most_C", torch.full_like(dose_C, sampler.max_count))
        self.register_buffer("rarity_C", torch.ones(num_classes, dtype=torch.float64))
        self.register_buffer("log_odds_C", torch.zeros(num_classes, dtype=torch.float64))
        shape = (math.ceil(MEMORIES * sampler.memory_epochs), sampler.k, num_classes)
        self.register_buffer("steps_HKC", torch.full(shape, torch.nan, dtype=torch.float64))
        self.register_buffer("signals_HKC", torch.full(shape, torch.nan, dtype=torch.float64))

    def begin(
        self,
        class_counts_C: Int64,
        dose_C: Int64 | None = None,
        benefit_probability_C: Float64 | None = None,
    ) -> None:
        """Take rarity from the real images of each class, and perhaps a dose to start from."""
        self.rarity_C.copy_(rarity(class_counts_C))
        if dose_C is not None:
            self.dose_C.copy_(torch.from_numpy(dose_C).clamp(0, self.sampler.max_count))
            self.first_C.copy_(self.dose_C)
            # A step at least: a class may start at 0 only because a mini-batch has no room for all.
            self.most_C.copy_((2 * self.dose_C).clamp(self.sampler.action_step, self.sampler.max_count))
        if benefit_probability_C is not None:
            found_C = torch.from_numpy(benefit_probability_C).clamp(1 - SUREST, SUREST)
            self.log_odds_C.copy_(found_C.logit())

    def centre(self, counts_C: Int64) -> Int64:
        """Return the dose in whole images, whatever the incumbent's composition."""
        return self.dose_C.round().long().cpu().numpy()

    def design(self, num_episodes: int, rng: np.random.Generator) -> Int64:
        """Return [K, C] indices: `designed_actions` of some classes, the same in all episodes of an epoch."""
        signs_KC = designed_actions(num_episodes, self.num_classes, rng)
        still_C = rng.permutation(self.num_classes) >= self._num_perturbed
        can_C3 = self._possible()
        cannot_KC = ~np.take_along_axis(can_C3.T, KEEP + signs_KC, axis=0)
        return np.where(still_C | cannot_KC, KEEP, KEEP + signs_KC)

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Return logits [B, C, 3]: the share of a class's episodes that act so, whatever is seen."""
        share = self._num_perturbed / self.num_classes / 2
        shares_C3 = share * torch.from_numpy(self._possible()).double()
        shares_C3[:, KEEP] = 1 - shares_C3[:, [0, -1]].sum(dim=1)
        logits_C3 = shares_C3.log().clamp_min(NEVER).to(features_BCF.device)
        return logits_C3.expand(len(features_BCF), -1, -1)

    def learn(self, counts_KC: Tensor, signals_KC: Tensor, progress: float) -> None:
        """Remember the valid episodes of an epoch, and move the dose."""
        for kept_HKC, new_KC in (
            (self.steps_HKC, counts_KC.double() / self.sampler.action_step),
            (self.signals_HKC, signals_KC.double()),
        ):
            kept_HKC.copy_(kept_HKC.roll(1, dims=0))
            kept_HKC[0] = torch.nan
            kept_HKC[0, : len(new_KC)] = new_KC
        if self.sampler.lr > 0:
            self.dose_C.copy_(self._next_dose(self.response()))

    def response(self) -> DoseResponse:
        """Return what the agents know: `fit_response` of the epochs that they remember."""
        # One call of `learn` an epoch, so the place in the memory is the age.
        ages_H = torch.arange(len(self.steps_HKC), dtype=torch.float64, device=self.steps_HKC.device)
        most = self.sampler.max_count / self.sampler.action_step
        return fit_response(self.steps_HKC, self.signals_HKC, self._decay**ages_H, self.rarity_C, most)

    def benefit_probability(self, response: DoseResponse, doses_C: Tensor) -> Tensor:
        """Return [C]: the probability that a class's images are a benefit, by the run and by what was found before.

        Args:
            response: of `response`.
            doses_C: how many images of each class.
        """
        measured_C = response.benefit_probability(doses_C / self.sampler.action_step)
        return (measured_C.logit(eps=1e-9) + self.log_odds_C).sigmoid()

    def curves(self) -> Tensor:
        """Return [C, G] float64: the signal at 0, step, … images of the own class, against that of none.

        NaN for a class without observations.
        """
        response = self.response()
        steps_G = torch.arange(0, self.sampler.max_count + 1, self.sampler.action_step, dtype=torch.float64)
        steps_G = (steps_G / self.sampler.action_step).to(response.mean_C3)
        inputs_3G = torch.stack([steps_G, steps_G**2 / response.most, steps_G])
        seen_C1 = (~self.signals_HKC.isnan()).sum(dim=(0, 1))[:, None] > 0
        return (response.mean_C3 @ inputs_3G).where(seen_C1, torch.nan)

    def _next_dose(self, response: DoseResponse) -> Tensor:
        slope_C, deviation_C = response.slope(self.dose_C / self.sampler.action_step)
        # A deviation of 0: no episodes to compare yet.
        surety_C = (
            torch.where(deviation_C > 0, slope_C / deviation_C, torch.zeros_like(slope_C)) / SURE_DEVIATIONS
        )
        room_C = torch.where(surety_C > 0, self.most_C - self.first_C, self.first_C)
        way_C = self.first_C + surety_C.clamp(-1, 1) * room_C - self.dose_C
        step = min(self.sampler.lr, 1.0) * self.sampler.action_step
        moved_C = self.dose_C + way_C.clamp(-step, step)
        probable_C = self.benefit_probability(response, moved_C) > self._benefit_probability
        return moved_C.where(probable_C, 0.0)

    def _possible(self) -> np.ndarray:
        """Return [C, 3] bool: the actions that change a class's count as they say, and may."""
        counts_C = self.centre(np.empty(0, np.int64))
        may_rise_C = (self.log_odds_C >= 0).cpu().numpy()
        can_rise_C = may_rise_C & (counts_C < self.sampler.max_count)
        return np.stack([counts_C > 0, np.ones(self.num_classes, bool), can_rise_C], axis=1)


class PermutedDoseAgents(DoseAgents):
    """Agents that learn from another class's signals: class c from those of class c + 1, the last from the first's.

    A control: what they do beside `DoseAgents` shows whether the signals say which class an image helps.
    """

    def learn(self, counts_KC: Tensor, signals_KC: Tensor, progress: float) -> None:
        """Learn as `DoseAgents` from the signals moved by one class."""
        super().learn(counts_KC, signals_KC.roll(-1, dims=1), progress)
