"""Figures of a comparison: F1 against few-shot recall, recall of every class, and the validation curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rlcas.comparison.cell import Cell
from rlcas.comparison.folder import Comparison
from rlcas.comparison.intervals import RAREST
from rlcas.comparison.summary import BASELINE, OURS, RANKED, Results, Summary
from rlcas.reports.axes import from_clear, shortened
from rlcas.reports.canvas import ACCENT, INK, MUTED, RULE, SECOND, THIRD, grid
from rlcas.reports.figures import MOST_PANELS
from rlcas.types import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_INCHES = 7.6
DOTS_INCHES = 5.4
PANEL_INCHES = 1.25
COLUMNS = 4
LABEL_POINTS = 7.5
NEAREST, FARTHEST = 5.0, 90.0
"""Distance of a name from its dot, in points."""
MOST_CLASSES = 40
"""With more classes than this, the heat map has no names and counts."""
DARK_SHARE = 0.85
"""Share of full colour above which the number on it is white."""
MARGIN = 0.4
"""Margin around the outermost dots, as a share of their range; intervals may be cut off, dots may not."""
LEAST_RANGE = 0.1
EDGE = 0.03
"""How far an axis extends beyond 0 and 1, so that no dot is cut off."""
NAME_LETTERS = 22
LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkB": 2}
"""The line from a name to its dot, if the name is not next to it."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""


def f1_by_few(results: Results) -> Figure:
    """Macro F1 against few-shot recall: a dot for each row, with the 95 % intervals of both."""
    figure, (axes,) = grid(1, 1, WIDE_INCHES, DOTS_INCHES, common="")
    name, words = rare_axis(results.comparison)
    rows = [row for row in results.rows if row.figures]
    dots = [(row.figures[name], row.figures[RANKED]) for row in rows]
    for row, (x, y) in zip(rows, dots, strict=True):
        colour, marker = _look(row)
        axes.plot([x.low, x.high], [y.mean, y.mean], color=colour, alpha=0.2, linewidth=1)
        axes.plot([x.mean, x.mean], [y.low, y.high], color=colour, alpha=0.2, linewidth=1)
        axes.plot(
            x.mean, y.mean, marker, color=colour, markersize=7 if row.method == OURS else 5, mew=0, zorder=3
        )
    axes.set(xlabel=words, xlim=_around([x.mean for x, _ in dots]))
    axes.set(ylabel="macro F1", ylim=_around([y.mean for _, y in dots]))
    _legend(figure, rows)
    # Names are placed by where the dots are on the page, so the layout must be final before that.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    _label(
        axes, [row.method for row in rows], [(x.mean, y.mean) for x, y in dots], [_look(row)[0] for row in rows]
    )
    return figure


def rare_axis(comparison: Comparison) -> tuple[str, str]:
    """Return name and description of the x axis: few-shot recall or, if no class is few-shot, the smallest class's.

    Classes without test images do not count.
    """
    if comparison.test_counts_C[list(comparison.shots.few)].any():
        return "few", "mean recall of the few-shot classes"
    (smallest,) = comparison.groups[RAREST]
    name = shortened(comparison.class_names[smallest], NAME_LETTERS)
    why = "no few-shot class has test images" if comparison.shots.few else "no class is few-shot"
    return RAREST, f"recall of the smallest class, {name} ({why})"


