"""Signs in what one side alone holds, where all else is equal (:mod:`weightprint.verdict.direction.contained`).

Was it there while the rest was trained? Matrices that were trained together load on the same directions of the stream,
so the mean squared cosine of lone rows with rows that both models hold, times the width, is as far above 1 as it is
among the latter. Rows drawn anew have 1, and the singular values of white noise; rows of another model have 1 as well,
and strong directions of their own. What was trained with the rest, one side lost; what was drawn or copied, one side
was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product, svdvals, unit_rows
from weightprint.util.ranges import evenly
from weightprint.verdict.direction.contained import Lone, Shared, outside, subset
from weightprint.verdict.direction.samples import Seen, names
from weightprint.verdict.values import Cue, Label

Origin = Literal["trained", "drawn", "copied"]

# Looked at on the fit side of the lineage benchmark only.
_WITH, _APART = 0.4, 0.15  # of the usual excess of squared cosines: trained with the rest, at least; drawn, at most
_USUAL = 0.05  # the usual excess, at least: less tells nothing
_WHITE = 1.1  # times the largest singular value of white noise
_COPIED, _NEARER = 0.7, 0.25  # cosine with the nearest row that was kept; by so much more than is usual
_FEWEST = 8  # rows
_TIED, _TIED_BESIDE_NOISE, _STRANGE = 5.0, 3.0, 2.5  # ties of a table with the blocks that it was trained with, or not
_ORDERS = 60  # of its channels
_ROWS = 512  # of a table
_EQUAL_ROWS = 0.2  # of a table, that two models share
_CHANNELS, _HELD = 64, 0.5  # by which units are known; of an expert's units, that a dense FFN has, at least
_ALIKE = 0.3  # cosine of two experts in place: those trained apart have none

#: Kinds of lone parts, and their words.
PARTS: dict[str, str] = {
    "blocks": "blocks",
    "stacks": "a stack of blocks",
    "units": "units of its FFNs",
    "heads": "heads",
    "channels": "channels of the stream",
    "experts": "experts",
}


def lone_parts(seen: Seen, what: str) -> Cue | None:
    """Parts of one kind (a row of :data:`PARTS`) that one side has beside those of the other."""
    lone = [p for p in seen.shared.lone if p.what == what] if seen.shared is not None else []
    if not lone or len({p.label for p in lone}) > 1:
        return None
    origin = _origin(lone)
    if origin is None or (origin == "drawn" and padding(lone[0].few, lone[0].many)):
        return None
    if what == "stacks" and origin != "drawn":
        return None  # another model beside it: put there, or the two were taken apart
    return _given(lone[0].label, PARTS[what], origin) if origin != "trained" else _lost(lone[0].label, PARTS[what])


def _lost(label: Label, words: str) -> Cue:
    later: Label = "a" if label == "b" else "b"
    this, other = names(later)
    told = f"{this} lacks {words} that {other} has and that were trained with the rest, and equals {other} in all else"
    return Cue(later, 0.9, f"{told}: they were taken out")


def _given(label: Label, words: str, origin: Origin) -> Cue:
    this, other = names(label)
    how = "repeat others of it" if origin == "copied" else "were drawn, not trained"
    return Cue(label, 0.9, f"{this} has {words} beside {other}'s that {how}, and equals {other} in all else")


def lone_router(seen: Seen) -> Cue | None:
    """A router beside an FFN's units: never trained, so the experts, which hold those, are new; or trained, over
    experts that are not alike, of which the FFN is one or which are all in it: then it was made of them."""
    shared = seen.shared
    if shared is None or not shared.dense:
        return None
    routers = [p for p in shared.lone if p.what == "router"]
    label = shared.dense[0][0]
    if not routers:
        return None
    this, other = names(label)
    models = seen.models
    moe, one = (models.a, models.b) if label == "a" else (models.b, models.a)
    # A router has few rows: all of them together.
    origin = _origin([Lone(label, "router", np.concatenate([p.rows for p in routers]), routers[0].kept)])
    if origin == "drawn" and all(_holds_units(moe, one, up, ups) for _, up, ups in shared.dense[:4]):
        because = f"the routers of {this} were drawn, not trained, its experts are units of {other} and its attention"
        return Cue(label, 0.9, f"{because} is {other}'s")
    if origin != "trained" or not all(_made_of(moe, one, up, ups) for _, up, ups in shared.dense[:4]):
        return None
    later: Label = "a" if label == "b" else "b"
    made = f"the FFNs of {other} are experts of {this}, value for value, and those are not alike: they were trained as"
    return Cue(later, 0.85, f"{made} experts")


def _holds_units(moe: ModelView, one: ModelView, dense: Tensor, experts: Sequence[Tensor]) -> bool:
    """Some expert has half of its units, or more, from the dense FFN, value for value."""
    if any(t.shape[1] != dense.shape[1] for t in experts):
        return False
    channels = np.sort(pick(dense.matrix[1], _CHANNELS, 0, "units' channels"))
    there = {row.tobytes() for row in sampled_rows(one, dense, np.arange(dense.matrix[0]), channels) + np.float32(0)}
    for t in experts:
        rows = sampled_rows(moe, t, pick(t.matrix[0], _ROWS // 8, 0, "units"), channels) + np.float32(0)
        if np.mean([row.tobytes() in there for row in rows]) >= _HELD:
            return True
    return False


def _made_of(moe: ModelView, one: ModelView, dense: Tensor, experts: Sequence[Tensor]) -> bool:
    """The dense rows are those of one expert, or of all one after the other; experts are not alike."""
    if dense.numel > 1 << 24 or len(experts) < 2:
        return False
    x, rows = one.rows(dense), [moe.rows(t) for t in experts]
    if any(r.shape != rows[0].shape for r in rows):
        return False
    whole = np.array_equal(np.concatenate(rows), x) or any(np.array_equal(r, x) for r in rows)
    unit = unit_rows(np.stack([(r - r.mean(axis=0)).ravel() for r in rows]))
    return whole and float(np.abs(np.tril(unit @ unit.T, -1)).max()) < _ALIKE


def lone_vectors(seen: Seen) -> Cue | None:
    """Biases or norm offsets that one side learned, and the other lacks."""
    shared = seen.shared
    if shared is None or not shared.equal or shared.lone:
        return None
    learned = {label: [t for t in shared.vectors[label] if not t.constant and t.std != 0] for label in ("a", "b")}
    if bool(learned["a"]) == bool(learned["b"]):
        return None
    later: Label = "b" if learned["a"] else "a"
    this, other = names(later)
    told = f"{this} lacks {len(learned['a'] or learned['b'])} vectors that {other} learned (biases, norm offsets)"
    return Cue(later, 0.85, f"{told}, and equals {other} in all matrices: they were dropped")


def pooled_heads(seen: Seen) -> Cue | None:
    """Keys and values of one side are means of neighbouring heads of the other, or these are copies of the former."""
    shared = seen.shared
    pooled = shared.pooled if shared is not None else {"a": [], "b": []}
    if bool(pooled["a"]) == bool(pooled["b"]):
        return None
    few: Label = "a" if pooled["a"] else "b"
    if all(pooled[few]):
        this, other = names(few)
        return Cue(few, 0.95, f"keys and values of {this} are means of neighbouring heads of {other}, which differ")
    many: Label = "b" if few == "a" else "a"
    this, other = names(many)
    return None if any(pooled[few]) else Cue(many, 0.9, f"heads of keys and values of {this} repeat those of {other}")


def padding(few: int, many: int) -> bool:
    """Rounding up to a multiple could have made the larger number of the smaller: padding is taken off as often as it
    is put on."""
    return many - few < (many & -many)


# Tables


def tables(seen: Seen) -> Cue | None:
    """Of two token tables over one body, or of two bodies under one table, the pair that was not trained together."""
    sides = (seen.models.a, seen.models.b)
    if seen.shared is not None and seen.shared.equal:
        return _position(seen.shared, sides) or _two_tables(seen.shared, sides)
    return _two_bodies(sides) if seen.shared is None and not seen.samples else None


def _position(shared: Shared, sides: tuple[ModelView, ModelView]) -> Cue | None:
    """Learned positions on one side."""
    has = [outside(side).get("position") for side in sides]
    if (has[0] is None) == (has[1] is None) or shared.lone:
        return None
    side, table = (sides[0], has[0]) if has[0] is not None else (sides[1], has[1])
    assert table is not None
    if side.is_computed(table) or _edge(side.rows(table, 0, _ROWS)) <= _WHITE:
        return None
    later: Label = "b" if side is sides[0] else "a"
    this, other = names(later)
    return Cue(later, 0.85, f"{this} lacks the learned positions of {other}, and equals {other} in the blocks")


def _two_tables(shared: Shared, sides: tuple[ModelView, ModelView]) -> Cue | None:
    ours, theirs = (outside(side) for side in sides)
    for role in ("head", "embedding"):
        if role not in ours or role not in theirs:
            continue
        rows = _different(sides, ours[role], theirs[role])
        if rows is None or min(map(len, rows)) < _FEWEST:
            continue
        apart = _not_belonging([_ties(x, side) for x, side in zip(rows, sides, strict=True)], [_edge(x) for x in rows])
        if apart is not None:
            this, other = names("a" if apart == 0 else "b")
            how = "drawn anew" if _edge(rows[apart]) <= _WHITE else "another model's"
            told = f"the blocks are equal, and the {role} of {other} was trained with them, that of {this} was not"
            return Cue("a" if apart == 0 else "b", 0.9, f"{told}: it is {how}")
    return None


def _different(sides: tuple[ModelView, ModelView], one: Tensor, other: Tensor) -> tuple[F32, F32] | None:
    """Rows that differ, of tables of one size; all, where no row is in both; None where some are and sizes differ."""
    if one.shape[1] != other.shape[1]:
        return None
    if one.shape == other.shape:
        at = pick(one.shape[0], 4 * _ROWS, 0, "table")
        x, y = (sampled_rows(side, t, at) for side, t in zip(sides, (one, other), strict=True))
        moved = (x != y).any(axis=1)
        return x[moved][:_ROWS], y[moved][:_ROWS]
    x, y = (
        sampled_rows(side, t, pick(t.shape[0], _ROWS, 0, "table")) for side, t in zip(sides, (one, other), strict=True)
    )
    near = unit_rows(x) @ unit_rows(y).T
    return None if float(np.median(near.max(axis=1))) > _COPIED or (near > 0.999).any() else (x, y)


def _two_bodies(sides: tuple[ModelView, ModelView]) -> Cue | None:
    ours, theirs = (outside(side) for side in sides)
    for role in ("head", "embedding"):
        one, other = ours.get(role), theirs.get(role)
        if one is None or other is None or one.shape != other.shape:
            continue
        at = pick(one.shape[0], 4 * _ROWS, 0, "table")
        x, y = (sampled_rows(side, t, at) for side, t in zip(sides, (one, other), strict=True))
        same = (x == y).all(axis=1) & x.any(axis=1)
        if same.mean() < _EQUAL_ROWS or np.count_nonzero(same) < _FEWEST:
            continue
        apart = _not_belonging([_ties(x[same][:_ROWS], side) for side in sides])
        if apart is not None:
            this, other_name = names("a" if apart == 0 else "b")
            told = f"{this} and {other_name} share token rows only, and those were trained with {other_name}'s blocks"
            return Cue("a" if apart == 0 else "b", 0.9, f"{told}, not with {this}'s")
    return None


def _not_belonging(ties: Sequence[float], edges: Sequence[float] = (math.inf, math.inf)) -> Literal[0, 1] | None:
    """Which of two was not trained with the rest: strangers' ties are within 2.5, and white noise has none."""
    white = [edge <= _WHITE for edge in edges]
    if white[0] != white[1] and max(edges) > 1.2 * _WHITE:
        drawn: Literal[0, 1] = 0 if white[0] else 1
        return drawn if ties[1 - drawn] >= _TIED_BESIDE_NOISE else None
    low: Literal[0, 1] = 0 if ties[0] < ties[1] else 1
    return low if ties[low] <= _STRANGE and ties[1 - low] >= _TIED else None


