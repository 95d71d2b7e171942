"""The signs of :mod:`weightprint.direction`: each looks at two models and their evidence for a trace that has a
direction.

*The low-rank sign.* B = A + low rank (a LoRA merge) is symmetric, B - low rank = A, but rounding isn't: whoever was
computed last was rounded last. With D = B - A and e = D minus its part of low rank, B = round(A + L) means
|e| <= ulp(B)/2 entry by entry, and A = round(B - L) means |e| <= ulp(A)/2. Entries where the two ulps differ decide.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np

from weightprint import parallel
from weightprint.evidence._base import F32, Evidence, Models, Pair, Side, Tensor, UnitMatch
from weightprint.evidence._sample import pick, sampled_rows
from weightprint.linear import eigvalsh, product, svd

__all__ = [
    "Found",
    "Label",
    "Seen",
    "experts",
    "lattice",
    "low_rank",
    "new_units",
    "own_directions",
    "repeats",
    "rounded",
    "vocabulary",
    "zeros",
]

Label = Literal["a", "b"]
_ROWS, _MATRICES = 32, 48
_RELATED = 0.3  # centred cosine of sampled rows from which two matrices in one place are compared value by value
_MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}
#: Of pairs where this sign spoke; see `own_directions` and training_shared.MEASURED for how it was measured.
DIRECTIONS_CONFIDENCE = 0.7
_LOW_RANK, _FALL = 8, 5  # matrices of low rank that are enough, and how far their singular values fall at once
_SHARE = 0.3  # units of a block that must be found for it to count as made from that block


@dataclass(frozen=True, slots=True)
class Found:
    """What a sign says."""

    later: Label
    confidence: float
    because: str


@dataclass(frozen=True)
class Seen:
    """The pair and its evidence, with the samples that several signs look at."""

    models: Models
    evidence: Mapping[str, Evidence]

    @cached_property
    def samples(self) -> list[tuple[Pair, F32, F32]]:
        """Sampled rows of matrices in the same place that are related: (pair, A's rows, B's rows)."""
        usable = [p for p in self.models.pairs if _comparable(p) and p.known.layer is not None]
        if len(usable) > _MATRICES:
            usable = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, _MATRICES).astype(int))]
        out = []
        for pair in usable:
            rows = pick(pair.a.shape[0], _ROWS, self.models.seed, str(pair.known.key), run=8)
            x, y = (sampled_rows(s, t, rows) for s, t in ((self.models.a, pair.a), (self.models.b, pair.b)))
            if _cosine(x, y) >= _RELATED:
                out.append((pair, x, y))
        return out

    def matches(self, least: float = _SHARE) -> list[UnitMatch]:
        """FFNs of B with the FFNs of A that hold a good part of their units."""
        units = self.evidence.get("unit_agreement")
        found = units.matches if units is not None and units.applied else ()
        return [m for m in found if m.share >= least and m.log10_p < -3]


def rounded(seen: Seen) -> Found | None:
    same = seen.evidence.get("same_values")
    if same is None or not same.applied or not any(f.kind == "re_encoded" for f in same.found):
        return None
    later: Label | None = same.details["later"]
    if later is None:
        return None
    this, other = _names(later)
    because = f"{this} is {other} rounded, and {other} holds the bits that {this} lost"
    return Found(later, 0.9, because + ", unless someone made those bits up afterwards")


def zeros(seen: Seen) -> Found | None:
    """Zeros where the other has values: filling them is nobody's habit."""
    gone = {"a": 0, "b": 0}
    total, groups, in_pattern = 0, 0, 0
    for _, x, y in seen.samples:
        gone["a"] += int(np.count_nonzero((x == 0) & (y != 0)))
        gone["b"] += int(np.count_nonzero((y == 0) & (x != 0)))
        total += x.size
        if x.shape[1] % 4 == 0:
            per_four = np.count_nonzero((x if gone["a"] > gone["b"] else y).reshape(-1, 4) == 0, axis=1)
            groups, in_pattern = groups + per_four.size, in_pattern + int(np.count_nonzero(per_four == 2))
    later: Label = "a" if gone["a"] > gone["b"] else "b"
    if not total or gone[later] < 0.02 * total or sum(gone.values()) > 1.1 * gone[later]:
        return None
    this, other = _names(later)
    pattern = ", two in every four" if groups and in_pattern > 0.95 * groups else ""
    return Found(
        later, 0.97, f"{this} is zero in {gone[later] / total:.0%} of the places where {other} has values{pattern}"
    )


