"""The end of a run: test figures, the pool's figures, the gallery, metrics.json and the report."""

from __future__ import annotations

import importlib.metadata
import shlex
from typing import Any

import numpy as np

from cluster.pools.scores import score_pool
from cluster.runs.more_epochs import EPOCHS
from rlcas.config import SynthConfig
from rlcas.console import format_distance, format_figure, say, say_notes
from rlcas.evaluation.evaluate import examine
from rlcas.metrics import absence_note
from rlcas.reports import write_report
from rlcas.reports.score_table import filter_note, usefulness_note
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.runs.images import test_images
from rlcas.runs.stages import stage, timings
from rlcas.runs.versions import VERSIONS_OF
from rlcas.storage.atomic import read_facts, replacing, write_json
from rlcas.tracking.tensorboard import Tracker
from rlcas.types import ImageSet, SyntheticSource, Uint8
from synth.pool import SyntheticPool
from synth.sketch import SketchExtractor, sketch_extractor

GALLERY_IMAGES = 6
TEST_FIGURES = (
    *("acc", "f1", "recall", "precision", "auc", "average_precision", "log_loss"),
    *("many", "medium", "few", "ece"),
)
POOL_DISTANCES = ("fid", "kid")
POOL_FIGURES = ("sketch_skill", "copy_rate", "held_out_copy_rate")


def finish(context: RunContext, pool: SyntheticPool) -> None:
    """Write metrics.json and the report of a run whose classifier is trained."""
    folder, config = context.folder, context.config
    with stage(folder, "Reading the test images", "test"):
        # The classifier is chosen and saved: test images are read here and never before.
        test, notes = test_images(folder, config)
        say_notes(notes)
        figures, _, _, offset = examine(folder.path, test, config.shots, context.device)
    with stage(folder, "Judging the pool", "pool_figures"):
        synthesis = score_pool(context, pool, test)
    write_gallery(context, pool)
    seconds = timings(folder)
    with Tracker(folder.path, context.data.class_names) as tracker:
        tracker.stages(seconds)
    per_patient = figures.pop("per_patient", None)
    write_json(
        folder.metrics,
        {
            EPOCHS: config.sampler.epochs,
            "test": figures,
            **({"test_per_patient": per_patient} if per_patient else {}),
            **({} if offset is None else {"offset": offset}),
            "synthesis": synthesis,
            "seconds": seconds,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        },
    )
    # Last: `resume` takes metrics.json for the end of a run, and writes a report that is missing.
    write_report(folder.path)


def write_gallery(context: RunContext, pool: SyntheticSource) -> None:
    """Write a few real and synthetic images of each class, with their sketches, to gallery.npz.

    Where the pool is the user's own, no synthesiser was trained with sketches, and the default extractor draws them.
    """
    folder, config, data = context.folder, context.config, context.data
    sketch = sketch_extractor(config.synth if config.pool is None else SynthConfig())
    shown = {
        "real": np.stack([_repeated(_first_of_class(data.train, c)) for c in range(data.num_classes)]),
        "synthetic": np.stack(
            [
                _repeated(pool.images(c, np.arange(min(size, GALLERY_IMAGES))))
                for c, size in enumerate(pool.class_sizes_C)
            ]
        ),
    }
    sketches = {f"{name}_sketch": _sketched(sketch, images) for name, images in shown.items()}
    with replacing(folder.gallery) as temporary, temporary.open("wb") as file:
        # An open file, as NumPy would add .npz to a name; without pickle, as nothing that is read back may hold
        # one.
        np.savez_compressed(file, allow_pickle=False, **shown, **sketches)
    with Tracker(folder.path, data.class_names) as tracker:
        tracker.gallery({**shown, **sketches})


def show(folder: RunFolder) -> None:
    """Print the figures of a finished run and where its report is."""
    metrics = read_facts(folder.metrics)
    show_test(metrics["test"])
    show_pool(metrics["synthesis"])
    say(f"report: {folder.report}")
    say(f"TensorBoard: tensorboard --logdir {shlex.quote(str(folder.path))}")


def show_test(figures: dict[str, Any]) -> None:
    """Print a line of test figures."""
    # Runs finished before 0.2 have neither average precision nor log-loss.
    named = "  ".join(f"{name} {format_figure(figures[name])}" for name in TEST_FIGURES if name in figures)
    say(f"test of {figures['n']} images: {named}")
    # An older metrics.json has neither.
    if note := absence_note("test image", figures.get("absent_classes", ()), figures.get("averaged_classes")):
        say(f"note: {note}")


def show_pool(figures: dict[str, Any]) -> None:
    """Print a line of the whole pool's figures."""
    figures_shown = [f"{name} {format_distance(figures[name])}" for name in POOL_DISTANCES]
    figures_shown += [f"{name} {format_figure(figures[name])}" for name in POOL_FIGURES]
    say(f"pool of {figures['n_synthetic']} images: {'  '.join(figures_shown)}  ({figures['extractor']})")
    if filters := figures.get("filter"):  # figures of before 0.2 have none
        say(f"note: {filter_note(filters['per_class'])}")
    if only := figures["pool_only"]:
        say(
            f"trained on the pool alone: macro recall {only['recall']:.3f} on real test images "
            f"(95 % interval {only['low']:.3f} to {only['high']:.3f}, chance {only['chance']:.3f})"
        )
    # Figures of runs before 0.2 do not have it.
    if useful := figures.get("usefulness"):
        say(usefulness_note(useful))


def _first_of_class(images: ImageSet, class_id: int) -> Uint8:
    return images.take(np.flatnonzero(images.labels_N == class_id)[:GALLERY_IMAGES]).images_NCHW


def _repeated(images_NCHW: Uint8) -> Uint8:
    """Return exactly GALLERY_IMAGES images, repeating the given ones where they are fewer."""
    return images_NCHW[np.arange(GALLERY_IMAGES) % len(images_NCHW)]


def _sketched(sketch: SketchExtractor, images_CMCHW: Uint8) -> Uint8:
    """Return the sketches of a gallery, [C, M, 1, H, W] uint8."""
    classes, many, *shape = images_CMCHW.shape
    maps = sketch(images_CMCHW.reshape(-1, *shape))
    return (maps * 255).round().astype(np.uint8).reshape(classes, many, 1, *shape[1:])