def _ties(rows: F32, side: ModelView) -> float:
    """How far rows of a table load on the directions that the blocks read or write: their excess in standard
    deviations of that with the table's channels put in another order; the larger of the two."""
    found = []
    rng = np.random.default_rng(0)
    for roles, writes in ((("q", "v", "up"), False), (("o", "down"), True)):
        body = _of_blocks(side, roles, writes)
        if body.shape[-1] != rows.shape[1]:
            continue
        others = [_excess(rows[:, rng.permutation(rows.shape[1])], body) for _ in range(_ORDERS)]
        found.append((_excess(rows, body) - float(np.mean(others))) / max(float(np.std(others, ddof=1)), 1e-9))
    return max(found, default=0.0)


def _of_blocks(side: ModelView, roles: Sequence[str], writes: bool) -> F32:
    """Rows over the channels of the stream, of several blocks."""
    every = [t for t in side.tensors.values() if t.rank2 and t.layer is not None and t.place and t.place.role in roles]
    chosen = evenly(every, 24, rounded=False)
    axis = 0 if writes else 1
    chosen = [t for t in chosen if t.shape[axis] == chosen[0].shape[axis]]
    if not chosen:
        return np.zeros((0, 0), np.float32)
    picked = [pick(t.shape[1 - axis], 96, 0, "lone") for t in chosen]
    if writes:
        return np.concatenate([sampled_columns(side, t, at) for t, at in zip(chosen, picked, strict=True)])
    return np.concatenate([sampled_rows(side, t, at) for t, at in zip(chosen, picked, strict=True)])


