"""A lineage as Markdown: at most 60 lines, the tree as a Mermaid drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightprint.report.page.markdown import LINES, shown
from weightprint.report.tree.words import facts, headline, main_edge, rows, sentence, short_names, step_words

if TYPE_CHECKING:
    from weightprint.results.lineage import Lineage

__all__ = ["markdown"]

_BOXES = 16  # of a Mermaid drawing; more are told by the table alone
_LOST = 8


def markdown(lineage: Lineage) -> str:
    """The sentence, how sure, the drawing, every model with its parent, and what has no place."""
    head, names = headline(lineage), short_names(lineage)
    lines = [f"## {head[0].upper()}{head[1:]}", "", shown(sentence(lineage), None), ""]
    lines += [f"- **{label}**: {shown(words, None)}" for label, words in facts(lineage)]
    order = [name for name in rows(lineage) if lineage.parents(name) or lineage.children(name)]
    number = {name: str(k + 1) for k, name in enumerate(order)}
    lines += _mermaid(lineage, number) if len(order) <= _BOXES else []
    tail = ["", f"weightprint {lineage.version}, seed {lineage.seed}."]
    lost = [f"- {shown(names[gone.model])}: {shown(gone.reason)}" for gone in lineage.unplaced]
    if lost:
        hidden = len(lost) - _LOST
        tail = ["", "Without a place:", "", *lost[:_LOST], *[f"- and {hidden:,} more"] * (hidden > 0), *tail]
    if order:
        room = LINES - len(lines) - len(tail) - 5
        lines += ["", "| | model | made from | what is new, and how sure |", "| --: | :-- | :-- | :-- |"]
        lines += [f"| {number[name]} | {_row(lineage, name, names)} |" for name in order[:room]]
        lines += ["", f"… and {len(order) - room:,} more."] if len(order) > room else []
    return "\n".join([*lines, *tail]) + "\n"


def _row(lineage: Lineage, name: str, names: dict[str, str]) -> str:
    called = "an ancestor not seen" if name in lineage.unseen else shown(names[name], 60)
    if not lineage.parents(name):
        return f"{called} | | root"
    edge = main_edge(lineage, name)
    return f"{called} | {shown(names[edge.parent], 60)} | {shown(step_words(lineage, edge, names), 160)}"


def _mermaid(lineage: Lineage, number: dict[str, str]) -> list[str]:
    """Numbers in boxes: names, which anybody may choose, stand in the table."""
    if not number:
        return []
    children: dict[tuple[str, str], list[str]] = {}
    for edge in lineage.edges:
        key = number[edge.parent], _arrow(edge.kind, edge.weight)
        children.setdefault(key, []).append(number[edge.child])
    boxes = [f'  {number[name]}(["{number[name]}: not seen"])' for name in lineage.unseen if name in number]
    drawn = [f"  {parent} {arrow} {' & '.join(some)}" for (parent, arrow), some in children.items()]
    lines = ["", "```mermaid", "flowchart LR", *boxes, *drawn]
    return [*lines, "```"]


def _arrow(kind: str, weight: float | None) -> str:
    if kind == "merge":
        return "-.->" if weight is None else f'-. "{weight:.2f}" .->'
    return "---" if kind in ("undirected", "copy") else "-->"
