"""A recorded run as the policy: its surviving compositions, epoch by epoch (`sampler.replay`)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcas import settings
from rlcas.batches.composition import composition_of, initial_counts
from rlcas.config import POPULATION, RunConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.runs.epoch_log import EPOCHS_FILE, read_epochs
from rlcas.runs.paths import FOLDER_PREFIX
from rlcas.storage.atomic import replacing_folder
from rlcas.types import Int64

AS_RECORDED = ("episode", "handover", "action_step", "max_count", "real_first", "real_last")


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


class Recorded(NamedTuple):
    """What the episodes of a recorded run trained with."""

    bases_TC: Int64
    """[T, C] the composition that the actions of each epoch changed."""
    actions_TKC: Int64
    """[T, K, C] the actions; those of the winner for all K where whole episodes competed."""


def schedule(sampler: SamplerConfig, num_classes: int) -> Recorded | None:
    """Return what the first T = `sampler.epochs` epochs of the recorded run trained with; None without a replay.

    Raises:
        UserError: the record is too short, of other classes or counts, or does not follow from its actions.
    """
    run = sampler.replay
    if run is None:
        return None
    config, lines = _config(run).sampler, _lines(run)
    if len(lines) < sampler.epochs:
        raise UserError(
            f"sampler.replay {run} has {len(lines)} recorded epochs, but sampler.epochs is {sampler.epochs}: "
            f"set sampler.epochs {len(lines)} at most"
        )
    recorded, compositions_TKC = _read(lines[: sampler.epochs], sampler, run)
    if recorded.bases_TC.shape[1] != num_classes:
        raise UserError(
            f"sampler.replay {run} is of {recorded.bases_TC.shape[1]} classes, but the data has {num_classes}: "
            "replay it on data of its own classes"
        )
    _check_as_recorded(sampler, config, num_classes)
    _check_follows(recorded, compositions_TKC, sampler)
    return recorded


def keep_recorded(run: Path, folder: Path) -> None:
    """Copy to `folder` the files of `run` that `schedule` reads, so that a resumed replay does not need that run."""
    with replacing_folder(folder) as temporary:
        for name in (settings.CONFIG_FILE, EPOCHS_FILE):
            shutil.copyfile(run / name, temporary / name)


def _check_as_recorded(sampler: SamplerConfig, recorded: SamplerConfig, num_classes: int) -> None:
    counts_C, recorded_C = (initial_counts(either, num_classes) for either in (sampler, recorded))
    same = {name: getattr(sampler, name) == getattr(recorded, name) for name in AS_RECORDED}
    same["initial_count"] = np.array_equal(counts_C, recorded_C)
    # Where the best of K was handed over, its actions can be repeated by any number of episodes.
    same["k"] = sampler.k == recorded.k or recorded.handover == "best"
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


def _read(lines: list[dict[str, Any]], sampler: SamplerConfig, run: Path) -> tuple[Recorded, Int64]:
    """Return what is replayed, and [T, K, C] the recorded compositions of the same episodes."""
    try:
        actions_TKC, compositions_TKC = (
            np.array([_of_episodes(line, name, sampler.k) for line in lines], dtype=np.int64)
            for name in ("actions", "compositions")
        )
        num_classes = actions_TKC.shape[2]
        bases_TC = np.array(_bases(lines, initial_counts(sampler, num_classes).tolist()), dtype=np.int64)
    # The lines are a user's file: entries may be missing, of another type or length, or too large for int64.
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(run, error) from error
    return Recorded(bases_TC, actions_TKC), compositions_TKC


def _of_episodes(line: dict[str, Any], name: str, k: int) -> list[list[int]]:
    """Return K entries of `name`: the winner's for all where the best episode was handed over."""
    return [line[name][line["winner"]]] * k if line.get("handover", "best") == "best" else line[name]


def _bases(lines: list[dict[str, Any]], initial: list[int]) -> list[list[int]]:
    """Return the composition that each epoch's actions changed."""
    # Lines of before version 0.2 do not have it: it was the winner's of the epoch before.
    former = [initial, *(line["compositions"][line["winner"] or 0] for line in lines[:-1])]
    return [line.get("base_composition", before) for line, before in zip(lines, former, strict=True)]


def _damaged(run: Path, error: Exception) -> UserError:
    return UserError(
        f"sampler.replay {run}: its {EPOCHS_FILE} is damaged ({type(error).__name__}: {error}): replay another run"
    )


def _check_follows(recorded: Recorded, compositions_TKC: Int64, sampler: SamplerConfig) -> None:
    """Refuse a record whose compositions do not follow from each other by its actions."""
    epochs = zip(recorded.bases_TC, recorded.actions_TKC, compositions_TKC, strict=True)
    for epoch, (base_C, actions_KC, compositions_KC) in enumerate(epochs, start=1):
        expected_KC = [composition_of(sampler, epoch, base_C, actions_C) for actions_C in actions_KC]
        if not np.array_equal(expected_KC, compositions_KC):
            raise UserError(
                f"sampler.replay {sampler.replay}: the composition of epoch {epoch} does not follow from the one "
                "before by its actions: replay another run"
            )