def lattice(seen: Seen) -> Found | None:
    """Few distinct values in each group where the other side has many: quantised, whatever the stored type."""
    fewer = {"a": 0, "b": 0}
    for _, x, y in seen.samples:
        if np.count_nonzero(x) < 0.9 * x.size or np.count_nonzero(y) < 0.9 * y.size:
            continue  # zeros are a sign of their own
        counts = _coarseness(x), _coarseness(y)
        for one, two, label in ((counts[0], counts[1], "a"), (counts[1], counts[0], "b")):
            fewer[label] += any(mine < 0.6 * its for mine, its in zip(one, two, strict=True))
    later: Label = "a" if fewer["a"] > fewer["b"] else "b"
    if fewer[later] < max(2, 0.5 * len(seen.samples)) or min(fewer.values()) > 0:
        return None
    this, other = _names(later)
    because = f"the values of {this} lie on a coarse grid in {fewer[later]} of {len(seen.samples)} matrices looked at"
    return Found(later, 0.95, f"{because}, those of {other} don't: {this} was quantised")


def _coarseness(x: F32) -> tuple[float, float]:
    """Distinct values per group of 32 (4 bits: at most 16), and the share of a row's values *off* the grid of 127
    steps that its largest spans (8 bits; looked at near zero, where a bf16 copy of the grid is exact enough)."""
    n = x.shape[1] // 32 * 32
    groups = np.sort(x[:, :n].reshape(-1, 32), axis=1) if n else np.sort(x, axis=1)
    distinct = float(np.median(1 + np.count_nonzero(np.diff(groups, axis=1), axis=1)))
    steps = x.astype(np.float64) * 127 / np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-30)
    near = np.abs(steps) <= 16
    off = float(np.mean(np.abs(steps - np.round(steps))[near] > 0.1)) if near.any() else 1.0
    return distinct, off


def low_rank(seen: Seen) -> Found | None:
    """A difference of low rank, and whose rounding it carries."""
    usable = [
        pair
        for pair, x, y in seen.samples
        if not np.array_equal(x, y) and pair.a.dtype == pair.b.dtype and pair.a.dtype in _MANTISSA
    ]

    def look(pair: Pair) -> tuple[int, np.ndarray]:
        rows = pick(pair.a.shape[0], 256, seen.models.seed, "low rank")
        columns = pick(pair.a.shape[1], 1024, seen.models.seed, "low rank columns")
        x = sampled_rows(seen.models.a, pair.a, rows, columns)
        y = sampled_rows(seen.models.b, pair.b, rows, columns)
        rank, rest = _without_low_rank(y.astype(np.float64) - x.astype(np.float64))
        return rank, _beyond_rounding(x, y, rest, _MANTISSA[pair.a.dtype]) if rank else np.zeros(3)

    found = list(islice((one for one in parallel.each(look, usable) if one[0]), _LOW_RANK))
    ranks, beyond = [rank for rank, _ in found], np.sum([np.zeros(3), *(counts for _, counts in found)], axis=0)
    later: Label = "b" if beyond[1] < beyond[0] else "a"
    most, least = max(beyond[:2]), min(beyond[:2])
    if beyond[2] < 100 or most < 0.08 * beyond[2] or least > most / 3:
        return None
    this, other = _names(later)
    because = f"{this} is {other} plus a matrix of rank {min(ranks)} to {max(ranks)} in {len(ranks)} matrices"
    return Found(later, 0.9, f"{because}, and the rounding that this left is {this}'s")


