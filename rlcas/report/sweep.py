"""The page of a sweep: one self-contained file with its table and a figure, from the sweep's folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcas.files import write_text
from rlcas.report import render
from rlcas.report.canvas import ACCENT, INK, MUTED, SECOND, THIRD, drawing, panels, save
from rlcas.report.figures import plain_numbers
from rlcas.search_space import LOG_FROM_FACTOR, as_text
from rlcas.sweep_table import Sweep, Trial, figures_of, read_sweep, settings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORT_FILE = "sweep.html"
FIGURE_FILE = "sweep.png"
PANEL_INCHES = 2.0
HUES = (ACCENT, SECOND, THIRD)
"""A setting of no more values than these is told by colour in the other settings' panels."""
DODGE_POINTS = 5
MEAN_POINTS = 22


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
    page = path / REPORT_FILE
    facts = {"sweep": sweep, "chart": chart, "rows": rows, "folder_name": path.absolute().name}
    write_text(page, render("sweep.html.jinja", **facts))
    return page


def metric_by_setting(sweep: Sweep) -> Figure:
    """The metric against each swept setting: a dot a trial, a bar the mean of a value that several share."""
    trials = [trial for trial in sweep.trials if trial.ended and not np.isnan(trial.metric)]
    figure, axes_S = panels(len(sweep.keys), PANEL_INCHES, common_x=False)
    for key, axes in zip(sweep.keys, axes_S, strict=True):
        _panel(axes, key, _hue_setting(sweep, key), trials)
        axes.set_ylabel(sweep.metric)
    return figure


def _panel(axes: Axes, key: str, hue_key: str | None, trials: Sequence[Trial]) -> None:
    values = _values(key, trials)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = dict(zip(values, values if numeric else range(len(values)), strict=True))
    hues = _values(hue_key, trials) if hue_key else [None]
    for number, (hue, colour) in enumerate(zip(hues, HUES, strict=False)):
        shown = [trial for trial in trials if hue_key is None or _hashable(trial.settings[hue_key]) == hue]
        axes.plot(
            [places[_hashable(trial.settings[key])] for trial in shown],
            [trial.metric for trial in shown],
            "o",
            color=colour,
            alpha=0.75,
            markersize=4.5,
            mew=0,
            label=as_text(hue),
            transform=_dodged(axes, number - (len(hues) - 1) / 2),
        )
    _means(axes, key, places, trials)
    _scale(axes, places, numeric)
    axes.set_title(key)
    if hue_key:
        axes.legend(title=hue_key, loc="upper left", bbox_to_anchor=(1.0, 1.02), title_fontproperties={"size": 7.5})


def _means(axes: Axes, key: str, places: dict[Any, Any], trials: Sequence[Trial]) -> None:
    """Draw the mean of each value, where values are shared."""
    metrics = {value: [t.metric for t in trials if _hashable(t.settings[key]) == value] for value in places}
    if max(map(len, metrics.values())) > 1:
        means = [float(np.mean(of_value)) for of_value in metrics.values()]
        axes.plot(list(places.values()), means, "_", color=INK, markersize=MEAN_POINTS, markeredgewidth=1.4)


def _scale(axes: Axes, places: dict[Any, Any], numeric: bool) -> None:
    """Label the values; numbers a factor of ten or more apart stand on a log scale."""
    axes.margins(x=0.12, y=0.12)
    if not numeric:
        axes.set_xticks(list(places.values()), [as_text(value) for value in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
        return
    low, high = min(places), max(places)
    if low > 0 and high >= LOG_FROM_FACTOR * low:
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
    if len(places) <= 6:
        axes.set_xticks(list(places), [as_text(value) for value in places])


def _dodged(axes: Axes, places: float) -> Any:
    """Return the data's transform moved aside, so that dots of other colours do not cover each other."""
    from matplotlib.transforms import offset_copy

    return offset_copy(axes.transData, axes.figure, x=places * DODGE_POINTS, units="points")


def _hue_setting(sweep: Sweep, key: str) -> str | None:
    """Return another swept setting of few values, which colours tell."""
    others = [other for other in sweep.keys if other != key and len(_values(other, sweep.trials)) <= len(HUES)]
    return others[0] if others else None


def _values(key: str, trials: Sequence[Trial]) -> list[Any]:
    """Return the values of a setting, numbers in their order."""
    values = list(dict.fromkeys(_hashable(trial.settings[key]) for trial in trials))
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else values


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
