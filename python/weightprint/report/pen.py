"""How lines are written for one terminal: its width, what of Unicode it can show, and where long sentences break."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

__all__ = ["NO_BREAK", "Pen", "tail"]

NO_BREAK = "\u00a0"
"""A space at which no line is broken."""

_FILLER = "\ufdd0"  # no character, and in no text that was escaped
_WIDEST = 120  # of lines that are read, not compared
_ASCII = str.maketrans(
    {"×": "x", "–": "-", "…": "~", "·": "-", "│": "|", "┌": ".", "└": "'", "┐": "\\", "┘": "/", "▌": "-"}
    | {"█": "#", "▓": "+", "▒": "=", "░": ".", "→": "->", "−": "-", "‖": "||", "λ": "lambda"}
)


@dataclass(frozen=True, slots=True)
class Pen:
    """How to write: for a terminal of `width` columns, with ASCII only where `ascii` says so."""

    width: int = 100
    ascii: bool = False

    def line(self, *parts: tuple[str, str]) -> Text:
        """One line from (text, style) pairs, already escaped."""
        return Text.assemble(*((self.text(text), style) for text, style in parts))

    def text(self, text: str) -> str:
        """Text as this terminal can show it."""
        return text.translate(_ASCII) if self.ascii else text

    def wrapped(self, text: str, label: str = "", style: str = "", label_style: str = "dim") -> Iterator[Text]:
        """Text over as many lines as it needs, broken between words and never inside one that fits on a line; the first
        line starts with the label, the others are indented by as much."""
        indent, text = " " * len(label), text.replace(" %", f"{NO_BREAK}%")
        room = max(min(self.width, _WIDEST) - len(label), 8)
        if cell_len(text) > len(text):  # letters two columns wide count twice; one may be cut from its filler
            text, room = "".join(_FILLER * (cell_len(c) - 1) + c for c in text), room - 1
        for piece in textwrap.wrap(text, room, break_on_hyphens=False) or [""]:
            yield self.line((label, label_style), (piece.replace(NO_BREAK, " ").replace(_FILLER, ""), style))
            label = indent


def tail(text: str, room: int) -> str:
    """The end of a name or path, which says more than its beginning."""
    if cell_len(text) <= room:
        return text
    text = text[max(len(text) - room + 1, 0) :]
    while cell_len(text) >= max(room, 2):
        text = text[1:]
    return f"…{text}"
