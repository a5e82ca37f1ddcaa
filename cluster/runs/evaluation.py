"""The test figures of a run's classifier, on the run's own test images or on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.runs import results
from rlcas import data as datasets
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.console import say_notes
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.evaluation.evaluate import evaluate
from rlcas.runs.folder import RunFolder
from rlcas.runs.images import record_of, test_images
from rlcas.runs.paths import absolute_data
from rlcas.storage import remote
from rlcas.training.saved_classifier import load_classifier
from rlcas.types import ImageSet


def evaluate_data(path: str | Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Print and return the test figures of a run's classifier, on its own data or on the data that `given` names.

    Args:
        path: the run's folder, or its address.
        given: settings in place of the run's own, dotted as on the command line: `device`, `shots`, and `data` with
            `dataset` for another set.

    Returns:
        `rlcas.metrics.report` of the images, `intervals`, and `per_patient` where there are patient ids.

    Raises:
        UserError: the run has no classifier, or the images cannot be read or do not fit it.
    """
    path, given = remote.local(path, without=remote.BULKY), given or {}
    own = settings.load(path)
    config = settings.override(own, given)
    device = choose_device(config.device)
    test, notes = _test_of(RunFolder(path), own, config, given, load_classifier(path, device).meta.class_names)
    say_notes(notes)
    figures = evaluate(path, test, config.shots, device)
    results.show_test(figures)
    return figures


def _test_of(
    folder: RunFolder, own: RunConfig, config: RunConfig, given: Mapping[str, Any], known: Sequence[str]
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the images to test on, and notes on them: those of the run's record, or those of other data."""
    if absolute_data(config.data) != absolute_data(own.data):
        record = record_of(folder, own) if folder.split.exists() else None
        return datasets.load_foreign_test(config, known, record)
    if (config.dataset, config.seed) != (own.dataset, own.seed):
        named = [f"{key} {value}" for key, value in given.items() if key.startswith(("seed", "dataset"))]
        raise UserError(
            f"{', '.join(named)} changes nothing here: the run has recorded its test images; leave it out, or name "
            "other images with --data"
        )
    return test_images(folder, own)
