"""Statistics shown: a table grouped by layer on a terminal, one line per tensor elsewhere, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from weightprint.anatomy.place import Place
from weightprint.anatomy.role_order import drawn_at
from weightprint.anatomy.roles import role_of
from weightprint.report.drawing import PART_STYLE
from weightprint.report.format import count, number, plain_table
from weightprint.report.html import LIMIT, html_table
from weightprint.results.table import StatsTable, shape_text
from weightprint.util.escape import escape
from weightprint.util.name_patterns import split_layer
from weightprint.util.natural_order import natural_key

__all__ = ["columns_to_show", "fitting", "html", "in_order", "rich_table", "text"]

_KEYS = ("stack", "part", "role", "block", "expert", "component", "blocks")
_TROUBLE = ("n_nan", "n_posinf", "n_neginf")
#: Columns that a narrow terminal goes without, the first ones first.
_LEAST = (
    *("kurtosis", "sparsity", "row_l2_max", "column_l2_max", "row_l2_min", "column_l2_min"),
    *("n_tensors", "dtype", "blocks", "numel", "max", "min"),
)
_TEXT = frozenset({"name", "dtype", "shape", "file", "digest", "weight", "scheme", *_KEYS})


def text(table: StatsTable, *, everything: bool = False) -> str:
    """Aligned text, one line per tensor with its whole name: for pipes and files."""
    columns = columns_to_show(table, everything=everything)
    cells = [[cell(name, value) for value in table.column(name).tolist()] for name in columns]
    left = [k for k, name in enumerate(columns) if name in _TEXT]
    return plain_table([_heading(name) for name in columns], list(zip(*cells, strict=True)), left)


def html(table: StatsTable, limit: int | None = LIMIT, *, everything: bool = False) -> str:
    """The first `limit` rows as HTML."""
    columns = columns_to_show(table, everything=everything)
    part = table.take(range(len(table))[:limit]).select(columns)
    rows = [[cell(name, value) for name, value in row.items()] for row in part.rows()]
    what = "tensors" if "name" in table.names else "groups"
    return html_table(f"{len(table):,} {what}", [_heading(name) for name in columns], rows, limit, len(table))


def in_order(table: StatsTable) -> StatsTable:
    """The rows layer by layer, 2 before 10, and in each as data flows through it; what has no place comes last, by
    name. Without places all go by name."""
    names = [natural_key(name) for name in table["name"]]
    if not {"stack", "block", "role", "expert"} <= set(table.names):
        return table.take(sorted(range(len(table)), key=names.__getitem__))
    columns = (table["stack"], table["block"], table["role"], table["expert"])
    places = [
        (False, drawn_at(Place(stack, block, role.partition("+")[0], expert))) if role else (True, ())
        for stack, block, role, expert in zip(*columns, strict=True)
    ]
    return table.take(sorted(range(len(table)), key=lambda k: (places[k], names[k])))


def columns_to_show(table: StatsTable, *, everything: bool = False) -> list[str]:
    """Column names for people: the usual ones, those that were asked for, and trouble only where there is some."""
    if "mean" not in table.names:  # not the table of a scan
        return list(table.names)
    if everything:
        return [name for name in table.names if name != "n"]
    usual: tuple[str, ...] = ("name", "dtype", "shape", "mean", "std", "min", "max", "kurtosis", "sparsity")
    if "name" not in table.names:  # pooled: what by, from how many blocks and tensors
        keys = [name for name in _KEYS if name in table.names and any(value is not None for value in table[name])]
        keys = [name for name in keys if name != "blocks" or "block" not in keys]
        usual = (*keys, "n_tensors", "numel", *usual)
    trouble = [name for name in _TROUBLE if name in table.names and any(table[name])]
    asked = [name.format(axis) for axis in ("row", "column") for name in ("{}_l2_min", "{}_l2_max", "dead_{}s")]
    return [name for name in (*usual, *trouble, *asked, "digest") if name in table.names]


def cell(column: str, value: Any) -> str:
    """One value as people read it; not escaped for HTML."""
    if isinstance(value, tuple):
        return shape_text(value, "×")
    if column == "numel":
        return count(value)
    if column == "block" and value is None:
        return "outside"
    if column == "digest":
        return "-" if value is None else str(value)[:16]
    if column == "sparsity":
        return number(value) if value is None or value != value else f"{100 * value:.3g} %"
    if isinstance(value, str):
        return escape(value)
    return number(value)


def fitting(table: StatsTable, columns: Sequence[str], width: int) -> list[str]:
    """The columns that fit a terminal of that width; those that matter least go first, and trouble never goes."""
    widths = {
        name: max([len(_heading(name)), *(cell_len(cell(name, value)) for value in table.column(name).tolist())])
        for name in columns
    }
    if "name" in widths:
        widths["name"] = _name_width(table)
    if "name" not in widths and len(set(table["stack"])) == 1:
        widths["stack"] = -2  # not drawn
    shown = list(columns)
    for name in _LEAST:
        if sum(widths[column] + 2 for column in shown) > width and name in shown:
            shown.remove(name)
    return shown


def _name_width(table: StatsTable) -> int:
    """Room for the longest name behind its layer, within reason; longer ones are folded."""
    shown = (cell_len(escape(rest)) + 2 * bool(layer) for layer, rest in map(split_layer, table["name"]))
    return min(36, max(shown, default=4))


def rich_table(table: StatsTable, columns: Sequence[str]) -> Table:
    """A table for a terminal: tensors under a heading per layer; pooled rows under one per stack where there are
    several, in the colours of the drawing."""
    pooled = "name" not in table.names
    columns = [name for name in columns if not (pooled and name == "stack")]
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        if name == "name":
            out.add_column(name, overflow="fold", min_width=_name_width(table))
        else:
            out.add_column(_heading(name), justify="left" if name in _TEXT else "right", no_wrap=True)
    if pooled:
        several = len(set(table["stack"])) > 1
        heads = [(stack or "without a place") * several for stack in table["stack"]]
    else:
        heads = [split_layer(name)[0] for name in table["name"]]
    before = ""
    for head, row in zip(heads, table.select(columns).rows(), strict=True):
        if head and head != before:
            out.add_row(Text(escape(head), style="bold" if pooled else "bold cyan"))
        before = head
        cells = [Text(cell(name, value)) for name, value in row.items()]
        if pooled:
            cells[0].stylize(_part_style(row))
        elif head:
            cells[0] = Text("  " + escape(split_layer(row["name"])[1]))
        out.add_row(*cells, style="red" if any(row.get(name) for name in _TROUBLE) else "")
    return out


def _part_style(row: dict[str, Any]) -> str:
    part = role_of(row["role"].split("+")[0]).part if row.get("role") else row.get("part") or ""
    return PART_STYLE.get(part, "")


_HEADINGS = {
    "n_tensors": "tensors",
    "numel": "values",
    "n_nan": "NaN",
    "n_posinf": "+Inf",
    "n_neginf": "-Inf",
    "sparsity": "zeros",
    "dead_rows": "dead rows",
    "dead_columns": "dead cols",
    "row_l2_min": "row l2 min",
    "row_l2_max": "row l2 max",
    "column_l2_min": "col l2 min",
    "column_l2_max": "col l2 max",
}


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name)
