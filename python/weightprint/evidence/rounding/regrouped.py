"""Do tensors of B hold the rows of A's, cut and joined another way: q, k and v fused head by head, gate and up taking
turns, ranks side by side, the layers of one role stacked, as they are or transposed?

Within one block, or over the whole model where blocks are not stored one by one, every row of the tensors that have no
equal is summed to 64 bits (:mod:`.orders`). Tensors that hold the same rows on both sides, each as often, cut another
way, are *regrouped*: rows left out, copied or added are another operation's. What is A's own tensor in another order is
told there. Of what no place is known for, one side may stand transposed: there a row is a run along another axis than
the last (of layers stacked as (layer, in, out) or (in, layer, out), say).

Read only where a first row of B's is a first row of A's, which training leaves nowhere. Of several floating-point types
all are rounded to the coarsest.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.rounding.encodings import rounded
from weightprint.evidence.rounding.orders import U64, vector_sums
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32

__all__ = ["Regrouped", "may_be_regrouped", "regrouped"]

_FEWEST = 64  # values of a tensor
_MOST = 1 << 22  # rows of one pool
#: The coarser of two types to which values of both can be rounded, and which these are.
_ROUNDED = {"BF16": {"BF16", "F32", "F64"}, "F16": {"F16", "F32", "F64"}, "F32": {"F32", "F64"}}


@dataclass(frozen=True)
class Regrouped:
    """Whose rows a tensor holds, and in words how they follow each other.

    ``values``: of each source its number of values, in the order in which they come first.
    """

    order: str
    values: Mapping[str, int]


@dataclass(frozen=True)
class _Read:
    """A tensor as vectors along one of its axes."""

    side: ModelView
    tensor: Tensor
    axis: int

    @property
    def turned(self) -> bool:
        return self.axis < len(self.tensor.shape) - 1

    @property
    def width(self) -> int:
        return self.tensor.shape[self.axis]

    @property
    def expert(self) -> bool | None:
        """Whether it is an expert's, which of several matrices without a place nobody knows."""
        if self.tensor.place is None and len(self.tensor.shape) > 2:
            return None
        return self.tensor.place is not None and self.tensor.place.expert is not None

    def first(self) -> F32:
        """The first vector."""
        size, stride = self.width, math.prod(self.tensor.shape[self.axis + 1 : -1])
        if not self.turned:
            return self.side.rows(self.tensor, 0, 1)
        found = self.side.sample(self.tensor.name, [(i * stride, 1) for i in range(size)], [(0, 1)])
        if found is None:
            found = np.stack([self.side.rows(self.tensor, i * stride, i * stride + 1)[0, :1] for i in range(size)])
        return found.T


