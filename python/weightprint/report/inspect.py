"""A checkpoint shown: its stacks drawn, parameters by part, how they are stored, files, metadata, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from weightprint.anatomy.folding import cut_notes, fold
from weightprint.anatomy.parameters import parts, stored, stored_kind
from weightprint.anatomy.role_order import drawn_at
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.report.drawing import PART_STYLE, Pen, drawing, recognised
from weightprint.report.format import byte_count, count, plain_table
from weightprint.report.html import html_table
from weightprint.report.terminal import finding_text
from weightprint.results.table import shape_text
from weightprint.util.escape import escape
from weightprint.util.name_patterns import Pattern, patterns
from weightprint.util.natural_order import natural_key

if TYPE_CHECKING:
    from rich.console import RenderableType

    from weightprint.anatomy.anatomy import Anatomy

__all__ = ["anatomy_dict", "checkpoint_html", "dtypes", "inspect_dict", "layout", "renderables", "tensor_lines"]

_FILES, _LINES, _METADATA, _NAMES = 12, 200, 20, 24


def layout(checkpoint: Checkpoint) -> list[Pattern]:
    """Tensors folded over the numbers in their names, in natural order."""
    infos = sorted(checkpoint.tensors, key=lambda info: natural_key(info.name))
    return patterns((info.name, info.dtype, info.shape, info.nbytes) for info in infos)


def dtypes(checkpoint: Checkpoint) -> list[tuple[str, int, int, int]]:
    """(dtype, tensors, parameters, bytes), largest first."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for info in checkpoint.tensors:
        tensors[info.dtype] += 1
        parameters[info.dtype] += info.numel
        nbytes[info.dtype] += info.nbytes
    return [
        (name, tensors[name], parameters[name], nbytes[name]) for name in sorted(tensors, key=lambda n: (-nbytes[n], n))
    ]


def inspect_dict(checkpoint: Checkpoint, anatomy: Anatomy | None = None) -> dict[str, Any]:
    """Everything `inspect` knows, ready for JSON; the layout and the stacks come folded and in full."""
    data = checkpoint.to_dict()
    tensors = data.pop("tensors")
    return {
        "schema_version": 1,
        **data,
        "dtypes": [
            {"dtype": name, "n_tensors": n, "n_parameters": parameters, "nbytes": nbytes}
            for name, n, parameters, nbytes in dtypes(checkpoint)
        ],
        "layout": [
            {"pattern": p.name, "dtype": p.dtype, "shape": list(p.shape), "count": p.count, "nbytes": p.nbytes}
            for p in layout(checkpoint)
        ],
        "tensors": tensors,
        "anatomy": None if anatomy is None else anatomy_dict(anatomy),
    }


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


def renderables(
    checkpoint: Checkpoint, anatomy: Anatomy | None = None, *, everything: bool = False, pen: Pen | None = None
) -> Iterator[RenderableType]:
    """What a person sees, piece by piece; `everything` lifts the limits on how much of each."""
    pen = pen or Pen()
    limit = 10**9 if everything else None
    source, text = escape(checkpoint.source, None), _headline(checkpoint, anatomy)
    if len(source) + 2 + len(text) <= pen.width:
        yield pen.line((f"{source}: {text}", "bold"))
    else:
        yield pen.line((source, "bold"))
        yield pen.line((text, "bold"))
    yield pen.line()
    if anatomy is not None and anatomy.assignments:
        yield from drawing(anatomy, pen)
        yield from _parts(anatomy, pen)
    if anatomy is not None:
        yield from _stored(anatomy, pen)
    if len(checkpoint.files) > 1 or everything:
        files = [(escape(f.name), byte_count(f.nbytes), f"{f.n_tensors:,}") for f in checkpoint.files]
        yield from _table(pen, ("file", "size", "tensors"), files, limit or _FILES)
    if anatomy is not None and anatomy.unmapped:
        yield from _unmapped(anatomy, pen, everything=everything)
    if anatomy is None or everything:
        kinds = [(name, f"{n:,}", count(p), byte_count(b)) for name, n, p, b in dtypes(checkpoint)]
        yield from _table(pen, ("dtype", "tensors", "parameters", "bytes"), kinds, limit or _LINES)
        lines = [
            (p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes))
            for p in layout(checkpoint)
        ]
        yield from _table(pen, ("layout", "dtype", "shape", "count", "bytes"), lines, limit or _LINES, (0, 1, 2))
    keys = max((len(escape(key, 40)) for key in checkpoint.metadata), default=0)
    room = limit or max(30, pen.width - keys - 3)
    metadata = [(escape(key, 40), escape(value, room)) for key, value in checkpoint.metadata.items()]
    if metadata:
        yield from _table(pen, ("metadata", ""), metadata, limit or _METADATA, (0, 1))
    findings = (*checkpoint.findings, *(anatomy.findings if anatomy is not None else ()))
    for finding in findings[: limit or _LINES]:
        yield finding_text(finding)


