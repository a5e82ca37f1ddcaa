"""The rows and pools of a comparison, planned and checked before anything is made or started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.runs.checks import check_settings, check_training
from rlcas import settings
from rlcas.comparison.folder import ALL, row_names
from rlcas.config import CompareRunConfig, RunConfig
from rlcas.errors import UserError
from rlcas.methods import METHODS
from rlcas.methods.method import Method, missing_weights
from rlcas.registry import lookup
from rlcas.runs.folder import POOLS_FOLDER
from rlcas.runs.paths import default_out, local_out, resolved
from rlcas.settings.search_space import value_of

REAL = "real"
"""The pool that is the training images themselves; every other one is made."""
# Published generators sample as published, also where our own start from real images.
FROM_NOISE = {"synth.generation.start": "noise"}
POOLS: dict[str, dict[str, Any]] = {
    "sketch": {},
    "image": {"synth.generator": "ldm", "synth.generation.start": "image"},
    "class": {"synth.generator": "ldm", "synth.denoiser.sketch_weight": 0.0},
    "mgdm": {"synth.generator": "mgdm", "synth.denoiser.sketch_weight": 0.0, **FROM_NOISE},
    "skin_sdm": {"synth.generator": "skin_sdm", **FROM_NOISE},
}
"""The pools by name, with their own settings over those of the comparison, in the order in which they are made."""


IMAGE_STRENGTH = 0.3
"""Noise level of pool `image`: low enough that what marks the class of its sources stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """A method with the settings that it is trained with under any seed."""

    name: str
    method: Method
    config: CompareRunConfig
    missing: str = ""
    """Why it is left out, and the fix, in one line."""

    @property
    def pool(self) -> str | None:
        """Return the name of the pool that is made for it."""
        return None if self.method.pool == REAL or self.missing else self.method.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPlan:
    """A comparison before its start."""

    config: CompareRunConfig
    """What the rows share, with absolute paths."""
    rows: Sequence[PlannedRow]
    pools: Mapping[str, RunConfig]
    """The settings of the folder of each pool that rows need."""


def plan(stated: Mapping[str, Any]) -> ComparisonPlan:
    """Return the rows and pools of a comparison; no image is read.

    Args:
        stated: what flags and file state, nested.

    Raises:
        UserError: a setting, row or pool is unknown, a value does not fit, or settings do not go together in some row.
    """
    config = settings.of_comparison(stated)
    _check_pool_names(config)
    planned = plan_of(_concrete(config))
    _check_have_effect(planned)
    if all(row.missing for row in planned.rows):
        raise UserError(f"no row can be trained: {planned.rows[0].name}: {planned.rows[0].missing}")
    return planned


def plan_of(config: CompareRunConfig) -> ComparisonPlan:
    """Return the rows and pools of resolved settings.

    Raises:
        UserError: no rows are named, or as `plan`.
    """
    if not config.compare.methods:
        raise UserError(f"compare.methods is empty: name rows of {', '.join(METHODS)}, or {ALL}")
    rows = _rows(config)
    needed = [name for name in POOLS if name in {row.pool for row in rows}]
    return ComparisonPlan(config=config, rows=rows, pools={name: _pool_config(config, name) for name in needed})


def _rows(config: CompareRunConfig) -> list[PlannedRow]:
    """Return the rows; one that the settings do not suit is left out with the reason, or raises where it was named."""
    rows: list[PlannedRow] = []
    unsuited: list[UserError] = []
    for name in row_names(config):
        try:
            rows.append(_with_replayed(config, row_of(config, name)))
        except UserError as error:
            # A row that the user named must not be left out silently; one that `all` stands for may be.
            if name in config.compare.methods:
                raise
            unsuited.append(error)
            reason = str(error).removeprefix(f"row {name}: ")
            rows.append(PlannedRow(name=name, method=METHODS[name], config=config, missing=reason))
    if unsuited and all(row.missing for row in rows):
        raise unsuited[0]
    return rows


def _with_replayed(config: CompareRunConfig, row: PlannedRow) -> PlannedRow:
    """Return a row that replays another, left out where there is no other seed to replay; other rows as they are.

    Raises:
        UserError: the row that it replays is not compared.
    """
    if (replayed := row.method.replays) is None:
        return row
    if replayed not in row_names(config):
        raise UserError(
            f"row {row.name}: it replays row {replayed}, which compare.methods does not name: name both, or neither"
        )
    if config.compare.seeds > 1:
        return row
    reason = f"compare.seeds is 1, but it replays {replayed} under another seed: set compare.seeds to 2 or more"
    return replace(row, missing=row.missing or reason)


def row_of(config: CompareRunConfig, name: str, tried: Mapping[str, Any] | None = None) -> PlannedRow:
    """Return a row with its own settings over the comparison's, and those that are tried over these.

    Raises:
        UserError: the method is unknown, or settings do not go together.
    """
    method = lookup(name, METHODS, "compare.methods")
    if not isinstance(method, Method):
        raise UserError(f"compare.methods {name!r} is not an rlcas.methods.method.Method: name one")
    try:
        own = settings.override(config, {**method.settings, "classifier.method": name, **(tried or {})})
        if missing := _missing(own, method):
            return PlannedRow(name=name, method=method, config=own, missing=missing)
        # After the weights: it raises where they are missing, which only leaves the row out.
        check_training(own)
    except UserError as error:
        raise UserError(f"row {name}: {error}") from None
    return PlannedRow(name=name, method=method, config=own)


def _missing(config: CompareRunConfig, method: Method) -> str:
    """Return why a row is left out, or nothing; where a pool is given, its generator's weights are not needed."""
    # A pool that is given is read, so that nothing has to generate it.
    missing = None if method.pool in config.compare.pools else missing_weights(method, config)
    return " ".join((missing or "").split())


def _concrete(config: CompareRunConfig) -> CompareRunConfig:
    """Return the settings with absolute paths, `pool` under the name of its pool, and one thread a cell."""
    out = local_out(config.out or default_out(config, "compare"))
    pools = dict(config.compare.pools)
    if config.pool is not None:
        # `compare.pools` is the more specific of the two.
        pools.setdefault("sketch", config.pool)
    pools = {name: _absolute_pool(config, pool) for name, pool in pools.items()}
    # Cells share the cores: one thread each, whatever the machine, so that their bits do not depend on it.
    threads = config.cluster.threads_per_episode or 1
    # Fixed here, as the cells have seeds of their own: the images are split once, and each cell's config.yaml
    # names them.
    data_seed = config.seed if config.dataset.seed is None else config.dataset.seed
    update = {
        "out": out,
        "dataset": config.dataset.model_copy(update={"seed": data_seed}),
        "pool": None,
        "compare": config.compare.model_copy(update={"pools": pools}),
        "cluster": config.cluster.model_copy(update={"threads_per_episode": threads}),
        # A cell trains its episodes in its own process, so never on K GPUs at once.
        "sampler": config.sampler.concrete(num_gpus=0),
    }
    return resolved(config.model_copy(update=update))


def _absolute_pool(config: RunConfig, pool: str) -> str:
    absolute = resolved(config.model_copy(update={"pool": pool})).pool
    assert absolute is not None
    return absolute


def _check_pool_names(config: CompareRunConfig) -> None:
    for name, folder in config.compare.pools.items():
        if name not in POOLS:
            raise UserError(
                f"compare.pools {name}={folder}: there is no pool {name!r}: use one of {', '.join(POOLS)}"
            )


def _check_have_effect(planned: ComparisonPlan) -> None:
    """Refuse a setting that is stated but that every row replaces by its own."""
    config = planned.config
    # Only a value other than the preset's is certain to have been stated by the user.
    usual = settings.of_comparison({"data": config.data, "preset": config.preset})
    for key in sorted(set.intersection(*({"classifier.method", *row.method.settings} for row in planned.rows))):
        if (value := value_of(config, key)) != value_of(usual, key):
            raise UserError(
                f"{key} {value} has no effect: every row of compare.methods has its own: leave it out, or choose "
                "other rows with --methods"
            )


def _own_settings(config: CompareRunConfig, name: str) -> dict[str, Any]:
    """Return a pool's own settings; where the comparison's start from images, their strength and sources count."""
    generation = config.synth.generation
    if name != "image" or generation.start == "image":
        return POOLS[name]
    # One of few steps at least: less is refused.
    return {**POOLS[name], "synth.generation.strength": max(IMAGE_STRENGTH, 1 / generation.steps)}


def _pool_config(config: CompareRunConfig, name: str) -> RunConfig:
    """Return the settings of a pool's folder, which is a run's.

    Raises:
        UserError: they do not go together, or weights are missing.
    """
    assert config.out is not None, "a plan has its folder"
    try:
        useful = config.compare.usefulness or config.synth.scoring.usefulness
        own = settings.override(config.run, {**_own_settings(config, name), "synth.scoring.usefulness": useful})
        given = {"pool": config.compare.pools.get(name), "out": config.out / POOLS_FOLDER / name}
        own = own.model_copy(update=given)
        check_settings(own)
    except UserError as error:
        raise UserError(f"pool {name}: {error}") from None
    return own
