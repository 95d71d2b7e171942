"""A lineage shown: as text, each group as an indented tree. Page and Markdown: :mod:`weightprint.report.tree`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from weightprint.report.tree.words import main_edge, sentence, short_names, step_words
from weightprint.util.escape import escape

if TYPE_CHECKING:
    from weightprint.results.lineage import Lineage

__all__ = ["html", "markdown", "page", "text"]


def text(lineage: Lineage) -> str:
    """The report as plain text."""
    names, lines = short_names(lineage), [escape(sentence(lineage), None)]
    for group, root in zip(lineage.groups, lineage.roots, strict=True):
        lines += ["", f"{escape(names[root])}  (root of {len(group)} models)"]
        lines += _below(lineage, root, names, "", {root})
    if lineage.unplaced:
        lines += ["", "Without a place:"]
        lines += [f"  {escape(names[row.model])}: {escape(row.reason, None)}" for row in lineage.unplaced]
    lines += [
        "",
        "new: the squared size of what was added, over that of the weights [95 % of 40 draws of the layers]",
    ]
    return "\n".join(lines) + "\n"


def _below(lineage: Lineage, name: str, names: dict[str, str], indent: str, above: set[str]) -> Iterator[str]:
    edges = [edge for edge in lineage.children(name) if edge == main_edge(lineage, edge.child)]
    for k, edge in enumerate(edges):
        last = k == len(edges) - 1
        told = escape(step_words(lineage, edge, names), None)
        yield f"{indent}{'└─ ' if last else '├─ '}{escape(names[edge.child])}  {told}"
        if edge.child not in above:
            yield from _below(lineage, edge.child, names, indent + ("   " if last else "│  "), {*above, edge.child})


def html(lineage: Lineage) -> str:
    """The sentence, the tree and the map of all pairs, as one block of HTML for a notebook."""
    return str(import_module("weightprint.report.tree.page").html(lineage))


def page(lineage: Lineage) -> str:
    """The whole page."""
    return str(import_module("weightprint.report.tree.page").page(lineage))


def markdown(lineage: Lineage) -> str:
    """For issues and model cards."""
    return str(import_module("weightprint.report.tree.markdown").markdown(lineage))
