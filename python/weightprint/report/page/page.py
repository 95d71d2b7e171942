"""One self-contained page: a title, a lead and sections, with a style that reads on screens, phones and paper.

Every verb's page is made by :func:`document`. Texts are escaped by the templates; names pass
:func:`weightprint.util.escape.escape` first (the filter ``shown``), which makes hidden characters visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weightprint.report.page.svg import Drawing, style
from weightprint.util.escape import escape

__all__ = ["Section", "bullets", "document", "facts", "figure", "fragment", "macros", "rendered", "trusted"]

_JOINED = re.compile(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=] )|(?<=\bp [<=]) ")
"""Spaces at which no line may break."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    body: Markup

    @property
    def id(self) -> str:
        """Where a link may point."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def document(kind: str, title: str, lead: Markup, sections: Sequence[Section | None]) -> str:
    """The whole page. ``kind``: what it is (``"comparison"``); sections that are None are left out."""
    from weightprint import __version__  # the package's own root

    return str(
        rendered(
            "document.html",
            kind=kind,
            title=escape(title, None),
            lead=lead,
            sections=[section for section in sections if section is not None],
            css=_style(),
            version=__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
        )
    )


def fragment(*parts: Markup) -> str:
    """A piece of HTML for a notebook: the parts, and how they look."""
    look = Markup("<style>{}</style>").format(_style())
    return str(Markup('<div class="weightprint">{}{}</div>').format(look, Markup("").join(parts)))


def figure(drawing: Drawing, caption: str | Markup = "") -> Markup:
    """A drawing with what it shows below it."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup("")
    return Markup("<figure>{}{}</figure>").format(drawing.inline(), below)


def trusted(html: str) -> Markup:
    """HTML of :mod:`weightprint.report.html`, in which every text is escaped already; tables scroll by themselves."""
    html = _JOINED.sub("\u00a0", html)
    return Markup(html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>"))


def bullets(items: Iterable[str]) -> Markup:
    """A list of sentences."""
    return Markup(macros().bullets([*items]))


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values, side by side."""
    return Markup(macros().facts([*pairs]))


@cache
def macros() -> Any:
    """The macros of ``parts.html``."""
    return _environment().get_template("parts.html").module


def rendered(template: str, **values: Any) -> Markup:
    """A template of this package, filled in."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    loader = PackageLoader("weightprint.report.page", "templates")
    made = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["shown"] = lambda text: _JOINED.sub("\u00a0", escape(str(text), None))
    return made


@cache
def _style() -> Markup:
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, "page.css")[0] + style())
