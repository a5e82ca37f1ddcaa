"""The figures of a run's report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcas.reports.axes import epochs_on, from_clear, plain_numbers, shortened, two_hues
from rlcas.reports.canvas import (
    ACCENT,
    INK,
    MUTED,
    RULE,
    SECOND,
    THIRD,
    panels,
)
from rlcas.reports.facts import HARDLY_MOVED, UNIFORM, RunFacts
from rlcas.types import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
"""More classes than this are drawn as a heat map."""
PANEL_INCHES = 0.95
CHART_INCHES = 2.4
SQUARE_INCHES = 4.2
NAME_LETTERS = 52
SHOT_COLOURS = {"many": ACCENT, "medium": THIRD, "few": SECOND}
ACTION_COLOURS = (SECOND, MUTED, ACCENT)
LOSS_COLOURS = (ACCENT, SECOND, THIRD)


def compositions(facts: RunFacts) -> Figure:
    """Synthetic images of each class in a mini-batch: the surviving composition, all K as faint marks."""
    survived_TC = np.array(facts.incumbents("composition"))
    if len(facts.class_names) > MOST_PANELS:
        return _heat_map(
            survived_TC.T, facts, "synthetic images a mini-batch", 0, facts.config.sampler.max_count
        )
    figure, axes_C = panels(len(facts.class_names), PANEL_INCHES)
    epochs_T = _epochs(facts)
    tried_TKC = np.array([line["compositions"] for line in facts.epochs])
    for c, axes in enumerate(axes_C):
        tried, *_ = axes.plot(epochs_T, tried_TKC[:, :, c], "o", color=ACCENT, alpha=0.4, markersize=3, mew=0)
        (survived,) = axes.step(epochs_T, survived_TC[:, c], where="mid", color=ACCENT)
        axes.set_ylim(-1, facts.config.sampler.max_count + 1)
        axes.set_yticks([0, facts.config.sampler.max_count])
    figure.legend([survived, tried], ["survived", "tried"], loc="outside upper right", ncols=2)
    return _of_classes(figure, axes_C, facts)


def probabilities(facts: RunFacts) -> Figure:
    """Each agent's probabilities of -step, 0 and +step."""
    p_TC3 = facts.probabilities_TC3()
    if len(facts.class_names) > MOST_PANELS:
        return _heat_map((p_TC3[..., 2] - p_TC3[..., 0]).T, facts, "p(+step) − p(−step)", -1, 1)
    figure, axes_C = panels(len(facts.class_names), PANEL_INCHES)
    for c, axes in enumerate(axes_C):
        axes.axhline(UNIFORM, color=RULE, linewidth=0.8)
        for action, colour in enumerate(ACTION_COLOURS):
            axes.plot(_epochs(facts), p_TC3[:, c, action], color=colour, label=_actions(facts)[action])
        axes.set_ylim(0, 1)
        axes.set_yticks([0, UNIFORM, 1], ["0", "⅓", "1"])
    figure.legend(*axes_C[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return _of_classes(figure, axes_C, facts)


def responses(facts: RunFacts) -> Figure:
    """The agents' response curves: of each class the last one and its peak, and earlier ones faintly."""
    curves_TCG = np.array([line["curves"] for line in facts.epochs], float)
    # The level of a curve depends on the classifier, not on the count.
    curves_TCG -= curves_TCG.mean(axis=2, keepdims=True)
    counts_G = facts.config.sampler.action_step * np.arange(curves_TCG.shape[2], dtype=np.float64)
    if len(facts.class_names) > MOST_PANELS:
        return _peaks(curves_TCG, counts_G, facts)
    figure, axes_C = panels(len(facts.class_names), PANEL_INCHES)
    for c, axes in enumerate(axes_C):
        axes.plot(counts_G, curves_TCG[:-1, c].T, color=MUTED, alpha=0.15, linewidth=0.8)
        axes.plot(counts_G, curves_TCG[-1, c], color=ACCENT, linewidth=2)
        peak = curves_TCG[-1, c].argmax()
        axes.plot(counts_G[peak], curves_TCG[-1, c, peak], "o", color=SECOND, markersize=5, mew=0)
        axes.set_title(f"{c}  {shortened(facts.class_names[c], NAME_LETTERS)}")
        axes.set_yticks([0])
    axes_C[-1].set_xlabel("synthetic images a mini-batch")
    return figure


def _peaks(curves_TCG: Float64, counts_G: Float64, facts: RunFacts) -> Figure:
    # argmax takes a NaN for the largest.
    peaks_TC = counts_G[np.nan_to_num(curves_TCG, nan=-np.inf).argmax(axis=2)]
    return _heat_map(
        peaks_TC.T, facts, "count at which the fitted curve peaks", 0, facts.config.sampler.max_count
    )


def distance(facts: RunFacts) -> Figure:
    """Distance of the policies from uniform: each agent's largest |p - 1/3|, and the largest of all agents."""
    figure, (axes,) = panels(1, CHART_INCHES)
    distance_TC = np.abs(facts.probabilities_TC3() - UNIFORM).max(axis=2)
    drawn_TC = (
        distance_TC if len(facts.class_names) <= MOST_PANELS else np.quantile(distance_TC, [0.1, 0.5, 0.9], 1).T
    )
    axes.plot(_epochs(facts), drawn_TC, color=ACCENT, alpha=0.35, linewidth=1)
    axes.plot(_epochs(facts), distance_TC.max(axis=1), color=INK, linewidth=2, label="farthest agent")
    axes.axhline(HARDLY_MOVED, color=SECOND, linewidth=0.8, linestyle="--", label="below: all but random")
    axes.set_ylim(0, max(1.2 * HARDLY_MOVED, 1.05 * distance_TC.max()))  # the dashed line is always in view
    axes.set_ylabel("|p − ⅓|")
    return _over_epochs(figure, axes)


def rewards(facts: RunFacts) -> Figure:
    """Rewards of the K episodes, the survivor's filled, and the baseline of eq. 2."""
    figure, (axes,) = panels(1, CHART_INCHES)
    # A failed episode's null becomes NaN, a gap.
    rewards_TK = np.array([line["rewards"] for line in facts.epochs], float)
    axes.plot(_epochs(facts), rewards_TK, "o", color=ACCENT, alpha=0.4, markersize=4, mew=0)
    survivors_T = np.array(facts.winners("rewards"), float)
    axes.plot(_epochs(facts), survivors_T, "o", color=ACCENT, markersize=4, mew=0, label="survivor")
    baseline_T = [line["baseline"] for line in facts.epochs]
    axes.plot(_epochs(facts), baseline_T, color=SECOND, label="baseline")
    axes.set_ylabel("reward")
    return _over_epochs(figure, axes)


def validation(facts: RunFacts) -> Figure:
    """The survivor's validation metric and its many-, medium- and few-shot recalls."""
    figure, (axes,) = panels(1, CHART_INCHES)
    metrics_T = facts.incumbents("metrics")
    metric = facts.config.sampler.metric
    for name, colour in {**SHOT_COLOURS, metric: INK}.items():
        values_T = [_or_nan(metrics.get(name)) for metrics in metrics_T]
        if not np.isnan(values_T).all():
            axes.plot(
                _epochs(facts), values_T, color=colour, label=name, linewidth=2 if name == metric else 1.2
            )
    axes.set_ylim(0, 1)
    return _over_epochs(figure, axes)


def confusion(facts: RunFacts) -> Figure:
    """Share of each class's test images (row) by predicted class (column)."""
    counts_CC = np.array(_test(facts)["confusion"], float)
    # At least 1, so that a class without test images has an empty row and not 0 / 0.
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    num_classes = len(counts_CC)
    figure, (axes,) = panels(1, min(SQUARE_INCHES, 1 + 0.6 * num_classes))
    axes.imshow(shares_CC, cmap=from_clear(ACCENT), vmin=0, vmax=1, interpolation="nearest")
    if num_classes <= MOST_PANELS:
        for (row, column), share in np.ndenumerate(shares_CC):
            if share >= 0.0005:  # less would be printed as 0.000
                colour = "#ffffff" if share > 0.6 else INK
                axes.text(column, row, f"{share:.3f}", ha="center", va="center", color=colour, fontsize=6.8)
        axes.set_xticks(range(num_classes), [str(c) for c in range(num_classes)])
        axes.set_yticks(range(num_classes), [str(c) for c in range(num_classes)])
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def recall_by_size(facts: RunFacts) -> Figure:
    """Test recall of each class against its real training images."""
    assert facts.data is not None
    figure, (axes,) = panels(1, CHART_INCHES)
    sizes_C, recall_C = facts.data["class_counts"]["train"], _test(facts)["per_class_recall"]
    recall_C = [_or_nan(recall) for recall in recall_C]
    axes.semilogx(sizes_C, recall_C, "o", color=ACCENT, alpha=0.7, markersize=5, mew=0)
    if len(sizes_C) <= MOST_PANELS:
        for c, (size, recall) in enumerate(zip(sizes_C, recall_C, strict=True)):
            axes.annotate(str(c), (size, recall), (4, 3), textcoords="offset points", color=MUTED, fontsize=7.5)
    plain_numbers(axes.xaxis)
    axes.set(ylim=(0, 1.05), xlabel="real training images of the class", ylabel="test recall")
    return figure


def losses(facts: RunFacts) -> Figure:
    """The logged losses of the synthesiser's parts, on a logarithmic scale."""
    parts = list(dict.fromkeys(line["part"] for line in facts.synthesis_log))
    figure, axes_P = panels(len(parts), 1.9, common_x=False)
    for part, axes in zip(parts, axes_P, strict=True):
        lines = [line for line in facts.synthesis_log if line["part"] == part]
        for name, colour in zip(_logged(lines), LOSS_COLOURS * len(lines), strict=False):
            axes.semilogy(
                [line["step"] for line in lines],
                [_or_nan(line.get(name)) for line in lines],
                color=colour,
                label=name,
                linewidth=1.2,
            )
        plain_numbers(axes.yaxis)
        axes.set_title(part)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, borderaxespad=0)
    axes_P[-1].set_xlabel("step")
    return figure


def _epochs(facts: RunFacts) -> list[int]:
    return [line["epoch"] for line in facts.epochs]


def _actions(facts: RunFacts) -> tuple[str, str, str]:
    step = facts.config.sampler.action_step
    return f"−{step}", "0", f"+{step}"


def _test(facts: RunFacts) -> dict[str, Any]:
    assert facts.test is not None
    return facts.test


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _logged(lines: list[dict[str, Any]]) -> list[str]:
    """Return the names of the values in a log, in the order of their appearance."""
    return [
        name
        for name in dict.fromkeys(key for line in lines for key in line)
        if name not in ("part", "step", "steps")
    ]


def _of_classes(figure: Figure, axes_C: list[Axes], facts: RunFacts) -> Figure:
    for c, (axes, name) in enumerate(zip(axes_C, facts.class_names, strict=True)):
        axes.set_title(f"{c}  {shortened(name, NAME_LETTERS)}")
    epochs_on(axes_C[-1])
    return figure


def _over_epochs(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    epochs_on(axes)
    return figure


def _heat_map(values_CT: Float64, facts: RunFacts, label: str, low: float, high: float) -> Figure:
    """Draw classes down and epochs across; a range around 0 has two hues."""
    figure, (axes,) = panels(1, SQUARE_INCHES)
    cmap = two_hues(SECOND, ACCENT) if low < 0 else from_clear(ACCENT)
    first, last = _epochs(facts)[0], _epochs(facts)[-1]
    # Epochs and classes at the middle of their cells, class 0 at the top.
    extent = (first - 0.5, last + 0.5, len(values_CT) - 0.5, -0.5)
    image = axes.imshow(
        values_CT, cmap=cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest", extent=extent
    )
    figure.colorbar(image, label=label, location="top", aspect=40).outline.set_visible(False)
    axes.set_ylabel("class")
    epochs_on(axes)
    return figure


def drawable(facts: RunFacts) -> dict[str, Callable[[RunFacts], Figure]]:
    """Return name -> drawing function of the figures for which the run's folder has the data."""
    fitted = (responses,) if facts.fits_curves else ()
    over_epochs = (compositions, probabilities, distance, rewards, validation) if facts.epochs else ()
    of_test = (confusion,) if facts.test else ()
    of_sizes = (recall_by_size,) if facts.test and facts.data else ()
    of_synthesis = (losses,) if facts.synthesis_log else ()
    return {draw.__name__: draw for draw in (*over_epochs, *fitted, *of_test, *of_sizes, *of_synthesis)}
