"""Do tensors of B hold the rows of A's, cut and joined another way: q, k and v fused head by head, gate and up taking
turns, ranks side by side, the layers of one role stacked?

Within one block, or over the whole model where blocks are not stored one by one, every row of the tensors that have no
equal is summed to 64 bits (:mod:`.orders`). Tensors that hold the same rows on both sides, each as often, cut another
way, are *regrouped*: rows left out, copied or added are another operation's. What is A's own tensor in another order is
told there.

Read only where a first row of B's is a first row of A's, which training leaves nowhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.rounding.orders import U64, row_sums
from weightprint.fingerprint.model import ModelView, Tensor

__all__ = ["Regrouped", "may_be_regrouped", "regrouped"]

_FEWEST = 64  # values of a tensor
_MOST = 1 << 22  # rows of one pool


@dataclass(frozen=True)
class Regrouped:
    """Whose rows a tensor holds, and in words how they follow each other.

    ``rows``: of each source its number of rows, in the order in which they come first.
    """

    order: str
    rows: Mapping[str, int]


def regrouped(
    a: ModelView, b: ModelView, left_a: Sequence[Tensor], left_b: Sequence[Tensor]
) -> tuple[dict[str, Regrouped], dict[str, Regrouped]]:
    """B's tensors that are made of rows of A's, and A's of B's, of those that have no equal."""
    of_b: dict[str, Regrouped] = {}
    of_a: dict[str, Regrouped] = {}
    for ours, theirs in _pools(left_a, left_b):
        if not (_held(a, b, ours, theirs) and sum(t.matrix[0] for t in theirs) <= _MOST):
            continue
        sums_a, sums_b = _same_rows(
            *({t.name: row_sums(side, t) for t in pool} for side, pool in ((a, ours), (b, theirs)))
        )
        of_b |= _made(sums_b, sums_a)
        of_a |= _made(sums_a, sums_b)
    return of_b, of_a


_Pool = list[Tensor]


def _pools(left_a: Iterable[Tensor], left_b: Iterable[Tensor]) -> Iterator[tuple[_Pool, _Pool]]:
    """Tensors of one block and one width on both sides, of all blocks where one side stacks them. An FFN cut into
    experts computes something else: theirs are never asked of it."""
    pools: tuple[dict[str, _Pool], dict[str, _Pool]] = (defaultdict(list), defaultdict(list))
    for left, pool in ((left_a, pools[0]), (left_b, pools[1])):
        for tensor in left:
            if may_be_regrouped(tensor):
                pool[_block(tensor)].append(tensor)
    keys = [*dict.fromkeys([*pools[0], *pools[1]])]
    together = [keys] if pools[0].keys() != pools[1].keys() else [[key] for key in keys]
    for blocks in together:
        ours, theirs = ([t for key in blocks for t in pool.get(key, ())] for pool in pools)
        for kind in dict.fromkeys(map(_kind, theirs)):
            yield [t for t in ours if _kind(t) == kind], [t for t in theirs if _kind(t) == kind]


def may_be_regrouped(tensor: Tensor) -> bool:
    """It has values, and enough of them for its rows to be anybody's in particular."""
    return tensor.numel >= _FEWEST and not tensor.undecoded and tensor.dtype[0] not in "UI"


def _kind(tensor: Tensor) -> tuple[int, bool]:
    """Its width, and whether it is an expert's."""
    return tensor.matrix[1], tensor.place is not None and tensor.place.expert is not None


def _block(tensor: Tensor) -> str:
    """Its name up to the number of its block."""
    name = tensor.name.partition("[")[0]
    found = re.match(r".*?\.\d+\.", f".{name}")
    return found[0] if found else ""


def _held(a: ModelView, b: ModelView, ours: _Pool, theirs: _Pool) -> bool:
    """Of one type, and with a first row in common."""
    if not ours or not theirs or len({t.dtype for t in (*ours, *theirs)}) > 1:
        return False
    first = {a.rows(t, 0, 1).tobytes() for t in ours}
    return any(b.rows(t, 0, 1).tobytes() in first and not b.is_trivial(t) for t in theirs)


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


def _made(of: Mapping[str, U64], others: Mapping[str, U64]) -> dict[str, Regrouped]:
    """Each whose rows are not those of one whole tensor of the others."""
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
        if len(ids) == 1 and others[names[ids[0]]].size == rows.size:
            continue
        ids, counts = ids[np.argsort(first)], counts[np.argsort(first)]
        starts = np.append(np.flatnonzero(np.diff(source) != 1) + 1, rows.size)
        pieces, run = starts.size, int(np.gcd.reduce(starts))
        words = _words([names[i] for i in ids], pieces, run, len(ids) == 1)
        found[name] = Regrouped(words, {names[i]: int(n) for i, n in zip(ids, counts, strict=True)})
    return found


def _words(names: Sequence[str], pieces: int, run: int, part: bool) -> str:
    short = list(dict.fromkeys(_within_block(n) for n in names))
    blocks = f" of {len(names) // len(short):,} blocks" if len(names) > len(short) else ""
    listed = ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")
    how = "one after the other" if pieces <= len(names) else f"in runs of {run:,}" if run > 1 else "row by row in turn"
    if part:
        how = "a part of them" if pieces == 1 else f"a part of them, {how}"
    return f"rows of {listed}{blocks}, {how}"


def _within_block(name: str) -> str:
    name, _, role = re.sub(r"^(.*?\.)?\d+\.(?=.*[a-z])", "", name).partition("[")
    return role.rstrip("]") or name.removesuffix(".weight")