# What rows tell


def _origin(parts: Sequence[Lone]) -> Origin | None:
    """Of parts of one kind: where they are from; None where that is not clear."""
    parts = [p for p in parts if len(p.rows) and len(p.kept) >= 2 * _FEWEST and p.kept.any()]
    here = [p for p in parts if p.rows.any()]
    if not here:
        return "drawn" if parts else None
    if sum(_copied(p) for p in here) > len(here) / 2:
        return "copied"
    usual = float(np.mean([_excess(p.kept[::2], p.kept[1::2]) for p in here]))
    share = float(np.mean([_excess(p.rows, p.kept) for p in here])) / max(usual, 1e-9)
    white = max(_edge(p.rows) for p in here) <= _WHITE
    if white and len(here) < len(parts):
        return "drawn"  # and what they would write is zero
    if usual < _USUAL:
        return None
    return "trained" if share >= _WITH else "drawn" if share <= _APART and white else None


def _copied(part: Lone) -> bool:
    """Lone rows are kept ones, value for value, or have a near one among those, which have none among themselves."""
    if part.repeats or (part.rows.any(axis=1).all() and subset(part.rows, part.kept) is not None):
        return True
    near = _nearest(part.rows, part.kept)
    return near >= _COPIED and near - _nearest(part.kept[::2], part.kept[1::2]) >= _NEARER


def _nearest(x: F32, y: F32) -> float:
    """Median cosine of rows with the nearest of others."""
    return float(np.median(product(unit_rows(x[x.any(axis=1)][:_ROWS]), unit_rows(y).T).max(axis=1)))


def _excess(x: F32, y: F32) -> float:
    """Mean squared cosine times the width, less 1: 0 for rows that know nothing of each other."""
    if not x.any() or not y.any() or x.shape[1] != y.shape[1]:
        return 0.0
    x, y = (unit_rows(v[v.any(axis=1)]) for v in (x, y))
    return float(np.mean(np.square(product(x, y.T))) * x.shape[1] - 1)


def _edge(x: F32) -> float:
    """Largest singular value over that of white noise (Geman 1980)."""
    sd = math.sqrt(float(np.mean(np.square(x, dtype=np.float64))))
    return float(svdvals(x)[0]) / (sd * sum(map(math.sqrt, x.shape))) if sd > 0 else 0.0
