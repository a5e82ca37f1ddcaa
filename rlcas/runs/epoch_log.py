"""Epochs' records as lines of epochs.jsonl, and the lines as plain dicts again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from rlcas.credentials import without_credentials
from rlcas.errors import UserError, first_line
from rlcas.jsonable import jsonable
from rlcas.storage.atomic import write_text
from rlcas.storage.reading import NOT_JSON, RESTORE, typed
from rlcas.types import EpochRecord

EPOCHS_FILE = "epochs.jsonl"
BY_EPISODE = ("rewards", "metrics", "compositions", "statuses", "retries", "tracebacks")
Count = Annotated[int, Field(ge=0)]


class IncumbentEntry(TypedDict):
    """The entry `incumbent` of a line of epochs.jsonl: the classifier after the epoch."""

    composition: list[Count]
    metrics: dict[str, float | None]
    val_loss: float | None
    train_loss: float | None
    images: Count


class EpochLine(TypedDict):
    """The entries of a line of epochs.jsonl that the report reads; `epoch_line` explains them."""

    epoch: Count
    winner: Count | None
    baseline: float | None
    rewards: list[float | None]
    metrics: list[dict[str, float | None] | None]
    compositions: list[list[Count]]
    incumbent: NotRequired[IncumbentEntry]
    statuses: list[str]
    retries: NotRequired[list[Count]]
    tracebacks: list[str]
    probabilities: list[tuple[float, float, float]]
    curves: list[list[float | None]] | None
    seconds: float | None


_EPOCH = TypeAdapter(EpochLine)


def incumbent_of(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry `incumbent` of a line of epochs.jsonl; before version 0.2 it was the winner's own values."""
    if "incumbent" in line:
        return line["incumbent"]
    names = {
        "composition": "compositions",
        "metrics": "metrics",
        "val_loss": "val_losses",
        "train_loss": "train_losses",
        "images": "images",
    }
    return {own: line[of_all][line["winner"]] for own, of_all in names.items() if of_all in line}


def epoch_line(record: EpochRecord) -> dict[str, Any]:
    """Return the record as plain JSON values; entries that an invalid episode lacks are null.

    Lists with a plural name have one entry for each episode: `compositions` [K][C], `actions` [K][C] (the index of
    -step, 0, +step), `rewards`, `advantages`, `metrics` (dicts), `val_losses`, `statuses`, `retries` (after
    deaths), `clamped` (agents whose action ran into a limit), `synthetic_images`, `episode_seconds` [K]. `winner` is
    the episode whose classifier became the incumbent, null where it is the mean of several (`handover` merge);
    `incumbent` has the classifier's figures, and `base_composition` [C] is what the actions changed.
    """
    results = [report.result for report in record.reports]
    line = {
        "epoch": record.epoch,
        "winner": record.winner,
        "handover": record.handover,
        "incumbent": {
            "composition": record.counts_C,
            "metrics": dict(record.incumbent.metrics),
            "val_loss": record.incumbent.val_loss,
            "train_loss": record.incumbent.train_loss,
            "images": record.num_images,
        },
        **({} if record.base_C is None else {"base_composition": record.base_C}),
        "baseline": record.baseline,
        "rewards": [report.reward for report in record.reports],
        "reward_parts": [dict(report.reward_parts) for report in record.reports],
        "metrics": [dict(result.metrics) if result else None for result in results],
        "val_losses": [result.val_loss if result else None for result in results],
        "train_losses": [result.train_loss if result else None for result in results],
        "per_class_recalls": [result.per_class_recall_C if result else None for result in results],
        "advantages": [report.advantage for report in record.reports],
        "clamped": [report.num_clamped for report in record.reports],
        "synthetic_images": [report.num_synthetic for report in record.reports],
        "images": [result.num_images if result else 0 for result in results],
        "compositions": [report.counts_C for report in record.reports],
        "actions": [report.actions_C for report in record.reports],
        "statuses": [report.status for report in record.reports],
        "retries": [report.retries for report in record.reports],
        "tracebacks": [report.traceback for report in record.reports],
        "probabilities": record.probabilities_C3,
        "curves": record.curves_CG,
        "entropy": record.entropy_C,
        "distance_from_uniform": record.distance_from_uniform,
        "best_metric": record.best_metric,
        "best_epoch": record.best_epoch,
        "seconds": record.seconds,
        "seconds_by_part": dict(record.seconds_by_part),
        "episode_seconds": [report.seconds for report in record.reports],
    }
    # NaN and infinities become null, as JSON has no others; `append_epoch` refuses them.
    return jsonable(line)


def append_epoch(folder: Path, record: EpochRecord) -> None:
    """Append the record to the run's epochs.jsonl and fsync it: the whole line, or none of it on a full disk."""
    line = f"{without_credentials(json.dumps(epoch_line(record), allow_nan=False))}\n".encode()
    # Unbuffered, so that an error comes at the write and not when the file is closed, too late to cut it.
    with (folder / EPOCHS_FILE).open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while line:
                # A raw write may take a part of the bytes only.
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the run's epochs.jsonl as dicts; a torn last line is left out.

    Raises:
        UserError: a line is damaged.
    """
    return read_lines(folder / EPOCHS_FILE)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a .jsonl file, none where there is no file; a torn last line is left out.

    Raises:
        UserError: a line is not a JSON object, or the file is not text.
    """
    if not path.exists():
        return []
    try:
        # splitlines also splits at U+2028 and its like, which json.dumps escapes: it finds our line ends only.
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({first_line(error)}): {RESTORE}") from error
    # Whoever appends was perhaps killed in mid-write.
    whole = [line for line in lines if line.endswith("\n")]
    return [_object(line, f"{path} line {number}") for number, line in enumerate(whole, start=1)]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except NOT_JSON as error:
        raise UserError(f"{where} is damaged ({first_line(error)}): {RESTORE}") from error
    if not isinstance(found, dict):
        raise UserError(f"{where} is damaged (it is not a JSON object): {RESTORE}")
    return found


def check_epochs(lines: list[dict[str, Any]], path: Path) -> None:
    """Check that every line has the entries of `epoch_line`, for as many episodes and classes as the first.

    Raises:
        UserError: a line does not.
    """
    for number, line in enumerate(lines, start=1):
        of_line = typed(line, _EPOCH, f"{path} line {number}")
        if not _fits(of_line, len(lines[0]["statuses"]), len(lines[0]["probabilities"])):
            raise UserError(f"{path} line {number} is altered (its lists have other lengths): {RESTORE}")


def _fits(line: EpochLine, k: int, num_classes: int) -> bool:
    by_class: list[Sized] = [
        line["probabilities"],
        *line["compositions"],
        *([line["curves"]] if line["curves"] else []),
    ]
    lengths = {len(line[name]) for name in BY_EPISODE if name in line}  # type: ignore[literal-required]
    curves = {len(curve) for curve in line["curves"] or ()}
    return (
        (line["winner"] is None or line["winner"] < k)
        and lengths == {k}
        and all(len(entries) == num_classes > 0 for entries in by_class)
        and len(curves) <= 1
    )


def keep_epochs(folder: Path, num_epochs: int) -> None:
    """Cut the run's epochs.jsonl back to its first `num_epochs` lines, those of the checkpoint that is resumed."""
    lines = read_epochs(folder)[:num_epochs]
    write_text(folder / EPOCHS_FILE, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
