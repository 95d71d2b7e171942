"""Do two tensors hold the same values, stored in two ways? What :mod:`.same_values` and :mod:`weightprint.diff` ask.

One pair at a time, every value of it: a plain cast, codes of a scheme of quantisation, bare codes under scales that are
stored beside them. What the scales are for is told in :mod:`.same_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from weightprint.evidence.pair import Pair
from weightprint.evidence.rounding.block_codes import Coded, bits_of, coded
from weightprint.evidence.rounding.scaled_cells import FORMATS, Factor, Fit, Scaling, fits, mantissa_bits
from weightprint.fingerprint.model import SLICE_VALUES, ModelView, Tensor
from weightprint.util.arrays import F32, F64, I64
from weightprint.util.floats import MANTISSA, ulp

__all__ = ["Kind", "Outcome", "bits", "checked", "rounded", "stored_otherwise", "stored_scales", "times"]

_MIN_LEVELS = 16  # distinct stored values for a tensor to be evidence
_MIN_GROUP = 32  # elements that share one scale; fewer could be fitted
_MAX_TURNED = 1 << 26  # values; a transposed tensor is held whole
_WIDE = frozenset({"F64", "F32", "F16", "BF16"})
_UNLIKE = 0.97  # cosine²: what a factor and rounding to one of these leave is far more
_TINY = 2.0**-14  # root mean square from which on float16 rounds as it does elsewhere
_SUBSAMPLE = 1024  # values that a factor is first asked of
_SLACK = 1e-3
_FEW_NEAR_ONE = 1024
_NEAR_ONE = 0.02  # factors that the rounding of codes may make
_ALIKE = 0.8  # cosine: what two bits leave of values is more
_NEAREST = 1.2  # times the mean square of rounding to nearest
_NEIGHBOURS = 64
_EXPLAINED = 0.2  # of the squared difference, that a factor makes
_RATHER = 0.2  # the same, where nothing is left but rounding
_OF_LEVELS = 0.6  # the same of a few levels rounded anew, whose errors are few, too
_OF_SCALES = 2.0**-10  # rounding of scales in half precision
_INTEGERS = ("U8", "I8", "I16", "I32", "I64")
Kind = Literal["re_encoded", "trivial", "scaled", "rounded"]


class Cast(Enum):
    """How one side is a plain cast of the other, the one that explains most first, with what is said of it."""

    NOTHING_LOST = "nothing lost"
    ROUNDED = "a cast"
    CUT_OFF = "a cast, cut off rather than rounded"
    BOTH_ROUNDED = "both cast from one original"
    NEIGHBOURS = "each value one of its two neighbours"  # rounded at random, or changed by less than a step


_PLAIN = (Cast.NOTHING_LOST, Cast.ROUNDED, Cast.CUT_OFF)


@dataclass(frozen=True)
class Outcome:
    """What the values of a pair say.

    Attributes:
        words: how one is the other, types included; empty where they differ.
        lost: the finer side has bits that the coarser one lacks, which is ``coarse``.
        simple: too few distinct values to show anything.
        scaling: bare codes are the other's values under this scale, if the file stores it.
        factor: one side is the other times this, before rounding.
        coded: what comparing with the codes of a scheme showed.
        narrowed: of two tensors of one type, the narrower one that the values of ``coarse`` were rounded to.
        near: no value is further off than the types' rounding can bring it, and some are not the nearest ones.
    """

    words: str = ""
    coarse: Literal["a", "b"] = "b"
    lost: bool = False
    simple: bool = False
    scaling: Scaling | None = None
    factor: float | None = None
    coded: Coded | None = None
    narrowed: str = ""
    near: bool = False

    def kind(self, stored: bool = False) -> Kind | None:
        """What is said of the pair; ``stored``: the file has the scale that the codes need. None: other values."""
        if self.factor is not None or (self.scaling is not None and not stored):
            return "scaled"
        if self.words:
            return "trivial" if self.simple else "re_encoded"
        return "rounded" if self.near or (self.coded is not None and self.coded.near) else None


def bits(tensor: Tensor) -> int:
    """Of precision; codes of a scheme are the coarsest, and of two those of fewer bits."""
    return bits_of(tensor.dtype) - 64 if tensor.coded else FORMATS.get(tensor.dtype, 64)


def stored_otherwise(pair: Pair) -> bool:
    """Not simply equal bytes, or other bytes of one dtype and orientation."""
    # Digests may be of values (compare), so equal ones in two dtypes are a cast that lost nothing.
    if pair.a.dtype != pair.b.dtype or pair.a.offset != pair.b.offset:
        return not (pair.transposed and (pair.a.coded or pair.b.coded))
    return pair.transposed and not pair.a.coded and pair.a.digest != pair.b.digest


def checked(a: ModelView, b: ModelView, pair: Pair) -> Outcome | None:
    """Whether one tensor is the other stored otherwise; None where they are too many values to be turned."""
    if pair.transposed and pair.a.numel > _MAX_TURNED:
        return None
    forward = bits(pair.b) <= bits(pair.a)
    fine, coarse = (pair.a, pair.b) if forward else (pair.b, pair.a)
    fine_side, coarse_side = (a, b) if forward else (b, a)
    whole = fine_side.rows(fine).T if pair.transposed else None
    offset = np.float32(fine.offset - coarse.offset)

    def both(at_once: int) -> Iterator[tuple[F32, F32]]:
        for start, stored in coarse_side.slices(coarse, at_once):
            stop = start + stored.shape[0]
            values: F32 = whole[start:stop] if whole is not None else fine_side.rows(fine, start, stop)
            yield np.ascontiguousarray(np.add(values, offset) if offset else values), stored

    cast, scaling, in_codes = _cast(both(SLICE_VALUES // 4), fine, coarse), None, None
    how = None if cast in (None, Cast.NEIGHBOURS) else cast.value
    if how is None and coarse.coded:
        in_codes = coded(both(SLICE_VALUES // 4), coarse, FORMATS.get(fine.dtype, FORMATS["F32"]))
        if not in_codes.same and bits(fine) == bits(coarse):  # either may be the other's values rounded
            turned_round = coded(((y, x) for x, y in both(SLICE_VALUES // 4)), fine, FORMATS["F32"])
            in_codes = max(in_codes, turned_round, key=lambda found: (found.same, found.near))
        how = f"one scale per {in_codes.run} inputs" if in_codes.same else None
    elif how is None and fine.dtype != coarse.dtype and fine.dtype in FORMATS and coarse.dtype in FORMATS:
        scaling = _scaled(both(SLICE_VALUES // 64), coarse)
        how = scaling.how if scaling is not None else None
    label: Literal["a", "b"] = "b" if forward else "a"
    plain = cast in _PLAIN[1:] or (scaling is not None and scaling.cast)
    if plain and _out_of_range(both(SLICE_VALUES // 4), coarse.dtype):
        how = None
    alone = not pair.transposed and not offset
    if how is not None and cast is not Cast.NOTHING_LOST and alone:
        # What is multiplied by nearly 1 is rounded to the same; not so the other way round.
        unrounded = ((1, 0),) if forward else ((0, 1),)
        factor = _factor(a, b, pair, unrounded)
        if factor is None and in_codes is not None:  # of codes' values multiplied by nearly 1, within their own cells
            least = _EXPLAINED if _various(fine_side, fine) else _OF_LEVELS
            factor = _explains(both, least, 2.0 ** -(1 + FORMATS.get(fine.dtype, FORMATS["F32"])))
            factor = factor if factor is None or forward else 1 / factor
        if factor is not None:
            return Outcome(f"{pair.a.dtype} to {pair.b.dtype}, one factor", label, factor=factor, coded=in_codes)
    levels = _levels(coarse_side, coarse) if how is not None else 0
    if how is None:
        factor = _factor(a, b, pair) if alone else None
        if factor is None and in_codes is not None and not in_codes.near:
            of_fine = _factor_in_codes(both, coarse, FORMATS.get(fine.dtype, FORMATS["F32"]))
            factor = of_fine if of_fine is None or forward else 1 / of_fine
        words = f"{pair.a.dtype} to {pair.b.dtype}, one factor" if factor is not None else ""
        near = cast is Cast.NEIGHBOURS and not _out_of_range(both(SLICE_VALUES // 4), coarse.dtype)
        return Outcome(words, label, factor=factor, coded=in_codes, near=near)
    turned = ", transposed" if pair.transposed else ""
    turned += f", {abs(offset):g} apart, as their architectures store gains" if offset else ""
    return Outcome(
        f"{fine.dtype} to {coarse.dtype}, {how}{turned}",
        label,
        lost=cast not in (Cast.NOTHING_LOST, Cast.BOTH_ROUNDED),
        simple=levels < _MIN_LEVELS or _shows_nothing(a, b, pair, "a" if forward else "b"),
        scaling=None if scaling is None or scaling.cast else scaling,
        coded=in_codes,
    )


def _shows_nothing(a: ModelView, b: ModelView, pair: Pair, fine: Literal["a", "b"]) -> bool:
    """The finer has too few values, or either is made by a formula: strangers have such tensors in common."""
    few = a.is_trivial(pair.a) if fine == "a" else b.is_trivial(pair.b)
    return few or a.is_computed(pair.a) or b.is_computed(pair.b)


def times(a: ModelView, b: ModelView, pair: Pair) -> Outcome | None:
    """For a pair of one dtype: whether B's is A's times one factor, or one is the other rounded to a narrower type and
    stored in this one; None where neither is."""
    if pair.transposed:
        return None
    factor = _factor(a, b, pair)
    if factor is None and pair.a.coded and pair.b.coded:  # the same codes, their scales times one number and rounded
        factor = _explains(partial(_runs, a, b, pair), math.inf, _OF_SCALES)
    if factor is not None:
        return Outcome(f"{pair.b.dtype}, one factor", factor=factor)
    return _narrowed(a, b, pair) if pair.a.dtype in ("F32", "F64") and not pair.a.constant else None


def _narrowed(a: ModelView, b: ModelView, pair: Pair) -> Outcome | None:
    """One is the other rounded to BF16 or F16."""
    to_b: tuple[Literal["a", "b"], ModelView, Tensor, ModelView, Tensor] = ("b", a, pair.a, b, pair.b)
    to_a: tuple[Literal["a", "b"], ModelView, Tensor, ModelView, Tensor] = ("a", b, pair.b, a, pair.a)
    for dtype in ("BF16", "F16"):
        for label, fine_side, fine, coarse_side, coarse in (to_b, to_a):

            def both(at_once: int, xs: ModelView = fine_side, x: Tensor = fine, ys: ModelView = coarse_side,
                     y: Tensor = coarse) -> Iterator[tuple[F32, F32]]:  # fmt: skip
                for start, stored in ys.slices(y, at_once):
                    yield np.ascontiguousarray(xs.rows(x, start, start + stored.shape[0])), stored

            as_if = replace(coarse, dtype=dtype)
            if _cast(islice(both(_SUBSAMPLE), 1), fine, as_if) not in _PLAIN:  # nearly all pairs are done with here
                continue
            if _cast(both(SLICE_VALUES // 4), fine, as_if) in _PLAIN[1:] and not _out_of_range(
                both(SLICE_VALUES // 4), dtype
            ):
                alone = _shows_nothing(a, b, pair, "a" if label == "b" else "b")
                simple = alone or _levels(coarse_side, coarse) < _MIN_LEVELS
                words = f"{fine.dtype} rounded to {dtype}, and stored as before"
                return Outcome(words, label, lost=True, simple=simple, narrowed=dtype)
    return None


def _factor(a: ModelView, b: ModelView, pair: Pair, ways: Sequence[tuple[int, int]] = Factor.WAYS) -> float | None:
    if pair.a.constant or pair.b.constant or pair.b.numel < _MIN_GROUP:
        return None
    found = Factor(pair.a.dtype, pair.b.dtype, ways)
    for at_once in (_SUBSAMPLE, SLICE_VALUES // 4):  # nearly all pairs are done with after a row
        for x, y in _runs(a, b, pair, at_once):
            if at_once == _SUBSAMPLE and {pair.a.dtype, pair.b.dtype} <= _WIDE and _unlike(x, y):
                return None
            if found.alive:
                found.add(x, y)
            if not found.alive or at_once == _SUBSAMPLE:
                break
        if at_once == _SUBSAMPLE and found.alive and (1, 1) in ways and _at_most_one_apart(a, b, pair):
            return None
    rounding = 2.0 ** (1 - min(FORMATS.get(t.dtype, 24) for t in (pair.a, pair.b)))
    # So few values stay within their rounding under a factor that is within it, whatever was done to them.
    few = pair.a.dtype != pair.b.dtype and pair.b.numel < _FEW_NEAR_ONE
    return None if few and found.value is not None and abs(abs(found.value) - 1) < rounding else found.value


def _runs(a: ModelView, b: ModelView, pair: Pair, at_once: int) -> Iterator[tuple[F32, F32]]:
    """Whole rows of both, about so many values at a time."""
    return ((a.rows(pair.a, start, start + y.shape[0]), y) for start, y in b.slices(pair.b, at_once))


def _at_most_one_apart(a: ModelView, b: ModelView, pair: Pair) -> bool:
    """Every value of one type is the other's, or next to it: both may be roundings of the same, and 1 is a factor."""
    if pair.a.dtype != pair.b.dtype or pair.a.dtype not in ("BF16", "F32"):
        return False
    step = 1 << (23 - MANTISSA[pair.a.dtype][0])  # in the bits of float32
    return all((np.abs(_bits(x) - _bits(y)) <= step).all() for x, y in _runs(a, b, pair, SLICE_VALUES // 4))


def _bits(x: F32) -> I64:
    return np.ascontiguousarray(x).view(np.int32).astype(np.int64)


def _unlike(x: F32, y: F32) -> bool:
    """No factor and no rounding to a type of 8 bits of precision and more makes one of these of the other. False
    where values are not finite, or so small that rounding leaves less of them."""
    with np.errstate(all="ignore"):
        wide, other = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
        xx, xy, yy = float(wide @ wide), float(wide @ other), float(other @ other)
    return min(xx, yy) > wide.size * _TINY**2 and xy * xy < _UNLIKE * xx * yy < math.inf


_Both = Callable[[int], Iterator[tuple[F32, F32]]]


def _factor_in_codes(both: _Both, coarse: Tensor, precision: int) -> float | None:
    """The factor of which the codes are the nearest ones: as far off as rounding makes them, on the whole; or None."""
    xx, xy, yy, _ = _products(both)
    alike = 0 < xx < math.inf and 0 < yy < math.inf and abs(xy) > _ALIKE * math.sqrt(xx) * math.sqrt(yy)
    if not alike or abs(xy / xx - 1) <= _NEAR_ONE:
        return None
    factor = np.float32(xy / xx)
    found = coded(((x * factor, y) for x, y in both(SLICE_VALUES // 4)), coarse, precision)
    return float(factor) if found.near and found.difference <= _NEAREST * found.rounding else None


def _various(side: ModelView, tensor: Tensor) -> bool:
    """Neighbours have many values, and were not themselves decoded from a few."""
    first = side.rows(tensor, 0, 1).ravel()[:_NEIGHBOURS]
    return 2 * np.unique(first).size > first.size


def _explains(both: _Both, least: float, off: float = 0.0) -> float | None:
    """The factor that makes more than this part of the squared difference, beyond what rounding to codes may (its
    relative error, squared, if each code is the mean of what became it), or all of it but for this part of the values;
    None where none does."""
    xx, xy, yy, dd = _products(both)
    if not (0 < xx < math.inf and 0 < yy < math.inf and dd > 0 and xy):
        return None
    left = max(yy - xy * (xy / xx), 0.0)
    explained = 1 - left / dd
    return xy / xx if explained > least + 3 * dd / xx or (left <= off**2 * yy and explained > _RATHER) else None


def _products(both: _Both) -> tuple[float, float, float, float]:
    """<x, x>, <x, y>, <y, y> and |x - y|², of what is finite on both sides."""
    sums = np.zeros(4)
    for x, y in both(SLICE_VALUES // 4):
        known = np.isfinite(x) & np.isfinite(y)
        wide, other = x[known].astype(np.float64), y[known].astype(np.float64)
        apart = wide - other
        sums += [np.vdot(wide, wide), np.vdot(wide, other), np.vdot(other, other), np.vdot(apart, apart)]
    xx, xy, yy, dd = sums.tolist()
    return xx, xy, yy, dd


def _levels(side: ModelView, tensor: Tensor) -> int:
    """How many distinct values it has, counted as far as it matters."""
    distinct: F32 = np.empty(0, np.float32)
    for _, stored in side.slices(tensor, SLICE_VALUES // 4):
        distinct = np.union1d(distinct, stored)
        if distinct.size >= _MIN_LEVELS:
            break
    return int(distinct.size)


def rounded(x: F32, dtype: str) -> tuple[F32, F32] | None:
    """``x`` rounded to BF16, F16 or F32 as float32: to nearest even, and towards zero. None for other formats."""
    if dtype == "BF16":
        bits = x.view(np.uint32)
        nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return nearest.view(np.float32), (bits & np.uint32(0xFFFF0000)).view(np.float32)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        cut = np.where(np.abs(half.astype(np.float32)) > np.abs(x), np.nextafter(half, np.float16(0)), half)
        return half.astype(np.float32), cut.astype(np.float32)
    return (x, x) if dtype in ("F32", "F64") else None  # a float64 tensor was rounded to float32 when it was read


def _cast(pieces: Iterable[tuple[F32, F32]], fine: Tensor, coarse: Tensor) -> Cast | None:
    """How the coarse side is a plain cast of the fine one: the first of :class:`Cast` that holds for every element,
    None where none does. Of codes that is their decoded values in the other's type, which then hold all of them."""
    left = [True] * len(Cast)
    for values, stored in pieces:
        if coarse.coded:
            decoded = (stored, *(rounded(np.ascontiguousarray(stored), fine.dtype) or ()))
            left = [left[0] and any(_equal(way, values) for way in decoded), *[False] * 4]
        else:
            # What overflowed is lost, not rounded.
            ways = rounded(values, coarse.dtype) if _equal(np.isfinite(values), np.isfinite(stored)) else None
            left[0] = left[0] and _equal(values, stored)
            left[1] = left[1] and ways is not None and _equal(ways[0], stored)
            left[2] = left[2] and ways is not None and _equal(ways[1], stored)
            left[3] = left[3] and _of_one(values, stored, fine.dtype, coarse.dtype)
            near = any(left[:3]) or (ways is not None and _neighbours(values, ways[1], stored, coarse.dtype))
            left[4] = left[4] and near
        if not any(left):
            return None
    return list(Cast)[left.index(True)]


def _of_one(x: F32, y: F32, dtype_x: str, dtype_y: str) -> bool:
    """Bfloat16 and float16 values that may come from one original: no further apart than both roundings together."""
    if {dtype_x, dtype_y} != {"BF16", "F16"}:
        return False
    wide, other = x.astype(np.float64), y.astype(np.float64)
    known = np.isfinite(wide) & np.isfinite(other)
    if not _equal(x[~known], y[~known]):
        return False
    wide, other = wide[known], other[known]
    return bool(np.all(np.abs(wide - other) <= (0.5 + _SLACK) * (ulp(wide, dtype_x) + ulp(other, dtype_y))))


def _neighbours(x: F32, cut: F32, y: F32, dtype: str) -> bool:
    """Every one of y is x cut off to the type or, where x is no value of the type, the next one away from zero."""
    other = (y != cut) & ~(np.isnan(y) & np.isnan(cut))
    x, cut, y = x[other], cut[other], y[other]
    if not np.isfinite(y).all() or (cut == x).any():
        return False
    up = np.copysign(np.abs(cut) + ulp(cut.astype(np.float64), dtype), x)
    return bool(np.all(y == up))


def _out_of_range(pieces: Iterable[tuple[F32, F32]], dtype: str) -> bool:
    """The difference is more than rounding to so many bits makes of values inside the type's range: some lay beyond its
    largest value, or most below its smallest normal one."""
    difference = size = 0.0
    for x, y in pieces:
        known = np.isfinite(x) & np.isfinite(y)
        wide = x[known].astype(np.float64)
        size += float(np.vdot(wide, wide))
        wide -= y[known]
        difference += float(np.vdot(wide, wide))
    return difference > size * 4.0 ** -mantissa_bits(dtype)


def _equal(x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> bool:
    return bool(np.array_equal(x, y, equal_nan=True))


def _scaled(pieces: Iterator[tuple[F32, F32]], coarse: Tensor) -> Scaling | None:
    """Which scaling explains every element, simplest first, or None."""
    rows, columns = coarse.matrix
    fit = Fit(
        rows=[] if columns >= _MIN_GROUP else None,
        columns=(np.zeros(columns), np.full(columns, np.inf)) if rows >= _MIN_GROUP else None,
        codes=(np.full(384, np.inf), np.full(384, -np.inf)) if coarse.dtype in ("I8", "U8") else None,
    )
    for values, stored in pieces:
        fit = fits(values, stored, coarse.dtype, fit)
        if not fit.alive:
            return None
    return fit.verdict(coarse.dtype)


def stored_scales(
    side: ModelView, outcomes: Sequence[tuple[Pair, Outcome]], taken: set[str]
) -> dict[str, tuple[str, ...]]:
    """Codes of this side → its own tensors that are their scale and zero point, of those that are not ``taken``."""
    by_size: dict[int, list[Tensor]] = {}
    for tensor in side.tensors.values():
        if tensor.name not in taken and not tensor.undecoded:
            by_size.setdefault(tensor.numel, []).append(tensor)
    used: set[str] = set()
    found: dict[str, tuple[str, ...]] = {}
    for pair, outcome in outcomes:
        scaling, codes = outcome.scaling, pair.a if side.label == "a" else pair.b
        if scaling is None or outcome.coarse != side.label:
            continue
        low, high = scaling.low * (1 - 1e-6), scaling.high * (1 + 1e-6)
        names = [_stored(side, by_size.get(low.size, ()), codes, used, FORMATS, low, high)]
        if scaling.zero:
            exact = np.array([float(scaling.zero)])
            names.append(_stored(side, by_size.get(1, ()), codes, used, _INTEGERS, exact, exact))
        if (there := tuple(name for name in names if name is not None)) and len(there) == len(names):
            used.update(there)
            found[codes.name] = there
    return found


def _stored(
    side: ModelView,
    tensors: Iterable[Tensor],
    codes: Tensor,
    used: set[str],
    dtypes: Container[str],
    low: F64,
    high: F64,
) -> str | None:
    """The first tensor whose values all lie in these intervals; a single one must also be called like the codes."""
    for tensor in tensors:
        if tensor.name in used or tensor.name == codes.name or tensor.dtype not in dtypes:
            continue
        if low.size == 1 and tensor.name.rsplit("_", 1)[0] not in codes.name:
            continue
        values = side.reader(tensor.name, 0, tensor.numel).astype(np.float64)
        if np.all((values >= low) & (values <= high)):
            return tensor.name
    return None
