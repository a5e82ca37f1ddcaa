"""Training a run for another number of epochs than its folder says, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.runs.checks import check_training
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.data.prepared import DATA_FILE, read_data_facts
from rlcas.errors import UserError
from rlcas.runs import epoch_log, replay
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import read_facts, write_json

RESUMABLE = "sampler.epochs"
"""The one setting that may change when a run is resumed: epochs that are trained do not depend on it."""
EPOCHS = "epochs"
"""In metrics.json: the epochs of the run that its figures are of."""


def epochs_of_results(folder: RunFolder, config: RunConfig) -> int | None:
    """Return after how many epochs the run ended whose figures and classifier are in the folder; None before its end.

    While a finished run is trained further, they are those of its earlier end.
    """
    if not folder.metrics.exists():
        return None
    # An older metrics.json does not say: its run had the epochs of its settings.
    return read_facts(folder.metrics).get(EPOCHS, config.sampler.epochs)


def is_finished(folder: RunFolder, config: RunConfig) -> bool:
    """Return whether the figures in the folder are those of all its epochs."""
    return epochs_of_results(folder, config) == config.sampler.epochs


def set_epochs(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Give a run another number of epochs; its figures and classifier stay until the new ones replace them.

    Args:
        folder: the run's.
        given: `sampler.epochs`, as text or as a number, dotted or in its section.

    Raises:
        UserError: another setting is given, as many epochs are trained already, a replayed record is too short, or
            the folder belongs to a sweep or a comparison.
    """
    if others := [key for key in _keys(given) if key != RESUMABLE]:
        raise UserError(
            f"{others[0]} is not a setting that a run is resumed with, as {RESUMABLE} is: start a new run with it"
        )
    config = settings.load(folder.path)
    changed = settings.override(config, given)
    _check_is_larger(folder, config, changed.sampler.epochs)
    _check_is_alone(folder)
    check_training(changed)
    _check_replay(folder, changed)
    if (ended := epochs_of_results(folder, config)) is not None:
        # Before the settings, after which an older metrics.json would seem to be of the new epochs.
        write_json(folder.metrics, {**read_facts(folder.metrics), EPOCHS: ended})
    settings.save(changed, folder.path)


def _keys(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted keys of settings that are given dotted or in sections."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{name}" for name in _keys(value))
        else:
            yield key


def _check_is_larger(folder: RunFolder, config: RunConfig, epochs: int) -> None:
    # An interrupted command is given again.
    if epochs == config.sampler.epochs and not is_finished(folder, config):
        return
    trained = len(epoch_log.read_epochs(folder.path))
    if epochs <= trained:
        raise UserError(
            f"{RESUMABLE} {epochs}: {folder.path} has trained {trained} epochs already: name a larger number"
        )


def _check_is_alone(folder: RunFolder) -> None:
    for parent in list(folder.path.parents)[:3]:
        for name, kind in ((settings.SWEEP_CONFIG_FILE, "sweep"), (settings.COMPARE_CONFIG_FILE, "comparison")):
            if (parent / name).is_file():
                raise UserError(
                    f"{RESUMABLE}: {folder.path} belongs to the {kind} {parent}, whose tables would no longer be of "
                    "equal terms: run its config.yaml with `rlcas run --config`, --out and more epochs"
                )


def _check_replay(folder: RunFolder, config: RunConfig) -> None:
    if config.sampler.replay is None or not (folder.prepared / DATA_FILE).exists():
        return
    # The run's own copy of the record, where it has been made.
    record = folder.replay if folder.replay.exists() else config.sampler.replay
    num_classes = len(read_data_facts(folder.prepared)["class_names"])
    replay.schedule(config.sampler.model_copy(update={"replay": record}), num_classes)
