"""Signs in an order that training left: neighbouring blocks write alike, and neighbours in a vocabulary are alike.

Where two models hold the same blocks, or the same token rows, in two orders, the one whose order is no better than any
other was shuffled. The null is exact: every order of the blocks (the rows) is as likely.
"""

from __future__ import annotations

import numpy as np

from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick, sampled_columns
from weightprint.util.arrays import F64, Indices
from weightprint.util.linear_algebra import product, unit_rows
from weightprint.verdict.direction.contained import Block, outside
from weightprint.verdict.direction.samples import Seen, names
from weightprint.verdict.values import Cue, Label

# Looked at on the fit side of the lineage benchmark only.
_ORDERED, _ANY = 1e-3, 0.02  # p of an order that training left, at most; of one that it didn't, at least
_ORDERS = 4000  # drawn at random
_BLOCKS, _UNITS, _CHANNELS = 64, 256, 512
_FEWEST = 5  # blocks: there are 120 orders
_SORTED, _UNSORTED = 6.0, 2.5  # standard deviations of the likeness of neighbouring rows' lengths
_ROWS = 1 << 15


def block_order(seen: Seen) -> Cue | None:
    """The same blocks in two orders."""
    shared = seen.shared
    if shared is None or not shared.equal or shared.lone:
        return None
    pairs = sorted(shared.blocks.items())
    moved = [many for _, many in pairs]
    if moved == sorted(moved) or not _FEWEST <= len(pairs) <= _BLOCKS:
        return None
    side = seen.models.a if shared.few == "a" else seen.models.b
    alike = _alike(side, [few for few, _ in pairs])
    if alike is None:
        return None
    stands = {few: i for i, (few, _) in enumerate(pairs)}
    other = np.array([stands[few] for few, _ in sorted(pairs, key=lambda pair: pair[1])])
    p = _share_as_good(alike, np.arange(len(pairs))), _share_as_good(alike, other)
    return _shuffled(shared.few, p)


def _shuffled(first: Label, p: tuple[float, float]) -> Cue | None:
    if not (min(p) <= _ORDERED and max(p) >= _ANY):
        return None
    later: Label = first if p[0] > p[1] else "a" if first == "b" else "b"
    this, other = names(later)
    because = f"{this} holds {other}'s blocks in another order, and only in {other}'s do neighbours write alike"
    return Cue(later, 0.9, f"{because} (of all orders {min(p):.1g} do so as much; {this}'s: {max(p):.1g})")


def _alike(side: ModelView, blocks: list[Block]) -> F64 | None:
    """Likeness of what every two blocks write: cosine of the second moments over channels, less their traces."""
    found = []
    for block in blocks:
        rows = []
        for t in side.tensors.values():
            p = t.place
            if t.rank2 and p is not None and (p.stack, p.block) == block and p.role in ("o", "down"):
                channels = pick(t.matrix[0], _CHANNELS, 0, "order channels")
                at = pick(t.matrix[1], _UNITS, 0, "order")
                rows.append(unit_rows(sampled_columns(side, t, at, channels)))
        if not rows or len({x.shape[1] for x in rows}) > 1:
            return None
        moment = sum(product(x.T, x) for x in rows).astype(np.float64)
        moment -= np.eye(len(moment)) * np.trace(moment) / len(moment)
        found.append(moment.ravel() / max(float(np.linalg.norm(moment)), 1e-30))
    every = np.stack(found)
    out: F64 = product(every, every.T)
    return out


def _share_as_good(alike: F64, order: Indices) -> float:
    """Of random orders, how many have neighbours at least as much alike."""
    rng = np.random.default_rng(0)
    here = alike[order[:-1], order[1:]].sum()
    drawn = np.stack([rng.permutation(len(order)) for _ in range(_ORDERS)])
    as_good = alike[drawn[:, :-1], drawn[:, 1:]].sum(axis=1) >= here - 1e-12
    return (1 + int(as_good.sum())) / (1 + _ORDERS)


def vocabulary_order(seen: Seen) -> Cue | None:
    """The same token rows in two orders."""
    if seen.shared is None or not seen.shared.equal:
        return None
    sides = (seen.models.a, seen.models.b)
    tables = [outside(side).get("embedding") for side in sides]
    if tables[0] is None or tables[1] is None or tables[0].shape != tables[1].shape or tables[0].shape[0] > _ROWS:
        return None
    lengths = [
        np.concatenate([np.linalg.norm(x.astype(np.float64), axis=1) for _, x in side.slices(table)])
        for side, table in zip(sides, tables, strict=True)
        if table is not None
    ]
    ours, theirs = lengths
    if np.array_equal(ours, theirs) or not np.array_equal(np.sort(ours), np.sort(theirs)):
        return None
    ties = [_neighbours(x) for x in lengths]
    if max(ties) < _SORTED or min(ties) > _UNSORTED:
        return None
    this, other = names("a" if ties[0] < ties[1] else "b")
    because = f"{this} holds {other}'s token rows in another order, and only in {other}'s are neighbours of like length"
    return Cue("a" if ties[0] < ties[1] else "b", 0.85, because + ", as in vocabularies that go by frequency")


def _neighbours(lengths: F64) -> float:
    """Correlation of neighbours' ranks, in standard deviations of that of a random order (Wald & Wolfowitz 1943)."""
    ranks = lengths.argsort().argsort().astype(np.float64)
    return float(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) * float(np.sqrt(len(ranks)))
