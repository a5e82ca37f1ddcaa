"""The dose of each class, searched in feature space: where no benefit is probable it is 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtr

from rlcas.agents import DoseAgents
from rlcas.config import SamplerConfig
from rlcas.seeding import rng_for
from rlcas.training.feature_space import FeatureSpace
from rlcas.types import Float64, Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDose:
    """A composition with what is known of it; `rlcas.jsonable.jsonable` of its `asdict` is JSON."""

    counts_C: Int64
    """Synthetic images of each class in a mini-batch."""
    benefit_probability_C: Float64
    """Probability that the images of class c are a benefit for the mean class, beside the others: those of the dose, or
    where that is 0, those of one step."""
    mean_C3: Float64
    """Posterior mean of the team's response to each class's images (`rlcas.agents.dose_response.DoseResponse`)."""
    covariance_C33: Float64
    """Its posterior covariance."""
    gain: float
    """Mean over the classes of the held-out log-likelihood, minus that without synthetic images."""
    gain_error: float
    """Standard error of the gain over the held-out images, or patients."""
    gain_C: Float64
    """The gain of each class's held-out images; NaN for a class without."""
    proposed_C: Int64
    """The composition where the search ended, before its classes were tested on the held-out images."""
    num_episodes: int
    """Compositions that were tried."""
    ridge: float
    """The penalty of the heads."""


def search_doses(
    space: FeatureSpace,
    sampler: SamplerConfig,
    class_counts_C: Int64,
    *,
    seed: int,
    epochs: int = 16,
    episodes_an_epoch: int = 8,
) -> FoundDose:
    """Return the dose that agents `dose` reach in feature space, without the classes whose images are no benefit.

    The response that the agents fit has no noise but its own misfit; what is uncertain is whether other images would
    say the same. So the classes of the dose they reach are tested on the held-out images: of those whose images are a
    benefit with a probability of at most `sampler.benefit_probability`, the least probable loses its dose, again and
    again until none is left; at last the whole dose is tested in the same way.

    Args:
        space: the features.
        sampler: for `action_step`, `max_count` and, of agents dose, `benefit_probability`.
        class_counts_C: real training images of each class.
        seed: of the designs.
        epochs: steps of the dose.
        episodes_an_epoch: K of the search.
    """
    own = {name: getattr(sampler, name) for name in ("action_step", "max_count", "benefit_probability")}
    sampler = SamplerConfig.model_validate({**own, "agents": "dose", "k": episodes_an_epoch, "epochs": epochs})
    agents = DoseAgents(space.num_classes, 1, sampler)
    agents.begin(class_counts_C)
    for epoch in range(1, epochs + 1):
        actions_KC = agents.design(episodes_an_epoch, rng_for(seed, "feature search", epoch))
        centre_C = agents.centre(np.zeros(space.num_classes, np.int64))
        counts_KC = np.clip(centre_C + sampler.action_step * (actions_KC - 1), 0, sampler.max_count)
        signals_KC = np.stack([space.by_class(space.log_likelihoods(counts_C)) for counts_C in counts_KC])
        agents.learn(torch.from_numpy(counts_KC), torch.from_numpy(signals_KC), epoch / epochs)
    proposed_C = agents.centre(np.zeros(space.num_classes, np.int64))
    assert sampler.benefit_probability is not None, "agents dose have it"
    tested = _Tested(space, sampler.action_step)
    counts_C, probability_C = tested.reduced(proposed_C, sampler.benefit_probability)
    gain, gain_error = tested.difference(counts_C, np.zeros_like(counts_C))
    response = agents.response()
    zeros_C = np.zeros_like(counts_C)
    return FoundDose(
        counts_C=counts_C,
        benefit_probability_C=probability_C,
        mean_C3=response.team_mean_C3.numpy(),
        covariance_C33=response.team_covariance_C33.numpy(),
        gain=gain,
        gain_error=gain_error,
        gain_C=space.by_class(tested.log_likelihoods(counts_C) - tested.log_likelihoods(zeros_C)),
        proposed_C=proposed_C,
        num_episodes=epochs * episodes_an_epoch + tested.num_episodes,
        ridge=space.ridge,
    )


