"""The report of a sweep: one self-contained file with a table and a figure, from the sweep's folder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcas.reports import render
from rlcas.reports.axes import plain_numbers
from rlcas.reports.canvas import ACCENT, INK, SECOND, THIRD, drawing, panels, save
from rlcas.runs.sweep_folder import Sweep, Trial, figures_of, read_sweep, settings_of
from rlcas.settings.search_space import LOG_FROM_FACTOR, as_text
from rlcas.storage.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SWEEP_PAGE_FILE = "sweep.html"
FIGURE_FILE = "sweep.png"
PANEL_INCHES = 2.0
HUES = (ACCENT, SECOND, THIRD)
"""Colours of the values of a setting in the panels of the others, if it has no more values than colours."""
DODGE = 0.018
"""Distance between dots of two colours, as a share of the axis."""
MEAN_POINTS = 22
MOST_LABELS = 8
LEGEND_LETTERS = 28


def write_sweep_report(path: Path) -> Path:
    """Write `sweep.html` and `sweep.png` of a sweep, finished or not, and return the page's path.

    Raises:
        UserError: `path` is not a sweep's folder.
    """
    sweep = read_sweep(path)
    chart = None
    if any(trial.epochs for trial in sweep.trials if trial.ended):
        with drawing():
            chart = save(metric_by_setting(sweep), path / FIGURE_FILE)
    rows = [(trial, [*settings_of(trial), *figures_of(trial)]) for trial in sweep.ranked()]
    page = path / SWEEP_PAGE_FILE
    facts = {"sweep": sweep, "chart": chart, "rows": rows, "folder_name": path.absolute().name}
    write_text(page, render("sweep.html.jinja", **facts))
    return page


def metric_by_setting(sweep: Sweep) -> Figure:
    """The metric against each swept setting: a dot for each trial, a bar for the mean of the trials of a value."""
    trials = [trial for trial in sweep.trials if trial.ended and not np.isnan(trial.metric)]
    figure, axes_S = panels(len(sweep.keys), PANEL_INCHES, common_x=False)
    for key, axes in zip(sweep.keys, axes_S, strict=True):
        _panel(axes, key, _hue_setting(sweep, key), trials)
        axes.set_ylabel(sweep.metric)
    return figure


def _panel(axes: Axes, key: str, hue_key: str | None, trials: Sequence[Trial]) -> None:
    places = _places(key, trials)
    aside = _aside(places)
    hues = _values(hue_key, trials) if hue_key else [None]
    for number, (hue, colour) in enumerate(zip(hues, HUES, strict=False)):
        shown = [trial for trial in trials if hue_key is None or _value(trial, hue_key) == hue]
        axes.plot(
            [aside(places[_value(trial, key)], number - (len(hues) - 1) / 2) for trial in shown],
            [trial.metric for trial in shown],
            "o",
            color=colour,
            alpha=0.75,
            markersize=4.5,
            mew=0,
            label=f"{_leaf(hue_key)} {as_text(hue)}" if hue_key and number == 0 else as_text(hue),
        )
    _means(axes, key, places, trials)
    _scale(axes, places)
    axes.set_title(key)
    if hue_key:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=len(HUES),
            borderaxespad=0,
            handletextpad=0,
            columnspacing=0.8,
        )


def _means(axes: Axes, key: str, places: dict[Any, float], trials: Sequence[Trial]) -> None:
    """Draw the mean of each value, if any value has several trials."""
    metrics = {value: [trial.metric for trial in trials if _value(trial, key) == value] for value in places}
    if max(map(len, metrics.values())) > 1:
        means = [float(np.mean(of_value)) for of_value in metrics.values()]
        axes.plot(list(places.values()), means, "_", color=INK, markersize=MEAN_POINTS, markeredgewidth=1.4)


def _places(key: str, trials: Sequence[Trial]) -> dict[Any, float]:
    """Return value -> position on the axis: a number at itself, other values one after another."""
    values = _values(key, trials)
    # A switch is no number, though bool is a subclass of int.
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return dict(zip(values, values if numbers else range(len(values)), strict=True))


def _is_log(places: dict[Any, float]) -> bool:
    return min(places.values()) > 0 and max(places.values()) >= LOG_FROM_FACTOR * min(places.values())


def _aside(places: dict[Any, float]) -> Callable[[float, float], float]:
    """Return a function that shifts a position by a number of colours, so that dots do not cover each other."""
    low, high = min(places.values()), max(places.values())
    if _is_log(places):
        return lambda place, colours: place * (high / low) ** (DODGE * colours)
    return lambda place, colours: place + (high - low) * DODGE * colours


def _scale(axes: Axes, places: dict[Any, float]) -> None:
    """Label the values; numbers that span a factor of ten or more are on a log scale."""
    axes.margins(x=0.1, y=0.12)
    if _is_log(places):
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
    if len(places) <= MOST_LABELS:
        axes.set_xticks(list(places.values()), [as_text(value) for value in places])


def _hue_setting(sweep: Sweep, key: str) -> str | None:
    """Return another swept setting to show by colour, one with few and short values; None if there is none."""
    labels = {
        other: [as_text(value) for value in _values(other, sweep.trials)]
        for other in sweep.keys
        if other != key
    }
    few = {other: texts for other, texts in labels.items() if len(texts) <= len(HUES)}
    short = {other: texts for other, texts in few.items() if sum(map(len, texts)) <= LEGEND_LETTERS}
    return min(short, key=lambda other: len(short[other]), default=None)


def _values(key: str, trials: Sequence[Trial]) -> list[Any]:
    """Return the values of a setting, sorted if they are numbers."""
    values = list(dict.fromkeys(_value(trial, key) for trial in trials))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _value(trial: Trial, key: str) -> Any:
    value = trial.settings[key]
    return tuple(value) if isinstance(value, list) else value  # lists cannot be keys


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]
