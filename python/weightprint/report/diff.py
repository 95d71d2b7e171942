"""A diff shown: what is no number any more first, then how much changed by block and role, then the tensors that
changed most. One line for every tensor stands behind that where it is asked for."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from weightprint.anatomy.role_order import role_place
from weightprint.diff.diff import STATUSES, Diff
from weightprint.report.format import byte_count, number, padded, percent, plain_table
from weightprint.report.html import LIMIT, html_table
from weightprint.report.pen import NO_BREAK, Pen, tail
from weightprint.report.terminal import plain
from weightprint.results.table import shape_text
from weightprint.util.escape import escape
from weightprint.util.ranges import ranges

__all__ = ["headline", "html", "is_number", "lines", "order", "table", "text"]

Row = dict[str, Any]

_RULES = 4  # by which names differ, that are printed
_MOST = 10  # tensors that changed most
_EACH = 3  # tensors of every other status
_ROLES, _TOTAL = 26, 9  # columns of the strip beside its cells
_HEADINGS = ("tensor", "status", "dtype", "shape", "relative change", "cosine", "differ", "max |b − a|")
_WORDS = {"only_a": "only in A", "only_b": "only in B", "re_encoded": "re-encoded", "not_read": "not read"}
_SIDES = (("shape_a", "dtype_a"), ("shape_b", "dtype_b"))

#: Relative change below which a cell has this shade; the last has the rest.
_SHADES = ((0.01, "░", "< 1 %"), (0.1, "▒", "< 10 %"), (0.5, "▓", "< 50 %"), (math.inf, "█", "more"))
#: Status → its mark in the strip. Of several in a cell, the first in this order stands for all.
_MARKS = {"broken": ("!", "NaN, Inf"), "not_read": ("?", "not read"), "reshaped": ("x", "other shape")}
_MARKS |= {"only_a": ("<", "only in A"), "only_b": (">", "only in B"), "re_encoded": ("~", "re-encoded")}
_MARKS |= {"same": ("·", "same")}
_WORST = "!█▓▒░?x<>~· "


def text(found: Diff, *, tensors: bool = False, everything: bool = False) -> str:
    """The report as plain text of 80 columns; the lines of single tensors, where they are asked for, as long as they
    are."""
    return plain(lines(found, Pen(80), tensors=tensors, everything=everything))


def lines(found: Diff, pen: Pen, *, tensors: bool = False, everything: bool = False) -> Iterator[Text]:
    """What a person sees. `tensors`: a line for every tensor that is not the same; `everything`: for every tensor."""
    rows = found.table.take(order(found, everything=True)).to_records()
    for label, source in (("A", found.a), ("B", found.b)):
        yield pen.line((f"{label}  ", "dim"), (tail(escape(source, None), max(pen.width - 3, 8)), ""))
    if not found.same or everything:
        broken = [row for row in rows if _broken(row)]
        yield from (Text(), *_listed(broken, pen), Text()) if broken else (Text(),)
        yield from _strips(rows, pen)
        if tensors or everything:
            cells = [_cells(row) for row in rows if everything or row["status"] != "same"]
            table = plain_table(_HEADINGS, cells, (0, 1, 2, 3)).splitlines()
            yield from (pen.line((line, "")) for line in table)
        else:
            yield from _listed([row for row in rows if not _broken(row)], pen)
        yield Text()
    for rule in _renamed(found):
        yield from pen.wrapped(rule)
    yield pen.line((headline(found), "bold"))


# By block and role


def _strips(rows: Sequence[Row], pen: Pen) -> Iterator[Text]:
    """Of every stack its roles, with a cell for each block, and what lies outside blocks."""
    placed: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        placed[row["stack"] or ""].append(row)
    loose = placed.pop("", [])
    for stack, some in sorted(placed.items()):
        blocks = sorted({row["block"] for row in some if row["block"] is not None})
        title = escape(stack) + f", blocks {ranges(blocks)}" * bool(blocks)
        yield from (pen.line((title, "bold")), *pen.wrapped(_legend(some), "  ", "dim"))
        yield from _strip(some, blocks, pen)
        outside = _by_role(row for row in some if row["block"] is None)
        if outside:
            words = ", ".join(f"{escape(role)} {_total(same)}" for role, same in outside)
            yield from pen.wrapped(words, "  outside blocks: ")
        yield Text()
    if loose:
        counts = Counter(row["status"] for row in loose)
        words = ", ".join(f"{counts[s]:,} {_WORDS.get(s, s)}" for s in STATUSES if counts[s])
        yield from (*pen.wrapped(f"{words}: their place in the model is not known", "  "), Text())


def _strip(rows: Sequence[Row], blocks: Sequence[int], pen: Pen) -> Iterator[Text]:
    """One line for the roles that changed alike: a cell for each block; where there are too many, for the one of
    several that changed most."""
    each = -(-len(blocks) // max(pen.width - _ROLES - _TOTAL - 2, 8))
    alike: dict[str, list[tuple[str, list[Row]]]] = defaultdict(list)
    for role, same in _by_role(row for row in rows if row["block"] is not None):
        at: dict[int, list[Row]] = defaultdict(list)
        for row in same:
            at[row["block"]].append(row)
        cells = [_cell(at[block]) for block in blocks]
        groups = (cells[k : k + each] for k in range(0, len(cells), each or 1))
        alike["".join(min(group, key=_WORST.index) for group in groups)].append((role, same))
    for cells_of, roles in alike.items():
        names = escape(", ".join(role for role, _ in roles), _ROLES - 3)
        total = _total([row for _, same in roles for row in same])
        yield pen.line((f"  {names:<{_ROLES - 2}}  ", ""), (cells_of, "cyan"), (f"  {total}", ""))


def _by_role(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """In the order of the drawing; those of experts apart."""
    roles: dict[tuple[int, str, bool], list[Row]] = defaultdict(list)
    for row in rows:
        roles[(*role_place(row["role"]), row["expert"] is not None)].append(row)
    return [("expert " * expert + role, same) for (_, role, expert), same in sorted(roles.items(), key=lambda x: x[0])]


def _kind(row: Row) -> str:
    return "broken" if _broken(row) else row["status"]


def _cell(rows: Sequence[Row]) -> str:
    kinds = {_kind(row) for row in rows}
    if "broken" not in kinds and "changed" in kinds:
        relative = _relative(rows)
        return next(shade for below, shade, _ in _SHADES if relative < below or below == math.inf)
    return next((mark for kind, (mark, _) in _MARKS.items() if kind in kinds), " ")


def _legend(rows: Sequence[Row]) -> str:
    kinds = {_kind(row) for row in rows}
    shades = [f"{shade} {words}" for _, shade, words in _SHADES] * ("changed" in kinds)
    marks = [f"{mark} {words}" for kind, (mark, words) in _MARKS.items() if kind in kinds]
    return "  ".join(words.replace(" ", NO_BREAK) for words in [*shades, *marks])


def _relative(rows: Sequence[Row]) -> float:
    """‖B − A‖ / ‖A‖ of all these together, as far as it is a number."""
    known = [(row["relative"], row["l2_a"]) for row in rows if row["relative"] is not None and row["l2_a"] is not None]
    dd = math.fsum((relative * norm) ** 2 for relative, norm in known)
    aa = math.fsum(norm**2 for _, norm in known)
    return math.sqrt(dd / aa) if aa > 0 else 0.0


def _total(rows: Sequence[Row]) -> str:
    kinds = {_kind(row) for row in rows}
    if "changed" in kinds:
        return percent(_relative(rows))
    return next(words for kind, (_, words) in _MARKS.items() if kind in kinds)


# Tensor by tensor


def _listed(rows: Sequence[Row], pen: Pen) -> Iterator[Text]:
    """What is no number any more, the tensors that changed most, and the first of every other kind."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[_kind(row)].append(row)
    by_kind["changed"].sort(key=lambda row: -(row["relative"] if row["relative"] is not None else math.inf))
    kinds = [kind for kind in ("broken", *STATUSES) if by_kind[kind] and kind != "same"]
    chosen = [row for kind in kinds for row in by_kind[kind][: _MOST if kind in ("broken", "changed") else _EACH]]
    cells = [tuple(map(pen.text, _short(row, pen.width >= 72))) for row in chosen]
    wide = max(pen.width - max((len(says) for _, says in cells), default=0) - 2, 16)
    wide = min(wide, max((cell_len(name) for name, _ in cells), default=0))
    for row, (name, says) in zip(chosen, cells, strict=True):
        style = "bold red" if _broken(row) else ""
        yield pen.line((f"{padded(tail(name, wide), wide)}  {says}".rstrip(), style))
    hidden = sum(map(len, by_kind.values())) - len(by_kind["same"]) - len(chosen)
    if hidden:
        yield pen.line((f"… and {hidden:,} more: --tensors lists every one", "dim"))