class _Tested:
    """Compositions, each tried once, compared on the held-out images."""

    def __init__(self, space: FeatureSpace, step: int) -> None:
        self._space, self._step = space, step
        self._known: dict[bytes, Float64] = {}

    @property
    def num_episodes(self) -> int:
        """Return how many compositions were tried."""
        return len(self._known)

    def log_likelihoods(self, counts_C: Int64) -> Float64:
        """Return [N] of `FeatureSpace.log_likelihoods`."""
        key = counts_C.tobytes()
        if key not in self._known:
            self._known[key] = self._space.log_likelihoods(counts_C)
        return self._known[key]

    def difference(self, counts_C: Int64, without_C: Int64) -> tuple[float, float]:
        """Return the mean class's difference between two compositions, and its standard error."""
        space = self._space
        difference_N = self.log_likelihoods(counts_C) - self.log_likelihoods(without_C)
        return mean_class(difference_N, space.labels_N, space.groups_N, space.num_classes)

    def probability(self, counts_C: Int64, without_C: Int64) -> float:
        """Return the probability that the first composition is better; one half where they are the same."""
        mean, error = self.difference(counts_C, without_C)
        rarest = np.bincount(self._space.labels_N)
        # Student's t of the rarest class, whose images are what is scarce.
        degrees = max(1, int(rarest[rarest > 0].min()) - 1)
        return float(stdtr(degrees, mean / error)) if error > 0 else 0.5

    def benefits(self, counts_C: Int64) -> Float64:
        """Return [C]: the probability that each class's images are a benefit, one step where it has none."""
        own_C = np.where(counts_C > 0, counts_C, self._step)
        classes = np.eye(len(counts_C), dtype=np.int64)
        return np.array(
            [
                self.probability(np.where(one_C, own_C, counts_C), np.where(one_C, 0, counts_C))
                for one_C in classes
            ]
        )

    def reduced(self, counts_C: Int64, least: float) -> tuple[Int64, Float64]:
        """Return the composition without the classes whose images are no probable benefit, and the probabilities."""
        while True:
            probability_C = self.benefits(counts_C)
            doubtful_C = np.where((counts_C > 0) & (probability_C <= least), probability_C, np.inf)
            if np.isinf(doubtful_C).all():
                break
            counts_C = np.where(np.arange(len(counts_C)) == doubtful_C.argmin(), 0, counts_C)
        zeros_C = np.zeros_like(counts_C)
        if counts_C.any() and self.probability(counts_C, zeros_C) <= least:
            return zeros_C, self.benefits(zeros_C)
        return counts_C, probability_C


def mean_class(values_N: Float64, labels_N: Int64, groups_N: Int64, num_classes: int) -> tuple[float, float]:
    """Return the mean over the classes of their images' means, and its standard error over the groups.

    Args:
        values_N: [N] one number an image.
        labels_N: [N] classes.
        groups_N: [N] patients, whose images vary together.
        num_classes: C; classes without images are left out.
    """
    number_C = np.bincount(labels_N, minlength=num_classes)
    means_C = np.bincount(labels_N, values_N, num_classes) / number_C.clip(min=1)
    num_seen = (number_C > 0).sum()
    # A class's own mean makes its images vary less about it: the factor of the sample variance.
    enlarged_C = np.sqrt(number_C / (number_C - 1).clip(min=1))
    parts_N = (enlarged_C * 1 / number_C.clip(min=1) / num_seen)[labels_N] * (values_N - means_C[labels_N])
    error = np.sqrt((np.bincount(groups_N, parts_N) ** 2).sum())
    return float(means_C.sum() / num_seen), float(error)
