"""Drawings: SVG that every text is escaped in, as wide as its page, with letters that keep their size.

Across, positions are percentages of the drawing's width; down, they are pixels. So a drawing fits a phone without its
labels shrinking, and what must stretch (ribbons, curves) sits in a frame of its own units (`frame`). Colours are
classes of ``drawing.css``, which goes with the page, the notebook and the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from weightprint.util.escape import escape

__all__ = ["Drawing", "element", "frame", "joined", "label", "line", "path", "rect", "style"]

_NAMESPACE = "http://www.w3.org/2000/svg"
_WIDTH = 720
"""Of a drawing in a file of its own."""
_HATCHING = Markup(
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" class="hatching"></path></pattern></defs>'
)


@dataclass(frozen=True)
class Drawing:
    """A drawing that can stand in a page or in a file: ``name`` of the file, ``title`` for those who can't see it."""

    name: str
    title: str
    height: float
    body: Markup

    def inline(self) -> Markup:
        """For a page that has the style."""
        return self._drawn(width="100%")

    def file(self) -> str:
        """An SVG file with its style."""
        look = element("style", Markup(style().replace(".weightprint ", "").replace(".weightprint", "svg")))
        paper = element("rect", width="100%", height="100%", class_="paper")
        return str(self._drawn(look + paper, xmlns=_NAMESPACE, width=_WIDTH)) + "\n"

    def _drawn(self, before: Markup | str = "", **attributes: Any) -> Markup:
        shown = escape(self.title, None)
        head = {"role": "img", "aria-label": shown, "class_": "drawing", "height": self.height}
        return element("svg", Markup(before) + _HATCHING + self.body, **attributes, **head)


@cache
def style() -> str:
    """The look of drawings: light and dark by the reader's setting."""
    return files("weightprint.report.page").joinpath("templates/drawing.css").read_text(encoding="utf-8")


def element(name: str, body: object = "", **attributes: Any) -> Markup:
    """``<name attribute="…">body</name>``; attributes that are None are left out, ``_`` stands for ``-``."""
    told = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = body if isinstance(body, Markup) else Markup.escape(escape(str(body), None))
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), told, inside)


def joined(parts: Iterable[Markup]) -> Markup:
    """Several elements, one after the other."""
    return Markup("").join(parts)


def frame(x: float, y: float, width: float, height: float, units: tuple[float, float], body: Markup) -> Markup:
    """A part of the drawing with units of its own, which stretch; `x` and `width` in percent."""
    box = f"0 0 {_short(units[0])} {_short(units[1])}"
    place = {"x": f"{_short(x)}%", "y": y, "width": f"{_short(width)}%", "height": height}
    return element("svg", body, viewBox=box, preserveAspectRatio="none", overflow="visible", **place)


def label(
    x: float, y: float, words: str, kind: str = "", *, anchor: str | None = None, dx: float | None = None
) -> Markup:
    """A line of text; `x` in percent, `dx` in pixels beside it."""
    return element("text", words, x=f"{_short(x)}%", y=y, class_=kind or None, text_anchor=anchor, dx=dx)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line; `x1` and `x2` in percent."""
    return element("line", x1=f"{_short(x1)}%", y1=y1, x2=f"{_short(x2)}%", y2=y2, class_=kind)


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "", **more: Any) -> Markup:
    """A box; `x` and `width` in percent; `title` appears under the pointer."""
    inside = element("title", title) if title else ""
    place = {"x": f"{_short(x)}%", "y": y, "width": f"{_short(width)}%", "height": height}
    return element("rect", inside, class_=kind, **place, **more)


def path(d: str, kind: str, title: str = "", **more: Any) -> Markup:
    """A path in the units of its frame."""
    return element("path", element("title", title) if title else "", d=d, class_=kind, **more)


def _short(value: Any) -> str:
    """Two decimals are finer than a screen."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