def _short(row: Row, wide: bool) -> tuple[str, str]:
    """A tensor and what became of it, in a few words."""
    name, status, _, shape, _, cosine, differ, _ = _cells(row)
    if row["status"] == "changed" and row["relative"] is not None:
        how = f", {row['order']}" if row["order"] else ""
        how += f", A's times {row['factor']:.7g}" if row["factor"] is not None else ""
        return name, f"{percent(row['relative']):>7}  cosine {cosine}" + f"  {differ:>6} differ" * wide + how
    return name, status if row["status"] == "changed" else f"{status}  {shape}"


def _cells(row: Row) -> tuple[str, ...]:
    renamed = row["name_a"] not in (None, row["name"])
    name = escape(row["name"]) + (f" (A: {escape(row['name_a'])})" if renamed else "")
    share = None if row["n_differ"] is None or not row["numel"] else 100 * row["n_differ"] / row["numel"]
    return (
        name,
        ", ".join(
            filter(None, (_WORDS.get(row["status"], row["status"]), row["order"], row["layout"], _nonfinite(row)))
        ),
        _both(row["dtype_a"], row["dtype_b"]),
        _both(*(None if row[dtype] is None else shape_text(row[shape], "×") for shape, dtype in _SIDES)),
        number(row["relative"]),
        "-" if row["cosine"] is None else f"{row['cosine']:.6f}",
        "-" if share is None else f"{share:.3g} %",
        number(row["max_difference"]),
    )


