"""The scores of a pool as a table on the terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from rlcas.comparison.findings import interval_text
from rlcas.comparison.usefulness import NAMES as AREAS
from rlcas.comparison.usefulness import interval_of
from rlcas.console import format_distance, format_figure

COLUMNS = (
    "class", "real", "synthetic", "FID", "KID [95 %]", "precision", "recall", "density", "coverage",
    "distance ratio", "AuthPct", "copy rate", "copies marked", "recall of pool-only",
)  # fmt: skip

USEFULNESS_COLUMNS = ("class", "validation", *(f"{name} [95 %]" for name in AREAS.values()))


def score_table(figures: dict[str, Any]) -> Table:
    """Return a table with a row for the whole pool and one for each class; the title names features and numbers."""
    title = (
        f"{figures['n_synthetic']} synthetic against {figures['n_real']} real training images, in "
        f"{figures['extractor']} (D = {figures['feature_dims']})"
    )
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "class" else "right")
    only = figures["pool_only"] or {}
    recall_C = only.get("per_class_recall", [None] * len(figures["per_class"]))
    table.add_row(*_cells("all", figures, only.get("recall")))
    for of_class, recall in zip(figures["per_class"], recall_C, strict=True):
        table.add_row(*_cells(of_class["class"], of_class, recall))
    return table


def score_notes(figures: dict[str, Any]) -> list[str]:
    """Return the lines below the table: how to read the copy rates, and why a value is missing."""
    notes = [
        f"copy rate: {format_figure(figures['copy_rate'])} of the pool as it is used, "
        f"{format_figure(figures['copy_rate_before'])} with the marked copies, "
        f"{format_figure(figures['held_out_copy_rate'])} of {figures['n_held_out']} held-out real images by the same "
        "rules",
        "distance ratio: how far the median image is from its nearest training image, over how far the median held-out "
        "real image is",
    ]
    if any(math.isnan(of_class["fid"]) for of_class in figures["per_class"]):
        notes.append(f"FID of a class: n/a up to {figures['feature_dims']} images, real or synthetic")
    # Figures of before 0.2 have no filter.
    if filters := figures.get("filter"):
        notes.append(filter_note(filters["per_class"]))
    if only := figures["pool_only"]:
        notes.append(
            f"trained on the pool alone: macro recall {only['recall']:.3f} on {only['n']} real test images (95 % "
            f"interval {only['low']:.3f} to {only['high']:.3f}, chance {only['chance']:.3f})"
        )
    return notes


def filter_note(per_class: list[dict[str, Any]]) -> str:
    """Return what the filters left out of each class."""
    parts = []
    for of_class in per_class:
        by = ", ".join(f"{count} by {kind}" for kind, count in of_class["outside"].items())
        nearest = "; the nearest one is kept, as none is within" if of_class["kept_outside"] else ""
        parts.append(f"{of_class['class']} {of_class['left_out']} of {of_class['n']} ({by}{nearest})")
    return f"synth.filter leaves out images of the pool: {', '.join(parts)}"


def usefulness_table(figures: dict[str, Any]) -> Table:
    """Return a table of what the pool teaches beyond repeated real images, for all classes and each."""
    useful = figures["usefulness"]
    title = f"with the pool minus with repeats, on {useful['n']} validation images"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in USEFULNESS_COLUMNS:
        # Text, as rich would read [95 %] in a str as markup.
        table.add_column(Text(name), justify="left" if name == "class" else "right")
    for row in usefulness_rows(figures):
        table.add_row(*map(Text, row))
    return table


def usefulness_rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for all classes and one for each, as text: name, validation images, and the two differences."""
    useful = figures["usefulness"]
    all_counts = (useful["n"], *useful["class_counts"])
    names = ("all", *(of_class["class"] for of_class in figures["per_class"]))
    of_figures = [(useful[key], *useful["per_class"][key]) for key in AREAS]
    return [
        (name, str(count), *(_difference(of[i], useful["seeds"]) for of in of_figures))
        for i, (name, count) in enumerate(zip(names, all_counts, strict=True))
    ]


def usefulness_note(useful: dict[str, Any]) -> str:
    """Return the two macro differences in a line."""
    auc, precision = (_difference(useful[key], useful["seeds"]) for key in AREAS)
    return (
        f"usefulness: macro AUC {auc} and average precision {precision} with the pool over as many repeated real "
        f"images, on {useful['n']} validation images ({useful['seeds']} pairs of {useful['classifier']}, "
        f"{useful['epochs']} epochs)"
    )


def _difference(found: dict[str, Any], num_seeds: int) -> str:
    over = interval_of(found, num_seeds)
    return "n/a" if over is None else interval_text(over)


def _cells(name: str, figures: dict[str, Any], pool_only_recall: float | None) -> list[Text]:
    low, high = figures["intervals"]["kid"]
    values = [
        name,
        str(figures["n_real"]),
        str(figures["n_synthetic"]),
        format_distance(figures["fid"]),
        f"{format_distance(figures['kid'])} [{format_distance(low)}, {format_distance(high)}]",
        *(format_figure(figures["prdc"][key]) for key in ("precision", "recall", "density", "coverage")),
        f"{figures['distance_ratio']:.2f}",
        f"{figures['auth_pct']:.1f}",
        format_figure(figures["copy_rate"]),
        str(figures["num_copies"]),
        format_figure(pool_only_recall),
    ]
    return list(map(Text, values))  # in a str, rich would read a class name with [brackets] as markup