def recall_of_classes(results: Results) -> Figure:
    """Test recall of every class (columns, the largest first) for every row, mean over the seeds."""
    comparison = results.comparison
    rows = [row for row in results.rows if row.figures]
    order_C = np.argsort(-comparison.train_counts_C, kind="stable")  # classes of one size keep their order
    recall_RC = np.array([row.per_class_recall for row in rows])[:, order_C]
    figure, (axes,) = grid(1, 1, WIDE_INCHES, 1.1 + 0.24 * len(rows), common="")
    axes.imshow(recall_RC, cmap=from_clear(ACCENT), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.set_xlabel("class, with its real training images")
    if len(order_C) <= MOST_PANELS:
        _numbers(axes, recall_RC)
    if len(order_C) <= MOST_CLASSES:
        counts = [
            f"{shortened(comparison.class_names[c], NAME_LETTERS)} ({comparison.train_counts_C[c]})"
            for c in order_C
        ]
        axes.set_xticks(range(len(order_C)), counts, rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    return figure


def curves(results: Results) -> Figure:
    """Validation metric against images seen, a panel for each row: seeds thin, mean thick, end of the budget dashed."""
    comparison = results.comparison
    rows = [row for row in comparison.rows if any(cell.curve for cell in row.cells.values())]
    figure, axes_R = grid(len(rows), COLUMNS, WIDE_INCHES, PANEL_INCHES, common="xy")
    metric = comparison.config.sampler.metric
    for row, axes in zip(rows, axes_R, strict=True):
        drawn = list(_curves(row.cells.values(), metric))
        for images_T, values_T in drawn:
            axes.plot(images_T / 1000, values_T, color=ACCENT, alpha=0.35, linewidth=0.8)
        if len({len(images_T) for images_T, _ in drawn}) == 1:  # no mean over curves of different length
            images_T, values_T = np.mean(drawn, axis=0)
            axes.plot(images_T / 1000, values_T, color=ACCENT, linewidth=1.8)
        axes.axvline(comparison.budget_images / 1000, color=MUTED, linewidth=0.8, linestyle="--")
        axes.set_title(row.name)
        axes.grid(axis="y", color=RULE, linewidth=0.5)
    figure.supxlabel("images seen, thousands", color=MUTED, fontsize="medium")
    figure.supylabel(f"validation {metric}", color=MUTED, fontsize="medium")
    return figure


def drawable(results: Results) -> dict[str, Callable[[Results], Figure]]:
    """Return name -> drawing function of the figures for which the comparison has the data."""
    of_test = (f1_by_few, recall_of_classes) if any(row.figures for row in results.rows) else ()
    of_training = (curves,) if any(cell.curve for cell in results.comparison.cells) else ()
    return {draw.__name__: draw for draw in (*of_test, *of_training)}


def _curves(cells: Iterable[Cell], metric: str) -> Iterator[tuple[Float64, Float64]]:
    for cell in cells:
        if cell.curve:
            values = [np.nan if line.get(metric) is None else line[metric] for line in cell.curve]
            yield np.array([line["images"] for line in cell.curve], float), np.array(values, float)


def _look(row: Summary) -> tuple[str, str]:
    """Return colour and marker, by kind: ours, the Baseline, controls, rows that add images, and others."""
    if row.method in (OURS, BASELINE):
        return (SECOND, "D") if row.method == OURS else (INK, "s")
    if row.control:
        return THIRD, "^"
    return (ACCENT, "o") if row.pool else (MUTED, "o")


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanmin(values), np.nanmax(values)
    room = MARGIN * max(high - low, LEAST_RANGE)
    return max(low - room, -EDGE), min(high + room, 1 + EDGE)


def _legend(figure: Figure, rows: Sequence[Summary]) -> None:
    from matplotlib.lines import Line2D

    kinds = {
        (SECOND, "D"): OURS,
        (INK, "s"): "Baseline",
        (MUTED, "o"): "other training",
        (ACCENT, "o"): "added images",
        (THIRD, "^"): "control",
    }
    looks = {_look(row) for row in rows}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", mew=0, markersize=5, label=words)
        for (colour, marker), words in kinds.items()
        if (colour, marker) in looks
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handletextpad=0.2)


def _label(
    axes: Axes, names: Sequence[str], dots: Sequence[tuple[float, float]], colours: Sequence[str]
) -> None:
    """Write the names next to the dots, each at the nearest place where it covers no other name or dot."""
    scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]  # from pixels to points
    dots_R2 = axes.transData.transform(np.array(dots)) * scale
    right_edge = axes.bbox.x1 * scale
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in dots_R2]
    for name, (x, y), dot, colour in zip(names, dots_R2, dots, colours, strict=True):
        weight = "bold" if name == OURS else "normal"
        width, height = _width(name, weight), LABEL_POINTS
        offset = next(_free(x, y, width, height, taken, right_edge), (NEAREST, -height / 2))
        taken.append(_box(x, y, offset, width, height))
        beside = offset[1] == -height / 2 and offset[0] in (NEAREST, -NEAREST - width)
        axes.annotate(
            name,
            dot,
            (offset[0], offset[1] + height / 2),
            va="center_baseline",
            textcoords="offset points",
            color=colour,
            fontsize=LABEL_POINTS,
            fontweight=weight,
            arrowprops=None if beside else {**LEADER, "relpos": (float(offset[0] < 0), 0.5)},
        )


def _width(name: str, weight: str) -> float:
    """Return the width of a label in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), name, LABEL_POINTS, FontProperties(weight=weight)).get_extents().width)


def _free(
    x: float, y: float, width: float, height: float, taken: Sequence[Box], right_edge: float
) -> Iterator[tuple[float, float]]:
    """Yield offsets of the label's lower left corner with which it covers nothing, the nearest first."""
    for away in np.arange(NEAREST, FARTHEST, 4):
        for turn in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            along, up = away * np.cos(turn), away * np.sin(turn) - height / 2
            # The cosine of straight up and down is 0 only up to rounding.
            offset = (along if along > -1e-9 else along - width, up)
            left, bottom, right, top = _box(x, y, offset, width, height)
            covers = any(left < x1 and x0 < right and bottom < y1 and y0 < top for x0, y0, x1, y1 in taken)
            if not covers and right < right_edge:
                yield offset


def _box(x: float, y: float, offset: tuple[float, float], width: float, height: float) -> Box:
    return x + offset[0], y + offset[1], x + offset[0] + width, y + offset[1] + height


def _numbers(axes: Axes, recall_RC: Float64) -> None:
    for (row, column), recall in np.ndenumerate(recall_RC):
        colour = "#ffffff" if recall > DARK_SHARE else INK
        text = "n/a" if np.isnan(recall) else f"{recall:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.8)
