"""Figures in two forms: PNG on white for papers, and inline SVG in the page's colours and fonts."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlcas.storage.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "ink": ("#1d2430", "#e6e8ec"),
    "muted": ("#667080", "#99a2b0"),
    "rule": ("#d9dde3", "#343b47"),
    "accent": ("#0072b2", "#56b4e9"),
    "second": ("#d55e00", "#f0894a"),
    "third": ("#009e73", "#2fc79b"),
}
"""Name in the style sheet -> colour on light and on dark background (Okabe and Ito's colour-blind-safe hues)."""
INK, MUTED, RULE, ACCENT, SECOND, THIRD = (light for light, _ in COLOURS.values())
WIDTH_INCHES = 4.6
PNG_DPI = 160
# With a date, writing a page again would change its bytes.
METADATA_LEFT_OUT = ("Creator", "Date", "Format", "Type")
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # class names may contain $
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",  # text stays text, which the page's fonts can draw
    "svg.hashsalt": "rlcas",  # without a salt, matplotlib's ids are random and no two pages equal
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw with the report's style and without a display; class names in a script that the font lacks do not warn."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def panels(count: int, panel_inches: float, *, common_x: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, one below the other."""
    return grid(count, 1, WIDTH_INCHES, panel_inches, common="x" if common_x else "")


def grid(
    count: int, columns: int, width_inches: float, panel_inches: float, *, common: str
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels and its axes.

    Args:
        count: number of panels.
        columns: panels in a row.
        width_inches: width of the figure.
        panel_inches: height of a panel.
        common: the axes that the panels share: x, y, xy, or none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width_inches, panel_inches * rows + 0.35), layout="constrained")
    # Not by pyplot, which keeps every figure alive and chooses a backend by the display.
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex="x" in common, sharey="y" in common, squeeze=False).ravel()
    for place in range(count, len(axes)):
        axes[place].remove()
        # Shared axes have labels in the last row only; here the panel above is now the lowest of its column.
        axes[place - columns].tick_params(labelbottom=True)
    return figure, list(axes[:count])


def save(figure: Figure, png: Path) -> Markup:
    """Write the figure to `png` and return it as inline SVG; both have the same layout, which is computed once."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # each savefig would compute the layout again, for its own resolution
    with replacing(png) as temporary, temporary.open("wb") as file:
        # The format is named because the temporary file does not end in .png.
        figure.savefig(file, format="png", dpi=PNG_DPI)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(METADATA_LEFT_OUT))
    # Markup is not escaped again by the template; matplotlib has escaped the names in it.
    return Markup(_inline(text.getvalue()))


def _inline(svg: str) -> str:
    """Return an SVG file as an HTML element: without declarations and ids, with the style sheet's colours."""
    svg = svg[svg.index("<svg") :]
    # figure_1, axes_1, …: every figure of a page has them. Ids that are referred to are hashes, and stay.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    head, closing, body = svg.partition(">")
    # Of the <svg> itself: without them it is scaled by its viewBox to the width of the page.
    svg = re.sub(r' (?:width|height)="[^"]*"', "", head) + closing + body
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
