"""A diff shown: what changed first, equal tensors as a count, aligned text or HTML."""

from __future__ import annotations

from typing import Any

from weightprint.diff.diff import STATUSES, Diff
from weightprint.report.format import byte_count, number, plain_table
from weightprint.report.html import LIMIT, html_table
from weightprint.results.table import shape_text
from weightprint.util.escape import escape

__all__ = ["headline", "html", "text"]

_RULES = 4  # by which names differ, that are printed
_HEADINGS = ("tensor", "status", "dtype", "shape", "relative change", "cosine", "differ", "max |b − a|")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    renamed = row["name_a"] not in (None, row["name"])
    name = escape(row["name"]) + (f" (A: {escape(row['name_a'])})" if renamed else "")
    share = None if row["n_differ"] is None or not row["numel"] else 100 * row["n_differ"] / row["numel"]
    return (
        name,
        ", ".join(filter(None, (row["status"].replace("_", " "), row["order"], _nonfinite(row)))),
        _both(row["dtype_a"], row["dtype_b"]),
        _both(*(None if row[dtype] is None else shape_text(row[shape], "×") for shape, dtype in _SIDES)),
        number(row["relative"]),
        "-" if row["cosine"] is None else f"{row['cosine']:.6f}",
        "-" if share is None else f"{share:.3g} %",
        number(row["max_difference"]),
    )


_SIDES = (("shape_a", "dtype_a"), ("shape_b", "dtype_b"))


def _both(a: str | None, b: str | None) -> str:
    """``BF16``, or ``F32 → BF16`` where they differ; a dash for the side that hasn't got the tensor."""
    return a or "-" if a == b else f"{a or '-'} → {b or '-'}"


def _broken(row: dict[str, Any]) -> bool:
    """NaN or infinities on one side that the other has not: no number says how far that is."""
    return row["relative"] is None and bool(row["n_nonfinite_a"] or row["n_nonfinite_b"])


def _nonfinite(row: dict[str, Any]) -> str:
    return "" if not _broken(row) else f"NaN or Inf {row['n_nonfinite_a']:,} → {row['n_nonfinite_b']:,}"


def _shown(found: Diff, everything: bool) -> list[dict[str, Any]]:
    """What is worth a line: what is no number any more, then by status, in natural order within each."""
    order = {status: k for k, status in enumerate(STATUSES)}
    rows = [row for row in found.table.to_records() if everything or row["status"] != "same"]
    return sorted(rows, key=lambda row: (not _broken(row), order[row["status"]]))


def headline(found: Diff) -> str:
    """One line: how many tensors of each kind."""
    orders = {"changed": f" ({found.reordered:,} by order alone)" if found.reordered else ""}
    counts = ", ".join(f"{n:,} {s.replace('_', ' ')}{orders.get(s, '')}" for s, n in found.counts.items())
    renamed = sum(n for _, n in found.renamed)
    names = f"; {renamed:,} {'name differs' if renamed == 1 else 'names differ'}" if renamed else ""
    same = "the same: " if found.same else ""
    return f"{same}{counts}{names} ({byte_count(found.bytes_read)} read)"


def _renamed(found: Diff) -> list[str]:
    """A line for each rule that several names follow, the commonest first."""
    rules = [(rule, n) for rule, n in found.renamed if n > 1]
    return [f"names: {escape(rule)} ({n:,} tensors)" for rule, n in rules[:_RULES]]


def text(found: Diff, *, everything: bool = False) -> str:
    """Aligned text; equal tensors are only counted unless everything is asked for."""
    rows = _shown(found, everything)
    lines = [f"A  {escape(found.a)}", f"B  {escape(found.b)}", ""]
    if rows:
        lines += [plain_table(_HEADINGS, [_cells(row) for row in rows], (0, 1, 2, 3)).rstrip("\n"), ""]
    return "\n".join([*lines, *_renamed(found), headline(found), ""])


def html(found: Diff, limit: int | None = LIMIT, *, everything: bool = False) -> str:
    """An HTML table of what is not the same, the first `limit` tensors of it."""
    rows = _shown(found, everything)
    cells = [_cells(row) for row in rows[:limit]]
    return html_table(f"{found.a} → {found.b}: {headline(found)}", _HEADINGS, cells, limit, len(rows))
