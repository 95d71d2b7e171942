"""How a result shows itself: as text where it is printed, as HTML in a notebook.

Results stand below their reports, so they name them instead of importing them: :class:`Shown` loads
``weightprint.report.<name>`` when something is to be shown, ``weightprint.report.plots`` when it is plotted. Those are
the late imports upwards in the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

__all__ = ["Shown"]


class Shown:
    """A result with a report: a module of ``weightprint.report`` that has ``text(result)`` and ``html(result)``."""

    __slots__ = ()
    _report: ClassVar[str]

    def __str__(self) -> str:
        return self._reported("text")

    def _repr_html_(self) -> str:
        return self._reported("html")

    def _reported(self, form: str) -> str:
        """What a function of the report makes of it."""
        return str(getattr(import_module(f"weightprint.report.{self._report}"), form)(self))

    def _plotted(self, plot: str, *arguments: Any) -> Any:
        """A plot of ``weightprint.report.plots``, which needs matplotlib."""
        return getattr(import_module("weightprint.report.plots"), plot)(self, *arguments)
