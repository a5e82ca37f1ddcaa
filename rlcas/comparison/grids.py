"""The tables of a comparison as text: what Markdown, the page and the console share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlcas.comparison.contrasts import FIGURES
from rlcas.comparison.findings import interval_text
from rlcas.comparison.intervals import Interval
from rlcas.comparison.summary import BASELINE, OURS, RANKED, Figure, Results, Summary
from rlcas.comparison.usefulness import macro_interval
from rlcas.console import format_distance, format_figure, format_seconds

TABLE_1 = {
    "acc": "All",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "f1": "F1",
    "recall": "Recall",
    "precision": "Precision",
    "auc": "AUC",
    "average_precision": "AP",
    "log_loss": "Log-loss",
}
"""Figure -> its column in Table 1; All is accuracy, Many to Few are mean recalls of these classes."""
TABLE_2 = ("f1", "recall", "few")
STATUS_WORDS = {"left_out": "left out", "failed": "failed", "waiting": "not trained yet"}
DASH = "–"
NOTES = {
    "all": "Mean ± standard deviation over the seeds, on the test images. All is accuracy; Many, Medium and Few are "
    "mean recalls of those classes, n/a where there are none; F1 to AP (average precision) are macro averages; "
    "log-loss: the smaller the better. AUC, AP and log-loss do not depend on where a classifier draws the line between "
    "two classes. Bold: the best mean, if the 95 % interval of its difference to the next best leaves out 0, without a "
    "correction for the number of rows.",
    "differences": "Bold: the interval leaves out 0, without a correction for the number of rows; one that holds 0 "
    "decides nothing. Of log-loss a difference below 0 is better. The interval is over test images (paired bootstrap "
    "within classes, the same images for all rows and seeds) and seeds (Student's t of the paired differences), not "
    "over splits, pools and the judge, which all seeds share. Rank: by F1 under each seed, mean over the seeds. Equal "
    "compute: rows that need more classifier passes than the Baseline, trained again with as many; the synthesiser's "
    "training is not counted. same: the row has at most {most_passes} × the Baseline's passes as it is.",
    "contrasts": "Two rows that differ in one part. Bold: the interval leaves out 0; of log-loss a difference below 0 "
    "is better. Same classifier: seeds under "
    f"which {OURS} and the other row ended with the same predictions, to the last bit: nothing was tested between them "
    "there.",
    "added": "FID and KID are of the pool against the real training images, the lower the nearer. AUC − repeats: macro "
    "AUC on the validation images of small classifiers trained with the pool, minus that of ones trained with as many "
    "repeated real images; bold where the interval leaves out 0. Pool real: the real training images again.",
    "cost": "A seed's mean. Images: seen by the classifier that is kept, real and added; × budget: over those of "
    "compare.epochs passes over the real ones. Passes: images through a classifier, forward and backward, in all; "
    "× Baseline is their ratio. Time is of the classifiers alone. Pool made in: training its synthesiser and sampling, "
    "once for all rows and seeds, without the parts that it took over from another pool; given: made elsewhere.",
}
USEFULNESS = "AUC − repeats [95 %]"
"""The column of `rlcas.comparison.usefulness`."""
MOST_PASSES = 1.1
"""Times the Baseline's passes up to which a row's compute is called the same: epochs are whole."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as text: what Markdown, the page and the console share."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The row's name first; **bold** where it is distinctly best."""
    note: str


def grids(results: Results) -> list[Grid]:
    """Return the tables of a comparison, those of no rows left out."""
    makers = (table_1, table_differences, table_contrasts, table_2, table_cost)
    return [grid for grid in (make(results) for make in makers) if grid.rows]


def table_1(results: Results) -> Grid:
    """Table 1 of the paper: every row, every figure."""
    rows = [(name_of(results, row), *_figures(results, row, TABLE_1)) for row in results.rows]
    return Grid(
        "Table 1: all systems",
        ("method", *TABLE_1.values()),
        tuple(rows),
        NOTES["all"],
    )


def table_differences(results: Results) -> Grid:
    """How the rows stand to the Baseline and to ours, with intervals, ranks, and equal compute."""
    rows = [row for row in results.rows if row.figures]
    return Grid(
        "Differences in macro F1, average precision and log-loss",
        (
            "method", *(f"{TABLE_1[name]} − Baseline [95 %]" for name in FIGURES), f"F1 − {OURS} [95 %]", "rank",
            "equal compute: F1", "recall", "− Baseline [95 %]",
        ),
        tuple((name_of(results, row), *difference_texts(results, row)) for row in rows),
        NOTES["differences"].format(most_passes=MOST_PASSES),
    )  # fmt: skip


def table_contrasts(results: Results) -> Grid:
    """What drives the result: rows that differ in one part of RL-CAS."""
    same = {row.method: row.same_as_ours for row in results.rows}
    rows = [
        (
            pair.part,
            f"{pair.row} − {pair.other}",
            *(_interval(of.get(name)) for name in FIGURES),
            str(len(same[pair.other])) if pair.row == OURS else DASH,
        )
        for pair, of in results.contrasts.items()
    ]
    return Grid(
        "What drives the result",
        ("part", "rows", *(f"{TABLE_1[name]} [95 %]" for name in FIGURES), "same classifier"),
        tuple(rows),
        NOTES["contrasts"],
    )