def regrouped(
    a: ModelView, b: ModelView, left_a: Sequence[Tensor], left_b: Sequence[Tensor]
) -> tuple[dict[str, Regrouped], dict[str, Regrouped]]:
    """B's tensors that are made of rows of A's, and A's of B's, of those that have no equal."""
    of_b: dict[str, Regrouped] = {}
    of_a: dict[str, Regrouped] = {}
    for turned in (None, "b", "a"):
        known_a, known_b = {*of_a}, {*of_b}
        reads_a = [r for t in left_a if t.name not in known_a for r in _reads(a, t, turned == "a")]
        reads_b = [r for t in left_b if t.name not in known_b for r in _reads(b, t, turned == "b")]
        for ours, theirs in _pools(reads_a, reads_b):
            dtype = _held(ours, theirs)
            if dtype is None or sum(r.tensor.numel // r.width for r in theirs) > _MOST:
                continue
            sums_a, sums_b = _same_rows(
                *(
                    {r.tensor.name: vector_sums(r.side, r.tensor, r.axis, dtype or None) for r in pool}
                    for pool in (ours, theirs)
                )
            )
            width = ours[0].width
            of_b |= _made(sums_b, sums_a, width, turned is not None)
            of_a |= _made(sums_a, sums_b, width, turned is not None)
    return of_b, of_a


def may_be_regrouped(tensor: Tensor) -> bool:
    """It has values, and enough of them for its rows to be anybody's in particular."""
    return tensor.numel >= _FEWEST and not tensor.undecoded and tensor.dtype[0] not in "UI"


def _reads(side: ModelView, tensor: Tensor, turned: bool) -> Iterator[_Read]:
    """Along its last axis, or where it may stand transposed along the others."""
    if not may_be_regrouped(tensor):
        return
    last = len(tensor.shape) - 1
    if not turned:
        yield _Read(side, tensor, last)
    elif tensor.place is None and last > 0 and min(tensor.shape[-2:]) > 1:
        yield from (_Read(side, tensor, axis) for axis in range(last) if tensor.shape[axis] > 1)


_Pool = list[_Read]


def _pools(reads_a: Iterable[_Read], reads_b: Iterable[_Read]) -> Iterator[tuple[_Pool, _Pool]]:
    """Tensors of one block and one width on both sides, of all blocks where one side stacks them. An FFN cut into
    experts computes something else: theirs are never asked of it."""
    pools: tuple[dict[str, _Pool], dict[str, _Pool]] = (defaultdict(list), defaultdict(list))
    for reads, pool in ((reads_a, pools[0]), (reads_b, pools[1])):
        for read in reads:
            pool[_block(read.tensor)].append(read)
    keys = [*dict.fromkeys([*pools[0], *pools[1]])]
    together = [keys] if pools[0].keys() != pools[1].keys() else [[key] for key in keys]
    for blocks in together:
        ours, theirs = ([r for key in blocks for r in pool.get(key, ())] for pool in pools)
        for width in dict.fromkeys(r.width for r in theirs):
            for expert in (False, True):
                yield (
                    [r for r in ours if r.width == width and r.expert in (expert, None)],
                    [r for r in theirs if r.width == width and r.expert in (expert, None)],
                )


def _block(tensor: Tensor) -> str:
    """Its name up to the number of its block."""
    name = tensor.name.partition("[")[0]
    found = re.match(r".*?\.\d+\.", f".{name}")
    return found[0] if found else ""


def _held(ours: _Pool, theirs: _Pool) -> str | None:
    """The type to which all are rounded ("": as they are) where both hold a first row in common; else None."""
    dtypes = {r.tensor.dtype for r in (*ours, *theirs)}
    coarse = "" if len(dtypes) < 2 else next((c for c, kinds in _ROUNDED.items() if c in dtypes <= kinds), None)
    if not ours or not theirs or coarse is None:
        return None

    def first(read: _Read) -> bytes:
        row = np.ascontiguousarray(read.first())
        ways = rounded(row, coarse)
        return (row if ways is None else ways[0]).tobytes()

    known = {first(r) for r in ours}
    return coarse if any(first(r) in known and not r.side.is_trivial(r.tensor) for r in theirs) else None


def _same_rows(a: Mapping[str, U64], b: Mapping[str, U64]) -> tuple[dict[str, U64], dict[str, U64]]:
    """The tensors that are left when none may hold a row which those of one side hold more often than the other's."""
    kept = {**a}, {**b}
    while all(kept):
        rows = [x for side in kept for x in side.values()]
        sides = np.repeat([1] * len(kept[0]) + [-1] * len(kept[1]), [x.size for x in rows])
        values, at = np.unique(np.concatenate(rows), return_inverse=True)
        odd = values[np.bincount(at, sides) != 0]
        if not odd.size:
            return kept
        a, b = ({n: x for n, x in side.items() if not np.isin(x, odd).any()} for side in kept)
        kept = a, b
    return {}, {}


def _made(of: Mapping[str, U64], others: Mapping[str, U64], width: int, turned: bool) -> dict[str, Regrouped]:
    """Each whose rows are not those of one whole tensor of the others, in the same orientation."""
    if not of:
        return {}
    names = [*others]
    sums = np.concatenate([others[n] for n in names])
    owner = np.repeat(np.arange(len(names)), [others[n].size for n in names])
    order = np.argsort(sums, kind="stable")
    found: dict[str, Regrouped] = {}
    for name, rows in of.items():
        at = np.minimum(np.searchsorted(sums, rows, sorter=order), sums.size - 1)
        source = order[at]
        if not np.array_equal(sums[source], rows):
            continue
        owners = owner[source]
        ids, first, counts = np.unique(owners, return_index=True, return_counts=True)
        if not turned and len(ids) == 1 and others[names[ids[0]]].size == rows.size:
            continue
        ids, counts = ids[np.argsort(first)], counts[np.argsort(first)]
        starts = np.append(np.flatnonzero(np.diff(source) != 1) + 1, rows.size)
        pieces, run = starts.size, int(np.gcd.reduce(starts))
        part = len(ids) == 1 and others[names[ids[0]]].size > rows.size
        words = _words([names[i] for i in ids], pieces, run, part, turned)
        found[name] = Regrouped(words, {names[i]: int(n) * width for i, n in zip(ids, counts, strict=True)})
    return found


def _words(names: Sequence[str], pieces: int, run: int, part: bool, turned: bool) -> str:
    short = list(dict.fromkeys(_within_block(n) for n in names))
    blocks = f" of {len(names) // len(short):,} blocks" if len(names) > len(short) else ""
    listed = ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")
    how = "one after the other" if pieces <= len(names) else f"in runs of {run:,}" if run > 1 else "row by row in turn"
    if part:
        how = "a part of them" if pieces == 1 else f"a part of them, {how}"
    return f"rows of {listed}{blocks}{', transposed' if turned else ''}, {how}"


def _within_block(name: str) -> str:
    name, _, role = re.sub(r"^(.*?\.)?\d+\.(?=.*[a-z])", "", name).partition("[")
    return role.rstrip("]") or name.removesuffix(".weight")
