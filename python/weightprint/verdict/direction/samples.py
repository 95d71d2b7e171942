"""What the signs of :mod:`weightprint.verdict.direction` look at: samples of tensors in one place, and how each pair of
them differs.

*How two tensors differ* is one of: not at all; one of them is *zero* where the other has values and equal elsewhere;
one is the other *rounded*, by its type or to a grid; otherwise. Rounding to nearest leaves its own trace: what was
rounded lies anywhere in the cell that goes to a point, and nowhere else, so its distances from the points, in steps,
fill [-1/2, 1/2] evenly. Training on from rounded values doesn't: small changes stay near the points, larger ones leave
the cells, whatever their size. So a model that was trained on from a rounded one is not taken for its original, though
all its values may still round to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.rounding.grids import grid, steps
from weightprint.evidence.rounding.scaled_cells import FORMATS
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, F64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.ranges import evenly
from weightprint.verdict.direction.contained import Shared, shared
from weightprint.verdict.maps import Maps
from weightprint.verdict.values import Label

Kind = Literal["equal", "zeros", "rounded", "grid", "other"]
_BY_ROUNDING: tuple[Kind, ...] = ("rounded", "grid")

_ROWS, _VECTORS = 32, 128
_RELATED = 0.3  # centred cosine of sampled rows from which two matrices in one place are compared value by value
_SHARE = 0.3  # units of a block that must be found for it to count as made from that block

_ZEROED = 0.01  # of a matrix, that may be zero where the other is not
_KEPT = 0.99  # of what is zero on neither side must be equal
#: Size of what one side lost, as a part of what it kept: training in bfloat16 fills zeros with far less, while what is
#: not zero doesn't move at all.
_LOST = 0.02

_FEW, _MANY = 64, 1024  # distances that tell how cells are filled, of several matrices and of one
_QUARTER, _OUTSIDE = 0.18, 0.03  # of them in each quarter of the cells, at least; beyond the cells, at most
_RUN, _COARSE = 32, 0.6  # inputs, and different values among them against the other side's: 4 bits have 16 at most
_GROUPS = 4096  # of a tensor in codes that are looked at
_EDGE = 0.55  # of a step; the grid itself may have been rounded
#: Quantisers that make up for the errors of others push values further, to an error that is bounded all the same: its
#: size in steps and its kurtosis (even: 1.8; normal: 3; training: more).
_PUSHED, _KURTOSIS = (0.25, 0.6), (1.6, 2.6)

_SIMPLER = 1.1  # times the mean square that the best of several scalings leaves: fewer scales are taken first

#: Mantissa bits and least normal exponent of the small floats.
_SMALL = {"F8_E4M3": (3, -6), "F8_E5M2": (2, -14), "F8_E4M3FNUZ": (3, -7), "F8_E5M2FNUZ": (2, -15), "F4": (1, 0)}


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How two tensors in one place differ, and which side lost something; None where neither did.

    ``off``: distances of the finer side's values from the coarser side's points, in steps, float64 (n,); ``share``: of
    the values, those lost to zero; ``fours``: whether two in every four are.
    """

    pair: Pair
    kind: Kind
    lost: Label | None = None
    off: F64 | None = None
    share: float = 0.0
    fours: bool = False


@dataclass(frozen=True)
class Seen:
    """The pair, its evidence and maps (None where all is in place), with what several signs look at."""

    models: ModelPair
    evidence: Mapping[str, Evidence]
    maps: Maps | None = None

    @cached_property
    def samples(self) -> list[tuple[Pair, F32, F32]]:
        """Sampled rows of matrices in the same place that are related: (pair, A's rows, B's rows)."""
        return [(p, x, y) for p, x, y in self._sampled if cosine(x, y) >= _RELATED]

    @cached_property
    def _sampled(self) -> list[tuple[Pair, F32, F32]]:
        usable = [p for p in self.models.pairs if comparable(p) and p.known.layer is not None]
        return [self._rows(p) for p in evenly(usable, self.models.budget.sampled, rounded=False)]

    def _rows(self, pair: Pair) -> tuple[Pair, F32, F32]:
        rows = pick(pair.a.matrix[0], _ROWS, self.models.seed, str(pair.known.key), run=8)
        return pair, sampled_rows(self.models.a, pair.a, rows), sampled_rows(self.models.b, pair.b, rows)

    @cached_property
    def shared(self) -> Shared | None:
        """What is equal in the blocks, and what one side has beside it; None where something else differs."""
        return shared(self.models)

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """How what stands in one place differs: sampled matrices of the blocks, tables and norms."""
        outside = [p for p in self.models.pairs if comparable(p) and p.known.layer is None]
        vectors = [p for p in self.models.pairs if not p.a.rank2 and p.a.shape == p.b.shape and _learned(p)]
        others = (*outside, *evenly(vectors, _VECTORS, rounded=False))
        every = (*self._sampled, *(self._rows(p) for p in others if not _equal(p)))
        told = [_difference(*some) for some in every]
        for kind in _BY_ROUNDING:
            told = _filled(told, kind, self._tables_kept)
        return tuple(told)

    @cached_property
    def trained(self) -> bool:
        """Something differs in a way that no loss explains: then nothing that one side lacks was lost by *it*."""
        return any(d.kind == "other" for d in self.differences)

    @cached_property
    def _tables_kept(self) -> bool:
        """Some matrix outside of the blocks is in both and equal."""
        return any(_equal(p) and p.a.rank2 and p.known.layer is None for p in self.models.pairs)

    def lost(self, *kinds: Kind) -> dict[Label, list[Difference]]:
        """Matrices of these kinds by the side that lost."""
        out: dict[Label, list[Difference]] = {"a": [], "b": []}
        for d in self.differences:
            if d.kind in kinds and d.lost is not None:
                out[d.lost].append(d)
        return out

    def matches(self) -> list[UnitMatch]:
        """FFNs of B with every FFN of A that holds a good part of their units."""
        units = self.evidence.get("unit_agreement")
        found = (*units.matches, *units.others) if units is not None and units.applied else ()
        return [m for m in found if m.share >= _SHARE and m.log10_p < -3]


def _learned(pair: Pair) -> bool:
    return pair.known.place is not None and pair.known.place.part != "fixed"


def _equal(pair: Pair) -> bool:
    return pair.a.digest is not None and (pair.a.digest, pair.a.dtype) == (pair.b.digest, pair.b.dtype)


def comparable(pair: Pair) -> bool:
    """Two matrices of one shape with values that differ from each other."""
    return (
        pair.a.rank2
        and pair.a.shape == pair.b.shape
        and not pair.transposed
        and not (pair.a.constant or pair.b.constant)
    )


def _difference(pair: Pair, x: F32, y: F32) -> Difference:
    """The first that holds: equal, zeros, rounded to a type or code, on a grid, otherwise."""
    x, y = (v + np.float32(t.offset) if t.offset else v for v, t in ((x, pair.a), (y, pair.b)))
    if np.array_equal(x, y, equal_nan=True):
        return Difference(pair, "equal")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Difference(pair, "other")
    return (
        _zeroed(pair, x, y, "b") or _zeroed(pair, y, x, "a") or _recoded(pair, x, y) or _gridded(pair, x, y)
        or Difference(pair, "other")
    )  # fmt: skip


def _zeroed(pair: Pair, whole: F32, left: F32, label: Label) -> Difference | None:
    """The second is zero where the first has values, and equal elsewhere."""
    gone, kept = (left == 0) & (whole != 0), (left != 0) & (whole != 0)
    if not pair.a.rank2 or np.count_nonzero(gone) < _ZEROED * gone.size or not kept.any():
        return None
    if ((left != 0) & (whole == 0)).any() or np.mean(same_values_as(pair, whole, left)[kept]) < _KEPT:
        return None
    if _size(whole[gone]) < _LOST * _size(whole[kept]):
        return None
    per_four = np.count_nonzero(left.reshape(-1, 4) == 0, axis=1) if left.shape[1] % 4 == 0 else np.zeros(1)
    return Difference(pair, "zeros", label, share=float(gone.mean()), fours=bool(np.mean(per_four == 2) > 0.95))


def same_values_as(pair: Pair, x: F32, y: F32) -> npt.NDArray[np.bool_]:
    """Where the two are equal, or are within the rounding of both their types if these differ."""
    if pair.a.dtype == pair.b.dtype or pair.a.dtype not in MANTISSA or pair.b.dtype not in MANTISSA:
        return np.asarray(x == y)
    wide, other = x.astype(np.float64), y.astype(np.float64)
    return np.asarray(np.abs(wide - other) <= 0.5001 * np.maximum(ulp(other, pair.a.dtype), ulp(other, pair.b.dtype)))


def _recoded(pair: Pair, x: F32, y: F32) -> Difference | None:
    """Stored in another type or in codes: how far the finer values are from the coarser ones."""
    bits = [0 if t.coded else FORMATS.get(t.dtype, -1) for t in (pair.a, pair.b)]
    if bits[0] == bits[1] or min(bits) < 0:
        return None
    label: Label = "a" if bits[0] < bits[1] else "b"
    coarse, stored, fine = (pair.a, x, y) if label == "a" else (pair.b, y, x)
    if coarse.coded:
        run = coarse.levels.run if coarse.levels is not None else stored.shape[1]
        return Difference(pair, "rounded", label, _off_codes(fine, stored, run))
    off = _off(fine.astype(np.float64), stored.astype(np.float64), coarse.dtype)
    if off is None or np.mean(np.abs(off) > 1) > _OUTSIDE:
        return None
    return Difference(pair, "rounded", label, off[off != 0])


def _off(fine: F64, stored: F64, dtype: str) -> F64 | None:
    """Distances in steps of the coarser type, under the best scale, or one per row or column, where it needs one."""
    if dtype in MANTISSA:
        off = (fine - stored) / ulp(stored, dtype)
        inwards = np.sign(stored) * off
        return off - 0.5 * np.sign(stored) if inwards.min() > -0.01 and inwards.max() > 0.6 else off  # cut off
    if dtype in ("I8", "U8"):
        step = np.ones_like(stored)
    elif dtype in _SMALL:
        bits, least = _SMALL[dtype]
        step = np.exp2(np.maximum(np.floor(np.log2(np.maximum(np.abs(stored), 1e-30))), least) - bits)
    else:
        return None
    ways = [(_fitted(fine, stored, axis, dtype in ("I8", "U8")) - stored) / step for axis in (None, 1, 0)]
    sizes = [float(np.mean(off * off)) for off in ways]
    return ways[next(i for i, size in enumerate(sizes) if size <= _SIMPLER * min(sizes))]


def _off_codes(fine: F32, stored: F32, run: int) -> F64:
    """Distances of values from the decoded codes, in gaps to the next code on their side, where that gap is the
    smallest of a run of inputs: there no code lies in between that only did not occur."""
    width = stored.shape[1]
    run = min(run, width)
    whole = width - width % run
    x, y = (v[:, :whole].reshape(-1, run).astype(np.float64) for v in (fine, stored))
    order = np.argsort(y, axis=1)
    x, y = (np.take_along_axis(v, order, axis=1)[:_GROUPS] for v in (x, y))
    gaps = np.diff(y, axis=1)
    first = np.where(gaps > 0, y[:, 1:], np.inf)
    above = np.minimum.accumulate(first[:, ::-1], axis=1)[:, ::-1]
    last = np.where(gaps > 0, y[:, :-1], -np.inf)
    below = np.maximum.accumulate(last, axis=1)
    edge = np.full((len(y), 1), np.inf)
    gap = np.where(x >= y, np.hstack([above, edge]) - y, y - np.hstack([-edge, below]))
    smallest = np.where(gaps > 0, gaps, np.inf).min(axis=1, keepdims=True)
    there = gap <= 1.05 * smallest
    out: F64 = (x - y)[there] / gap[there]
    return out


def _fitted(fine: F64, stored: F64, axis: int | None, offset: bool) -> F64:
    """The finer values as codes: least squares of the stored ones on them, over all, by rows or by columns."""
    x = fine - fine.mean(axis=axis, keepdims=True) if offset else fine
    y = stored - stored.mean(axis=axis, keepdims=True) if offset else stored
    slope = (x * y).sum(axis=axis, keepdims=True) / np.maximum((x * x).sum(axis=axis, keepdims=True), 1e-300)
    out: F64 = x * slope + (stored - y)
    return out


def _gridded(pair: Pair, x: F32, y: F32) -> Difference | None:
    """The values of one side lie on a grid, those of the other on none or on a finer one."""
    if not pair.a.rank2:
        return None
    few = [_distinct(x), _distinct(y)]
    if min(few) < _COARSE * max(few):
        label: Label = "a" if few[0] < few[1] else "b"
        points, values = (x, y) if label == "a" else (y, x)
        return Difference(pair, "grid", label, _off_codes(values, points, _RUN))
    grids = grid(x, y), grid(y, x)
    bits = [g.bits if g is not None else 99 for g in grids]
    if bits[0] == bits[1]:
        return None
    label = "a" if bits[0] < bits[1] else "b"
    on, points, values = (grids[0], x, y) if label == "a" else (grids[1], y, x)
    assert on is not None
    size = on.group or points.shape[1]
    at, step, low = steps(points.astype(np.float64).reshape(-1, size), on.bits, on.kind)
    off = (values.astype(np.float64).reshape(-1, size) - low) / step - np.rint(at)
    near = np.abs(at * step + low) <= 16 * step  # further out a rounded type blurs the grid
    return Difference(pair, "grid", label, off[near])


def _distinct(x: F32) -> float:
    """Different values in a run of inputs."""
    n = x.shape[1] // _RUN * _RUN
    runs = np.sort(x[:, :n].reshape(-1, _RUN) if n else x, axis=1)
    return float(np.median(1 + np.count_nonzero(np.diff(runs, axis=1), axis=1)))


def _filled(told: Sequence[Difference], kind: Kind, tables_kept: bool) -> list[Difference]:
    """Those of this kind are left only if what one side lost fills the cells; else they differ otherwise. Of a grid,
    matrices with many distances are judged alone, since some may have been changed before they were rounded; the others
    together. A grid may have been reached in another way, if all that is not on it is equal, a token table too."""
    out = list(told)
    whole = kind == "grid" and tables_kept and not any(d.kind == "other" for d in told)
    for label in ("a", "b"):
        chosen = [d for d in told if d.kind == kind and d.lost == label and d.off is not None]
        few = [d for d in chosen if kind != "grid" or _distances([d]).size < _MANY]
        many = [d for d in chosen if d not in few]
        alone = [d for d in many if _evenly_filled(_distances([d]))]
        for some, judged in (([d for d in many if d not in alone], []), (few, alone)):
            off = _distances([*some, *judged])
            if some and not _evenly_filled(off) and not (whole and _pushed(off)):
                out = [Difference(d.pair, "other") if d in some else d for d in out]
    return out


def _distances(some: Sequence[Difference]) -> F64:
    return np.concatenate([np.empty(0), *(d.off for d in some if d.off is not None)])


def _evenly_filled(off: F64) -> bool:
    """Distances, in steps, that are those of rounding to nearest."""
    if off.size < _FEW:
        return False
    away = np.abs(off)
    quarters = [float(np.mean((away >= i / 8) & (away < (i + 1) / 8))) for i in range(4)]
    return min(quarters) >= _QUARTER and float(np.mean(away > _EDGE)) <= _OUTSIDE


def _pushed(off: F64) -> bool:
    """Distances that are bounded, and even in the middle, as an error that is shifted to neighbours is."""
    if off.size < _FEW:
        return False
    square = off * off
    if not square.any():
        return False
    size, kurtosis = math.sqrt(float(square.mean())), float((square * square).mean()) / float(square.mean()) ** 2
    middle = float(np.mean(np.abs(off) < 0.125))
    return _PUSHED[0] <= size <= _PUSHED[1] and _KURTOSIS[0] <= kurtosis <= _KURTOSIS[1] and middle >= 0.125


def _size(x: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def cosine(x: F32, y: F32) -> float:
    """Centred cosine of two matrices of one shape."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float(np.vdot(x, y)) / scale if math.isfinite(scale) and scale > 0 else 0.0


def names(later: Label) -> tuple[str, str]:
    """What the later side and the other are called."""
    return ("A", "B") if later == "a" else ("B", "A")
