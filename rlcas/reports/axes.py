"""Parts of figures that several reports share: axes, colour maps, shortened names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def epochs_on(axes: Axes) -> None:
    """Put epochs on the x axis, labelled with integers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 0.01, 1, 100: powers need math text, which is off because class names may contain $."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 3), numticks=5))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(LogLocator(subs=(), numticks=0))


def shortened(name: str, max_letters: int) -> str:
    """Return `name`, cut to `max_letters` if it is longer."""
    return name if len(name) <= max_letters else name[: max_letters - 1] + "…"


def from_clear(colour: str) -> Any:
    """Return a colour map from transparent to `colour`, for light and dark backgrounds."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("clear", [to_rgba(colour, 0), to_rgba(colour, 1)])


def two_hues(low: str, high: str) -> Any:
    """Return a colour map from `low` through transparent to `high`."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    shades = [to_rgba(low, 1), to_rgba(low, 0), to_rgba(high, 0), to_rgba(high, 1)]
    return LinearSegmentedColormap.from_list("hues", list(zip((0, 0.5, 0.5, 1), shades, strict=True)))
