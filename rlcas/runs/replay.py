"""A recorded run as the policy: its surviving compositions, epoch by epoch (`sampler.replay`)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlcas import settings
from rlcas.batches.composition import apply_actions, initial_counts
from rlcas.config import POPULATION, RunConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.runs.epoch_log import EPOCHS_FILE, read_epochs
from rlcas.runs.paths import FOLDER_PREFIX
from rlcas.storage.atomic import replacing_folder
from rlcas.types import Int64

AS_RECORDED = ("action_step", "max_count")


def base_settings(stated: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of the run that is replayed, which the stated settings override; None without a replay.

    The number of epochs is that of the record, its pool is used again, and the new folder is beside its own.

    Raises:
        UserError: the folder is not a run's or is a population's, has no epochs, or agents or a preset are stated too.
    """
    name = stated.get("sampler", {}).get("replay")
    if name is None:
        return None
    run = Path(name).expanduser().absolute()
    for key, value in (("sampler.agents", stated["sampler"].get("agents")), ("preset", stated.get("preset"))):
        if value is not None:
            raise UserError(
                f"{key} {value} beside sampler.replay {run}: a replay keeps that run's: leave one out"
            )
    config, num_epochs = _config(run), len(_lines(run))
    if config.sampler.agents == POPULATION:
        raise UserError(
            f"sampler.replay {run} is a population's, whose winners do not follow from each other by actions: "
            "replay a run of agents"
        )
    # A replayed run may itself be a replay: its record counts, not the one that it followed.
    sampler = config.sampler.model_dump(exclude={"replay"}) | {"epochs": num_epochs}
    own_pool = config.pool is None or config.pool.startswith(FOLDER_PREFIX)
    return config.model_dump() | {
        "sampler": sampler,
        # The pool in that run's folder, which has been made, or imported from the user's images.
        "pool": str(run) if own_pool else config.pool,
        "out": run.with_name(f"{run.name}-replay"),
    }


def schedule(sampler: SamplerConfig, num_classes: int) -> Int64 | None:
    """Return [T, C] int64: the actions of the recorded winners in T = `sampler.epochs` epochs; None without a replay.

    Raises:
        UserError: the record is too short, of other classes or counts, or does not follow from its actions.
    """
    run = sampler.replay
    if run is None:
        return None
    recorded, lines = _config(run).sampler, _lines(run)
    if len(lines) < sampler.epochs:
        raise UserError(
            f"sampler.replay {run} has {len(lines)} recorded epochs, but sampler.epochs is {sampler.epochs}: "
            f"set sampler.epochs {len(lines)} at most"
        )
    actions_TC, compositions_TC = (
        _winners(lines[: sampler.epochs], name, run) for name in ("actions", "compositions")
    )
    if actions_TC.shape[1] != num_classes:
        raise UserError(
            f"sampler.replay {run} is of {actions_TC.shape[1]} classes, but the data has {num_classes}: "
            "replay it on data of its own classes"
        )
    _check_as_recorded(sampler, recorded, num_classes)
    _check_follows(actions_TC, compositions_TC, sampler)
    return actions_TC


def keep_recorded(run: Path, folder: Path) -> None:
    """Copy to `folder` the files of `run` that `schedule` reads, so that a resumed replay does not need that run."""
    with replacing_folder(folder) as temporary:
        for name in (settings.CONFIG_FILE, EPOCHS_FILE):
            shutil.copyfile(run / name, temporary / name)


def _check_as_recorded(sampler: SamplerConfig, recorded: SamplerConfig, num_classes: int) -> None:
    counts_C, recorded_C = (initial_counts(either, num_classes) for either in (sampler, recorded))
    same = {name: getattr(sampler, name) == getattr(recorded, name) for name in AS_RECORDED}
    same["initial_count"] = np.array_equal(counts_C, recorded_C)
    if not all(same.values()):
        name = min(same, key=lambda name: same[name])
        raise UserError(
            f"sampler.{name} is {getattr(sampler, name)}, but sampler.replay {sampler.replay} was recorded with "
            f"{getattr(recorded, name)}: leave it out"
        )


def _config(run: Path) -> RunConfig:
    try:
        return settings.load(run)
    except UserError as error:
        raise UserError(f"sampler.replay: {error}") from None


def _lines(run: Path) -> list[dict[str, Any]]:
    try:
        lines = read_epochs(run)
    except UserError as error:
        raise UserError(f"sampler.replay: {error}") from None
    if not lines:
        raise UserError(f"sampler.replay {run} has no recorded epochs: let it train one at least")
    return lines


def _winners(lines: list[dict[str, Any]], name: str, run: Path) -> Int64:
    """Return [T, C] int64: the winner's entry of `name` in each epoch."""
    try:
        return np.array([line[name][line["winner"]] for line in lines], dtype=np.int64)
    # The lines are a user's file: entries may be missing, of another type or length, or too large for int64.
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(run, error) from error


def _damaged(run: Path, error: Exception) -> UserError:
    return UserError(
        f"sampler.replay {run}: its {EPOCHS_FILE} is damaged ({type(error).__name__}: {error}): replay another run"
    )


def _check_follows(actions_TC: Int64, compositions_TC: Int64, sampler: SamplerConfig) -> None:
    """Refuse a record whose compositions do not follow from each other by its actions."""
    counts_C = initial_counts(sampler, actions_TC.shape[1])
    for epoch, (actions_C, recorded_C) in enumerate(zip(actions_TC, compositions_TC, strict=True), start=1):
        counts_C = apply_actions(counts_C, actions_C, step=sampler.action_step, max_count=sampler.max_count)
        if not np.array_equal(counts_C, recorded_C):
            raise UserError(
                f"sampler.replay {sampler.replay}: the composition of epoch {epoch} does not follow from the one "
                "before by its actions: replay another run"
            )
