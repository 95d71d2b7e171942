"""B minus A, tensor by tensor: one sampled measurement that the readers of operations share.

Tensors are brought together in place or, where blocks moved, through the layer and expert map. What has A's digest or
is a re-encoding of A's is untouched and read no further. Of the rest, every tensor gets a *glance* (a few rows: how
large is the change, in which direction), and a number of matrices spread over depth and roles a *look* (a few hundred
rows and channels: what kind of change is it). At effort full every matrix is looked at; at quick nothing is.

With x a row of A, y of B and d = y - x:

    relative   |d| / |x|                    cosine   <x, y> / |x||y|
    zeroed     share of the values of A that are zero in B
    rounding   every |d| is at most half a unit in the last place of A's type plus half one of B's: no change of values

What a difference of each kind looks like is told in :mod:`weightprint.operations.difference`. Nothing here decides
anything about the verdict: it is measured after that is known, and only where the two models share weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.rounding.encodings import checked, stored_otherwise
from weightprint.evidence.thresholds import EFFECT
from weightprint.fingerprint.model import Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.operations.difference import WHOLE, Difference, look
from weightprint.util import parallel
from weightprint.util.arrays import F32, F64, Bools
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts
from weightprint.verdict.maps import Maps

__all__ = ["KINDS", "Change", "Changes", "measured", "pooled", "signatures"]


#: Zeros where A has values, from which on they are no accident of rounding.
ZEROED = 0.02
#: Fall of singular values behind a low rank. Of trainings that bf16 hardly holds it is 1.1, of LoRA merges 20 and more.
GAP = 2.0
#: What a scaling of rows and columns leaves of a difference that it explains; of trained ones it leaves .9 and more.
SCALED = 0.3
_FEW, _CLOSE, _FAR = 0.05, 0.9, 0.2  # rows that stayed beside rows that are others: rearranged, not changed
_ROW = 16  # values that a row needs for a cosine


@dataclass(frozen=True, slots=True)
class Change:
    """One tensor of B beside its counterpart in A.

    Attributes:
        equal: the same values (by digest, or re-encoded, or within the rounding of both types).
        n: values compared; 0 for what is equal by digest.
        xx, xy, yy, dd: sums of x², xy, y², d² over them.
        zeroed: share of A's values (zeros left out) that are zero in B; ``refilled`` the other way round.
        kept: share of the values that are the same and not zero.
        mixed: some rows are A's, others are not at all: rows moved or were replaced, not trained.
        seen: the closer look, at some matrices.
    """

    a: Tensor
    b: Tensor
    equal: bool
    n: int = 0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0
    dd: float = 0.0
    zeroed: float = 0.0
    refilled: float = 0.0
    kept: float = 1.0
    mixed: bool = False
    seen: Difference | None = field(default=None, repr=False)

    @property
    def role(self) -> str:
        """What the tensor does, as B's or A's anatomy says; its name where neither knows."""
        place = self.b.place or self.a.place
        return place.role if place is not None else self.b.name

    @property
    def layer(self) -> int | None:
        """B's block."""
        return self.b.layer

    @property
    def cosine(self) -> float:
        """<A, B> / |A||B|, as stored."""
        return self.xy / math.sqrt(self.xx * self.yy) if self.xx > 0 and self.yy > 0 else 1.0 if self.equal else 0.0

    @property
    def relative(self) -> float:
        """|B - A| / |A|."""
        return math.sqrt(self.dd / self.xx) if self.xx > 0 else 0.0 if self.equal or not self.dd else math.inf

    @property
    def kind(self) -> str:
        """What kind of difference it is: the first of :data:`KINDS` that holds; empty where it was not looked at."""
        return next(name for name, holds in KINDS if holds(self, self.seen)) if self.seen is not None else ""

    @property
    def kin(self) -> bool:
        """B's tensor is A's, changed in place."""
        return self.equal or (self.cosine >= EFFECT and not self.mixed)


