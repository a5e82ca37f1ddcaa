"""Settings of `rlcas compare`."""

from __future__ import annotations

from typing import Literal

from rlcas.config.values import Count, Positive, PositiveCount, Settings


class CompareConfig(Settings):
    """`rlcas compare`: which rows, how often, and what they share."""

    methods: tuple[str, ...] = ("all",)
    """Rows: names in rlcas.methods.METHODS with commas, or all."""
    seeds: PositiveCount = 5
    """Seeds of each row, from `seed` on; the same for all rows."""
    epochs: PositiveCount = 30
    """Budget of every row: as many images as this many passes over the real ones; rows that add images need fewer."""
    equal_compute: bool = True
    """Train rows that need more passes over each image once more, with the passes that the Baseline needs."""
    tune: Count = 0
    """Settings tried for each row on validation, with the first seed; 0 keeps the authors'."""
    synthetic_ratio: Positive = 1.0
    """Added images for each real one, in rows whose mixture stays the same."""
    synthetic_balance: Literal["proportional", "uniform"] = "uniform"
    """Of which classes those are: as many of each, which is what RL-CAS starts from, or as the real ones."""
    pools: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """NAME=DIR, once a pool: pools that are there, in place of making them: sketch, class, mgdm, skin_sdm."""
    concurrent: PositiveCount | None = None
    """Cells side by side. None: as many as there are cores, or GPUs."""
