"""Statistics shown: a table grouped by layer on a terminal, one line per tensor elsewhere, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weightprint.report.format import byte_count, count, number, plain_table, seconds
from weightprint.report.html import LIMIT, html_table
from weightprint.results.table import StatsTable, shape_text
from weightprint.util.escape import escape
from weightprint.util.name_patterns import split_layer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from weightprint.scan.result import Scan

__all__ = ["columns_to_show", "fitting", "plain", "rich_table", "summary", "table_html"]

_KEYS = ("stack", "part", "role", "block", "expert", "component", "blocks")
_TEXT = frozenset({"name", "dtype", "shape", "file", "digest", "weight", "scheme", *_KEYS})


def columns_to_show(table: StatsTable, *, everything: bool = False) -> list[str]:
    """Column names for people: the usual ones, those that were asked for, and trouble only where there is some."""
    if everything:
        return [name for name in table.names if name != "n"]
    usual: tuple[str, ...] = ("name", "dtype", "shape", "mean", "std", "min", "max", "kurtosis", "sparsity")
    if "name" not in table.names:  # pooled: what by, from how many blocks and tensors
        keys = [name for name in _KEYS if name in table.names and any(value is not None for value in table[name])]
        keys = [name for name in keys if name != "blocks" or "block" not in keys]
        usual = (*keys, "n_tensors", "numel", *usual)
    trouble = [name for name in ("n_nan", "n_posinf", "n_neginf") if name in table.names and any(table[name])]
    asked = [name.format(axis) for axis in ("row", "column") for name in ("{}_l2_min", "{}_l2_max", "dead_{}s")]
    return [name for name in (*usual, *trouble, *asked, "digest") if name in table.names]


def cell(column: str, value: Any) -> str:
    """One value as people read it; not escaped for HTML."""
    if column == "shape":
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


def plain(table: StatsTable, columns: Sequence[str]) -> str:
    """Aligned text, one line per tensor with its whole name: for pipes and files."""
    cells = [[cell(name, value) for value in table.column(name).tolist()] for name in columns]
    left = [k for k, name in enumerate(columns) if name in _TEXT]
    return plain_table([_heading(name) for name in columns], list(zip(*cells, strict=True)), left)


def fitting(table: StatsTable, columns: Sequence[str], width: int) -> list[str]:
    """The columns that fit a terminal of that width; those that matter least go first, and trouble never goes."""
    widths = {
        name: max([len(_heading(name)), *(len(cell(name, value)) for value in table.column(name).tolist())])
        for name in columns
    }
    if "name" in widths:
        widths["name"] = _name_width(table)
    if "name" not in widths and len(set(table["stack"])) == 1:
        widths["stack"] = -2  # not drawn
    shown = list(columns)
    for name in (
        "kurtosis",
        "sparsity",
        "row_l2_max",
        "column_l2_max",
        "row_l2_min",
        "column_l2_min",
        "n_tensors",
        "dtype",
        "blocks",
        "numel",
        "max",
        "min",
    ):
        if sum(widths[column] + 2 for column in shown) > width and name in shown:
            shown.remove(name)
    return shown


def _name_width(table: StatsTable) -> int:
    """Room for the longest name behind its layer, within reason; longer ones are folded."""
    shown = (len(escape(rest)) + 2 if layer else len(escape(rest)) for layer, rest in map(split_layer, table["name"]))
    return min(36, max(shown, default=4))


def rich_table(table: StatsTable, columns: Sequence[str]) -> RenderableType:
    """A table for a terminal, with a heading line per layer."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        if name in _TEXT:
            fold = name == "name"
            width = _name_width(table) if fold else None
            out.add_column(_heading(name), overflow="fold", no_wrap=not fold, min_width=width)
        else:
            out.add_column(_heading(name), justify="right", no_wrap=True)
    group = ""
    for row in table.select(columns).rows():
        layer, rest = split_layer(row["name"])
        if layer != group:
            group = layer
            if layer:
                out.add_row(Text(escape(layer), style="bold cyan"))
        cells = [cell(name, value) for name, value in row.items()]
        if layer:
            cells[0] = "  " + escape(rest)
        style = "red" if row.get("n_nan") or row.get("n_posinf") or row.get("n_neginf") else ""
        out.add_row(*(Text(text) for text in cells), style=style)
    return out


def pooled_table(table: StatsTable, columns: Sequence[str]) -> RenderableType:
    """Pooled rows for a terminal, under a heading per stack where there are several, in the colours of the drawing."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in columns if name != "stack"]
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        out.add_column(_heading(name), justify="left" if name in _TEXT else "right", no_wrap=True)
    stacks = list(table["stack"])
    for k, row in enumerate(table.select(columns).rows()):
        if len(set(stacks)) > 1 and (not k or stacks[k] != stacks[k - 1]):
            out.add_row(Text(escape(stacks[k] or "without a place"), style="bold"))
        cells = [Text(cell(name, value)) for name, value in row.items()]
        cells[0].stylize(_part_style(row))
        trouble = row.get("n_nan") or row.get("n_posinf") or row.get("n_neginf")
        out.add_row(*cells, style="red" if trouble else "")
    return out


def _part_style(row: dict[str, Any]) -> str:
    from weightprint.anatomy.roles import role_of
    from weightprint.report.drawing import PART_STYLE

    part = role_of(row["role"].split("+")[0]).part if row.get("role") else row.get("part") or ""
    return PART_STYLE.get(part, "")


def summary(scan: Scan) -> str:
    """One line under the table: how much was measured, how fast, and the digest if there is one."""
    rate = byte_count(scan.bytes_read / scan.seconds) + "/s" if scan.seconds > 0 else "-"
    text = (
        f"{scan.n_tensors:,} tensors, {count(scan.n_parameters)} parameters, {byte_count(scan.bytes_read)} "
        f"in {seconds(scan.seconds)} ({rate})"
    )
    return text + (f", digest {scan.digest}" if scan.digest else "")


def table_html(table: StatsTable) -> str:
    """The first rows as HTML."""
    columns = columns_to_show(table) if "mean" in table.names else list(table.names)
    part = table.take(range(min(len(table), LIMIT))).select(columns)
    rows = [[cell(name, value) for name, value in row.items()] for row in part.rows()]
    what = "tensors" if "name" in table.names else "groups"
    return html_table(f"{len(table):,} {what}", [_heading(name) for name in columns], rows, len(table))


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
