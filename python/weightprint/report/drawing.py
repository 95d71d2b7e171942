"""The stack drawn: one line per role, one bracket per run of equal blocks.

::

    decoder  recognised as llama by its row of the table
    16 blocks, hidden 2,048, 32 heads of 64, 8 key-value heads, FFN 8,192, vocabulary 128,256

        embedding   128256×2048  BF16  model.embed_tokens
      ┌ blocks 0–15  model.layers.{b}.                          16 × 60.8 M = 973 M
      │ attn_norm          2048  BF16  input_layernorm
      │ q             2048×2048  BF16  self_attn.q_proj
      │ k, v           512×2048  BF16  self_attn.{k,v}_proj
      …

The columns are roles, experts, shape of one canonical tensor, type as stored, then what the stored weight is called and
what was done to it. Names give way first where the terminal is narrow. Every piece of text goes through the pen, which
writes ASCII where the terminal can't do better.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.folding import ONE_TENSOR, Line, Run, Sheet, fold
from weightprint.anatomy.place import Geometry
from weightprint.anatomy.roles import role_of
from weightprint.report.format import count
from weightprint.report.html import LIMIT, html_table
from weightprint.report.pen import NO_BREAK, Pen, tail
from weightprint.results.table import shape_text
from weightprint.util.escape import escape
from weightprint.util.ranges import spans

__all__ = ["PART_STYLE", "drawing", "drawing_html", "geometry_words", "recognised"]

PART_STYLE = {
    "embedding": "blue",
    "attention": "cyan",
    "ffn": "green",
    "router": "magenta",
    "ssm": "magenta",
    "head": "blue",
    "projector": "blue",
    "adapter": "yellow",
    "norm": "dim",
    "fixed": "dim",
}
"""Colours of the parts, in the drawing and in the table of parts."""

_WORDS = {"kv_heads": "key-value heads", "head_dim": "head size", "ffn": "FFN", "hidden": "hidden size"}
_GROUPS = ("joining", "attention", "cross-attention", "mixer", "FFN", "the rest")
_CAREFUL = "yellow"
_NAME = 14


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the columns; `name` is what is left for the stored name and the notes."""

    roles: int
    experts: int
    shape: int
    kind: int
    name: int
    brackets: bool
    total: int


def drawing(anatomy: Anatomy, pen: Pen) -> Iterator[Text]:
    """The stacks of a model, one after the other, line by line."""
    for sheet in fold(anatomy):
        yield from _heading(escape(sheet.stack), recognised(anatomy, sheet.stack), pen)
        geometry = anatomy.geometry.get(sheet.stack)
        if geometry and (words := geometry_words(geometry)):
            yield from pen.wrapped(words.replace(" ", NO_BREAK).replace("," + NO_BREAK, ", "))
        if geometry and geometry.guessed:
            named = ", ".join(_WORDS.get(g, g) for g in geometry.guessed)
            yield from pen.wrapped(f"guessed, not certain: {named}", style=_CAREFUL)
        yield pen.line()
        columns = _columns(sheet, pen.width)
        yield from _plain_lines(sheet.before, columns, pen, "    ")
        seen: dict[tuple[Line, ...], str] = {}
        for run in sheet.runs:
            yield from _run(run, columns, pen, seen)
        if sheet.absent:
            what = f"  ! no tensor of block{'s' * (len(sheet.absent) > 1)} {spans(sheet.absent)}"
            yield pen.line((what, _CAREFUL))
        yield from _plain_lines(sheet.after, columns, pen, "    ")
        yield pen.line()


def _heading(stack: str, text: str, pen: Pen) -> Iterator[Text]:
    """The stack's name, and how it is known behind it or, where that does not fit, below it."""
    if len(stack) + 2 + len(text) <= pen.width:
        yield pen.line((stack, "bold"), ("  " + text, ""))
    else:
        yield pen.line((stack, "bold"))
        yield from pen.wrapped(text)


def recognised(anatomy: Anatomy, stack: str) -> str:
    """How the stack is known: by a row of the table, or inferred and how surely."""
    found = anatomy.stacks[stack]
    guesses = sorted(a.confidence for a in found if a.source == "inferred")
    family = anatomy.families.get(stack)
    if not guesses:
        return f"recognised as {escape(family.name)} by its row of the table" if family else "what an adapter changes"
    low, high = f"{guesses[0]:.2f}", f"{guesses[-1]:.2f}"
    sure = f"confidence {low}" if low == high else f"confidence {low} to {high}"
    if family is None or len(guesses) == len(found):
        return f"no row of the table fits; inferred, {sure}"
    return f"recognised as {escape(family.name)}; {len(guesses):,} of {len(found):,} inferred, {sure}"


