"""One stack under one row of the table: its sizes are measured, its tensors cut, and what doesn't fit is told by name.

A fused q|k|v is split by what reads it: the rows of q in a block are the columns of that block's o. Layers may differ
in them (pruned models, OpenELM), so blocks are sorted by their o before a fused tensor of theirs is cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from weightprint.anatomy.cut import Piece, canonical_shape, cut, fits
from weightprint.anatomy.family import Stack
from weightprint.anatomy.geometry import Sizes, TensorKind, expert_count, measure
from weightprint.anatomy.names import Entry, Member, Shape
from weightprint.anatomy.roles import matrix_of

_QKV = frozenset({"q", "k", "v"})


@dataclass(slots=True)
class Group:
    """Tensors of one kind: ``members`` are (block, expert, name). ``entry`` is None for buffers."""

    entry: Entry | None
    shape: Shape
    members: list[Member]
    pieces: list[Piece]

    @property
    def roles(self) -> tuple[str, ...]:
        """What the table says it holds."""
        return self.entry.roles if self.entry else ("fixed",)


@dataclass(slots=True)
class FittedStack:
    """One stack of a row at a place: what fits, cut, and what doesn't, told by name.

    Attributes:
        stack: the row's stack.
        front: what its tensors' names begin with.
        first: the lowest block number.
        sizes: the stack's geometry, and notes on it.
        inside: what it holds inside blocks.
        outside: what it holds outside them.
        misfits: names whose shapes don't fit, and why.
    """

    stack: Stack
    front: str
    first: int
    sizes: Sizes
    inside: list[Group]
    outside: list[Group]
    misfits: list[str]


def fit(stack: Stack, front: str, inside: list[Group], outside: list[Group], config: Mapping[str, Any]) -> FittedStack:
    """Measures a stack and cuts its tensors."""
    blocks = {block for g in inside for block, _, _ in g.members}
    routers = [g.shape[0] for g in inside if g.roles == ("router",) and g.shape]
    many = expert_count(stack.name, routers, config)
    seen = [s for g in inside for s in _seen(g, many)]
    sizes = measure(stack.name, len(blocks), seen, [s for g in outside for s in _seen(g, many)], config)
    part = FittedStack(stack, front, min(blocks, default=0), sizes, [], [], [])
    rows_of: dict[str, set[int]] = defaultdict(set)
    made_inside = [g for g, of_block in _by_queries(inside, sizes) if _cut(g, of_block, part, rows_of)]
    made_outside = [g for g in outside if _cut(g, sizes, part, rows_of)]
    roles = {role for g in outside for role in g.roles}
    part.inside = [g for g in made_inside if _fits(g, sizes.geometry.hidden, part, rows_of)]
    # Embeddings of another width than the blocks' stand before a projection of their own.
    hidden = None if "embedding_in" in roles else sizes.geometry.hidden
    part.outside = [g for g in made_outside if _fits(g, hidden, part, rows_of)]
    return part


def _seen(group: Group, experts: int | None) -> list[TensorKind]:
    """What measuring needs to know of a group; nothing for biases of matrices."""
    if group.entry is None:
        name = group.members[0][2]
        return [TensorKind(("fixed",), group.shape, len(group.members))] if name.endswith("rope.freqs") else []
    if any(matrix_of(role) != role for role in group.roles):
        return []
    inner = canonical_shape(group.entry.cell, group.shape, experts)
    if inner is None:
        return []
    numbers = [e for _, e, _ in group.members if e is not None]
    many = inner[1] if inner[1] is not None else max(numbers) + 1 if numbers else None
    return [TensorKind(group.roles, inner[0], len(group.members), many)]


def _by_queries(groups: list[Group], sizes: Sizes) -> list[tuple[Group, Sizes]]:
    """Groups with the sizes of their blocks; those that hold q, k and v are parted where blocks differ in rows of q."""
    reads: dict[int, int] = {}
    for g in groups:
        if g.roles == ("o",) and g.entry and len(g.shape) == 2:
            reads.update((block, g.shape[0 if g.entry.cell.transposed else 1]) for block, _, _ in g.members)
    made: list[tuple[Group, Sizes]] = []
    for g in groups:
        if len(g.roles) < len(_QKV) or not {matrix_of(role) for role in g.roles} >= _QKV:
            made.append((g, sizes))
            continue
        parted: dict[int | None, list[Member]] = defaultdict(list)
        for member in g.members:
            parted[reads.get(member[0], sizes.q_rows)].append(member)
        made += [(replace(g, members=m), replace(sizes, q_rows=q_rows)) for q_rows, m in parted.items()]
    return made


def _cut(group: Group, sizes: Sizes, part: FittedStack, rows_of: dict[str, set[int]]) -> bool:
    """Cuts a group and remembers its matrices' rows; False, and a misfit, where that can't be."""
    if group.entry is None:
        group.pieces = [Piece("fixed", group.shape)]
        return True
    pieces = cut(group.entry.cell, group.roles, group.shape, sizes)
    if isinstance(pieces, str):
        part.misfits.append(_misfit(group, pieces))
        return False
    group.pieces = pieces
    for piece in pieces[: len(group.roles)]:
        if piece.shape and matrix_of(piece.role) == piece.role:
            rows_of[piece.role].add(piece.shape[0])
        if piece.role == "down" and len(piece.shape) == 2:
            rows_of["down.columns"].add(piece.shape[1])
    return True


def _fits(group: Group, hidden: int | None, part: FittedStack, rows_of: dict[str, set[int]]) -> bool:
    """False, and a misfit, where a group's shape contradicts its roles."""
    pieces = group.pieces[: len(group.roles)]
    why = next(filter(None, (fits(piece, hidden, rows_of) for piece in pieces)), None)
    if why is not None:
        part.misfits.append(_misfit(group, why))
    return why is None


def _misfit(group: Group, why: str) -> str:
    more = len(group.members) - 1
    return f"{group.members[0][2]}{f' and {more} more' if more else ''}: {why}"
