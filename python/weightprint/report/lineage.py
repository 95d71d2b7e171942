"""A lineage shown: each group as an indented tree, merges with their weights, and what has no place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from weightprint.report.html import html_list, html_table
from weightprint.util.escape import escape
from weightprint.util.escape import html as safe

if TYPE_CHECKING:
    from weightprint.results.lineage import Edge, Lineage

__all__ = ["html", "sentence", "text"]

_KINDS = {
    "copy": "nothing new beyond .03 % of the weights, up to order, basis and factors",
    "undirected": "or the other way round",
}


def sentence(lineage: Lineage) -> str:
    """What a person reads first."""
    n, groups = len(lineage.models), len(lineage.groups)
    origins = "no two of them share an origin" if not groups else f"{groups} origin{'s' if groups > 1 else ''}"
    more = [
        f"{count} {word if count == 1 else words}"
        for count, word, words in (
            (len(lineage.unseen), "unseen ancestor", "unseen ancestors"),
            (len(lineage.merges), "merge", "merges"),
            (len(lineage.unplaced), "model without a place", "models without a place"),
        )
        if count
    ]
    return f"{n} models: {', '.join([origins, *more])}."


def text(lineage: Lineage) -> str:
    """The report as plain text."""
    lines = [sentence(lineage)]
    for group, root in zip(lineage.groups, lineage.roots, strict=True):
        lines += ["", f"{escape(root)}  (root of {len(group)} models)", *_below(lineage, root, "", {root})]
    if lineage.unplaced:
        lines += ["", "Without a place:"]
        lines += [f"  {escape(row.model)}: {escape(row.reason, None)}" for row in lineage.unplaced]
    lines += [
        "",
        "Lengths are squared sizes of what is new, over the size of the weights; support: share of resamples.",
    ]
    return "\n".join(lines) + "\n"


def _below(lineage: Lineage, name: str, indent: str, above: set[str]) -> Iterator[str]:
    edges = [e for e in lineage.children(name) if e.kind != "merge" or _first(lineage, e)]
    for k, edge in enumerate(edges):
        last = k == len(edges) - 1
        yield f"{indent}{'└─ ' if last else '├─ '}{escape(edge.child)}  {_told(lineage, edge)}"
        if edge.child not in above:
            yield from _below(lineage, edge.child, indent + ("   " if last else "│  "), {*above, edge.child})


def _first(lineage: Lineage, edge: Edge) -> bool:
    """A merge is drawn once: below the parent with the largest weight."""
    parents = lineage.parents(edge.child)
    return edge == max(parents, key=lambda e: (e.weight or 0.0, e.parent))


def _told(lineage: Lineage, edge: Edge) -> str:
    if edge.kind == "merge":
        merge = next(m for m in lineage.merges if m.child == edge.child)
        mix = " + ".join(
            escape(e.parent) if e.weight is None else f"{e.weight:.2f} {escape(e.parent)}"
            for e in lineage.parents(edge.child)
        )
        return f"{merge.method}: {mix}"
    length = "" if edge.length is None else f"{edge.length:.3g}"
    span = "" if edge.low is None or edge.high is None else f" [{edge.low:.3g}, {edge.high:.3g}]"
    support = "" if edge.support is None else f", support {edge.support:.0%}"
    kind = _KINDS.get(edge.kind)
    return kind if edge.kind == "copy" and kind else f"{length}{span}{support}" + (f" ({kind})" if kind else "")


def html(lineage: Lineage) -> str:
    """Tables of edges and of what has no place."""
    rows = [
        [
            e.parent,
            e.child,
            e.kind,
            *("" if x is None else f"{x:.3g}" for x in (e.length, e.low, e.high, e.support, e.weight)),
        ]
        for e in lineage.edges
    ]
    heads = ["parent", "child", "kind", "length", "low", "high", "support", "weight"]
    parts = [f"<p>{safe(sentence(lineage), None)}</p>", html_table("Who comes from whom", heads, rows)]
    parts.append(html_list("Without a place", [f"{row.model}: {row.reason}" for row in lineage.unplaced]))
    return f"<div class='weightprint'>{''.join(parts)}</div>"
