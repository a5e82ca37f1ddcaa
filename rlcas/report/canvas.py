"""Figures twice: as PNG on white for papers, and as inline SVG in the page's own colours and fonts."""

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
"""Name in the style sheet -> colour on light and on dark ground (Okabe and Ito's colour-blind-safe hues)."""
INK, MUTED, RULE, ACCENT, SECOND, THIRD = (light for light, _ in COLOURS.values())
WIDTH_INCHES = 4.6
PNG_DPI = 160
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
    "text.parse_math": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "rlcas",
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw with the report's style and without a display; a name in a script that the font lacks is no fault."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def panels(count: int, panel_inches: float, *, common_x: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, one above the other."""
    return grid(count, 1, WIDTH_INCHES, panel_inches, common="x" if common_x else "")


def grid(
    count: int, columns: int, width_inches: float, panel_inches: float, *, common: str
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in rows of `columns`; `common` names the axes that they share: x, y, xy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width_inches, panel_inches * rows + 0.35), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex="x" in common, sharey="y" in common, squeeze=False).ravel()
    for place in range(count, len(axes)):
        axes[place].remove()
        axes[place - columns].tick_params(labelbottom=True)
    return figure, list(axes[:count])


def save(figure: Figure, png: Path) -> Markup:
    """Write the figure to `png` and return it as inline SVG; both have one layout, computed once."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    with replacing(png) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format="png", dpi=PNG_DPI)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(METADATA_LEFT_OUT))
    return Markup(_inline(text.getvalue()))


def _inline(svg: str) -> str:
    """Return an SVG file as an element: no declarations, no ids that other figures have too, themed colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    head, closing, body = svg.partition(">")
    svg = re.sub(r' (?:width|height)="[^"]*"', "", head) + closing + body
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
