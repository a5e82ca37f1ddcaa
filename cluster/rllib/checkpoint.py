"""Checkpoints of a run as safetensors and JSON: there whole or not at all, and the bits of the run after them.

Layout, below the folder of checkpoints: `epoch-0003/` with `incumbent.safetensors` and
`best.safetensors` (classifiers), `learner.safetensors` (policy, Adam's moments and steps, B), `state.json`
(the rest) and `sha256.json`, the digests of these four. `cluster.rllib.checkpoint_writer` writes them beside the
training.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cluster.episodes.incumbent_file import contiguous, described, incumbent_of
from rlcas.console import say
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.storage.atomic import replacing_folder, sha256_of
from rlcas.storage.reading import NOT_ARRAYS
from rlcas.types import Incumbent

if TYPE_CHECKING:
    from cluster.rllib.algorithm import RLCAS

STATE = "state.json"
DIGESTS = "sha256.json"
INCUMBENT = "incumbent.safetensors"
BEST = "best.safetensors"
LEARNER = "learner.safetensors"
FILES = (STATE, INCUMBENT, BEST, LEARNER)
NUM_KEPT = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a resumed run needs; nothing in it changes afterwards."""

    incumbent: Incumbent
    best: Incumbent
    learner_arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, algo: RLCAS) -> Snapshot:
        """Return what `algo` holds now."""
        return cls(algo.incumbent, algo.best, algo.on_learner(lambda learner: learner.arrays()))


class CorruptCheckpointError(Exception):
    """A checkpoint's file is missing, altered or not what it should be."""


def save(algo: RLCAS, folder: Path) -> Path:
    """Write the checkpoint of `algo` below `folder` and return its path; the last two are kept."""
    return write(Snapshot.of(algo), folder)


def write(snapshot: Snapshot, folder: Path, best_there: Path | None = None) -> Path:
    """Write `snapshot` below `folder` and return its path; the last two are kept.

    Args:
        snapshot: what to write.
        folder: the folder of checkpoints.
        best_there: a checkpoint with the same best classifier, whose file then gets a second name.

    Raises:
        UserError: there is no room on the disk, or it must not be written.
    """
    checkpoint = folder / f"epoch-{snapshot.incumbent.epoch:04d}"
    state = {"incumbent": described(snapshot.incumbent), "best": described(snapshot.best)}
    with replacing_folder(checkpoint) as temporary:
        _write_json(temporary / STATE, state)
        save_file(contiguous(snapshot.learner_arrays), temporary / LEARNER)
        save_file(contiguous(snapshot.incumbent.arrays), temporary / INCUMBENT)
        digests = {name: sha256_of(temporary / name) for name in (STATE, LEARNER, INCUMBENT)}
        if snapshot.best is snapshot.incumbent and _linked(temporary / INCUMBENT, temporary / BEST):
            digests[BEST] = digests[INCUMBENT]
        elif best_there is not None and _linked(best_there / BEST, temporary / BEST):
            digests[BEST] = _digests(best_there)[BEST]  # of what was written, whatever became of the file
        else:
            save_file(contiguous(snapshot.best.arrays), temporary / BEST)
            digests[BEST] = sha256_of(temporary / BEST)
        _write_json(temporary / DIGESTS, digests)
    for old in _checkpoints(folder)[NUM_KEPT:]:
        shutil.rmtree(old)
    return checkpoint


def _linked(there: Path, path: Path) -> bool:
    """Give the file `there` the second name `path`; return whether it is there and the disk has links."""
    try:
        os.link(there, path)
    except OSError:
        return False
    return True


def load_into(algo: RLCAS, folder: Path) -> int:
    """Restore `algo` from the newest good checkpoint below `folder`.

    Returns:
        The epochs it has trained; 0 where there is no checkpoint yet, and `algo` stays as it is.

    Raises:
        UserError: there are checkpoints and none is good, or they are of another number of classes.
    """
    checkpoints = _checkpoints(folder)
    for checkpoint in checkpoints:
        try:
            incumbent, best, learner_arrays = _read(checkpoint)
        except CorruptCheckpointError as error:
            say(f"note: checkpoint {checkpoint} is not usable ({error}): going on from the one before")
            continue
        _check_fits(algo, incumbent, checkpoint)
        algo.resume(incumbent, best, learner_arrays)
        return incumbent.epoch
    if checkpoints:
        raise UserError(f"{folder}: none of its {len(checkpoints)} checkpoints is usable: start a new run")
    return 0


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints, the newest first."""
    return sorted(folder.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")), reverse=True)


def _read(checkpoint: Path) -> tuple[Incumbent, Incumbent, dict[str, np.ndarray]]:
    try:
        digests = _digests(checkpoint)
        for name in FILES:
            if sha256_of(checkpoint / name) != digests[name]:
                raise CorruptCheckpointError(f"{name} is not what was written")
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return (
            incumbent_of(state["incumbent"], load_file(checkpoint / INCUMBENT)),
            incumbent_of(state["best"], load_file(checkpoint / BEST)),
            load_file(checkpoint / LEARNER),
        )
    except (*NOT_ARRAYS, SafetensorError, AttributeError) as error:
        raise CorruptCheckpointError(f"{type(error).__name__}: {error}") from error


def _digests(checkpoint: Path) -> dict[str, str]:
    return json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))


def _check_fits(algo: RLCAS, incumbent: Incumbent, checkpoint: Path) -> None:
    mine, saved = len(algo.incumbent.counts_C), len(incumbent.counts_C)
    if mine != saved:
        raise UserError(
            f"{checkpoint} is of {saved} classes, the data has {mine}: resume with the run's own data"
        )


def _write_json(path: Path, value: Any) -> None:
    """Write JSON into a folder that is there whole or not at all."""
    path.write_text(json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
