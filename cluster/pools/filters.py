"""Leaving out images of a pool by a classifier trained on the real images: too sure, too unsure, too near, too far."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.pools.copies import find_and_mark_copies
from cluster.pools.judge import real_classifier
from rlcas.batches.sources import all_images
from rlcas.console import say
from rlcas.evaluation.features import penultimate
from rlcas.jsonable import jsonable
from rlcas.reports.score_table import filter_note
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.storage.atomic import read_facts, sha256_of
from rlcas.training.saved_classifier import predict
from rlcas.types import ImageSet
from synth.manifest import COPIES_FILE, FILTERED_FILE, MANIFEST_FILE
from synth.pool import SyntheticPool, mark_filtered
from synth.quality.filters import Measured, confidences, distances, kept_by

SETTINGS = "settings"
PER_CLASS = "per_class"


def mark_pool(context: RunContext, pool: SyntheticPool) -> None:
    """Mark the copies in a run's pool, and the images that its filters leave out, unless that is done.

    Raises:
        UserError: as `find_and_mark_copies`; or the classifier has no features to measure distances in.
    """
    find_and_mark_copies(context, pool)
    if context.config.synth.filter.active and not _is_filtered(context, pool):
        _filter(context, pool)


def filter_figures(context: RunContext) -> dict[str, Any] | None:
    """Return the filters' settings, and for each class what they left out; None where there are none."""
    if not context.config.synth.filter.active:
        return None
    facts = read_facts(context.folder.pool / FILTERED_FILE)
    return {SETTINGS: facts.get(SETTINGS), PER_CLASS: facts.get(PER_CLASS, [])}


def _is_filtered(context: RunContext, pool: SyntheticPool) -> bool:
    """Return whether this pool is marked by these filters."""
    facts = read_facts(context.folder.pool / FILTERED_FILE)
    return (
        facts.get(SETTINGS) == _settings(context)
        and facts.get("manifest_sha256") == sha256_of(pool.folder / MANIFEST_FILE)
        # Copies that were marked anew may be the very images that the filters left.
        and facts.get("copies_sha256") == _copies_sha256(context)
    )


def _settings(context: RunContext) -> Any:
    return jsonable(context.config.synth.filter.model_dump())  # with lists, as JSON gives them back


def _copies_sha256(context: RunContext) -> str:
    return sha256_of(context.folder.pool / COPIES_FILE)


def _filter(context: RunContext, pool: SyntheticPool) -> None:
    data, filters = context.data, context.config.synth.filter
    # All images: their numbers are those in the shards. Stale marks are of no concern.
    (context.folder.pool / FILTERED_FILE).unlink(missing_ok=True)
    pool = SyntheticPool(pool.folder, with_copies=True, marks_folder=context.folder.pool)
    made = all_images(pool)
    numbers_C = [np.arange(size) for size in pool.class_sizes_C]
    copies_N = np.concatenate(list(map(np.isin, numbers_C, pool.copies_C)))
    classifier = real_classifier(context)
    with stage(context.folder, "Filtering the pool", "filter"):
        measured: dict[str, Measured] = {}
        if filters.confidence is not None:
            probabilities_NC = predict(classifier, made.images_NCHW)
            measured["confidence"] = confidences(probabilities_NC, made.labels_N, filters.confidence)
        if filters.distance is not None:
            features = penultimate(lambda: classifier)
            measured["distance"] = distances(
                features(made.images_NCHW),
                made.labels_N,
                features(data.train.images_NCHW),
                data.train.labels_N,
                filters.distance,
            )
        kept_N = kept_by(list(measured.values()), made.labels_N, copies_N)
    per_class = [_facts_of_class(name, made, kept_N, measured, c) for c, name in enumerate(data.class_names)]
    filtered_C = [np.flatnonzero(~kept_N[made.labels_N == c]) for c in range(data.num_classes)]
    facts = {
        SETTINGS: _settings(context),
        "copies_sha256": _copies_sha256(context),
        PER_CLASS: per_class,
    }
    mark_filtered(pool.folder, filtered_C, facts, marks_folder=context.folder.pool)
    say(f"note: {filter_note(per_class)}")


def _facts_of_class(
    name: str, made: ImageSet, kept_N: np.ndarray, measured: dict[str, Measured], class_id: int
) -> dict[str, Any]:
    """Return how many images of a class each filter finds outside its limits, and how many are left out.

    Args:
        name: the class's name.
        made: all images of the pool.
        kept_N: those that are kept.
        measured: filter -> figures.
        class_id: the class.
    """
    class_N = made.labels_N == class_id
    outside = {kind: int((of.gaps_N[class_N] > 0).sum()) for kind, of in measured.items()}
    limits = {
        kind: [float(of.low_N[class_N][0]), float(of.high_N[class_N][0])] for kind, of in measured.items()
    }
    inside_N = np.all([of.gaps_N == 0 for of in measured.values()], axis=0)
    return {
        "class": name,
        "n": int(class_N.sum()),
        "left_out": int((~kept_N[class_N]).sum()),
        "outside": outside,
        "limits": limits,
        # Kept although it is outside, because the class would have no image that is no copy.
        "kept_outside": int((kept_N & ~inside_N)[class_N].sum()),
    }