def table_2(results: Results) -> Grid:
    """Table 2 of the paper: the rows that add images, with what their pool is worth."""
    rows = [row for row in results.rows if row.pool and row.figures]
    return Grid(
        "Table 2: rows that add images",
        (
            "method", "pool", "FID", "KID [95 %]", USEFULNESS, *(TABLE_1[name] for name in TABLE_2),
            "F1 − Baseline [95 %]",
        ),
        tuple(
            (
                name_of(results, row), str(row.pool), *_pool(row), *_figures(results, row, TABLE_2),
                _interval(row.against_baseline.get(RANKED)),
            )
            for row in rows
        ),
        " ".join(filter(None, (NOTES["added"], _features(rows)))),
    )  # fmt: skip


def table_cost(results: Results) -> Grid:
    """What each row was trained with."""
    rows = [row for row in results.rows if row.figures]
    return Grid(
        "Compute",
        (
            "method", "epochs", "steps", "images", "× budget", "passes", "× Baseline", "time", "pool made in",
            "device",
        ),
        tuple((name_of(results, row), *_cost(row)) for row in rows),
        NOTES["cost"],
    )  # fmt: skip


def name_of(results: Results, row: Summary) -> str:
    """Return a row's name, marked where its figures are of equal compute, with its seeds where some are missing."""
    asked = len(results.comparison.seeds)
    name = f"{row.method}{' at equal compute' if row.only_equal else ''}"
    return name if not row.seeds or len(row.seeds) == asked else f"{name} ({len(row.seeds)} of {asked} seeds)"


def status_text(row: Summary) -> str:
    """Return why a row has no figures, and the fix."""
    if row.status == "left_out" and row.reason:
        return row.reason
    words = STATUS_WORDS[row.status]
    return f"{words}: {row.reason}" if row.reason else words


def figure_text(found: Figure) -> str:
    """Return 0.724 ± 0.012, without the deviation where there is one seed."""
    return format_figure(found.mean) + ("" if math.isnan(found.std) else f" ± {found.std:.3f}")


def _figures(results: Results, row: Summary, names: Iterable[str]) -> list[str]:
    """Return a row's figures as text; where it has none, why, once."""
    names = list(names)
    if not row.figures:
        return [status_text(row), *[""] * (len(names) - 1)]
    texts = {name: figure_text(row.figures[name]) for name in names}
    return [f"**{text}**" if results.best.get(name) == row.method else text for name, text in texts.items()]


def difference_texts(results: Results, row: Summary) -> list[str]:
    """Return a row's differences to the Baseline and to ours, its rank, and its equal-compute figures."""
    return [
        *(DASH if row.method == BASELINE else _interval(row.against_baseline.get(name)) for name in FIGURES),
        DASH if row.method == OURS else _interval(row.against_ours.get(RANKED)),
        DASH if math.isnan(row.rank) else f"{row.rank:.1f}",
        *_equal(row, len(results.comparison.seeds)),
    ]


def _equal(row: Summary, asked: int) -> Sequence[str]:
    if row.equal_compute:
        f1, recall = (figure_text(row.equal_compute[name]) for name in (RANKED, "recall"))
        found = len(row.equal_seeds)
        missing = f" ({found} of {asked})" if found < asked else ""
        return [f1 + missing, recall, _interval(row.equal_against_baseline)]
    if row.needs_equal:
        return ["failed" if row.equal_reason else "not trained yet", DASH, DASH]
    return ["same" if row.passes_over_baseline <= MOST_PASSES else DASH] * 3


def _interval(found: Interval | None) -> str:
    if found is None:
        return DASH
    return f"**{interval_text(found)}**" if found.sign else interval_text(found)


def _features(rows: Sequence[Summary]) -> str:
    """Return in which features the pools were scored: distances in others cannot be compared."""
    extractors = sorted({row.pool_figures["extractor"] for row in rows if row.pool_figures})
    return f"Distances are in {' or '.join(extractors)}." if extractors else ""


def _pool(row: Summary) -> list[str]:
    figures: Mapping[str, Any] = row.pool_figures
    if not figures:
        return ["n/a", "n/a", DASH]
    low, high = figures["intervals"]["kid"]
    kid = f"{format_distance(figures['kid'])} [{format_distance(low)}, {format_distance(high)}]"
    # Pools scored before 0.2 do not have it.
    return [format_distance(figures["fid"]), kid, _interval(macro_interval(figures.get("usefulness")))]


def _cost(row: Summary) -> list[str]:
    epochs, steps, images, passes = (
        f"{row.cost[name]:,.0f}".replace(",", " ") for name in ("epochs", "steps", "images", "passes")
    )
    over = [f"{ratio:.2f}" for ratio in (row.images_over_budget, row.passes_over_baseline)]
    time = format_seconds(row.cost["seconds"])
    return [epochs, steps, images, over[0], passes, over[1], time, _making(row), row.device]


def _making(row: Summary) -> str:
    """Return the time that the row's pool took, which its own time does not hold."""
    if row.pool in (None, "real"):
        return DASH
    return "given" if row.pool_seconds is None else format_seconds(row.pool_seconds)
