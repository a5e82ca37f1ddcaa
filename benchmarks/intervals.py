"""Do the intervals of a comparison cover the truth? Simulated comparisons of two rows with a known true difference.

An image is classified correctly if skill + luck exceeds its difficulty, which is the same for both rows; a row's skill
varies with the seed. `interval` is the one that `rlcas compare` prints, `seeds_drawn` resamples seeds like images,
`images_alone` ignores the seeds' spread. The figure is the share of simulations whose 95 % interval covers the true
difference, and `width` the mean width of `interval`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from common import emit, parser

from rlcas.comparison.intervals import image_draws, interval
from rlcas.seeding import rng_for
from rlcas.types import Float64, Int64

DRAWS = 400
SKILLS = (1.0, 0.7)
LUCK = 0.5
"""Standard deviation of the luck of each image under each seed; that of the difficulty is 1."""


class Case(NamedTuple):
    """Seeds, test images, and the standard deviation of a seed's skill."""

    seeds: int
    images: int
    spread: float

    @property
    def name(self) -> str:
        """Return the name of the case."""
        return f"seeds_{self.seeds}_images_{self.images}_spread_{self.spread:g}"


CASES = [
    Case(seeds, images, spread) for seeds in (3, 5) for images in (156, 1124) for spread in (0.02, 0.15, 0.4)
]


def measured(case: Case, simulations: int) -> dict[str, float]:
    """Return how often each kind of interval covers the true difference."""
    rng = rng_for(0, "intervals", case.name)
    weights_BN = image_draws(np.zeros(case.images, np.int64), DRAWS)
    truth = float(
        np.diff([found(rng, rng.normal(size=1_000_000), case, skill).mean() for skill in SKILLS[::-1]])[0]
    )
    covered = np.zeros(3)
    width = 0.0
    for _ in range(simulations):
        difficulty_N = rng.normal(size=case.images)
        rows = [
            np.stack([found(rng, difficulty_N, case, skill) for _ in range(case.seeds)]) for skill in SKILLS
        ]
        draws_SB = (rows[0] - rows[1]) @ weights_BN.T / case.images
        limits_K2 = [ours(draws_SB), seeds_drawn(rng, draws_SB), quantiles(draws_SB[:, 1:].mean(axis=0))]
        covered += [low <= truth <= high for low, high in limits_K2]
        width += limits_K2[0][1] - limits_K2[0][0]
    names = ("interval", "seeds_drawn", "images_alone")
    return {**dict(zip(names, (covered / simulations).tolist(), strict=True)), "width": width / simulations}


def found(rng: np.random.Generator, difficulty_N: Float64, case: Case, skill: float) -> Float64:
    """Return [N]: 1 for the images that a row classifies correctly under a new seed.

    More images than the case has are a sample for the true value, in which every image has a seed of its own.

    Args:
        rng: draws seed and luck.
        difficulty_N: difficulty of the images.
        case: the case.
        skill: mean skill of the row.
    """
    of_seed = rng.normal(0, case.spread, len(difficulty_N) if len(difficulty_N) > case.images else 1)
    return (skill + of_seed + rng.normal(0, LUCK, len(difficulty_N)) > difficulty_N).astype(np.float64)


def ours(draws_SB: Float64) -> tuple[float, float]:
    """Return the interval of `rlcas.comparison.intervals`."""
    own = interval(dict(enumerate(draws_SB)))
    return own.low, own.high


def seeds_drawn(rng: np.random.Generator, draws_SB: Float64) -> tuple[float, float]:
    """Return the interval of a bootstrap over both images and seeds."""
    num_seeds, num_draws = draws_SB.shape[0], draws_SB.shape[1] - 1
    seeds_BS: Int64 = rng.integers(num_seeds, size=(num_draws, num_seeds))
    return quantiles(draws_SB[seeds_BS, 1 + np.arange(num_draws)[:, None]].mean(axis=1))


def quantiles(means_B: Float64) -> tuple[float, float]:
    """Return the middle 95 % of the draws."""
    low, high = np.quantile(means_B, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    arguments = parser("Coverage of the intervals of a comparison.")
    arguments.add_argument("--simulations", type=int, default=600)
    options = arguments.parse_args()
    results = {case.name: measured(case, options.simulations) for case in CASES}
    emit("share of 95 % intervals that cover the true difference", results, options.json)


if __name__ == "__main__":
    main()
