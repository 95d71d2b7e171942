"""The tree of origin of many models, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from weightprint.results.saving import json_value, to_json, write_atomically
from weightprint.results.shown import Shown
from weightprint.results.table import form_of
from weightprint.util.escape import escape

__all__ = ["Edge", "Kind", "Lineage", "Merge", "Unplaced"]

SCHEMA_VERSION = 1

#: ``descent``; ``merge``: one of several parents; ``copy``: nothing new beyond .03 % of the weights, up to order,
#: basis and factors (`compare` says whether values are equal), so which of the two came first shows in nothing but what
#: stands elsewhere; ``undirected``: nothing tells which came first.
Kind = Literal["descent", "merge", "copy", "undirected"]


@dataclass(frozen=True, slots=True)
class Edge:
    """From a parent to its child.

    Attributes:
        parent, child: names of models, or of unseen ancestors.
        length: what is new in the child, about its squared size over that of the weights (-2 log cosine); None where it
            can't be told.
        low, high: 95 % of draws of the blocks.
        support: share of the draws in which the child hangs from this parent; None for merges, which are proved.
        kind: see `Kind`.
        weight: of a merge's parent, as the recipe has it; else None.
    """

    parent: str
    child: str
    length: float | None
    low: float | None
    high: float | None
    support: float | None
    kind: Kind
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """A model that is a mix of others, by which method and how exactly (share of values up to rounding)."""

    child: str
    parents: tuple[str, ...]
    method: str
    reproduces: float | None


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A model without a place in a tree, and why."""

    model: str
    reason: str


@dataclass(frozen=True)
class Lineage(Shown):
    """What `lineage` found. Frozen; prints as a tree; ``to_dict`` is the JSON contract.

    Attributes:
        models: all that were named.
        groups: the models that share an origin, each group's root first where it is a model.
        roots: of each group: a model, or an unseen ancestor.
        edges: from parents to children.
        unseen: ancestors that must have been and are not among the models.
        merges: models with several parents.
        unplaced: what has no place, with the reason.
        seconds: it took.
        version: of weightprint.
        seed: that was given.
        cosines: of every two models, in the order of `models`, the mean cosine of the matrices that both hold, in one
            order and basis: 1 where they are the same, 0 where no common origin was found, None where it can't be told.
        digests: of all tensors of each model, as `compare` has it; None where it was not made.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> names = ["parent", "finetune", "moe", "stranger"]
        >>> found = weightprint.lineage([f"weightprint-demo/{name}" for name in names])
        >>> [(edge.parent, edge.child) for edge in found.edges]
        [('weightprint-demo/parent', 'weightprint-demo/finetune'), ('weightprint-demo/parent', 'weightprint-demo/moe')]
        >>> [row.model for row in found.unplaced]
        ['weightprint-demo/stranger']
    """

    _report = "lineage"

    models: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    roots: tuple[str, ...]
    edges: tuple[Edge, ...]
    unseen: tuple[str, ...]
    merges: tuple[Merge, ...]
    unplaced: tuple[Unplaced, ...]
    seconds: float
    version: str
    seed: int = 0
    cosines: tuple[tuple[float | None, ...], ...] = ()
    digests: tuple[str | None, ...] = ()

    def parents(self, name: str) -> tuple[Edge, ...]:
        """The edges that lead to a model or an unseen ancestor."""
        return tuple(edge for edge in self.edges if edge.child == name)

    def children(self, name: str) -> tuple[Edge, ...]:
        """The edges that lead from it."""
        return tuple(edge for edge in self.edges if edge.parent == name)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract: keys in its order, only finite numbers."""
        return dict(json_value({"schema_version": SCHEMA_VERSION, **asdict(self)}))

    @classmethod
    def from_dict(cls, out: Mapping[str, Any]) -> Lineage:
        """The lineage whose `to_dict` this is."""
        return cls(
            models=tuple(out["models"]),
            groups=tuple(tuple(group) for group in out["groups"]),
            roots=tuple(out["roots"]),
            edges=tuple(Edge(**row) for row in out["edges"]),
            unseen=tuple(out["unseen"]),
            merges=tuple(Merge(**{**row, "parents": tuple(row["parents"])}) for row in out["merges"]),
            unplaced=tuple(Unplaced(**row) for row in out["unplaced"]),
            seconds=out["seconds"],
            version=out["version"],
            seed=out.get("seed", 0),
            cosines=tuple(tuple(row) for row in out.get("cosines", ())),
            digests=tuple(out.get("digests", ())),
        )

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return to_json(self.to_dict(), indent)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a report to a file, whole or not at all: a page (.html), Markdown with the tree as a Mermaid drawing
        (.md, at most 60 lines), plain text (.txt), or JSON (.json).

        Raises:
            UsageError: another suffix, or `path` is a folder.
            OSError: it can't be written.
        """
        form = form_of(path, {".html": "page", ".md": "markdown", ".txt": "text", ".json": "json"})
        made = self.to_json() + "\n" if form == "json" else self._reported(form)
        write_atomically(path, made.encode())

    def to_dot(self) -> str:
        """The tree for Graphviz: unseen ancestors dashed, merges with the weights of their parents."""
        number = {name: f"n{k}" for k, name in enumerate((*self.models, *self.unseen))}
        lines = ["digraph lineage {", "  rankdir=LR; node [shape=box];"]
        for name, node in number.items():
            style = ", style=dashed" if name in self.unseen else ""
            lines.append(f"  {node} [label={_quoted(name)}{style}];")
        for edge in self.edges:
            told = edge.length if edge.weight is None else edge.weight
            label = "" if told is None else f'label="{told:.3g}"'
            arrow = ", dir=none" if edge.kind == "undirected" else ""
            lines.append(f"  {number[edge.parent]} -> {number[edge.child]} [{label}{arrow}];")
        return "\n".join([*lines, "}"]) + "\n"

    def to_pandas(self) -> Any:
        """One row per edge, as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame([asdict(edge) for edge in self.edges], columns=list(Edge.__dataclass_fields__))

    def __repr__(self) -> str:
        return (
            f"<Lineage of {len(self.models)} models: {len(self.groups)} groups, {len(self.edges)} edges, "
            f"{len(self.unplaced)} not placed>"
        )


def _quoted(name: str) -> str:
    text = escape(name, None).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
