"""The figures of a run's pool, and the files with them: scores.json, a line an image, a contact sheet."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from cluster.pools.copies import Judgement, judge_pool
from cluster.pools.filters import filter_figures
from cluster.pools.judge import pool_extractor
from cluster.pools.usefulness import usefulness_or_note
from rlcas.batches.sources import all_images
from rlcas.evaluation.evaluate import evaluate
from rlcas.reports.contact_sheet import Pair, pairs_a_class, write_contact_sheet
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import read_facts, replacing, write_json
from rlcas.training.baseline import train_baseline
from rlcas.types import ImageSet, TrainingData
from synth.layout import FIGURES_FILE
from synth.pool import SyntheticPool
from synth.quality.scores import pool_scores


def score_pool(context: RunContext, pool: SyntheticPool, test: ImageSet | None) -> dict[str, Any]:
    """Write scores.json, scores.csv and contact_sheet.png into the run's folder; return the figures.

    `pool_only` has the figures, on real test images, of a classifier that was trained on the pool alone; null without
    test images. `usefulness` is of `cluster.pools.usefulness`; null where the settings do not ask for it.

    Raises:
        UserError: the extractor is not available, or every validation image is a training image too.
    """
    folder, data = context.folder, context.data
    judgement = judge_pool(context, pool, pool_extractor(context))
    memory, made = judgement.memory, judgement.made
    scores = pool_scores(
        judgement.made_ND,
        made.labels_N,
        judgement.train_MD,
        data.train.labels_N,
        memory,
        marked_N=judgement.marked_N,
        kept_N=judgement.kept_N,
    )
    per_class = [
        {"class": name, **of} for name, of in zip(data.class_names, scores.pop("per_class"), strict=True)
    ]
    figures = {
        **scores,
        # Only a synthesiser that was trained here with sketches has it.
        "sketch_skill": read_facts(folder.synth / FIGURES_FILE).get("sketch_skill"),
        "held_out_copy_rate": memory.held_out_copy_rate,
        "n_held_out": judgement.num_held_out,
        "copy_threshold": memory.threshold,
        "filter": filter_figures(context),
        "extractor": judgement.extractor,
        "feature_dims": judgement.made_ND.shape[1],
        "pool_only": _pool_only(context, pool, test),
        "usefulness": usefulness_or_note(context, pool),
        "per_class": per_class,
    }
    _write_image_scores(folder, data, judgement)
    _write_contact_sheet(folder, data, judgement)
    # Last: a comparison takes the file as the sign that a pool is scored.
    write_json(folder.scores, figures)
    return figures


def _pool_only(context: RunContext, pool: SyntheticPool, test: ImageSet | None) -> dict[str, Any] | None:
    """Return the recall on real test images of a classifier trained on synthetic ones alone; chance is 1/C."""
    epochs = context.config.synth.scoring.pool_only_epochs
    if epochs == 0 or test is None:
        return None
    classifier_folder, data = context.folder.pool_only, context.data
    train_baseline(classifier_folder, all_images(pool), data, context.config, epochs, context.device)
    figures = evaluate(classifier_folder, test, context.config.shots, context.device)
    low, high = figures["intervals"]["recall"]
    return {
        **{name: figures[name] for name in ("recall", "per_class_recall", "acc", "n")},
        "low": low,
        "high": high,
        "chance": 1 / data.num_classes,
    }


def _write_image_scores(folder: RunFolder, data: TrainingData, judgement: Judgement) -> None:
    memory, names = judgement.memory, np.array(data.class_names)
    columns = {
        "class": names[judgement.made.labels_N],
        "image": judgement.numbers_N,
        "nearest_class": names[data.train.labels_N[memory.nearest_N]],
        "nearest_image": memory.nearest_N,
        "mirrored": memory.mirrored_N.astype(int),
        "distance": memory.distances_N.round(6),
        "copy": memory.copies_N.astype(int),
        "marked": judgement.marked_N.astype(int),
        "kept": judgement.kept_N.astype(int),
        "authentic": memory.authentic_N.astype(int),
    }
    # newline="": the csv module writes line ends of its own.
    with replacing(folder.image_scores) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _write_contact_sheet(folder: RunFolder, data: TrainingData, judgement: Judgement) -> None:
    """Write the images of each class that are nearest to a training image, nearest first."""
    memory, made = judgement.memory, judgement.made

    def pair(i: int) -> Pair:
        real_CHW = data.train.images_NCHW[memory.nearest_N[i]]
        return Pair(
            synthetic_CHW=made.images_NCHW[i],
            # Shown as it was compared.
            real_CHW=real_CHW[..., ::-1] if memory.mirrored_N[i] else real_CHW,
            distance=float(memory.distances_N[i]),
            real_class=data.class_names[data.train.labels_N[memory.nearest_N[i]]],
            mirrored=bool(memory.mirrored_N[i]),
            copy=bool(memory.copies_N[i]),
        )

    by_distance = np.argsort(memory.distances_N, kind="stable")
    most = pairs_a_class(data.num_classes)
    pairs_C = [
        [pair(i) for i in by_distance[made.labels_N[by_distance] == c][:most]] for c in range(data.num_classes)
    ]
    caption = f"{len(made)} synthetic and {len(data.train)} training images, distances in {judgement.extractor}"
    write_contact_sheet(folder.contact_sheet, dict(zip(data.class_names, pairs_C, strict=True)), caption)