def tensor_lines(anatomy: Anatomy, pen: Pen) -> Iterator[RenderableType]:
    """One line per canonical tensor: its place, the weight it is cut from, and how that is known."""
    rows = []
    for a in sorted(anatomy.assignments, key=lambda a: drawn_at(a.place)):
        known = a.because if a.source == "table" else f"inferred {a.confidence:.2f}: {a.because}"
        what = ", ".join(filter(None, [cut_notes(anatomy, a), "tied" * a.tied]))
        name = escape(a.view.weight) + (f" [{a.view.index}]" if a.view.index is not None else "")
        shape, kind = shape_text(a.view.shape, "×"), stored_kind(anatomy, a.view.weight)
        rows.append((escape(str(a.place)), shape, kind, name, what, f"{a.source} {escape(known, None)}"))
    for name in anatomy.unmapped:
        shape = shape_text(anatomy.weights[name].shape, "×")
        rows.append(("-", shape, stored_kind(anatomy, name), escape(name), "", "unmapped"))
    headers = ("place", "shape", "type", "stored as", "how", "known by")
    yield from _table(pen, headers, rows, len(rows), (0, 2, 3, 4, 5))


def _headline(checkpoint: Checkpoint, anatomy: Anatomy | None) -> str:
    n = checkpoint.n_parameters
    if anatomy is not None:
        n = sum(anatomy.weights[name].numel for name in anatomy.weights)
    files = len(checkpoint.files)
    return (
        f"{checkpoint.n_tensors:,} tensor{'s' * (checkpoint.n_tensors != 1)}, {count(n)} parameters, "
        f"{byte_count(checkpoint.n_bytes)} in {files:,} file{'s' * (files != 1)}"
    )


def _parts(anatomy: Anatomy, pen: Pen) -> Iterator[RenderableType]:
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
    for k, (name, number, active) in enumerate(zip(names, numbers, actives, strict=True)):
        share = found[k - 1].n_parameters / total if k else 0.0
        text = f"{name:<{widths[0]}}  {number:>{widths[1]}}  "
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


def _stored(anatomy: Anatomy, pen: Pen) -> Iterator[RenderableType]:
    rows = [
        (
            s.kind,
            f"{s.n_weights:,}",
            count(s.n_parameters),
            byte_count(s.n_bytes),
            "-" if s.bits is None else f"{s.bits:.3g}",
        )
        for s in stored(anatomy)
    ]
    yield from _table(pen, ("stored as", "weights", "parameters", "bytes", "bits each"), rows, _LINES)


def _unmapped(anatomy: Anatomy, pen: Pen, *, everything: bool) -> Iterator[RenderableType]:
    """Weights without a place by name; where the names are many and don't fold, those of one form on a line."""
    weights = sorted((anatomy.weights[name] for name in anatomy.unmapped), key=lambda weight: natural_key(weight.name))
    folded = patterns((w.name, stored_kind(anatomy, w.name), w.shape, w.nbytes) for w in weights)
    rows = [(p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes)) for p in folded]
    n = len(weights)
    yield pen.line((f"{n:,} weight{'s have' if n > 1 else ' has'} no place in this map:", "yellow"))
    if len(rows) > _NAMES and not everything:
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
        yield from _table(pen, headers, rows_cut, _LINES, (0, 1, 3))
    else:
        yield from _table(pen, ("unmapped", "type", "shape", "count", "bytes"), rows, len(rows), (0, 1, 2))


def _table(
    pen: Pen, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], limit: int, left: tuple[int, ...] = (0,)
) -> Iterator[RenderableType]:
    head, *body = plain_table(headers, rows[:limit], left).splitlines()
    yield pen.line((head, "bold cyan"))
    yield from (pen.line((line, "")) for line in body)
    if len(rows) > limit:
        yield pen.line((f"… and {len(rows) - limit:,} more (--all shows them)", "dim"))
    yield pen.line()


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """The folded layout as HTML."""
    rows = [
        [p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes)] for p in layout(checkpoint)
    ]
    return html_table(repr(checkpoint), ("layout", "dtype", "shape", "count", "bytes"), rows)
