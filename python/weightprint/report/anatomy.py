"""An anatomy shown: its stacks drawn, parameters by part, how they are stored, what has no place, every tensor.

What ``weightprint inspect`` shows of a model beside its files (:mod:`weightprint.report.inspect`) is made of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from rich.text import Text

from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.folding import cut_notes, fold
from weightprint.anatomy.parameters import parts, stored, stored_kind
from weightprint.anatomy.role_order import drawn_at
from weightprint.report.drawing import PART_STYLE, drawing, drawing_html, recognised
from weightprint.report.format import byte_count, count, number, plain_table
from weightprint.report.html import LIMIT, html_list
from weightprint.report.pen import Pen
from weightprint.report.terminal import plain
from weightprint.results.table import shape_text
from weightprint.util.escape import escape
from weightprint.util.escape import html as html_text
from weightprint.util.name_patterns import Pattern, patterns

__all__ = [
    "TENSORS", "anatomy_dict", "html", "lines", "n_tensor_rows", "pattern_rows", "table", "tensor_rows", "text",
    "unmapped",
]  # fmt: skip

_LINES, _NAMES = 200, 24
#: Headings over `tensor_rows`.
TENSORS = ("place", "shape", "type", "stored as", "how", "known by")


def text(anatomy: Anatomy) -> str:
    """The map of a model as a person reads it, 100 columns wide."""
    pen = Pen()
    n, source = len(anatomy.assignments), escape(anatomy.checkpoint.source, None)
    title = f"{source}: {n:,} canonical tensor{'s' * (n != 1)} of {len(anatomy.weights):,} weights"
    return plain([pen.line((title, "")), pen.line(), *lines(anatomy, pen), *unmapped(anatomy, pen)])


def html(anatomy: Anatomy, limit: int | None = LIMIT) -> str:
    """The drawing as HTML, and the names that have no place."""
    homeless = f"{len(anatomy.unmapped):,} weights have no place:"
    told = "".join(f"<p>{html_text(adapter.words)}</p>" for adapter in anatomy.adapters)
    drawn = drawing_html(anatomy, limit) + html_list(homeless, anatomy.unmapped, limit)
    return f"<div class='weightprint'>{told}{drawn}</div>"


def lines(anatomy: Anatomy, pen: Pen) -> Iterator[Text]:
    """The stacks, parameters by part, and how they are stored."""
    for adapter in anatomy.adapters:
        yield from pen.wrapped(
            f"{'merged' if len(anatomy.checkpoints) > 1 else 'adapter'}  {adapter.words}", style="bold"
        )
    if anatomy.adapters:
        yield pen.line()
    if anatomy.assignments:
        yield from drawing(anatomy, pen)
        yield from _parts(anatomy, pen)
    yield from _stored(anatomy, pen)


def anatomy_dict(anatomy: Anatomy) -> dict[str, Any]:
    """The map of a model, its parts, how it is stored, and its stacks as they are drawn."""
    found = parts(anatomy)
    active = [part.n_active for part in found if part.n_active is not None]
    return {
        **anatomy.to_dict(),
        "parts": [part.to_dict() for part in found],
        "n_active": sum(active) if len(active) == len(found) and found else None,
        "stored": [kind.to_dict() for kind in stored(anatomy)],
        "drawing": {
            sheet.stack: {"recognised": recognised(anatomy, sheet.stack), **sheet.to_dict()} for sheet in fold(anatomy)
        },
    }


def tensor_rows(anatomy: Anatomy, limit: int | None = None) -> list[tuple[str, ...]]:
    """One row per canonical tensor: its place, the weight it is cut from, and how that is known; the first `limit`."""
    return [*islice(_tensor_rows(anatomy), limit)]


def n_tensor_rows(anatomy: Anatomy) -> int:
    """How many rows there are."""
    without = {*anatomy.unmapped, *anatomy.adapter_factors}
    return len(anatomy.assignments) + sum(name in without for name in anatomy.weights)


def _tensor_rows(anatomy: Anatomy) -> Iterator[tuple[str, ...]]:
    homeless, notes = set(anatomy.unmapped), cut_notes(anatomy)
    for a in sorted(anatomy.assignments, key=lambda a: drawn_at(a.place)):
        known = a.because if a.source == "table" else f"inferred {a.confidence:.2f}: {a.because}"
        what = ", ".join(filter(None, [notes(a), "tied" * a.tied]))
        name = escape(a.view.weight) + (f" [{a.view.index}]" if a.view.index is not None else "")
        shape, kind = shape_text(a.view.shape, "×"), stored_kind(anatomy, a.view.weight)
        yield escape(str(a.place)), shape, kind, name, what, f"{a.source} {escape(known, None)}"
    for name in anatomy.weights:
        known = "unmapped" if name in homeless else "a factor, by name" if name in anatomy.adapter_factors else ""
        if known:
            shape = shape_text(anatomy.weights[name].shape, "×")
            yield "-", shape, stored_kind(anatomy, name), escape(name), "", known


def _parts(anatomy: Anatomy, pen: Pen) -> Iterator[Text]:
    """Parameters by part, with bars in the colours of the drawing, and what a token uses of them."""
    found = parts(anatomy)
    total = sum(part.n_parameters for part in found) or 1
    known = any(part.n_active is not None for part in found)
    names, numbers, actives = (
        [label, *(text(part) for part in found)]
        for label, text in (
            ("part", lambda part: part.part),
            ("parameters", lambda part: count(part.n_parameters)),
            ("active", lambda part: "?" if part.n_active is None else count(part.n_active)),
        )
    )
    widths = [max(map(len, texts)) for texts in (names, numbers, actives)]
    bar = max(10, min(40, pen.width - sum(widths) - 18))
    for k, (name, size, active) in enumerate(zip(names, numbers, actives, strict=True)):
        share = found[k - 1].n_parameters / total if k else 0.0
        text = f"{name:<{widths[0]}}  {size:>{widths[1]}}  "
        text += f"{active:>{widths[2]}}  " if known else ""
        if not k:
            yield pen.line((f"{text}{'share':>6}", "bold cyan"))
            continue
        stroke = "█" * round(share * bar) or "▌" * bool(share)
        yield pen.line((f"{text}{_share(share):>6}  ", ""), (stroke, PART_STYLE.get(name, "")))
    active_total = sum(part.n_active or 0 for part in found)
    if known and all(part.n_active is not None for part in found):
        yield pen.line((f"A token uses {count(active_total)} of {count(total)} (experts per token: config).", "dim"))
    yield pen.line()


def _share(share: float) -> str:
    """``"12.3 %"``; never 0 or 100 for what isn't."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.9995 or share == 1 else ">99.9 %"


