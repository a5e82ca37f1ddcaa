"""The trials of a sweep, planned and checked before anything is read, made or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.runs.checks import check_settings
from cluster.runtime.resources import with_chosen_episodes
from rlcas import settings
from rlcas.config import RunConfig, SweepConfig, SweepRunConfig
from rlcas.errors import UserError
from rlcas.metrics import SELECTING
from rlcas.runs.folder import POOLS_FOLDER
from rlcas.runs.paths import default_out, local_out, resolved
from rlcas.runs.sweep_folder import TRIALS_FOLDER, Trial
from rlcas.settings.search_space import Point, Space, draws, grid, named, space_of

OF_PHASE_ONE = ("data", "dataset.", "synth.", "seed", "pool", "preset")
"""Settings, by the start of their names, each value of which needs a phase one of its own."""
CHANGE_IN_MID_RUN = (
    "sampler.lr",
    "sampler.baseline_gamma",
    "sampler.reward",
    "sampler.action_step",
    "sampler.max_count",
    "classifier.lr",
    "classifier.weight_decay",
    "classifier.loss",
    "classifier.augment",
)
"""Settings that population-based training may change: a trial's state fits before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """A sweep before its start."""

    config: SweepRunConfig
    """What the trials share, with absolute paths."""
    space: Space
    trials: list[Trial]
    configs: dict[str, RunConfig]
    """The settings of each trial's folder."""
    pools: dict[str, RunConfig]
    """The settings of each folder of phase one, below the sweep's."""


def plan(stated: Mapping[str, Any]) -> SweepPlan:
    """Return the trials of a sweep.

    Args:
        stated: what flags and file state, nested.

    Raises:
        UserError: a setting is unknown, a value does not fit, or settings do not go together in some trial.
    """
    swept = settings.of_sweep(stated)
    out = local_out(swept.out or default_out(swept, "sweep"))
    swept = swept.model_copy(update={"out": out})
    _check_metric(swept)
    space = space_of(swept.sweep.over, stated)
    _check_search(swept.sweep, space)
    # Planned here and not drawn by Tune, so that all are checked before the start and a resume has the same
    # trials.
    points = grid(space) if swept.sweep.search == "grid" else draws(space, swept.sweep.trials, swept.seed)
    pools: dict[str, RunConfig] = {}
    trials, configs = [], {}
    for number, point in enumerate(points, start=1):
        name = f"{number:03d}"
        config = _resolved(stated, point, out / TRIALS_FOLDER / name)
        pool = _pool_of(stated, point, out, pools)
        trials.append(Trial(name=name, settings=point, pool=pool, num_epochs=config.sampler.epochs))
        configs[name] = config
    return SweepPlan(config=_absolute(swept), space=space, trials=trials, configs=configs, pools=pools)


def metric_of(config: SweepRunConfig) -> str:
    """Return the validation metric that ranks the trials."""
    return config.sweep.metric or config.sampler.metric


def _pool_of(stated: Mapping[str, Any], point: Point, out: Path, pools: dict[str, RunConfig]) -> str:
    """Return the folder of the phase one that the point shares with others, after adding a new one to `pools`."""
    own = {key: value for key, value in point.items() if key.startswith(OF_PHASE_ONE)}
    # Compared as whole settings, under one `out`: points that differ only in what phase one does not read share
    # a pool.
    config = _resolved(stated, own, out)
    known = (name for name, pool in pools.items() if pool.model_copy(update={"out": out}) == config)
    name = next(known, f"{POOLS_FOLDER}/{len(pools) + 1:02d}")
    pools.setdefault(name, config.model_copy(update={"out": out / name}))
    return name


def _resolved(stated: Mapping[str, Any], point: Point, out: Path) -> RunConfig:
    """Return the settings at a point, checked, with absolute paths."""
    try:
        config = settings.of_sweep(stated, point).run
        check_settings(config)
    except UserError as error:
        raise UserError(f"sweep.over {named(point)}: {error}" if point else str(error)) from None
    # Trials share the cores: unless the setting is given, each episode has one thread, whatever K is.
    threads = config.cluster.threads_per_episode or 1
    cluster = config.cluster.model_copy(update={"threads_per_episode": threads})
    return resolved(with_chosen_episodes(config.model_copy(update={"out": out, "cluster": cluster})))


def _absolute(config: SweepRunConfig) -> SweepRunConfig:
    absolute = resolved(config)
    assert isinstance(absolute, SweepRunConfig)
    return absolute


def _check_metric(config: SweepRunConfig) -> None:
    if metric_of(config) not in SELECTING:
        known = ", ".join(sorted(SELECTING))
        raise UserError(f"sweep.metric {metric_of(config)!r} is unknown: use one of {known}")


def _check_search(sweep: SweepConfig, space: Space) -> None:
    """Refuse settings that a search cannot vary."""
    for key, axis in space.items():
        if sweep.search == "asha" and key == "sampler.epochs":
            raise UserError(
                f"sweep.over {key}={axis}: sweep.search asha compares trials at the same epoch of the same plan: leave "
                "sampler.epochs the same, or set sweep.search to grid or random"
            )
        if sweep.search == "pbt" and key not in CHANGE_IN_MID_RUN:
            raise UserError(
                f"sweep.over {key}={axis}: sweep.search pbt changes settings in mid-run, which {key} cannot be: sweep "
                f"{', '.join(CHANGE_IN_MID_RUN)}, or set sweep.search to grid, random or asha"
            )
