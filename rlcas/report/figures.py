"""The report's plots: each is saved as PNG and returned as SVG that follows the page's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcas.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, safe for colour-blind readers; the page has a variable of each name.
COLORS = {
    "ink": "#1c2126",
    "muted": "#68707a",
    "rule": "#dfe3e8",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#00875f",
    "purple": "#a6508a",
}
ACTION_COLORS = (COLORS["orange"], COLORS["muted"], COLORS["blue"])
METRIC_COLORS = {"f1": "ink", "many": "blue", "medium": "green", "few": "orange"}
PNG_DPI = 160

Epochs = Sequence[Mapping[str, Any]]


class Plots:
    """Draws the plots of one run into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def _plot(self, name: str, size: tuple[float, float], rows: int, svgs: list[str]) -> Iterator[list[Axes]]:
        """Give the axes to draw on; then save the PNG and append the SVG to `svgs`."""
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_style(name)):
            figure = Figure(figsize=size, layout="constrained")
            yield list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
            with replacing(self._folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=PNG_DPI)
            svgs.append(_themed_svg(figure))

    def class_panel(self, epochs: Epochs, c: int) -> str:
        """Plot the composition of class `c`, surviving and tried, above its action probabilities."""
        svgs: list[str] = []
        with self._plot(f"class_{c:02d}", (3.6, 3.1), 2, svgs) as (counts_axes, policy_axes):
            _draw_counts(counts_axes, epochs, c)
            _draw_probabilities(policy_axes, epochs, c)
            policy_axes.set_xlabel("epoch")
        return svgs[0]

    def rewards(self, epochs: Epochs) -> str:
        """Plot the rewards of the K episodes, the winner's and the baseline."""
        svgs: list[str] = []
        with self._plot("rewards", (5.2, 3.2), 1, svgs) as (axes,):
            for epoch in epochs:
                axes.plot(*_points(epoch, "rewards"), "o", color=COLORS["muted"], alpha=0.45, ms=3)
            steps = [epoch["epoch"] for epoch in epochs]
            won = [epoch["rewards"][epoch["winner"]] for epoch in epochs]
            axes.plot(steps, won, color=COLORS["blue"], label="winner")
            axes.plot(steps, _floats(epochs, "baseline"), "--", color=COLORS["orange"], label="baseline")
            _finish(axes, "epoch", "reward")
        return svgs[0]

    def metrics(self, epochs: Epochs) -> str:
        """Plot F1 and many-, medium- and few-shot recall of the winners on the validation images."""
        svgs: list[str] = []
        with self._plot("metrics", (5.2, 3.2), 1, svgs) as (axes,):
            won = [epoch["metrics"][epoch["winner"]] for epoch in epochs]
            steps = [epoch["epoch"] for epoch in epochs]
            for name, color in METRIC_COLORS.items():
                values = _floats(won, name)
                if not np.isnan(values).all():
                    width = 2.2 if name == "f1" else 1.2
                    axes.plot(steps, values, color=COLORS[color], lw=width, label=name)
            axes.axvline(epochs[-1]["best_epoch"], color=COLORS["muted"], lw=0.8, ls=":")
            axes.set_ylim(0, 1)
            _finish(axes, "epoch", "on validation images")
        return svgs[0]

    def synthesis(self, log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Plot each logged figure of each part of the synthesiser: title to SVG."""
        series: dict[str, list[tuple[float, float]]] = {}
        for line in log:
            for name, value in line.items():
                if name not in ("part", "step") and isinstance(value, int | float):
                    series.setdefault(f"{line['part']}: {name}", []).append((line["step"], value))
        return {title: self._loss(title, points) for title, points in series.items()}

    def _loss(self, title: str, points: list[tuple[float, float]]) -> str:
        svgs: list[str] = []
        with self._plot("synthesis_" + re.sub(r"\W+", "_", title), (3.6, 2.1), 1, svgs) as (axes,):
            axes.plot(*zip(*points, strict=True), color=COLORS["blue"])
            if min(value for _, value in points) > 0:
                axes.set_yscale("log")
            axes.set_xlabel("optimiser step")
        return svgs[0]

    def heat_map(
        self,
        name: str,
        values: np.ndarray,
        labels: tuple[str, str, str],
        cmap: str,
        bounds: tuple[float, float],
    ) -> str:
        """Plot a matrix; `labels` name the x axis, the y axis and the colours."""
        svgs: list[str] = []
        with self._plot(name, (5.2, 4.2), 1, svgs) as (axes,):
            image = axes.imshow(
                values, aspect="auto", interpolation="nearest", cmap=cmap, vmin=bounds[0], vmax=bounds[1]
            )
            axes.grid(False)
            axes.set_xlabel(labels[0])
            axes.set_ylabel(labels[1])
            axes.get_figure(root=True).colorbar(image, label=labels[2])  # type: ignore[union-attr]
        return svgs[0]


def _draw_counts(axes: Axes, epochs: Epochs, c: int) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = [epoch["epoch"] for epoch in epochs]
    for epoch in epochs:
        tried = [counts_C[c] for counts_C in epoch["compositions"]]
        axes.plot([epoch["epoch"]] * len(tried), tried, "o", color=COLORS["muted"], alpha=0.3, ms=2.5)
    survived = [epoch["compositions"][epoch["winner"]][c] for epoch in epochs]
    axes.plot(steps, survived, color=COLORS["blue"], drawstyle="steps-mid")
    highest = max(max(counts_C) for epoch in epochs for counts_C in epoch["compositions"])
    axes.set_ylim(-0.5, highest + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_ylabel("images")


def _draw_probabilities(axes: Axes, epochs: Epochs, c: int) -> None:
    steps = [epoch["epoch"] for epoch in epochs]
    p_T3 = np.array([epoch["probabilities"][c] for epoch in epochs])
    for action, (label, color) in enumerate(zip(("less", "same", "more"), ACTION_COLORS, strict=True)):
        axes.plot(steps, p_T3[:, action], color=color, lw=1.2, label=label)
    axes.axhline(1 / 3, color=COLORS["muted"], lw=0.7, ls=":")
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability")
    axes.legend(ncols=3, loc="upper left")


def _points(epoch: Mapping[str, Any], key: str) -> tuple[list[int], list[float]]:
    values = [value for value in epoch[key] if value is not None]
    return [epoch["epoch"]] * len(values), values


def _floats(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _style(name: str) -> dict[Any, Any]:
    ink, muted, rule = COLORS["ink"], COLORS["muted"], COLORS["rule"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
    }


def _themed_svg(figure: Figure) -> str:
    """Return the figure as inline SVG whose colours are the page's variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = re.sub(r'<g id="[a-z]+_?\w*">', "<g>", svg)
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg
