"""The signs of :mod:`weightprint.verdict.direction`: each looks at two models and their evidence for a trace that has a
direction.

*Lost information* (zeros, rounding, a grid, rows of a vocabulary, units that do nothing) tells who is later only where
the two models agree exactly in all that was not lost (:mod:`weightprint.verdict.direction.samples`). Once something was
trained as well either order explains it: the one with the zeros was pruned from what the other came from, or the other
was trained on from it and so filled them.

*The low-rank sign.* B = A + low rank (a LoRA merge) is symmetric, B - low rank = A, but rounding isn't: whoever was
computed last was rounded last. With D = B - A and e = D minus its part of low rank, B = round(A + L) means
|e| <= ulp(B)/2 entry by entry, and A = round(B - L) means |e| <= ulp(A)/2. Entries where the two ulps differ decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.same_values import SameValues
from weightprint.evidence.training_shared import TrainingShared
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util import parallel
from weightprint.util.arrays import F32
from weightprint.util.floats import MANTISSA
from weightprint.util.linear_algebra import eigvalsh, product, svd, unit_rows
from weightprint.verdict.direction.beside import (
    PARTS,
    lone_parts,
    lone_router,
    lone_vectors,
    padding,
    pooled_heads,
    tables,
)
from weightprint.verdict.direction.last_rounded import last_rounded
from weightprint.verdict.direction.lost_rank import lost_rank
from weightprint.verdict.direction.order import block_order, vocabulary_order
from weightprint.verdict.direction.parting import parting
from weightprint.verdict.direction.samples import Seen, names, same_values_as
from weightprint.verdict.maps import Maps
from weightprint.verdict.values import Cue, Cues, Label

_LOW_RANK, _FALL = 8, 5  # matrices of low rank that are enough, and how far their singular values fall at once
_ALIKE = 0.3  # cosine of two blocks, or two experts, in place: those trained apart have none
_BLOCKS = 128  # that are compared with each other


def rounded(seen: Seen) -> Cue | None:
    """One side's values are the other's, rounded by their type, and these fill the cells."""
    same = seen.evidence.get("same_values")
    if same is None or not same.applied or not any(f.kind == "re_encoded" for f in same.found):
        return None
    later = same.told(SameValues).later
    if later is None or seen.trained or not seen.lost("rounded")[later]:
        return None
    this, other = names(later)
    because = f"{this} is {other} rounded, and {other} holds the bits that {this} lost"
    return Cue(later, 0.9, because + ", unless someone made those bits up afterwards")


def zeros(seen: Seen) -> Cue | None:
    """Zeros where the other has values, all else being equal: filling them and nothing else is nobody's habit."""
    gone = seen.lost("zeros")
    later: Label = "a" if gone["a"] else "b"
    share = float(np.mean([d.share for d in gone[later]])) if gone[later] else 0.0
    if seen.trained or share < 0.02 or min(map(len, gone.values())):
        return None
    this, other = names(later)
    pattern = ", two in every four" if all(d.fours for d in gone[later]) else ""
    return Cue(
        later,
        0.97,
        f"{this} is zero in {share:.0%} of the places where {other} has values{pattern}, and equals {other} elsewhere",
    )


def lattice(seen: Seen) -> Cue | None:
    """The values of one side are those of the other rounded to a coarse grid, and all else is equal."""
    on = seen.lost("grid")
    later: Label = "a" if on["a"] else "b"
    if seen.trained or len(on[later]) < 2 or min(map(len, on.values())):
        return None
    this, other = names(later)
    looked = sum(d.pair.a.rank2 for d in seen.differences)
    because = f"the values of {this} lie on a coarse grid in {len(on[later])} of {looked} matrices looked at"
    return Cue(later, 0.95, f"{because}, and are what rounding {other}'s to it makes: {this} was quantised")


def low_rank(seen: Seen) -> Cue | None:
    """A difference of low rank, and whose rounding it carries."""
    usable = [
        pair
        for pair, x, y in seen.samples
        if not np.array_equal(x, y) and pair.a.dtype == pair.b.dtype and pair.a.dtype in MANTISSA
    ]

    def look(pair: Pair) -> tuple[int, np.ndarray]:
        rows = pick(pair.a.shape[0], 256, seen.models.seed, "low rank")
        columns = pick(pair.a.shape[1], 512, seen.models.seed, "low rank columns")
        x = sampled_rows(seen.models.a, pair.a, rows, columns)
        y = sampled_rows(seen.models.b, pair.b, rows, columns)
        rank, rest = _without_low_rank(y.astype(np.float64) - x.astype(np.float64))
        return rank, _beyond_rounding(x, y, rest, MANTISSA[pair.a.dtype][0]) if rank else np.zeros(3)

    found = list(islice((one for one in parallel.each(look, usable) if one[0]), _LOW_RANK))
    ranks, beyond = [rank for rank, _ in found], np.sum([np.zeros(3), *(counts for _, counts in found)], axis=0)
    later: Label = "b" if beyond[1] < beyond[0] else "a"
    most, least = max(beyond[:2]), min(beyond[:2])
    if beyond[2] < 100 or most < 0.08 * beyond[2] or least > most / 3:
        return None
    this, other = names(later)
    because = f"{this} is {other} plus a matrix of rank {min(ranks)} to {max(ranks)} in {len(ranks)} matrices"
    return Cue(later, 0.9, f"{because}, and the rounding that this left is {this}'s")


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


def vocabulary(seen: Seen) -> Cue | None:
    """Rows added behind a vocabulary, or a choice of its rows, where nothing was trained since."""
    tables = {label: (side, _table(side)) for label, side in _sides(seen.models)}
    (small, few), (big, many) = sorted(tables.values(), key=lambda st: st[1].shape[0] if st[1] is not None else 0)
    if few is None or many is None or few.shape[1] != many.shape[1] or few.shape[0] == many.shape[0] or seen.trained:
        return None
    n, added = few.shape[0], many.shape[0] - few.shape[0]
    rows = pick(n, 128, seen.models.seed, "vocabulary", run=4)
    sampled = sampled_rows(small, few, rows)
    place, best = _find_rows(sampled, big, many)
    kept = best > 0.9
    pair = Pair(few, many)
    equal = [
        bool(same_values_as(pair, x, big.rows(many, at, at + 1)[0]).all())
        for x, at in zip(sampled[kept], place[kept].tolist(), strict=True)
    ]
    if len(equal) < 0.5 * rows.size or np.mean(equal) < 0.95:
        return None
    this, other = names(big.label)
    shift = (place - rows)[kept]
    if np.mean(shift == 0) > 0.95:
        new, old = big.rows(many, n, n + 512), sampled_rows(big, many, rows)
        because = f"the first {n:,} rows of {this}'s vocabulary are {other}'s, and {added:,} follow"
        if min(_size(new), _size(new - new.mean(axis=0))) < 0.1 * _size(old - old.mean(axis=0)):
            if padding(n, many.shape[0]):
                return None
            return Cue(big.label, 0.95, because + " that are nearly the same or nearly nothing: never trained")
        return Cue(big.label, 0.8, because)
    if np.all(np.diff(place[kept]) > 0) and np.any(shift != shift[0]):
        because = f"{other}'s vocabulary is a choice of {this}'s rows, in their order"
        return Cue(small.label, 0.85, because + "; rows are rarely added in between")
    return None


def _find_rows(rows: F32, side: ModelView, table: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """For each row the nearest row of a table and its cosine."""
    rows = unit_rows(rows)
    place, best = np.full(len(rows), -1), np.full(len(rows), -np.inf)
    for start, piece in side.slices(table):
        cosines = rows @ unit_rows(piece).T
        at = cosines.argmax(axis=1)
        found = cosines[np.arange(len(rows)), at]
        place, best = np.where(found > best, at + start, place), np.maximum(found, best)
    return place, best


def experts(seen: Seen) -> Cue | None:
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
        this, other = names(label)
        same = f"in {len(several)} blocks of {this} two experts or more hold the same units of one dense FFN of {other}"
        votes = [_from_experts(side, dense_side, key, list(units)) for key, units in list(several.items())[:4]]
        if votes.count(True) == len(votes):
            return Cue(dense_side.label, 0.8, f"{same}, and that FFN is one of them or their mean")
        if votes.count(False) == len(votes):
            return Cue(label, 0.85, f"{same}; experts trained apart are not alike")
    return None


def _overlap(units: Sequence[set[int]]) -> bool:
    """Some two sets share a third of the smaller."""
    pairs = [(x, y) for i, x in enumerate(units) for y in units[:i] if x and y]
    return any(len(x & y) * 3 >= min(len(x), len(y)) for x, y in pairs)


def _from_experts(moe: ModelView, dense: ModelView, key: tuple[Any, ...], experts: Sequence[Any]) -> bool | None:
    """Whether the dense up-projection was made of these experts': it is one of them or their mean, or they aren't
    alike, so they weren't made of it. None where they are a little alike."""
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
    values = [sampled_rows(moe, t, rows) for t in its]
    alike = _mean_cosine([(x - x.mean(axis=0)).ravel() for x in values])
    if alike < _ALIKE:
        return True if alike < _ALIKE / 3 else None
    centre = sampled_rows(dense, own, rows)
    off = [(x - centre).ravel() for x in values]
    lengths = [float(np.linalg.norm(x)) for x in off]
    if min(lengths) < 0.2 * float(np.median(lengths)):
        return True
    return _mean_cosine(off) < -0.5 / (len(its) - 1)


def _mean_cosine(vectors: Sequence[F32]) -> float:
    """Of every two of them; 0 where they are nothing."""
    unit = unit_rows(np.stack(vectors))
    n = len(unit)
    return (float((unit @ unit.T).sum()) - float(np.square(unit).sum())) / (n * (n - 1))


def repeats(seen: Seen) -> Cue | None:
    """Blocks that repeat: two blocks of one side hold the units of one block of the other, and are alike in place.

    Units alone don't say it: neighbouring blocks of one model have some that resemble each other.
    """
    repeated: dict[Label, int] = {"a": 0, "b": 0}
    for label, side in _sides(seen.models):
        sources: dict[tuple[Any, ...], set[int]] = defaultdict(set)
        for match in seen.matches():
            mine, its = (match.b, match.a) if label == "b" else (match.a, match.b)
            if mine[2] is None and its[2] is None:
                sources[its[0], its[1], mine[0]].add(mine[1])
        repeated[label] = sum(_copies(side, key[2], sorted(blocks)[:_BLOCKS]) for key, blocks in sources.items())
    later: Label = "a" if repeated["a"] > repeated["b"] else "b"
    if not repeated[later] or min(repeated.values()):
        return None
    this, other = names(later)
    return Cue(later, 0.95, f"{repeated[later]} blocks of {this} repeat a block of {other} that it already has")


def _copies(side: ModelView, stack: str, blocks: Sequence[int]) -> int:
    """How many of these blocks are like one before them, value by value."""
    ups = {t.layer: t for t in side.tensors.values() if t.place and t.stack == stack and t.place.role == "up"}
    chosen = [ups[i] for i in blocks if i in ups and ups[i].rank2]
    if len({t.shape for t in chosen}) != 1:
        return 0
    rows = pick(chosen[0].shape[0], 64, 0, "repeated blocks", run=8)
    values = [sampled_rows(side, t, rows) for t in chosen]
    unit = unit_rows(np.stack([(x - x.mean(axis=0)).ravel() for x in values]))
    return int(np.count_nonzero(np.tril(unit @ unit.T, -1).max(axis=1) >= _ALIKE))


def new_units(seen: Seen) -> Cue | None:
    """A wider FFN whose extra units do nothing, or copy others: it was widened. Without that, either order will do."""
    signs: dict[Label, int] = {"a": 0, "b": 0}
    blocks = 0
    for ours, theirs in _downs(seen.models)[:4]:
        later: Label = "a" if ours.shape[1] > theirs.shape[1] else "b"
        side, tensor = (seen.models.a, ours) if later == "a" else (seen.models.b, theirs)
        widths = ours.shape[1], theirs.shape[1]
        extra = abs(widths[0] - widths[1])
        down = np.concatenate([piece for _, piece in side.slices(tensor)]).T
        dead = int(np.count_nonzero(~down.any(axis=1)))
        unit = unit_rows(down)
        cosines = unit @ unit.T - np.eye(len(unit), dtype=np.float32)
        copied = int(np.count_nonzero(cosines.max(axis=1) > 0.999)) // 2
        blocks += 1
        silent = dead if not seen.trained and not padding(min(widths), max(widths)) else 0
        signs[later] += silent + copied >= 0.8 * extra
    later = "a" if signs["a"] > signs["b"] else "b"
    if not blocks or signs[later] < blocks:
        return None
    this, _ = names(later)
    return Cue(later, 0.9, f"the units that only {this} has write nothing or repeat others: its FFNs were widened")


def _hint(seen: Seen) -> str | None:
    """Strong directions that only one side has (`training_shared`): never a claim. Training on from the other makes
    them, and so does taking a mean of this side and what the other side stands for.

    Noise and pruning don't make any, and where rounding explains every value nothing was trained.
    """
    same = seen.evidence.get("same_values")
    if same is not None and same.applied and (told := same.told(SameValues)).n_same and not told.n_differ:
        return None
    shared = seen.evidence.get("training_shared")
    if shared is None or not shared.applied or (read := shared.told(TrainingShared)).reads_as != "descent":
        return None
    r: dict[Label, float] = {"a": read.r_a, "b": read.r_b}
    older: Label = "a" if r["a"] > r["b"] else "b"
    its: Label = "b" if older == "a" else "a"
    if r[older] < 0.98 or r[its] > 0.98 or r[older] - r[its] < 0.03:
        return None
    this, other = names(its)
    return (
        f"{this} holds {other}'s strong directions ({r[older]:.0%}) and has strong ones of its own ({r[its]:.0%}): it "
        f"was trained on from {other} or from near it, or {other} is a mean of {this} and a relative"
    )


@dataclass(frozen=True, slots=True)
class Sign:
    """One row of the table: a name and the look."""

    name: str
    holds: Callable[[Seen], Cue | None]


#: Every sign, in the order of the report.
SIGNS: tuple[Sign, ...] = (
    Sign("rounded", rounded),
    Sign("zeros", zeros),
    Sign("lattice", lattice),
    Sign("low rank", low_rank),
    Sign("lost rank", lost_rank),
    Sign("vocabulary", vocabulary),
    Sign("experts", experts),
    Sign("repeated blocks", repeats),
    Sign("widened", new_units),
    *(Sign(f"lone {what}", partial(lone_parts, what=what)) for what in PARTS),
    Sign("lone router", lone_router),
    Sign("lone vectors", lone_vectors),
    Sign("pooled heads", pooled_heads),
    Sign("tables", tables),
    Sign("last rounded", last_rounded),
    Sign("order of blocks", block_order),
    Sign("order of tokens", vocabulary_order),
)


def gather(models: ModelPair, evidence: Mapping[str, Evidence], maps: Maps | None = None) -> Cues:
    """Look for every sign, and where the two parted; reads values of both models.

    Args:
        models: the pair.
        evidence: test → its answer in the basis as stored.
        maps: which layers, experts and units of B are which of A's; None where all is in place.
    """
    seen = Seen(models, evidence, maps)
    found = tuple(f for sign in SIGNS if (f := sign.holds(seen)) is not None)
    return Cues(found, None if found else _hint(seen), parting(models, maps), _coarser(seen))


def _coarser(seen: Seen) -> Cue | None:
    """Matrices of one side lie where rounding the other's values to a grid puts them, whatever was done to others."""
    on = seen.lost("grid")
    later: Label = "b" if on["b"] else "a"
    if len(on[later]) < 2 or min(map(len, on.values())):
        return None
    this, other = names(later)
    because = f"{len(on[later])} matrices of {this} are {other}'s rounded to a coarse grid"
    return Cue(later, 0.95, because)


def _size(rows: F32) -> float:
    """Median length of a row."""
    return float(np.median(np.linalg.norm(rows, axis=1)))


def _sides(models: ModelPair) -> tuple[tuple[Label, ModelView], tuple[Label, ModelView]]:
    return (("a", models.a), ("b", models.b))


def _table(side: ModelView) -> Tensor | None:
    return next((t for t in side.tensors.values() if t.place and t.place.role == "embedding" and t.rank2), None)


def _downs(models: ModelPair) -> Sequence[tuple[Tensor, Tensor]]:
    """Down-projections in the same place whose FFN widths differ."""
    ours = {t.place: t for t in models.a.tensors.values() if t.place and t.place.role == "down" and t.rank2}
    pairs = [(ours[t.place], t) for t in models.b.tensors.values() if t.place in ours and t.rank2]
    return [(x, y) for x, y in pairs if x.shape[0] == y.shape[0] and x.shape[1] != y.shape[1]]
