"""What the report says, computed from a run's folder: plain rows and sentences for the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from rlcas.console import format_figure, format_seconds
from rlcas.report.run_folder import RunFolder
from rlcas.types import Uint8

FIGURES = {
    "f1": "F1, macro",
    "recall": "Recall, macro",
    "precision": "Precision, macro",
    "acc": "Accuracy",
    "auc": "AUC",
    "many": "Many-shot recall",
    "medium": "Medium-shot recall",
    "few": "Few-shot recall",
    "ece": "Calibration error (ECE; lower is better)",
}
HEADLINE = ("f1", "recall", "acc", "auc", "many", "medium", "few")
SPLITS = {"test": "test", "test_per_patient": "test, per patient", "val": "validation"}
HARDLY_MOVED = 0.05
GALLERY_CLASSES = 12
IMAGES_A_ROW = 6


def headline(run: RunFolder) -> list[tuple[str, str]]:
    """Return (label, figure) of the test figures."""
    test = run.metrics.get("test", {})
    return [(FIGURES[name], format_figure(test.get(name))) for name in HEADLINE if test]


def figure_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Return the column heads and the rows of the table of figures; an interval follows its figure."""
    splits = [split for split in SPLITS if run.metrics.get(split)]
    rows = [
        [label, *(_with_interval(run.metrics[split], name) for split in splits)]
        for name, label in FIGURES.items()
    ]
    sizes = ["Images or patients", *(str(run.metrics[split].get("n", "n/a")) for split in splits)]
    return [SPLITS[split] for split in splits], [*rows, sizes]


def _with_interval(figures: dict[str, Any], name: str) -> str:
    text, interval = format_figure(figures.get(name)), figures.get("intervals", {}).get(name)
    return f"{text} ({format_figure(interval[0])} to {format_figure(interval[1])})" if interval else text


def policy_sentence(run: RunFolder) -> str:
    """Say how far the agents' probabilities moved from uniform, and what that means."""
    p_TC3 = np.array([epoch["probabilities"] for epoch in run.epochs])
    moved_TC3 = np.abs(p_TC3 - 1 / 3)
    t, c, action = np.unravel_index(moved_TC3.argmax(), moved_TC3.shape)
    farthest = moved_TC3[t, c, action]
    fact = (
        f"The agents' probabilities moved at most {farthest:.4f} from uniform (1/3): "
        f"p({('less', 'same', 'more')[action]}) = {p_TC3[t, c, action]:.4f} "
        f"for {run.class_names[c]} in epoch {run.epochs[t]['epoch']}."
    )
    num_episodes = len(run.epochs[0]["rewards"])
    if farthest < HARDLY_MOVED:
        return (
            f"{fact} They hardly learnt: what this run found comes from keeping the best of {num_episodes} "
            "random compositions each epoch, not from the policy."
        )
    return f"{fact} Compare with a run of sampler.lr 0 before you credit the policy with the result."


def failures(run: RunFolder) -> list[dict[str, Any]]:
    """Return the episodes that failed: epoch, episode, status, traceback."""
    return [
        {"epoch": epoch["epoch"], "episode": j, "status": status, "traceback": epoch["tracebacks"][j]}
        for epoch in run.epochs
        for j, status in enumerate(epoch["statuses"])
        if status != "ok"
    ]


def class_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return a row a class: number, name, images in each split, test recall, surviving count."""
    recall_C = run.metrics.get("test", {}).get("per_class_recall", [])
    final_C = run.epochs[-1]["compositions"][run.epochs[-1]["winner"]] if run.epochs else []
    return [
        {
            "number": c,
            "name": name,
            **{split: _entry(run.counts(split), c) for split in ("train", "val", "test")},
            "recall": _entry(recall_C, c),
            "recall_text": format_figure(_entry(recall_C, c)),
            "count": _entry(final_C, c),
        }
        for c, name in enumerate(run.class_names)
    ]


def _entry(values: list[Any], c: int) -> Any:
    return values[c] if c < len(values) else None


def confusion_rows(run: RunFolder) -> list[list[tuple[int, float]]]:
    """Return rows of (images, share of the true class), true classes down, predicted across."""
    confusion_CC = run.metrics.get("test", {}).get("confusion", [])
    return [[(images, images / max(sum(row), 1)) for images in row] for row in confusion_CC]


def worst_confusions(run: RunFolder, num_shown: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes: (true class, predicted class, images)."""
    names, confusion_CC = run.class_names, run.metrics.get("test", {}).get("confusion", [])
    mistakes = [
        (names[i], names[j], images)
        for i, row in enumerate(confusion_CC)
        for j, images in enumerate(row)
        if i != j and images
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[2])[:num_shown]


def synthesis_rows(run: RunFolder) -> list[tuple[str, str]]:
    """Return (label, text) of the quality of the synthetic images."""
    quality = run.metrics.get("synthesis")
    if not quality:
        return []
    compared = (
        f"{quality.get('extractor')}, {quality.get('n_real')} real, {quality.get('n_synthetic')} synthetic"
    )
    rows = [
        (f"FID ({compared})", format_figure(quality.get("fid"))),
        (f"KID ({compared})", format_figure(quality.get("kid"))),
        (
            "Sketch skill on held-out images (0 is chance, 1 perfect)",
            format_figure(quality.get("sketch_skill")),
        ),
        (
            "Share of synthetic images that are near-copies of a training image",
            format_figure(quality.get("copy_rate")),
        ),
    ]
    alone = quality.get("pool_only")
    if alone:
        low, high, chance = (format_figure(alone.get(key)) for key in ("low", "high", "chance"))
        text = (
            f"{format_figure(alone.get('recall'))} ({low} to {high}; chance {chance}; {alone.get('n')} images)"
        )
        rows.append(
            ("Macro recall on real test images of a classifier trained on synthetic images alone", text)
        )
    return rows


def times(run: RunFolder) -> list[tuple[str, str]]:
    """Return (phase, duration) of each phase."""
    return [(name, format_seconds(seconds)) for name, seconds in run.metrics.get("seconds", {}).items()]


def gallery_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Return a row a class of image strips as data addresses; of many classes the largest and smallest."""
    if not run.gallery:
        return []
    num_classes = len(next(iter(run.gallery.values())))
    shown = list(range(num_classes))
    if num_classes > GALLERY_CLASSES:
        by_size = sorted(shown, key=lambda c: -(_entry(run.counts("train"), c) or 0))
        shown = by_size[: GALLERY_CLASSES // 2] + by_size[-GALLERY_CLASSES // 2 :]
    return [
        {
            "name": run.class_names[c],
            "train": _entry(run.counts("train"), c),
            "strips": {kind: strip(arrays[c]) for kind, arrays in run.gallery.items()},
        }
        for c in shown
    ]


def strip(images_MCHW: Uint8) -> str:
    """Return the first images side by side, with clear gaps, as the address of a PNG within the page."""
    images = images_MCHW[:IMAGES_A_ROW].transpose(0, 2, 3, 1)
    num_images, height, width, channels = images.shape
    gap = max(1, width // 14)
    canvas = np.zeros((height, num_images * (width + gap) - gap, channels + 1), np.uint8)
    for m, image_HWC in enumerate(images):
        left = m * (width + gap)
        canvas[:, left : left + width, :channels] = image_HWC
        canvas[:, left : left + width, channels] = 255
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