def geometry_words(geometry: Geometry) -> str:
    """``"32 blocks, hidden 4,096, 32 heads of 128, 8 key-value heads, FFN 14,336, vocabulary 128,256"``."""
    g, words = geometry, []
    if g.blocks:
        words.append(f"{g.blocks:,} block{'s' * (g.blocks != 1)}")
    if g.hidden is not None:
        words.append(f"hidden {g.hidden:,}")
    if g.heads is not None:
        words.append(f"{g.heads:,} heads" + (f" of {g.head_dim:,}" if g.head_dim is not None else ""))
        if g.nope_dim is not None and g.rope_dim is not None:
            words[-1] += f" ({g.nope_dim:,} + {g.rope_dim:,} rotary)"
        if g.kv_heads is not None and g.kv_heads != g.heads:
            words.append(f"{g.kv_heads:,} key-value head{'s' * (g.kv_heads != 1)}")
    if g.value_dim is not None and g.value_dim != g.head_dim:
        words.append(f"values of {g.value_dim:,}")
    if g.ffn is not None:
        words.append(f"FFN {g.ffn:,}")
    if g.experts is not None:
        words.append(f"{g.experts:,} experts")
    if g.vocabulary is not None:
        words.append(f"vocabulary {g.vocabulary:,}")
    return ", ".join(words)


# Lines


def _columns(sheet: Sheet, width: int) -> _Columns:
    lines = [*sheet.before, *(line for run in sheet.runs for line in run.lines), *sheet.after]
    roles, experts, shape, kind = (
        max((len(text(line)) for line in lines), default=0) for text in (_roles, _experts, _shape, _kind)
    )
    brackets = any(_bracket(run.lines, k) for run in sheet.runs for k in range(len(run.lines)))
    fixed = 4 + roles + 2 + (experts + 2 if experts else 0) + shape + 2 + kind + 2
    tails = (sum(len(text) + 2 for text in _named(line, 10**6) if text) - 2 for line in lines)
    wanted = max(tails, default=0) + 2 * brackets
    name = max(0, min(wanted, width - fixed))
    heads = [len(_head(run)) + len(_sum(run)) + 8 for run in sheet.runs]
    return _Columns(roles, experts, shape, kind, name, brackets, min(width, max([fixed + name, *heads])))


def _roles(line: Line) -> str:
    return ", ".join(line.roles) + (" +bias" if line.bias else "")


def _experts(line: Line) -> str:
    if line.shared:
        return "shared"
    if line.n_experts is None:
        return ""
    return f"×{line.n_experts:,}" + (f" of {line.of_experts:,}" if line.n_experts != line.of_experts else "")


def _shape(line: Line) -> str:
    return "" if line.shape is None else shape_text(line.shape, "×")


def _kind(line: Line) -> str:
    several = len(line.kinds) > 1
    return "" if line.shape is None and several else line.kinds[0][0] + " +" * several


def _notes(line: Line) -> str:
    # That experts share a tensor shows: there is no {e} in its name.
    notes = [note for note in line.notes if note != ONE_TENSOR]
    return ", ".join(filter(None, ["tied" * line.tied, *notes, line.exceptions]))


def _doubt(line: Line) -> str:
    return "" if line.confidence is None else f"inferred {line.confidence:.2f}"


def _named(line: Line, room: int) -> tuple[str, str, str]:
    """(stored name, notes, doubt) as they fit into `room`: the name is cut first, and left out when too little is."""
    notes, doubt = _notes(line), _doubt(line)
    left = room - sum(len(text) + 2 for text in (notes, doubt) if text)
    return (tail(line.name, left) if left >= min(_NAME, len(line.name)) else "", notes, doubt)


def _plain_lines(lines: Sequence[Line], columns: _Columns, pen: Pen, margin: str) -> Iterator[Text]:
    for k, line in enumerate(lines):
        yield _drawn(line, _bracket(lines, k), columns, pen, margin)


def _drawn(line: Line, bracket: str, columns: _Columns, pen: Pen, margin: str) -> Text:
    part = role_of(line.roles[0]).part
    parts = [(margin, "dim"), (_roles(line).ljust(columns.roles) + "  ", PART_STYLE.get(part, ""))]
    if columns.experts:
        short = line.n_experts is not None and line.n_experts != line.of_experts
        parts.append((_experts(line).ljust(columns.experts) + "  ", _CAREFUL if short else ""))
    parts.append((_shape(line).rjust(columns.shape) + "  ", ""))
    parts.append((_kind(line).ljust(columns.kind) + "  ", "" if " " in line.kinds[0][0] else "dim"))
    parts += _name_parts(line, bracket, columns)
    text = pen.line(*parts)
    text.rstrip()
    return text


