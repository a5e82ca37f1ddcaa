"""The findings of a comparison as sentences, each made by a fixed rule, so that no row is favoured."""

from __future__ import annotations

from collections.abc import Iterator

from rlcas.comparison.intervals import Interval
from rlcas.comparison.summary import BASELINE, OURS, RANKED, Results

WORDS = {1: "better than", 0: "not distinguishable from", -1: "worse than"}
"""Sign of an interval -> words: one that includes 0 decides nothing."""
MINUS = "−"


def signed(value: float) -> str:
    """Return a difference with its sign and three decimals."""
    # z: a difference that rounds to zero is +0.000, not -0.000.
    return f"{value:+z.3f}".replace("-", MINUS)


def interval_text(found: Interval) -> str:
    """Return a difference with its interval: +0.012 (−0.020 to +0.041)."""
    return f"{signed(found.value)} ({signed(found.low)} to {signed(found.high)})"


def sentences(results: Results) -> list[str]:
    """Return the findings of a comparison; where ours is a row, the first compares it with the Baseline.

    A row is better or worse only if the 95 % interval of its paired difference in macro F1 excludes 0.
    """
    parts = (_against_baseline, _others, _identical, _highest, _at_equal_compute, _missing)
    return [sentence for part in parts for sentence in part(results)]


def _against_baseline(results: Results) -> Iterator[str]:
    if not _has_ours(results):
        return
    ours, name = results.row(OURS), _ours_named(results)
    if ours is None or RANKED not in ours.against_baseline:
        without = OURS if ours is None else f"the Baseline with a seed of {OURS}"
        yield f"{name} cannot be compared with the Baseline: there are no figures of {without}."
        return
    found = ours.against_baseline[RANKED]
    over = f"{found.num_seeds} seeds" if found.num_seeds > 1 else "1 seed, so of test images alone"
    yield (
        f"{name} is {WORDS[found.sign]} the Baseline in macro F1 ({signed(found.value)}, 95 % interval "
        f"{signed(found.low)} to {signed(found.high)}, {over})."
    )
    if equal := ours.equal_against_baseline:
        yield (
            f"With as many classifier passes as the Baseline ({ours.equal_passes_over_baseline:.2f} ×; the "
            f"synthesiser's training is not counted), {OURS} is {WORDS[equal.sign]} it ({signed(equal.value)}, "
            f"{signed(equal.low)} to {signed(equal.high)}{_seeds_of(equal, results)})."
        )


def _has_ours(results: Results) -> bool:
    return any(row.method == OURS for row in results.rows)


def _ours_named(results: Results) -> str:
    """Return ours by name, and at which cost it was trained where that is not the full budget."""
    only_equal = any(row.method == OURS and row.only_equal for row in results.rows)
    return f"{OURS} at equal compute" if only_equal else OURS


def _seeds_of(found: Interval, results: Results) -> str:
    """Return over how many seeds an interval is, if some are missing; else nothing."""
    asked = len(results.comparison.seeds)
    return f", {found.num_seeds} of {asked} seeds" if found.num_seeds < asked else ""


def _others(results: Results) -> Iterator[str]:
    """Yield how the other rows compare with ours, or with the Baseline where ours is not a row."""
    with_ours = _has_ours(results)
    first = OURS if with_ours else BASELINE
    for sign in (1, -1, 0):
        names = [
            row.method
            for row in results.rows
            if row.method != first
            and (found := (row.against_ours if with_ours else row.against_baseline).get(RANKED))
            and found.sign == sign
        ]
        if names:
            yield f"{WORDS[sign].capitalize()} {first}: {', '.join(names)}."


def _identical(results: Results) -> Iterator[str]:
    """Yield which rows ended as the same classifier as ours, under which seeds nothing tells them apart."""
    ours = results.row(OURS)
    for row in results.rows:
        if ours is not None and row.method != OURS and row.same_as_ours:
            both = len({*row.seeds} & {*ours.seeds})
            yield (
                f"{OURS} is the same classifier as {row.method} in {len(row.same_as_ours)} of {both} seeds, to the "
                "last bit of its predictions."
            )


def _highest(results: Results) -> Iterator[str]:
    rows = [row for row in results.rows if row.figures]
    if rows:
        first = max(rows, key=lambda row: row.figures[RANKED].mean)
        marked = results.best.get(RANKED) == first.method
        next_best = "distinguishable" if marked else "not distinguishable"
        yield (
            f"Highest mean F1: {first.method}, {first.figures[RANKED].mean:.3f}; {next_best} from the next best row."
        )


def _at_equal_compute(results: Results) -> Iterator[str]:
    if names := [row.method for row in results.rows if row.only_equal]:
        yield f"Trained only at equal compute, with as many classifier passes as the Baseline: {', '.join(names)}."


def _missing(results: Results) -> Iterator[str]:
    for status, words in (("left_out", "Left out"), ("failed", "Failed"), ("waiting", "Not trained yet")):
        names = [row.method for row in results.rows if row.status == status]
        if names:
            yield f"{words}: {', '.join(names)}."
    rows, asked = [row for row in results.rows if row.figures], len(results.comparison.seeds)
    short = [(row.method, len(row.seeds), row.reason) for row in rows]
    equal = [(row.method, len(row.equal_seeds), row.equal_reason) for row in rows if row.needs_equal]
    for words, counted in (("Not all seeds", short), ("Not all seeds of equal compute", equal)):
        names = [
            f"{method} ({number} of {asked}; {why_missing(reason)})"
            for method, number, reason in counted
            if number < asked
        ]
        if names:
            yield f"{words}: {', '.join(names)}."


def why_missing(reason: str) -> str:
    """Return why a cell has no figures."""
    return f"failed: {reason}" if reason else "not trained yet"