#: Kinds of differences, the most special first. Those in brackets lead from B to A: A is the one that lost something.
KINDS: tuple[tuple[str, Callable[[Change, Difference], bool]], ...] = (
    ("zeros", lambda c, s: c.zeroed >= ZEROED and c.kept >= 0.99 * (1 - c.zeroed)),
    ("(zeros)", lambda c, s: c.refilled >= ZEROED and c.kept >= 0.99 * (1 - c.refilled)),
    ("low rank", lambda c, s: s.rank > 0 and s.gap >= GAP),
    ("grid", lambda c, s: s.grid is not None and s.grid.nearest),
    ("noise", lambda c, s: s.normal),
    ("scaling", lambda c, s: s.scaled < SCALED),
    ("head map", lambda c, s: s.turned < SCALED),
    ("changed, then grid", lambda c, s: s.grid is not None),
    ("(grid)", lambda c, s: s.grid_of_a is not None and (s.grid_of_a.nearest or s.grid_of_a.cut >= ZEROED)),
    ("other", lambda c, s: True),
)


@dataclass(frozen=True)
class Changes:
    """All tensors that could be compared in place. ``skipped`` says which others there are, and why."""

    all: tuple[Change, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def untouched(self) -> tuple[Change, ...]:
        """Those that hold A's values."""
        return tuple(c for c in self.all if c.equal)

    @cached_property
    def changed(self) -> tuple[Change, ...]:
        """Those with other values that are still what became of A's."""
        return tuple(c for c in self.all if not c.equal and c.kin)

    @cached_property
    def matrices(self) -> tuple[Change, ...]:
        """Of the changed ones, the matrices."""
        return tuple(c for c in self.changed if c.b.rank2)

    @cached_property
    def seen(self) -> tuple[tuple[Change, Difference], ...]:
        """The changed matrices that were looked at closely."""
        return tuple((c, c.seen) for c in self.matrices if c.seen is not None)

    def seen_as(self, kind: str) -> tuple[Change, ...]:
        """The looked-at matrices of one kind, however few."""
        return tuple(c for c, _ in self.seen if c.kind == kind)

    def without(self, names: AbstractSet[str]) -> Changes:
        """The same without these tensors of B, whose change is told."""
        return replace(self, all=tuple(c for c in self.all if c.b.name not in names)) if names else self

    def of_kind(self, kind: str, least: float = 0.5) -> tuple[tuple[Change, Difference], ...]:
        """The looked-at matrices of one kind (see :data:`KINDS`); none where they are no more than a ``least`` part of
        all, or fewer than two."""
        chosen = tuple((c, s) for c, s in self.seen if c.kind == kind)
        return chosen if len(chosen) >= 2 and len(chosen) > least * len(self.seen) else ()


def measured(facts: Facts) -> Changes:
    """Compare what can be compared; what is A's times a factor, or in another order, is told elsewhere."""
    models = facts.models
    budget = models.budget.changes
    if not models.budget.whole:
        return Changes((), {"effort quick reads too little": len(models.b.tensors)})
    if facts.decisive and facts.weights is not None and facts.weights.basis != "identity":
        return Changes((), {"the residual channels stand in another basis": len(models.b.tensors)})
    copies, near = {f.b for f in facts.copies}, {f.b for f in facts.rounded}
    told = {f.b for f in (*facts.scaled, *facts.reordered)}
    pairs, skipped = _counterparts(models, facts.maps)
    todo = [p for p in pairs if not _same(p, copies)]
    glanced = {p.b.name for p in evenly(todo, budget.tensors)}
    if len(glanced) < len(todo):
        skipped["sampled"] = len(todo) - len(glanced)

    in_place = {(p.a.name, p.b.name) for p in models.pairs}

    def glance(pair: Pair) -> Change:
        asked = (pair.a.name, pair.b.name) in in_place
        equal = _same(pair, copies) or (not asked and _in_codes(models, pair))
        if pair.b.name in near and not pair.b.rank2:
            equal = True
        return Change(pair.a, pair.b, equal=True) if equal else _glance(models, pair)

    out = list(parallel.each(glance, (p for p in pairs if _same(p, copies) or p.b.name in {*glanced, *near})))
    wanted = {c.b.name for c in _chosen([c for c in out if not c.equal and c.kin and c.b.rank2], budget.looks)}

    def look(change: Change) -> Change:
        return replace(change, seen=_looked(models, change)) if change.b.name in wanted else change

    out = [_of_codes_only(c) if c.b.name in near else c for c in parallel.each(look, out)]
    return Changes(tuple(c for c in out if c.b.name not in told), skipped)


def _of_codes_only(change: Change) -> Change:
    """What is off A's values by no more than its codes make it is A's, unless a change of low rank stands out."""
    return change if change.kind == "low rank" else replace(change, equal=True)


def _same(pair: Pair, copies: AbstractSet[str]) -> bool:
    return pair.b.name in copies or (
        pair.a.digest is not None and (pair.a.digest, pair.a.dtype) == (pair.b.digest, pair.b.dtype)
    )


def _in_codes(models: ModelPair, pair: Pair) -> bool:
    """One side is stored in codes, and off the other's values by no more than these make it: asked of blocks that
    moved, which nothing paired before."""
    if not (pair.a.coded or pair.b.coded) or not stored_otherwise(pair):
        return False
    outcome = checked(models.a, models.b, pair)
    return outcome is not None and outcome.kind() in ("re_encoded", "trivial", "rounded")


def _counterparts(models: ModelPair, maps: Maps | None) -> tuple[list[Pair], dict[str, int]]:
    """B's tensors with the ones of A that they come from: in place, or where the maps say that they were."""
    skipped: dict[str, int] = defaultdict(int)
    rows = {row.b: row for row in maps.layers} if maps else {}
    ffns = {row.b: row for row in maps.ffns} if maps else {}
    moved = any(row.a is not None and row.a != row.b for row in rows.values())
    in_place = {p.b.name: p for p in models.pairs}
    at = {t.place: t for t in models.a.tensors.values() if t.place is not None}
    pairs = []
    for tensor in models.b.tensors.values():
        place, pair = tensor.place, in_place.get(tensor.name)
        if place is not None and place.block is not None and (moved or place.expert is not None or pair is None):
            row, ffn = rows.get((place.stack, place.block)), ffns.get((place.stack, place.block, place.expert))
            source = row.a if row is not None else None
            if place.part == "ffn" and ffn is not None and ffn.a is not None:
                stack, block, expert = ffn.a
            elif source is not None:
                (stack, block), expert = source, place.expert
            else:
                stack, block, expert = place.stack, place.block, place.expert
                if moved:
                    skipped["in blocks that were not found"] += 1
                    continue
            other = at.get(replace(place, stack=stack, block=block, expert=expert))
            pair = Pair(other, tensor, by="place") if other is not None else None
        if pair is None:
            skipped["without a counterpart"] += 1
        elif pair.transposed or pair.a.shape != tensor.shape:
            skipped["of another shape"] += 1
        elif place is not None and pair.a.place is not None and (place.expert is None) != (pair.a.place.expert is None):
            skipped["made of experts, or experts made of it"] += 1
        elif place is not None and place.part == "fixed":
            skipped["fixed by the architecture"] += 1
        elif (
            place is not None
            and place.part == "ffn"
            and place.block is not None
            and (row_ := ffns.get((place.stack, place.block, place.expert))) is not None
            and row_.order == "changed"
        ):
            skipped["with hidden units in another order"] += 1
        else:
            pairs.append(pair)
    return pairs, dict(skipped)


def _chosen(changes: Sequence[Change], limit: int) -> list[Change]:
    """Whole blocks spread over the depth, and what lies outside, until there are so many; every role comes first."""
    if len(changes) <= limit:
        return list(changes)
    by_role: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_role[change.role].append(change)
    each = max(1, limit // len(by_role))
    out: list[Change] = []
    for same in by_role.values():
        out += evenly(same, each)
    return out[:limit]


def _glance(models: ModelPair, pair: Pair) -> Change:
    """A few rows of both, and the sums over them."""
    n_rows, columns = pair.b.matrix
    rows = pick(n_rows, max(4, models.budget.changes.values // max(columns, 1)), models.seed, pair.b.name, run=4)
    x, y = sampled_rows(models.a, pair.a, rows), sampled_rows(models.b, pair.b, rows)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.all():
        x, y = np.where(finite, x, np.float32(0)), np.where(finite, y, np.float32(0))
    wide, other = x.astype(np.float64), y.astype(np.float64)
    d = other - wide
    return Change(
        pair.a,
        pair.b,
        equal=_within_rounding(wide, other, d, pair),
        n=x.size,
        xx=float(np.vdot(wide, wide)),
        xy=float(np.vdot(wide, other)),
        yy=float(np.vdot(other, other)),
        dd=float(np.vdot(d, d)),
        zeroed=_share((other == 0) & (wide != 0), wide != 0),
        refilled=_share((wide == 0) & (other != 0), other != 0),
        kept=float(np.mean((d == 0) & (wide != 0))) if d.size else 1.0,
        mixed=pair.b.rank2 and (_mixed(wide, other) or _mixed(*map(np.ascontiguousarray, (wide.T, other.T)))),
    )


def _share(part: Bools, of: Bools) -> float:
    return int(np.count_nonzero(part)) / max(1, int(np.count_nonzero(of)))


def _within_rounding(x: F64, y: F64, d: F64, pair: Pair) -> bool:
    """Both may be the same values, rounded to two types (a type rounded twice included)."""
    if pair.a.dtype == pair.b.dtype:
        return not d.any()
    if pair.a.dtype not in MANTISSA or pair.b.dtype not in MANTISSA:
        return False
    return bool(np.all(np.abs(d) <= 0.5001 * (ulp(x, pair.a.dtype) + ulp(y, pair.b.dtype))))


def _mixed(x: F64, y: F64) -> bool:
    """Some rows stayed where they are, others have nothing to do with what stood there, or stood elsewhere."""
    other = y[(x != y).any(axis=1) & y.any(axis=1)]
    if len(other) and np.count_nonzero(np.isin(signatures(other), signatures(x))) > _FEW * len(x):
        return True
    if x.shape[1] < _ROW or x.shape[0] < 8:
        return False
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosines: F64 = np.einsum("ij,ij->i", x, y)[norms > 0] / norms[norms > 0]
    far = max(_FAR, 3 / math.sqrt(x.shape[1]))
    return bool(np.mean(cosines < far) >= _FEW and np.mean(cosines > _CLOSE) >= _FEW) if cosines.size else False


def signatures(x: F64) -> npt.NDArray[np.uint64]:
    """One number per row, the same for the same bits: their sum with odd factors, modulo 2^64."""
    factors = np.random.default_rng(x.shape[1]).integers(1 << 63, size=x.shape[1], dtype=np.uint64) | np.uint64(1)
    return np.asarray((np.ascontiguousarray(x).view(np.uint64) * factors).sum(axis=1), np.uint64)


def _looked(models: ModelPair, change: Change) -> Difference:
    """A few hundred rows and channels of both, drawn alike; of some of the rows the whole."""
    rows = pick(change.b.shape[0], models.budget.changes.rows, models.seed, f"rows of {change.b.name}")
    columns = pick(change.b.shape[1], models.budget.changes.columns, models.seed, f"channels of {change.b.name}")
    sides = ((models.a, change.a), (models.b, change.b))
    x, y = (sampled_rows(side, tensor, rows[:WHOLE]) for side, tensor in sides)
    some = None
    if columns.size < change.b.shape[1] or rows.size > WHOLE:
        a, b = (sampled_rows(side, tensor, rows, columns) for side, tensor in sides)
        some = a, b
    levels = change.a.levels if change.a.coded else None, change.b.levels if change.b.coded else None
    return look(x, y, change.a.dtype, change.b.dtype, some, _one_head(models, change), levels)


def _one_head(models: ModelPair, change: Change) -> tuple[F32, F32] | None:
    """The first head's rows of a query, key or value map, on both sides; None elsewhere."""
    geometry = models.b.geometry.get(change.b.stack)
    if change.role not in ("q", "k", "v") or geometry is None or not geometry.head_dim:
        return None
    n = int(geometry.head_dim)
    return models.a.rows(change.a, 0, n), models.b.rows(change.b, 0, n)


def pooled(changes: Iterable[Change]) -> Change | None:
    """Sums over several, as if they were one tensor; None of none."""
    several = list(changes)
    if not several:
        return None
    # A glance reads a share of each tensor, so every sum counts as much as its tensor is large.
    weights = [float(c.b.numel) / max(c.n, 1) for c in several]
    sums = [
        sum(w * value for w, value in zip(weights, values, strict=True))
        for values in zip(*((c.xx, c.xy, c.yy, c.dd) for c in several), strict=True)
    ]
    return replace(
        several[0],
        equal=all(c.equal for c in several),
        n=sum(c.n for c in several),
        xx=sums[0],
        xy=sums[1],
        yy=sums[2],
        dd=sums[3],
    )
