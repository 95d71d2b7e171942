"""A checkpoint's headers shown: files, dtypes, the layout with layers folded together, metadata, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from weightprint.checkpoint import Checkpoint
from weightprint.order import natural_key
from weightprint.report.escape import escape
from weightprint.report.format import Pattern, byte_count, count, patterns, plain_table
from weightprint.report.html import html_table
from weightprint.report.terminal import finding_text
from weightprint.table import shape_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["checkpoint_html", "dtypes", "inspect_dict", "layout", "renderables"]

_FILES, _LINES, _METADATA = 12, 200, 20


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


def inspect_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything `inspect` knows, ready for JSON; the layout comes folded and in full."""
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
    }


def renderables(checkpoint: Checkpoint, *, everything: bool = False) -> Iterator[RenderableType]:
    """What a person sees, piece by piece; `everything` lifts the limits on how much of each."""
    from rich.text import Text

    limit = 10**9 if everything else None
    yield Text(
        f"{escape(checkpoint.source)}: {checkpoint.n_tensors:,} tensors, {count(checkpoint.n_parameters)} parameters, "
        f"{byte_count(checkpoint.n_bytes)} in {len(checkpoint.files)} file(s)",
        style="bold",
    )
    yield Text("")
    files = [(escape(f.name), byte_count(f.nbytes), f"{f.n_tensors:,}") for f in checkpoint.files]
    yield from _table(("file", "size", "tensors"), files, limit or _FILES)
    kinds = [(name, f"{n:,}", count(p), byte_count(b)) for name, n, p, b in dtypes(checkpoint)]
    yield from _table(("dtype", "tensors", "parameters", "bytes"), kinds, limit or _LINES)
    lines = [
        (p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes)) for p in layout(checkpoint)
    ]
    yield from _table(("layout", "dtype", "shape", "count", "bytes"), lines, limit or _LINES, (0, 1, 2))
    metadata = [(escape(key, 60), escape(value, limit or 100)) for key, value in checkpoint.metadata.items()]
    if metadata:
        yield from _table(("metadata", ""), metadata, limit or _METADATA, (0, 1))
    for finding in checkpoint.findings:
        yield finding_text(finding)


def _table(
    headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], limit: int, left: tuple[int, ...] = (0,)
) -> Iterator[RenderableType]:
    from rich.text import Text

    head, *body = plain_table(headers, rows[:limit], left).splitlines()
    yield Text(head, style="bold cyan")
    yield from (Text(line) for line in body)
    if len(rows) > limit:
        yield Text(f"… and {len(rows) - limit:,} more (--all shows them)", style="dim")
    yield Text("")


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """The folded layout as HTML."""
    rows = [
        [p.name, p.dtype, shape_text(p.shape, "×"), f"{p.count:,}", byte_count(p.nbytes)] for p in layout(checkpoint)
    ]
    return html_table(repr(checkpoint), ("layout", "dtype", "shape", "count", "bytes"), rows)
