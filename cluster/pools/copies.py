"""Comparing a pool with the training images: how near each synthetic image is to one, and which are copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.pools.judge import pool_extractor
from rlcas.batches.sources import all_images
from rlcas.console import say
from rlcas.errors import UserError
from rlcas.evaluation.features import FeatureExtractor
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.types import Float32, ImageSet, Int64, Uint8
from synth.pool import COPIES_FILE, SyntheticPool, mark_copies
from synth.quality.memorisation import Memorisation, memorisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A pool beside the training images, in the features of one extractor."""

    made: ImageSet
    """All N images of the pool, marked ones too, class by class."""
    numbers_N: Int64
    """Number of each within its class."""
    marked_N: NDArray[np.bool_]
    """The pool's marks of copies."""
    kept_N: NDArray[np.bool_]
    """Those that the settings leave in: neither copies nor filtered, as far as these are left out."""
    made_ND: Float32
    train_MD: Float32
    memory: Memorisation
    num_held_out: int
    extractor: str


def find_and_mark_copies(context: RunContext, pool: SyntheticPool) -> None:
    """Find copies in a run's pool and mark them, unless that is done.

    The marks are written into the run's folder even if the pool is elsewhere: they hold for its training images alone.
    A class that has nothing but copies is reported and keeps them: no class may be empty.

    Raises:
        UserError: every validation image is a training image too, or the extractor is not available.
    """
    folder, data = context.folder, context.data
    if (folder.pool / COPIES_FILE).exists():
        return
    extractor = pool_extractor(context)
    with stage(folder, "Looking for copies in the pool", "copies"):
        judgement = judge_pool(context, pool, extractor)
    copies_N, labels_N = judgement.memory.copies_N, judgement.made.labels_N
    copies_C = [judgement.numbers_N[copies_N & (labels_N == c)] for c in range(data.num_classes)]
    sizes_C = judgement.made.class_counts(data.num_classes)
    # A class of copies alone keeps them, as none may be empty.
    marks_C = [
        copies if len(copies) < size else copies[:0] for copies, size in zip(copies_C, sizes_C, strict=True)
    ]
    facts = {"extractor": judgement.extractor, "threshold": judgement.memory.threshold}
    mark_copies(pool.folder, marks_C, facts, marks_folder=folder.pool)
    for line in _notes(data.class_names, copies_C, marks_C, context.config.synth.scoring.leave_out_copies):
        say(line)


def judge_pool(context: RunContext, pool: SyntheticPool, extractor: FeatureExtractor) -> Judgement:
    """Compare the images of a pool, marked ones too, with the training images.

    Held-out are the validation images that equal no training image, mirrored or not.

    Raises:
        UserError: no validation image is held out.
    """
    data = context.data
    # Marked images are compared again, so that the figures do not depend on whether they were marked before.
    pool = SyntheticPool(pool.folder, with_copies=True, with_filtered=True, marks_folder=context.folder.pool)
    made, train = all_images(pool), data.train.images_NCHW
    # A validation image that is a training image too would have distance 0 and pull the threshold down.
    held_out = data.val.images_NCHW[~_among(data.val.images_NCHW, train)]
    if len(held_out) == 0:
        raise UserError(
            f"data {context.config.data}: every validation image is a training image too, so that none shows how near "
            "a new image comes: bring other validation images, or cut some with --dataset.val_from_train"
        )
    # A generator trained on mirrored images too may copy the mirror image of one.
    made_ND, train_MD, mirrored_MD, held_out_KD = map(
        extractor, (made.images_NCHW, train, train[..., ::-1], held_out)
    )
    numbers_C = [np.arange(size) for size in pool.class_sizes_C]
    marked_N, filtered_N = (
        np.concatenate(list(map(np.isin, numbers_C, marks_C))) for marks_C in (pool.copies_C, pool.filtered_C)
    )
    synth = context.config.synth
    return Judgement(
        made=made,
        numbers_N=np.concatenate(numbers_C),
        marked_N=marked_N,
        # Where copies are not left out they are trained on, and the figures are of them too.
        kept_N=~(marked_N & synth.scoring.leave_out_copies) & ~(filtered_N & synth.filter.active),
        made_ND=made_ND,
        train_MD=train_MD,
        memory=memorisation(made_ND, train_MD, mirrored_MD, held_out_KD),
        num_held_out=len(held_out),
        extractor=extractor.described,
    )


def _among(images_NCHW: Uint8, known_MCHW: Uint8) -> NDArray[np.bool_]:
    """Return [N]: whether an image equals a known one or its mirror image, to the last bit."""
    known = {image.tobytes() for image in known_MCHW} | {image[..., ::-1].tobytes() for image in known_MCHW}
    return np.array([image.tobytes() in known for image in images_NCHW], dtype=bool)


def _notes(
    class_names: Sequence[str], copies_C: list[Int64], marks_C: list[Int64], leave_out: bool
) -> Iterator[str]:
    """Yield a line for each thing found, and what was done with it."""
    if not any(map(len, copies_C)):
        yield "no synthetic image is a copy of a training image"
    if any(map(len, marks_C)):
        done = "left out" if leave_out else "marked, but kept"
        named = zip(class_names, marks_C, strict=True)
        counts = ", ".join(f"{name} {len(marks)}" for name, marks in named if len(marks))
        yield f"note: copies of training images are {done}: {counts}"
    for name, copies, marks in zip(class_names, copies_C, marks_C, strict=True):
        if len(copies) > len(marks):
            yield (
                f"note: all {len(copies)} synthetic images of class {name!r} are copies of training images; they are "
                "kept unmarked, because the class would have none: better make other images"
            )
