"""A checkpoint shown: its stacks drawn, parameters by part, how they are stored, files, metadata, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.report.anatomy import TENSORS, anatomy_dict, pattern_rows, table, tensor_rows, unmapped
from weightprint.report.anatomy import html as anatomy_html
from weightprint.report.anatomy import lines as anatomy_lines
from weightprint.report.format import byte_count, count
from weightprint.report.html import LIMIT, html_table
from weightprint.report.pen import Pen
from weightprint.report.terminal import finding_text, plain
from weightprint.results.finding import Finding
from weightprint.util.escape import escape
from weightprint.util.name_patterns import Pattern, patterns

__all__ = ["html", "inspect_dict", "lines", "text"]

_FILES, _LINES, _METADATA = 12, 200, 20
_LAYOUT = ("layout", "dtype", "shape", "count", "bytes")


def layout(checkpoint: Checkpoint) -> list[Pattern]:
    """Tensors folded over the numbers in their names, in natural order."""
    return patterns(((t.name, t.dtype, t.shape, t.nbytes) for t in checkpoint.tensors), ordered=True)


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


def inspect_dict(
    checkpoint: Checkpoint, anatomy: Anatomy | None = None, noticed: Sequence[Finding] = ()
) -> dict[str, Any]:
    """Everything `inspect` knows, ready for JSON; the layout and the stacks come folded and in full."""
    data = checkpoint.to_dict()
    tensors = data.pop("tensors")
    data["findings"] += [finding.to_dict() for finding in noticed]
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


def text(checkpoint: Checkpoint) -> str:
    """The files and their tensors, folded; of a closed checkpoint that it is."""
    return f"{checkpoint!r}\n" if checkpoint.closed else plain(lines(checkpoint))


def html(
    checkpoint: Checkpoint,
    anatomy: Anatomy | None = None,
    noticed: Sequence[Finding] = (),
    limit: int | None = LIMIT,
    *,
    tensors: bool = False,
) -> str:
    """What `lines` says, as HTML: at most `limit` rows of each table."""
    if checkpoint.closed:
        return html_table(repr(checkpoint), (), ())
    if tensors and anatomy is not None:
        return html_table(repr(checkpoint), TENSORS, tensor_rows(anatomy), limit)
    drawn = "" if anatomy is None else anatomy_html(anatomy, limit)
    findings = [(f.severity, f.code, f.message) for f in (*_findings(checkpoint, anatomy), *noticed)]
    tables = [
        html_table(repr(checkpoint), _LAYOUT, pattern_rows(layout(checkpoint)), limit),
        html_table("Metadata", ("key", "value"), list(checkpoint.metadata.items()), limit),
        html_table("Findings", ("severity", "code", "finding"), findings, limit),
    ]
    return f"<div class='weightprint'>{drawn}{''.join(tables)}</div>"


def lines(
    checkpoint: Checkpoint,
    anatomy: Anatomy | None = None,
    noticed: Sequence[Finding] = (),
    *,
    everything: bool = False,
    tensors: bool = False,
    pen: Pen | None = None,
) -> Iterator[Text]:
    """What a person sees, line by line, of the files, the model in them and findings beside those of the two.

    `everything` lifts the limits on how much of each; `tensors` says instead where every canonical tensor sits.
    """
    pen = pen or Pen()
    if tensors and anatomy is not None:
        rows = tensor_rows(anatomy)
        yield from table(pen, TENSORS, rows, len(rows), (0, 2, 3, 4, 5))
    else:
        yield from _whole(checkpoint, anatomy, pen, 10**9 if everything else None)
    yield from map(finding_text, noticed)


def _whole(checkpoint: Checkpoint, anatomy: Anatomy | None, pen: Pen, limit: int | None) -> Iterator[Text]:
    """`limit`: how many lines of each table; None: what a screen holds."""
    source = checkpoint.source if anatomy is None else anatomy.source
    title = f"{escape(source, None)}: {_headline(checkpoint, anatomy)}"
    titles = [title] if len(title) <= pen.width else title.rsplit(": ", 1)
    yield from (pen.line((line, "bold")) for line in (*titles, ""))
    if anatomy is not None:
        yield from anatomy_lines(anatomy, pen)
    if len(checkpoint.files) > 1 or limit:
        files = [(escape(f.name), byte_count(f.nbytes), f"{f.n_tensors:,}") for f in checkpoint.files]
        yield from table(pen, ("file", "size", "tensors"), files, limit or _FILES)
    if anatomy is not None:
        yield from unmapped(anatomy, pen, everything=limit is not None)
    if anatomy is None or limit:
        kinds = [(name, f"{n:,}", count(p), byte_count(b)) for name, n, p, b in dtypes(checkpoint)]
        yield from table(pen, ("dtype", "tensors", "parameters", "bytes"), kinds, limit or _LINES)
        yield from table(pen, _LAYOUT, pattern_rows(layout(checkpoint)), limit or _LINES, (0, 1, 2))
    keys = max((len(escape(key, 40)) for key in checkpoint.metadata), default=0)
    room = limit or max(30, pen.width - keys - 3)
    metadata = [(escape(key, 40), escape(value, room)) for key, value in checkpoint.metadata.items()]
    if metadata:
        yield from table(pen, ("metadata", ""), metadata, limit or _METADATA, (0, 1))
    yield from map(finding_text, _findings(checkpoint, anatomy)[: limit or _LINES])


def _findings(checkpoint: Checkpoint, anatomy: Anatomy | None) -> tuple[Finding, ...]:
    return checkpoint.findings if anatomy is None else (*checkpoint.findings, *anatomy.findings)


def _headline(checkpoint: Checkpoint, anatomy: Anatomy | None) -> str:
    n = checkpoint.n_parameters
    if anatomy is not None:
        n = anatomy.weights.n_parameters
    files = len(checkpoint.files)
    return (
        f"{checkpoint.n_tensors:,} tensor{'s' * (checkpoint.n_tensors != 1)}, {count(n)} parameters, "
        f"{byte_count(checkpoint.n_bytes)} in {files:,} file{'s' * (files != 1)}"
    )