def _name_parts(line: Line, bracket: str, columns: _Columns) -> list[tuple[str, str]]:
    parts, room = [], columns.name
    if columns.brackets:
        parts.append(((bracket or " ") + " ", "dim"))
        room -= 2
    name, notes, doubt = _named(line, room)
    if bracket in ("", "┐"):  # below, the bracket says it
        parts += [(name, "dim"), ("  " if name else "", ""), (notes, "italic"), ("  " if notes else "", "")]
    return [*parts, (doubt, _CAREFUL)]


def _bracket(lines: Sequence[Line], k: int) -> str:
    """The stroke that ties lines cut from one weight together: ``┐``, ``│``, ``┘``, or nothing."""

    def one(a: int, b: int) -> bool:
        if not (0 <= a < len(lines) and 0 <= b < len(lines)):
            return False
        x, y = lines[a], lines[b]
        return bool(x.fused) and (x.fused, x.stored, x.notes) == (y.fused, y.stored, y.notes) and bool(x.stored)

    above, below = one(k - 1, k), one(k, k + 1)
    return {(False, False): "", (False, True): "┐", (True, True): "│", (True, False): "┘"}[above, below]


def _head(run: Run) -> str:
    return f"block{'s' * (len(run.blocks) > 1)} {spans(run.blocks)}"


def _sum(run: Run) -> str:
    """``"32 × 218 M = 6.98 B"``; the blocks of a run are of one size."""
    n = len(run.blocks)
    total = count(run.n_parameters)
    return total if n == 1 else f"{n} × {count(run.n_parameters // n)} = {total}"


def _run(run: Run, columns: _Columns, pen: Pen, seen: dict[tuple[Line, ...], str]) -> Iterator[Text]:
    """One bracket. `seen` holds the groups of lines drawn so far and where: what a run shares with an earlier one is
    not drawn again."""
    head, total = _head(run), _sum(run)
    room = columns.total - 4 - len(head) - 2 - len(total) - 2
    prefix = tail(run.prefix, room) if room >= min(_NAME, len(run.prefix)) else ""
    gap = " " * max(2, columns.total - 4 - len(head) - 2 - len(prefix) - len(total))
    yield pen.line(("  ┌ ", "dim"), (head, "bold"), ("  " + prefix, "dim"), (gap + total, ""))
    for number, (group, members) in enumerate(groupby(run.lines, key=lambda line: line.group)):
        if number:
            yield pen.line(("  │", "dim"))
        lines = tuple(members)
        form = tuple(line.form for line in lines)
        if len(lines) > 2 and form in seen:
            yield pen.line(("  │ ", "dim"), (f"{_GROUPS[group]} as in {seen[form]}", "italic dim"))
        else:
            seen.setdefault(form, head)
            yield from _plain_lines(lines, columns, pen, "  │ ")
    if run.lacks:
        yield from _lacking(run, pen)
    yield pen.line(("  └", "dim"))


def _lacking(run: Run, pen: Pen) -> Iterator[Text]:
    for piece in textwrap.wrap("! lacks " + ", ".join(run.lacks), min(pen.width, 100) - 4):
        yield pen.line(("  │ ", "dim"), (piece, _CAREFUL))


# Notebooks


def drawing_html(anatomy: Anatomy, limit: int | None = LIMIT) -> str:
    """The drawing as HTML: a table per stack, a caption per run of blocks."""
    parts = []
    for sheet in fold(anatomy):
        geometry = anatomy.geometry.get(sheet.stack)
        words = geometry_words(geometry) if geometry else ""
        rows = [_cells("", line) for line in sheet.before]
        for run in sheet.runs:
            rows += [_cells(_head(run), line) for line in run.lines]
            rows += [[_head(run), "lacks " + ", ".join(run.lacks), "", "", "", "", ""]] * bool(run.lacks)
        rows += [_cells("", line) for line in sheet.after]
        caption = f"{sheet.stack}: {recognised(anatomy, sheet.stack)}. {words}"
        headers = ("blocks", "roles", "experts", "shape", "type", "stored as", "notes")
        parts.append(html_table(caption, headers, rows, limit))
    return "".join(parts)


def _cells(where: str, line: Line) -> list[str]:
    kinds = ", ".join(kind for kind, _ in line.kinds)
    return [
        where,
        _roles(line),
        _experts(line),
        _shape(line),
        kinds,
        line.name,
        ", ".join(filter(None, [_notes(line), _doubt(line)])),
    ]
