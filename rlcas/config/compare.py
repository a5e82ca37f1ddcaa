"""Settings of `rlcas compare`."""

from __future__ import annotations

from typing import Literal

from rlcas.config.values import Count, Positive, PositiveCount, Settings


class CompareConfig(Settings):
    """`rlcas compare`: the rows, their seeds, and what they share."""

    methods: tuple[str, ...] = ("all",)
    """Rows: names in rlcas.methods.METHODS, separated by commas, or all."""
    seeds: PositiveCount = 5
    """Number of seeds of each row, counting up from `seed`; the same for all rows."""
    epochs: PositiveCount = 30
    """Budget of every row in images: this many passes over the real ones. Rows that add images train fewer passes."""
    equal_compute: bool | Literal["only"] = True
    """Train rows with several network passes for each image a second time, with the Baseline's total of passes. only:
    train them with that total alone."""
    tune: Count = 0
    """Number of settings tried for each row on validation, with the first seed; 0 keeps the authors' settings."""
    synthetic_ratio: Positive = 1.0
    """Added images for each real one, in rows with a fixed mixture."""
    synthetic_balance: Literal["proportional", "uniform"] = "uniform"
    """Classes of the added images. uniform: equally many of each, as at the start of RL-CAS; proportional: in the
    proportions of the real ones."""
    pools: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """NAME=DIR, once for each pool: existing pools to use instead of making them: sketch, image, class, mgdm,
    skin_sdm."""
    usefulness: bool = True
    """Also measure what each pool teaches beyond repeated real images, once for all rows and seeds
    (`synth.scoring.usefulness_seeds` pairs of small classifiers a pool)."""
    concurrent: PositiveCount | None = None
    """Cells that run in parallel. None: as many as there are cores, or GPUs."""
