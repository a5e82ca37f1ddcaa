"""The figures of a run's pool, and what is left of them in its folder: a table, a line an image, a contact sheet."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import torch

from cluster.pools import make
from cluster.pools.copies import Judgement, judge_pool
from cluster.pools.judge import pool_extractor
from rlcas.batches.sources import all_images
from rlcas.config import RunConfig
from rlcas.evaluation.evaluate import evaluate
from rlcas.report.contact_sheet import Pair, pairs_a_class, write_contact_sheet
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import replacing, write_json
from rlcas.training.baseline import train_baseline
from rlcas.types import ImageSet, TrainingData
from synth.pool import SyntheticPool
from synth.quality.scores import pool_scores


def score_pool(
    folder: RunFolder,
    config: RunConfig,
    data: TrainingData,
    pool: SyntheticPool,
    test: ImageSet | None,
    device: torch.device,
) -> dict[str, Any]:
    """Write scores.json, scores.csv and contact_sheet.png into the run's folder; return the figures.

    `pool_only` is a classifier that saw the pool alone, on the real test images where there are any.

    Raises:
        UserError: the extractor cannot be had, or no validation image is new.
    """
    judgement = judge_pool(folder, config, data, pool, pool_extractor(folder, config, data, device))
    memory, made = judgement.memory, judgement.made
    kept_N = ~judgement.marked_N | (not config.synth.scoring.leave_out_copies)
    scores = pool_scores(
        judgement.made_ND,
        made.labels_N,
        judgement.train_MD,
        data.train.labels_N,
        memory,
        marked_N=judgement.marked_N,
        kept_N=kept_N,
    )
    per_class = [
        {"class": name, **of} for name, of in zip(data.class_names, scores.pop("per_class"), strict=True)
    ]
    figures = {
        **scores,
        "sketch_skill": make.figures_of(folder).get("sketch_skill"),
        "held_out_copy_rate": memory.held_out_copy_rate,
        "n_held_out": judgement.num_held_out,
        "copy_threshold": memory.threshold,
        "extractor": judgement.extractor,
        "feature_dims": judgement.made_ND.shape[1],
        "pool_only": _pool_only(folder, config, data, pool, test, device),
        "per_class": per_class,
    }
    write_json(folder.scores, figures)
    _write_image_scores(folder, data, judgement)
    _write_contact_sheet(folder, data, judgement)
    return figures


def _pool_only(
    folder: RunFolder,
    config: RunConfig,
    data: TrainingData,
    pool: SyntheticPool,
    test: ImageSet | None,
    device: torch.device,
) -> dict[str, Any] | None:
    """Return recall on real test images of a classifier that saw synthetic ones alone; chance is 1/C."""
    epochs = config.synth.scoring.pool_only_epochs
    if epochs == 0 or test is None:
        return None
    train_baseline(folder.pool_only, all_images(pool), data, config, epochs, device)
    figures = evaluate(folder.pool_only, test, config.shots, device)
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
        "authentic": memory.authentic_N.astype(int),
    }
    with replacing(folder.image_scores) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _write_contact_sheet(folder: RunFolder, data: TrainingData, judgement: Judgement) -> None:
    """Show of each class the images that are nearest to a training image, nearest first."""
    memory, made = judgement.memory, judgement.made

    def pair(i: int) -> Pair:
        real_CHW = data.train.images_NCHW[memory.nearest_N[i]]
        return Pair(
            synthetic_CHW=made.images_NCHW[i],
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
    told = f"{len(made)} synthetic and {len(data.train)} training images, distances in {judgement.extractor}"
    write_contact_sheet(folder.contact_sheet, dict(zip(data.class_names, pairs_C, strict=True)), told)
