"""What drives the result: pairs of rows that differ in one part of RL-CAS, which one of them lacks or replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlcas.comparison.intervals import BOUNDS, Interval, paired_interval
from rlcas.types import Float64


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two rows and the part in which they differ."""

    part: str
    row: str
    other: str


CONTRASTS = (
    Contrast("synthetic images, in fixed counts", "syn_sketch", "baseline"),
    Contrast("synthetic instead of repeated real images", "syn_sketch", "oversampling"),
    Contrast("images from real images instead of these repeated", "syn_image", "oversampling"),
    Contrast("images from real images instead of from noise", "syn_image", "syn_sketch"),
    Contrast("images made under sketch supervision", "syn_sketch", "syn_class"),
    Contrast("the best of K classifiers, without synthetic images", "baseline_best_of_k", "baseline"),
    Contrast("the best of K episodes an epoch", "rlcas", "rlcas_k1"),
    Contrast("a composition that moves", "rlcas_frozen", "constant"),
    Contrast("agents that learn", "rlcas", "rlcas_frozen"),
    Contrast("agents that see the state", "rlcas_state", "rlcas_frozen"),
    Contrast("agents that fit the response", "rlcas_response", "rlcas_frozen"),
    Contrast("agents instead of a population", "rlcas", "pbt"),
    Contrast("doses that are learnt, in shares of an epoch", "rlcas_dose", "rlcas_dose_frozen"),
    Contrast("credit of the own class", "rlcas_dose", "rlcas_dose_permuted"),
    Contrast("doses learnt in the run itself", "rlcas_dose", "rlcas_dose_replayed"),
    Contrast("shares of an epoch at the Baseline's cost", "rlcas_dose", "baseline"),
    Contrast("shares of an epoch beside an ensemble of K classifiers", "rlcas_dose", "baseline_ensemble"),
    Contrast("all of RL-CAS beside the best of K classifiers", "rlcas", "baseline_best_of_k"),
)


FIGURES = ("f1", "average_precision", "log_loss")
"""Figures of a contrast; the last two do not move with the operating point."""


def contrasts(
    drawn: Mapping[str, Mapping[str, Mapping[int, Float64]]],
) -> dict[Contrast, dict[str, Interval]]:
    """Return the differences, of each of `FIGURES`, of every contrast whose rows share a seed, with 95 % intervals.

    Args:
        drawn: row -> figure -> seed -> [B + 1] draws, all from one `image_draws`.
    """
    return {
        pair: found
        for pair in CONTRASTS
        if pair.row in drawn
        and pair.other in drawn
        and (found := _differences(drawn[pair.row], drawn[pair.other]))
    }


def _differences(
    row: Mapping[str, Mapping[int, Float64]], other: Mapping[str, Mapping[int, Float64]]
) -> dict[str, Interval]:
    found = {name: paired_interval(row[name], other[name], BOUNDS.get(name, 1)) for name in FIGURES}
    return {name: difference for name, difference in found.items() if difference is not None}
