"""Checkpoints of a run as safetensors and JSON: whole or absent, and the resumed run has the same bits.

Layout, below the folder of checkpoints: `epoch-0003/` with a `.safetensors` file for each classifier (`best` and those
that the next epoch starts from) and for each other set of arrays (the learner's), `state.json` (the rest) and
`sha256.json`, the digests of all these. `cluster.episodes.checkpoint_writer` writes them beside the training.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cluster.episodes.incumbent_json import described, incumbent_of
from rlcas.console import say
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.storage.atomic import replacing_folder, sha256_of
from rlcas.storage.reading import NOT_ARRAYS
from rlcas.types import Incumbent

STATE = "state.json"
DIGESTS = "sha256.json"
BEST = "best"
"""Name of the classifier that was best on validation so far."""
NUM_KEPT = 2  # the one before is resumed where the newest is damaged


class CorruptCheckpointError(Exception):
    """A checkpoint's file is missing, altered or not what it should be."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a resumed run needs; nothing in it changes afterwards."""

    incumbents: Mapping[str, Incumbent]
    """Classifiers by name, `best` among them; the newest are those that the next epoch starts from."""
    arrays: Mapping[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    """Other arrays by name."""
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other JSON values, under none of the classifiers' names."""

    @property
    def epoch(self) -> int:
        """Return the epochs trained."""
        return max((incumbent.epoch for incumbent in self.incumbents.values()), default=0)

    def incumbent(self, name: str) -> Incumbent:
        """Return a classifier.

        Raises:
            CorruptCheckpointError: it is missing.
        """
        if name not in self.incumbents:
            raise CorruptCheckpointError(f"it has no classifier {name}")
        return self.incumbents[name]


class Resumable(Protocol):
    """What a checkpoint is made of and restored into."""

    best: Incumbent
    """The best classifier so far; the initial one before the first epoch."""

    @property
    def epoch(self) -> int:
        """The epochs trained."""
        ...

    def snapshot(self) -> Snapshot:
        """Return what a resumed run needs."""
        ...

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from `snapshot`, to the bits of a run that did not stop.

        Raises:
            CorruptCheckpointError: a part is missing or not of the right shape; nothing has changed then.
        """
        ...


def save(trainee: Resumable, folder: Path) -> Path:
    """Write the checkpoint of `trainee` below `folder` and return its path; the last two are kept."""
    return write(trainee.snapshot(), folder)


def write(snapshot: Snapshot, folder: Path, with_same_best: Path | None = None) -> Path:
    """Write `snapshot` below `folder` and return its path; the last two are kept.

    Args:
        snapshot: what to write.
        folder: the folder of checkpoints.
        with_same_best: a checkpoint with the same best classifier, whose file then gets a second name.

    Raises:
        UserError: there is no room on the disk, or it must not be written.
    """
    checkpoint = folder / f"epoch-{snapshot.epoch:04d}"
    fields = {name: described(incumbent) for name, incumbent in snapshot.incumbents.items()}
    with replacing_folder(checkpoint) as temporary:
        _write_json(temporary / STATE, fields | dict(snapshot.state))
        digests = {STATE: sha256_of(temporary / STATE)}
        for name, arrays in snapshot.arrays.items():
            digests[_file_of(name)] = _saved(arrays, temporary / _file_of(name))
        for name, incumbent in snapshot.incumbents.items():
            file = _file_of(name)
            # `is`: where the newest classifier is the best one so far, both names hold one object (`better`).
            twins = [_file_of(other) for other, its in snapshot.incumbents.items() if its is incumbent]
            if twins[0] in digests and _linked(temporary / twins[0], temporary / file):
                digests[file] = digests[twins[0]]
            elif (
                name == BEST and with_same_best is not None and _linked(with_same_best / file, temporary / file)
            ):
                digests[file] = _digests(with_same_best)[file]  # as written: the file may be damaged since
            else:
                digests[file] = _saved(incumbent.arrays, temporary / file)
        _write_json(temporary / DIGESTS, digests)
    # Only now: the new checkpoint is whole and on the disk.
    for old in _checkpoints(folder)[NUM_KEPT:]:
        shutil.rmtree(old)
    return checkpoint


def load_into(trainee: Resumable, folder: Path) -> int:
    """Restore `trainee` from the newest good checkpoint below `folder`.

    Returns:
        The epochs it has trained; 0 where there is no checkpoint yet, and `trainee` stays as it is.

    Raises:
        UserError: there are checkpoints and none is good, or they are of another number of classes.
    """
    checkpoints = _checkpoints(folder)
    for checkpoint in checkpoints:
        try:
            snapshot = _read(checkpoint)
            # Its error is a UserError, which ends the loop: the older checkpoints are of the same run.
            _check_classes(trainee, snapshot, checkpoint)
            trainee.resume(snapshot)
        except CorruptCheckpointError as error:
            say(f"note: checkpoint {checkpoint} is not usable ({error}): resuming from the one before")
            continue
        return trainee.epoch
    if checkpoints:
        raise UserError(f"{folder}: none of its {len(checkpoints)} checkpoints is usable: start a new run")
    return 0


def _read(checkpoint: Path) -> Snapshot:
    try:
        digests = _digests(checkpoint)
        # STATE by name too, so that a list of digests without it ends in a KeyError.
        for file in {STATE, *digests}:
            if sha256_of(checkpoint / file) != digests[file]:
                raise CorruptCheckpointError(f"{file} is not what was written")
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        names = [file.removesuffix(_file_of("")) for file in digests if file != STATE]
        # safetensors and JSON hold no code, so these files need not be trusted (docs/security.md).
        arrays = {name: load_file(checkpoint / _file_of(name)) for name in names}
        incumbents = {name: incumbent_of(state.pop(name), arrays.pop(name)) for name in names if name in state}
        return Snapshot(incumbents=incumbents, arrays=arrays, state=state)
    except (*NOT_ARRAYS, SafetensorError, AttributeError) as error:
        # AttributeError: JSON that is valid, but no object where one is expected.
        raise CorruptCheckpointError(f"{type(error).__name__}: {error}") from error


def _check_classes(trainee: Resumable, snapshot: Snapshot, checkpoint: Path) -> None:
    mine, saved = len(trainee.best.counts_C), len(snapshot.incumbent(BEST).counts_C)
    if mine != saved:
        raise UserError(
            f"{checkpoint} is of {saved} classes, the data has {mine}: resume with the run's own data"
        )


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints, the newest first."""
    # By number: as text, epoch-10000 would come before epoch-9999.
    return sorted(folder.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")), reverse=True)


def _file_of(name: str) -> str:
    return f"{name}.safetensors"


def _saved(arrays: dict[str, np.ndarray], path: Path) -> str:
    """Write arrays, in the C order that safetensors stores, and return the file's digest."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return sha256_of(path)


def _linked(path: Path, second_name: Path) -> bool:
    """Give a file a second name; return whether that was possible: the file exists and the disk has links."""
    try:
        os.link(path, second_name)
    except OSError:
        return False
    return True


def _digests(checkpoint: Path) -> dict[str, str]:
    return json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    """Write JSON into a folder that becomes visible only as a whole."""
    path.write_text(json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