def _both(a: str | None, b: str | None) -> str:
    """``BF16``, or ``F32 → BF16`` where they differ; a dash for the side that hasn't got the tensor."""
    return a or "-" if a == b else f"{a or '-'} → {b or '-'}"


def _broken(row: Row) -> bool:
    """NaN or infinities on one side that the other has not: no number says how far that is."""
    return row["relative"] is None and bool(row["n_nonfinite_a"] or row["n_nonfinite_b"])


def _nonfinite(row: Row) -> str:
    return "" if not _broken(row) else f"NaN or Inf {row['n_nonfinite_a']:,} → {row['n_nonfinite_b']:,}"


def order(found: Diff, *, everything: bool) -> list[int]:
    """Which rows are worth a line: what is no number any more, then by status, in natural order within each."""
    place = {status: k for k, status in enumerate(STATUSES)}
    columns = (found.table[name] for name in ("status", "relative", "n_nonfinite_a", "n_nonfinite_b"))
    keys = [
        (is_number(relative) or not (in_a or in_b), place[status])
        for status, relative, in_a, in_b in zip(*columns, strict=True)
    ]
    same = place["same"]
    return sorted((k for k in range(len(keys)) if everything or keys[k][1] != same), key=keys.__getitem__)


def is_number(value: float | None) -> bool:
    """Of a relative change: NaN in a column is None in a row."""
    return value is not None and not math.isnan(value)


def headline(found: Diff) -> str:
    """One line: how many tensors of each kind."""
    both = zip(found.table["order"], found.table["status"], strict=True)
    alone = sum(moved is not None and status == "changed" for moved, status in both)
    orders = {"changed": f" ({alone:,} by order alone)" if alone else ""}
    counts = ", ".join(f"{n:,} {_WORDS.get(s, s)}{orders.get(s, '')}" for s, n in found.counts.items())
    renamed = sum(n for _, n in found.renamed)
    names = f"; {renamed:,} {'name differs' if renamed == 1 else 'names differ'}" if renamed else ""
    turned = f"; {found.transposed:,} stored transposed" if found.transposed else ""
    same = "the same: " if found.same else ""
    return f"{same}{counts}{names}{turned} ({byte_count(found.bytes_read)} read)"


def _renamed(found: Diff) -> list[str]:
    """A line for each rule that several names follow, the commonest first."""
    rules = [(rule, n) for rule, n in found.renamed if n > 1]
    return [f"names: {escape(rule)} ({n:,} tensors)" for rule, n in rules[:_RULES]]


def html(found: Diff) -> str:
    """The strip of roles by blocks and the first tensors that are not the same, as HTML."""
    from weightprint.report.page.heat_strip import change_strip
    from weightprint.report.page.page import figure, fragment, trusted

    drawn = change_strip(found)
    return fragment(*([figure(drawn, drawn.title)] if drawn else []), trusted(table(found)))


def table(found: Diff, limit: int | None = LIMIT, *, everything: bool = False) -> str:
    """An HTML table of what is not the same, the first `limit` tensors of it."""
    shown = order(found, everything=everything)
    cells = [_cells(row) for row in found.table.take(shown[:limit]).to_records()]
    return html_table(f"{found.a} → {found.b}: {headline(found)}", _HEADINGS, cells, limit, len(shown))