def _stored(anatomy: Anatomy, pen: Pen) -> Iterator[Text]:
    rows = [
        (s.kind, f"{s.n_weights:,}", count(s.n_parameters), byte_count(s.n_bytes), number(s.bits, 3))
        for s in stored(anatomy)
    ]
    yield from table(pen, ("stored as", "weights", "parameters", "bytes", "bits each"), rows, _LINES)


def unmapped(anatomy: Anatomy, pen: Pen, *, everything: bool = False) -> Iterator[Text]:
    """Weights without a place by name; where the names are many and don't fold, those of one form on a line."""
    if not anatomy.unmapped:
        return
    stored, shapes = anatomy.weights.stored_as, anatomy.weights.shapes
    homeless = ((name, kind, shapes[name], nbytes) for name in anatomy.unmapped for kind, nbytes in [stored(name)])
    folded = patterns(homeless, ordered=True)
    n = len(anatomy.unmapped)
    yield pen.line((f"{n:,} weight{'s have' if n > 1 else ' has'} no place in this map:", "yellow"))
    if len(folded) > _NAMES and not everything:
        alike: dict[tuple[str, tuple[int, ...]], list[Pattern]] = {}
        for p in folded:
            alike.setdefault((p.dtype, p.shape), []).append(p)
        counts = [sum(p.count for p in found) for found in alike.values()]
        forms = [(kind, shape_text(shape, "×"), f"{k:,}") for (kind, shape), k in zip(alike, counts, strict=True)]
        headers = ("type", "shape", "count", "names (--all shows them)")
        widths = [max(map(len, column)) + 2 for column in zip(headers[:3], *forms, strict=True)]
        room = max(20, pen.width - sum(widths))
        names = [", ".join(p.name for p in found) for found in alike.values()]
        cut = [text if len(text) <= room else text[: room - 1] + "…" for text in names]
        rows_cut = [(*form, text) for form, text in zip(forms, cut, strict=True)]
        yield from table(pen, headers, rows_cut, _LINES, (0, 1, 3))
    else:
        rows = pattern_rows(folded)
        yield from table(pen, ("unmapped", "type", "shape", "count", "bytes"), rows, len(rows), (0, 1, 2))


def pattern_rows(folded: Iterable[Pattern]) -> list[tuple[str, ...]]:
    """Name, dtype, shape, count and bytes of folded tensors."""
    return [(p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes)) for p in folded]


def table(
    pen: Pen, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], limit: int, left: tuple[int, ...] = (0,)
) -> Iterator[Text]:
    """Aligned columns below a heading, at most `limit` rows, then an empty line."""
    head, *body = plain_table(headers, rows[:limit], left).splitlines()
    yield pen.line((head, "bold cyan"))
    yield from (pen.line((line, "")) for line in body)
    if len(rows) > limit:
        yield pen.line((f"… and {len(rows) - limit:,} more (--all shows them)", "dim"))
    yield pen.line()
