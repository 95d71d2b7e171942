"""Which tensor of each parent stands where a tensor of the child does: by place, block by block as the maps say.

A block of the child stands for the block of the same number, unless another block of that parent is nearer to it by
far (:func:`block_map`): layers repeated, dropped or put in another order, as a passthrough merge does. Cosines are of
the first values of every matrix, in the stored basis; of two trained blocks that are not one another's copies they are
near 0. A parent whose units or channels stand in another order is not aligned here: :func:`reordered` says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from weightprint.anatomy.place import Expert, Place
from weightprint.compare.gram import Partners
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import product, unit_rows

__all__ = ["Block", "BlockMap", "block_map", "partners", "reordered"]

Block = tuple[str, int]
#: Block of the child → block of a parent, None where it has none.
BlockMap = Mapping[Block, Block | None]

_VALUES = 2048  # of a matrix, that blocks are told by
_NEAR, _NEARER = 0.3, 0.1  # another block is meant from this cosine on, if it is so much nearer
_REORDERED = 0.5  # share of the rows looked at whose nearest row stands elsewhere


def partners(
    child: ModelView, parents: Sequence[ModelView], maps: Sequence[BlockMap]
) -> tuple[list[Partners], list[tuple[int, Tensor, Tensor]]]:
    """The child's tensors with their partners, and (parent, child's tensor, its own) of those whose shapes differ."""
    rows: list[Partners] = []
    unfit: list[tuple[int, Tensor, Tensor]] = []
    by_place = [{t.place: t for t in side.tensors.values() if t.place is not None} for side in parents]
    for tensor in child.tensors.values():
        if tensor.undecoded or not tensor.numel or (tensor.place and tensor.place.part == "fixed"):
            continue
        found: list[Tensor | None] = []
        for number, side in enumerate(parents):
            other = _partner(tensor, side, by_place[number], maps[number])
            if other is not None and (other.shape != tensor.shape or other.undecoded):
                unfit.append((number, tensor, other))
                other = None
            found.append(other)
        rows.append(Partners(tensor, tuple(found)))
    return rows, unfit


def _partner(tensor: Tensor, side: ModelView, by_place: Mapping[Place, Tensor], blocks: BlockMap) -> Tensor | None:
    place = tensor.place
    if place is None:
        other = side.tensors.get(tensor.name)
        return other if other is not None and other.place is None else None
    if place.block is not None:
        there = blocks.get((place.stack, place.block), (place.stack, place.block))
        if there is None:
            return None
        place = replace(place, stack=there[0], block=there[1])
    return by_place.get(place)


def signatures(side: ModelView) -> dict[Block, dict[tuple[str, Expert], F32]]:
    """Block → role and expert → the first values of that matrix, float32."""
    out: dict[Block, dict[tuple[str, Expert], F32]] = defaultdict(dict)
    for t in side.tensors.values():
        if t.place is not None and t.place.block is not None and t.rank2 and not t.undecoded:
            rows = side.rows(t, 0, max(1, min(t.shape[0], _VALUES // t.shape[1])))
            out[t.place.stack, t.place.block][t.place.role, t.place.expert] = rows.reshape(-1)
    return out


def block_map(
    child: Mapping[Block, Mapping[tuple[str, Expert], F32]], parent: Mapping[Block, Mapping[tuple[str, Expert], F32]]
) -> dict[Block, Block | None]:
    """Where each block of the child stands in a parent, from the `signatures` of both."""
    out: dict[Block, Block | None] = {}
    for stack in dict.fromkeys(stack for stack, _ in child):
        ours = [block for block in child if block[0] == stack]
        theirs = [block for block in parent if block[0] == stack]
        if not theirs:
            out |= dict.fromkeys(ours)
            continue
        near = _cosines([child[b] for b in ours], [parent[b] for b in theirs])
        for row, block in enumerate(ours):
            best = int(near[row].argmax())
            same = theirs.index(block) if block in theirs else None
            own = -1.0 if same is None else near[row, same]
            if near[row, best] >= _NEAR and near[row, best] > own + _NEARER:
                out[block] = theirs[best]
            else:
                out[block] = None if same is None else block
    return out


def _cosines(
    ours: Sequence[Mapping[tuple[str, Expert], F32]], theirs: Sequence[Mapping[tuple[str, Expert], F32]]
) -> F64:
    """Mean cosine over the matrices that both blocks have in one shape."""
    sums, counts = np.zeros((len(ours), len(theirs))), np.zeros((len(ours), len(theirs)))
    for key in dict.fromkeys(key for block in ours for key in block):
        sizes = {block[key].size for block in (*ours, *theirs) if key in block}
        for size in sizes:
            rows = [i for i, block in enumerate(ours) if key in block and block[key].size == size]
            columns = [j for j, block in enumerate(theirs) if key in block and block[key].size == size]
            if rows and columns:
                x = unit_rows(np.stack([ours[i][key] for i in rows]))
                y = unit_rows(np.stack([theirs[j][key] for j in columns]))
                sums[np.ix_(rows, columns)] += product(x, y.T)
                counts[np.ix_(rows, columns)] += 1
    return np.asarray(sums / np.maximum(counts, 1))


def reordered(child: ModelView, parent: ModelView, rows: Sequence[Partners], number: int) -> bool:
    """Whether rows of the child's FFNs are the parent's in another order, at the first of them that both have."""
    for row in rows:
        other, place = row.parents[number], row.child.place
        if other is None or place is None or place.role not in ("up", "gate") or not row.child.rank2:
            continue
        some = unit_rows(child.rows(row.child, 0, 64))
        near = product(some, unit_rows(parent.rows(other)).T)
        best = near.argmax(axis=1)
        moved = (best != np.arange(len(best))) & (near.max(axis=1) > _REORDERED)
        return bool(moved.mean() > _REORDERED)
    return False
