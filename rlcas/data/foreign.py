"""Test images from another source than the run's own: a set of another hospital, or the same set elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlcas.config import RunConfig
from rlcas.data.checks import check_not_empty
from rlcas.data.class_match import in_class_order
from rlcas.data.opening import open_source
from rlcas.data.pixels import convert, layout_of
from rlcas.data.record import recorded_splits
from rlcas.data.source import RawSplit, Source, SplitName, counted
from rlcas.data.survey import with_survey
from rlcas.errors import UserError
from rlcas.types import ImageSet, SplitRecord


def load_foreign_test(
    config: RunConfig, class_names: Sequence[str], record: SplitRecord | None
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the test images of a source on which a run was not trained, and notes on them.

    Without splits, all images are tested. Pictures on which the run was trained are left out; where the source
    holds the run's own test images, it is the run's data set elsewhere, and just these are tested.

    Args:
        config: the settings of the data.
        class_names: [C] classes of the run's classifier, to which those of the source are matched by name.
        record: the images of the run; None: it has no record, and nothing is compared.

    Raises:
        UserError: the source cannot be read, has no test split, has a class that the classifier does not know, or
            holds no image but those that the run was trained on.
    """
    source = open_source(config)
    test, notes = _tested(source)
    check_not_empty(source.where, {"test": test})
    test = replace(test, labels_N=in_class_order(test, source.class_names, class_names, source.where))
    test, leak_notes = _without_training_pictures(source, with_survey(test), record)
    window = None if record is None else record.window
    layout, layout_notes = layout_of(source.where, {"test": test}, None, config.dataset, trained_window=window)
    images = ImageSet(
        images_NCHW=convert(test.open_images(), layout), labels_N=test.labels_N, patients_N=test.patients_N
    )
    return images, source.notes + notes + leak_notes + layout_notes


def _tested(source: Source) -> tuple[RawSplit, tuple[str, ...]]:
    if "all" in source.splits:
        whole = source.splits["all"]
        return whole, (f"{source.where} has no splits: all of its {len(whole)} images are tested",)
    if "test" not in source.splits:
        found = ", ".join(source.splits)
        raise UserError(
            f"{source.where} has no test split, only {found}: name a source with one, or without splits"
        )
    return source.splits["test"], ()


def _without_training_pictures(
    source: Source, test: RawSplit, record: SplitRecord | None
) -> tuple[RawSplit, tuple[str, ...]]:
    if record is None:
        return test, (
            "the run was begun before 0.2 and does not list its images, so none of them can be left out",
        )
    digests = [digest.hex() for digest in test.surveyed.digests]
    trained = {digest for name in ("train", "val") for digest in record.parts[name].digests}
    leaked = [i for i, digest in enumerate(digests) if digest in trained]
    if not leaked:
        return test, ()
    if "test" in record.parts and not Counter(record.parts["test"].digests) - Counter(digests):
        return _own_test(source, record)
    if len(leaked) == len(test):
        raise UserError(
            f"{source.where}: the run was trained on all of its {len(test)} images: name images that it has not seen"
        )
    named = counted([test.names[i] for i in leaked])
    note = f"left out of the test, because the run was trained on these pictures: {named}"
    return test.take(np.setdiff1d(np.arange(len(test)), leaked)), (note,)


def _own_test(source: Source, record: SplitRecord) -> tuple[RawSplit, tuple[str, ...]]:
    wanted: tuple[SplitName, ...] = ("test",)
    splits, _ = recorded_splits(source, record, wanted)
    note = f"{source.where} holds the run's own test images: just these {len(splits['test'])} are tested"
    return splits["test"], (note,)
