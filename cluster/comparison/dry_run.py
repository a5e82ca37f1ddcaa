"""What a comparison would take, for `--dry-run`: its rows, cells and pools, demand, and time from a few real steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cluster.comparison.cell_plan import cells_of
from cluster.comparison.checks import load_checked
from cluster.comparison.plan import ComparisonPlan, plan
from cluster.comparison.pools import parts_taken_over
from cluster.comparison.schedule import share_of, side_by_side
from cluster.comparison.tuning import tries_of
from cluster.runs.dry_run import seconds_per_image, synthesis_seconds, usefulness_seconds
from cluster.runtime.connection import check_starts_here
from cluster.runtime.resources import this_machine
from rlcas import settings
from rlcas.console import format_seconds
from rlcas.types import TrainingData


def describe(stated: Mapping[str, Any]) -> str:
    """Return the rows, cells and pools of a comparison, and what they demand of this machine.

    Raises:
        UserError: a setting, a row, a file or an image is wrong.
    """
    planned = plan(stated)
    if not os.environ.get("RAY_ADDRESS"):
        check_starts_here()
    data, here = load_checked(planned), this_machine()
    cells = [cell for cell in cells_of(planned, data) if not cell.missing]
    tries = tries_of(planned, data)
    number = side_by_side(planned.config, here)
    share = share_of(planned.config, number, here)
    passes = sum(cell.passes for cell in [*cells, *tries])
    return "\n".join(
        [
            settings.as_yaml(planned.config),
            *_described_rows(planned, data),
            f"pools: {', '.join(planned.pools) or 'none'}",
            f"demand: {len(cells)} cells and {len(tries)} trials of settings, {number} side by side, "
            f"{share['num_cpus']:g} cores and {share['num_gpus']:g} GPUs each (here: {here['CPU']:g} cores, "
            f"{here['GPU']:g} GPUs)",
            f"budget: compare.epochs {planned.config.compare.epochs} x {len(data.train)} training images a cell; "
            f"{passes / 1e6:.2f} million passes over images in all",
            _times(planned, data, passes / number),
        ]
    )


def _times(planned: ComparisonPlan, data: TrainingData, passes_in_turn: float) -> str:
    """Return the estimate of the time: that of a few steps on this machine, times the number of steps."""
    parts: dict[str, float] = {}
    # In the order of `POOLS`, in which they are made: a pool takes over parts of those before it.
    making = [name for name, pool in planned.pools.items() if pool.pool is None]
    for number, name in enumerate(making):
        spared = parts_taken_over(name, making[:number])
        seconds = synthesis_seconds(planned.pools[name], data)
        parts[f"pool {name}"] = sum(of for part, of in seconds.items() if part not in spared)
    if judged := [pool for pool in planned.pools.values() if pool.synth.scoring.usefulness]:
        # The classifiers of repeated real images are trained once for all pools.
        parts["usefulness"] = (1 + len(judged)) * usefulness_seconds(judged[0], data)
    parts["cells"] = seconds_per_image(planned.config, data) * passes_in_turn
    named = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts.items())
    return f"time, from a few steps on this machine: {named}; in all {format_seconds(sum(parts.values()))}"


def _described_rows(planned: ComparisonPlan, data: TrainingData) -> list[str]:
    lines = []
    for cell in cells_of(planned, data):
        # Rows differ between seeds in nothing that is shown but the cell that they replay.
        if cell.seed != planned.config.seed:
            continue
        name = f"row {cell.method}{' at equal compute' if cell.equal_compute else ''}"
        if cell.missing:
            lines.append(f"{name}: left out, {cell.missing}")
            continue
        added = f" + {','.join(map(str, cell.counts_C))} a batch" if any(cell.counts_C) else ""
        replay = f", the compositions of {cell.replays}" if cell.replays else ""
        lines.append(
            f"{name}: {cell.config.sampler.epochs} epochs{added}, {cell.passes} passes over images{replay}"
        )
    return lines
