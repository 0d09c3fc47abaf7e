"""Turns matplotlib figures into SVG that belongs to a page: its fonts, its colours, its names.

Text stays text. Colours are drawn as stand-ins and replaced by the page's CSS variables, so that
one picture serves light and dark. Identifiers get a prefix, so that pictures share one document.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

WIDTH_PX: Final = 420
FONT_PX: Final = 12.5
POINTS_AN_INCH: Final = 72

_OPENING = re.compile(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', re.DOTALL)
_NOT_DRAWING = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_REFERENCE = re.compile(r'(?:xlink:href="|url\()#([^")]+)')
_IDENTIFIER = re.compile(r' id="([^"]+)"')
_LONG_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
_FONT = re.compile(r"font-family: [^;\"]+")
_BLANKS = re.compile(r"\s*\n\s*")


class Ink(StrEnum):
    """The page's colours by their CSS variable, each as the stand-in in which it is drawn."""

    TEXT = "#010101"
    MUTED = "#020202"
    RULE = "#030303"
    PAPER = "#040404"
    BASELINE = "#050505"
    DEFAULT_BUNDLE = "#060606"
    PRIVATE = "#070707"
    NO_NOISE = "#080808"
    ALARM = "#090909"
    FLEET = "#0a0a0a"

    @property
    def css(self) -> str:
        """The variable in the page's style sheet."""
        return f"var(--{self.name.lower().replace('_', '-')})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture with what is said of it to those who do not see it.

    Attributes:
        name: unique on the page, fit for an identifier.
        svg: an `<svg>` element to be put into the page.
        title: what it shows.
        description: its message in words.
    """

    name: str
    svg: Markup
    title: str
    description: str


def plot(
    draw: Callable[[Figure], None], *, name: str, title: str, description: str, height_px: int
) -> Plot:
    """Draw a figure and return it as inline SVG.

    Args:
        draw: puts axes into an empty figure, in colours of `Ink`.
        name: unique on the page, fit for an identifier.
        title: what it shows.
        description: its message in words.
        height_px: at a width of `WIDTH_PX`.
    """
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": FONT_PX,
        "text.color": Ink.TEXT.value,
        "axes.labelcolor": Ink.TEXT.value,
        "axes.edgecolor": Ink.MUTED.value,
        "axes.facecolor": "none",
        "axes.labelsize": FONT_PX,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": Ink.RULE.value,
        "grid.linewidth": 0.8,
        "xtick.color": Ink.MUTED.value,
        "ytick.color": Ink.MUTED.value,
        "xtick.labelcolor": Ink.TEXT.value,
        "ytick.labelcolor": Ink.TEXT.value,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "legend.fontsize": FONT_PX,
    }
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(style):
        size = (WIDTH_PX / POINTS_AN_INCH, height_px / POINTS_AN_INCH)
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = _for_page(buffer.getvalue(), name=name, title=title, description=description)
    return Plot(name=name, svg=svg, title=title, description=description)


def _for_page(drawn: str, *, name: str, title: str, description: str) -> Markup:
    opening = _OPENING.search(drawn)
    if opening is None:
        raise ValueError(f"drawn must hold an <svg> with a viewBox, got {drawn[:60]!r}")
    inner = _NOT_DRAWING.sub("", drawn[opening.end() :])
    referred = set(_REFERENCE.findall(inner))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in referred else ""

    inner = _IDENTIFIER.sub(renamed, inner)
    inner = inner.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    inner = _LONG_DECIMALS.sub(r"\1", inner)
    inner = _FONT.sub("font-family: var(--font)", inner)
    for ink in Ink:
        inner = inner.replace(ink.value, ink.css)
    head = Markup(
        '<svg role="img" viewBox="{box}" aria-labelledby="{name}-title {name}-description">'
        '<title id="{name}-title">{title}</title>'
        '<desc id="{name}-description">{description}</desc>'
    ).format(box=opening[1], name=name, title=title, description=description)
    return head + Markup(_BLANKS.sub("\n", inner))  # noqa: S704  # matplotlib escapes its texts