def _without_low_rank(difference: np.ndarray) -> tuple[int, np.ndarray]:
    """(rank, remainder) where singular values fall by `_FALL` before an eighth of them; else (0, difference)."""
    if not np.isfinite(difference).all():
        return 0, difference
    s = np.sqrt(np.maximum(eigvalsh(product(difference, difference.T))[::-1], 0))
    rank, falls = _steepest(s)
    if not falls > _FALL or s[rank - 1] == 0:
        return 0, difference
    u, s, v = svd(difference)
    rank, falls = _steepest(s)
    if not falls > _FALL:
        return 0, difference
    return rank, difference - product(u[:, :rank] * s[:rank], v[:rank])


def _steepest(s: np.ndarray) -> tuple[int, float]:
    """After how many singular values they fall by the largest factor, of the first eighth, and that factor."""
    limit = max(1, s.size // 8)
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = np.nan_to_num(s[:limit] / s[1 : limit + 1], posinf=np.inf)
    at = int(np.argmax(falls))
    return at + 1, float(falls[at])


def _beyond_rounding(x: F32, y: F32, rest: np.ndarray, bits: int) -> np.ndarray:
    """Among entries whose ulps differ: how many are further off than A's half ulp, than B's, and of how many.

    What is left of the low rank leaks between entries, so only those whose ulps are larger than the typical remainder.
    """
    ulps = [np.exp2(np.floor(np.log2(np.maximum(np.abs(m.astype(np.float64)), 1e-37))) - bits) for m in (x, y)]
    differ = (ulps[0] != ulps[1]) & (np.minimum(*ulps) > float(np.sqrt(np.mean(np.square(rest)))))
    over = [np.count_nonzero(np.abs(rest[differ]) > 0.6 * ulp[differ]) for ulp in ulps]
    return np.array([*over, np.count_nonzero(differ)], np.float64)


def vocabulary(seen: Seen) -> Found | None:
    """Rows added behind a vocabulary, or a choice of its rows."""
    tables = {label: (side, _table(side)) for label, side in _sides(seen.models)}
    (small, few), (big, many) = sorted(tables.values(), key=lambda st: st[1].shape[0] if st[1] is not None else 0)
    if few is None or many is None or few.shape[1] != many.shape[1] or few.shape[0] == many.shape[0]:
        return None
    n, added = few.shape[0], many.shape[0] - few.shape[0]
    rows = pick(n, 128, seen.models.seed, "vocabulary", run=4)
    place, best = _find_rows(sampled_rows(small, few, rows), big, many)
    kept = best > 0.9
    if np.count_nonzero(kept) < 0.5 * rows.size:
        return None
    this, other = _names(big.label)
    shift = (place - rows)[kept]
    if np.mean(shift == 0) > 0.95:
        new, old = big.rows(many, n, n + 512), sampled_rows(big, many, rows)
        because = f"the first {n:,} rows of {this}'s vocabulary are {other}'s, and {added:,} follow"
        if min(_size(new), _size(new - new.mean(axis=0))) < 0.1 * _size(old - old.mean(axis=0)):
            return Found(big.label, 0.95, because + " that are nearly the same or nearly nothing: never trained")
        return Found(big.label, 0.8, because)
    if np.all(np.diff(place[kept]) > 0) and np.any(shift != shift[0]):
        because = f"{other}'s vocabulary is a choice of {this}'s rows, in their order"
        return Found(small.label, 0.85, because + "; rows are rarely added in between")
    return None


def _find_rows(rows: F32, side: Side, table: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For each row the nearest row of a table and its cosine."""
    rows = _unit(rows)
    place, best = np.full(len(rows), -1), np.full(len(rows), -np.inf)
    for start, piece in side.slices(table):
        cosines = rows @ _unit(piece).T
        at = cosines.argmax(axis=1)
        found = cosines[np.arange(len(rows)), at]
        place, best = np.where(found > best, at + start, place), np.maximum(found, best)
    return place, best


def experts(seen: Seen) -> Found | None:
    """Several experts of a block hold *the same* units of one dense FFN: they were made from it, or it from them.

    A dense FFN made by averaging leaves differences that cancel: their mean cosine is -1/(experts - 1), where experts
    that went their own ways from it have 0 or more. One that is a single expert lies on it and far from the others.
    Experts with different units of it (a split, or the reverse, a concatenation) say nothing.
    """
    for moe_side, (label, side) in enumerate(_sides(seen.models)):
        dense_side = _sides(seen.models)[1 - moe_side][1]
        groups: dict[tuple[Any, ...], dict[Any, set[int]]] = defaultdict(dict)
        for match in seen.matches():
            moe, dense = (match.b, match.a) if label == "b" else (match.a, match.b)
            if moe[2] is not None and dense[2] is None and match.units is not None:
                column = 1 if label == "b" else 0
                groups[(moe[0], moe[1], dense)][moe[2]] = set(match.units[:, column].tolist())
        several = {key: units for key, units in groups.items() if _overlap(list(units.values()))}
        if not several:
            continue
        this, other = _names(label)
        same = f"in {len(several)} blocks of {this} two experts or more hold the same units of one dense FFN of {other}"
        votes = [_made_from_experts(side, dense_side, key, list(units)) for key, units in list(several.items())[:4]]
        if any(votes) and all(votes):
            return Found(dense_side.label, 0.8, f"{same}, and that FFN is one of them or their mean")
        if not any(votes):
            return Found(label, 0.85, f"{same}; experts trained apart are not alike")
    return None


def _overlap(units: Sequence[set[int]]) -> bool:
    """Some two sets share a third of the smaller."""
    pairs = [(x, y) for i, x in enumerate(units) for y in units[:i] if x and y]
    return any(len(x & y) * 3 >= min(len(x), len(y)) for x, y in pairs)


def _made_from_experts(moe: Side, dense: Side, key: tuple[Any, ...], experts: Sequence[Any]) -> bool:
    """The dense up-projection is one of these experts', or their mean, unit by unit."""
    stack, block, (dense_stack, dense_block, _) = key
    ups = {t.place: t for t in moe.tensors.values() if t.place and t.place.role == "up" and t.rank2}
    its = [t for p, t in ups.items() if (p.stack, p.block) == (stack, block) and p.expert in experts]
    own = next(
        (
            t
            for t in dense.tensors.values()
            if t.place and (t.place.stack, t.place.block, t.place.role) == (dense_stack, dense_block, "up")
        ),
        None,
    )
    if own is None or any(t.shape != own.shape for t in its):
        return False
    rows = np.arange(min(256, own.shape[0]))
    centre = sampled_rows(dense, own, rows)
    off = np.stack([(sampled_rows(moe, t, rows) - centre).ravel() for t in its])
    lengths = np.maximum(np.linalg.norm(off, axis=1), np.float32(1e-30))
    if lengths.min() < 0.2 * float(np.median(lengths)):
        return True
    cosines = (off @ off.T) / np.outer(lengths, lengths)
    mean = (float(cosines.sum()) - len(its)) / (len(its) * (len(its) - 1))
    return mean < -0.5 / (len(its) - 1)


def repeats(seen: Seen) -> Found | None:
    """Blocks that repeat: two blocks of one side hold the units of one block of the other, and look alike."""
    repeated: dict[Label, int] = {"a": 0, "b": 0}
    for label in repeated:
        sources: dict[tuple[Any, ...], set[int]] = defaultdict(set)
        for match in seen.matches(0.5):
            mine, its = (match.b, match.a) if label == "b" else (match.a, match.b)
            if mine[2] is None and its[2] is None:
                sources[its[0], its[1], mine[0]].add(mine[1])
        repeated[label] = sum(len(blocks) - 1 for blocks in sources.values())
    later: Label = "a" if repeated["a"] > repeated["b"] else "b"
    if not repeated[later] or min(repeated.values()):
        return None
    this, other = _names(later)
    return Found(later, 0.95, f"{repeated[later]} blocks of {this} repeat a block of {other} that it already has")


def new_units(seen: Seen) -> Found | None:
    """A wider FFN whose extra units do nothing, or copy others: it was widened. Without that, either order will do."""
    signs: dict[Label, int] = {"a": 0, "b": 0}
    blocks = 0
    for ours, theirs in _downs(seen.models)[:4]:
        later: Label = "a" if ours.shape[1] > theirs.shape[1] else "b"
        side, tensor = (seen.models.a, ours) if later == "a" else (seen.models.b, theirs)
        extra = abs(ours.shape[1] - theirs.shape[1])
        down = np.concatenate([piece for _, piece in side.slices(tensor)]).T
        dead = int(np.count_nonzero(~down.any(axis=1)))
        unit = _unit(down)
        cosines = unit @ unit.T - np.eye(len(unit), dtype=np.float32)
        copied = int(np.count_nonzero(cosines.max(axis=1) > 0.999)) // 2
        blocks += 1
        signs[later] += dead + copied >= 0.8 * extra
    later = "a" if signs["a"] > signs["b"] else "b"
    if not blocks or signs[later] < blocks:
        return None
    this, _ = _names(later)
    return Found(later, 0.9, f"the units that only {this} has write nothing or repeat others: its FFNs were widened")


def own_directions(seen: Seen) -> Found | None:
    """Strong directions that only one side has: it went on from where the other stands (`training_shared`).

    Noise and pruning don't make any, so they say nothing here. A sibling that stayed near the common ancestor looks
    like the ancestor. Where rounding explains every value, nothing was trained.
    """
    same = seen.evidence.get("same_values")
    if same is not None and same.applied and same.details["n_same"] and not same.details["n_differ"]:
        return None
    shared = seen.evidence.get("training_shared")
    if shared is None or not shared.applied or shared.details["reads_as"] != "descent":
        return None
    r: dict[Label, float] = {"a": shared.details["r_a"], "b": shared.details["r_b"]}
    older: Label = "a" if r["a"] > r["b"] else "b"
    later: Label = "b" if older == "a" else "a"
    if r[older] < 0.98 or r[later] > 0.98 or r[older] - r[later] < 0.03:
        return None
    this, other = _names(later)
    because = (
        f"{this} holds {other}'s strong directions ({r[older]:.0%}) and has strong ones of its own ({r[later]:.0%})"
    )
    return Found(later, DIRECTIONS_CONFIDENCE, f"{because}, as after further training from {other} or from near it")


def _names(later: Label) -> tuple[str, str]:
    return ("A", "B") if later == "a" else ("B", "A")


def _comparable(pair: Pair) -> bool:
    return (
        pair.a.rank2
        and pair.a.shape == pair.b.shape
        and not pair.transposed
        and not (pair.a.constant or pair.b.constant)
    )


def _cosine(x: F32, y: F32) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float(np.vdot(x, y)) / scale if math.isfinite(scale) and scale > 0 else 0.0


def _unit(x: F32) -> F32:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    out: F32 = x / np.where(norms > 0, norms, np.float32(1))
    return out


def _size(rows: F32) -> float:
    """Median length of a row."""
    return float(np.median(np.linalg.norm(rows, axis=1)))


def _sides(models: Models) -> tuple[tuple[Label, Side], tuple[Label, Side]]:
    return (("a", models.a), ("b", models.b))


def _table(side: Side) -> Tensor | None:
    return next((t for t in side.tensors.values() if t.place and t.place.role == "embedding" and t.rank2), None)


def _downs(models: Models) -> Sequence[tuple[Tensor, Tensor]]:
    """Down-projections in the same place whose FFN widths differ."""
    ours = {t.place: t for t in models.a.tensors.values() if t.place and t.place.role == "down" and t.rank2}
    pairs = [(ours[t.place], t) for t in models.b.tensors.values() if t.place in ours and t.rank2]
    return [(x, y) for x, y in pairs if x.shape[0] == y.shape[0] and x.shape[1] != y.shape[1]]
