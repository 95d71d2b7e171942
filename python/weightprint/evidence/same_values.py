"""Same values in another precision, orientation or quantisation: a strict test, element by element.

First the plain casts: rounded to nearest even (or cut off), element for element. Then the scaled ones. Every coarse
format is a set of levels, and rounding sends each level's *cell* to it: for int8 the cell of code q is [q - 1/2, q +
1/2], for a float format it reaches half-way to the two neighbours. B is a re-encoding of A when one scale u > 0 per
group puts u * a into the cell of b for **every** element:

    lo(b_i) <= u * a_i <= hi(b_i)      for all i of a group.

For each group that is an intersection of intervals for u, exact and in one pass. Tried at once: one u per tensor, per
row, per column; for 8-bit integers also a zero point z per tensor (|z| <= 255) with u per tensor. A hypothesis dies
at its first contradicted element, and a tensor is given up when all are dead: strangers cost one slice. The tolerance
is 1e-3 of a cell, for scales that were themselves rounded.

The quantiser's own scale tensor is then looked for: a tensor of B with one value per group, all of them inside the
intervals found, is that scale, and is counted as explained by A ("parameter").

It can't be passed by chance: a scale serves at least 32 values. A tensor is evidence only with 64 distinct values on
the finer side and 16 on the coarser; simpler ones are counted as agreeing, not as showing anything.

Rounding loses bits, so where values were really rounded the coarser side is the later one. Where the finer side holds
only values of the coarser format (an upcast) nothing was lost and the direction stays open.

Blind to: scales per block of rows and columns (GPTQ, AWQ, DeepSeek's 128 x 128), and copies that were also trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import (
    F32,
    SLICE_VALUES,
    Evidence,
    Models,
    Pair,
    Shared,
    Side,
    Tensor,
    not_applied,
    timed,
)

__all__ = ["FORMATS", "Cells", "fits", "same_values"]

F64 = npt.NDArray[np.float64]

#: Bits of precision that order the formats from coarse to fine.
FORMATS: dict[str, int] = {
    "F4": 1, "F6_E2M3": 3, "F6_E3M2": 2, "F8_E5M2": 2, "F8_E5M2FNUZ": 2, "F8_E4M3": 3, "F8_E4M3FNUZ": 3,
    "I8": 7, "U8": 8, "BF16": 8, "F16": 11, "F32": 24, "F64": 53,
}  # fmt: skip

_TINY_FLOATS = {  # exponent bits, mantissa bits, bias, largest finite value
    "F4": (2, 1, 1, 6.0),
    "F6_E2M3": (2, 3, 1, 7.5),
    "F6_E3M2": (3, 2, 3, 28.0),
    "F8_E4M3": (4, 3, 7, 448.0),
    "F8_E5M2": (5, 2, 15, 57344.0),
    "F8_E4M3FNUZ": (4, 3, 8, 240.0),
    "F8_E5M2FNUZ": (5, 2, 16, 57344.0),
}
_SLACK = 1e-3
_MIN_LEVELS = 16  # distinct stored values for a tensor to be evidence
_MIN_GROUP = 32  # elements that share one scale; fewer could be fitted
_MAX_TURNED = 1 << 26  # values; a transposed tensor is held whole


@dataclass(frozen=True)
class Cells:
    """Cells of a coarse format: which exact values round to the stored value."""

    dtype: str

    def __call__(self, b: F32) -> tuple[F64, F64]:
        """(lo, hi) of the cell of each stored value, float64, a little widened."""
        x = b.astype(np.float64)
        if self.dtype in ("I8", "U8"):
            low, high = x - 0.5, x + 0.5
            ends = (-127.0, 127.0) if self.dtype == "I8" else (0.0, 255.0)
            low[x <= ends[0]], high[x >= ends[1]] = -np.inf, np.inf  # saturated
        elif self.dtype in _TINY_FLOATS:
            levels = _levels(self.dtype)
            place = np.clip(np.searchsorted(levels, x), 0, levels.size - 1)
            middles = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
            low, high = middles[place], middles[place + 1]
        else:
            low, high = (x + _neighbour(b, self.dtype, -1)) / 2, (x + _neighbour(b, self.dtype, +1)) / 2
        slack = _SLACK * np.where(np.isfinite(high - low), high - low, 0.0)
        return low - slack, high + slack


def _neighbour(b: F32, dtype: str, side: int) -> F64:
    """The next representable value of BF16, F16 or F32 on one side."""
    towards = np.float32(side) * np.float32(np.inf)
    if dtype == "F16":
        return np.asarray(np.nextafter(b.astype(np.float16), np.float16(towards)), np.float64)
    if dtype == "BF16":  # neighbours in magnitude are 2^16 apart in the float32 bit pattern
        bits = np.where(b == 0, np.float32(0), b).view(np.uint32).astype(np.int64)
        outward = (b > 0) == (side > 0)
        stepped = np.where(b == 0, (1 << 16) | ((side < 0) << 31), bits + np.where(outward, 1 << 16, -(1 << 16)))
        with np.errstate(invalid="ignore"):  # NaN stays NaN; the caller compares those as they are
            return np.asarray(stepped.astype(np.uint32).view(np.float32), np.float64)
    return np.asarray(np.nextafter(b, towards), np.float64)


def _levels(dtype: str) -> F64:
    """All finite values of a small float format, ascending."""
    e_bits, m_bits, bias, largest = _TINY_FLOATS[dtype]
    exponent, mantissa = np.meshgrid(np.arange(1 << e_bits), np.arange(1 << m_bits), indexing="ij")
    fraction = mantissa / (1 << m_bits)
    values = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - float(bias)))
    values = values[values <= largest]
    return np.unique(np.concatenate([-values, values]))


@dataclass
class Fit:
    """Which scalings are still possible, after the elements seen so far. Intervals (lo, hi) of u for each grouping."""

    tensor: tuple[float, float] = (0.0, math.inf)
    rows: list[tuple[F64, F64]] | None = None
    columns: tuple[F64, F64] | None = None
    codes: tuple[F64, F64] | None = None  # smallest and largest a of each 8-bit code

    def verdict(self, dtype: str) -> tuple[str, tuple[F64, F64] | None] | None:
        """The simplest scaling left: its name, and the scale's interval per group. None when all are contradicted."""
        low, high = self.tensor
        if low <= 1 <= high:
            return "a cast", (np.array([1 / high]), np.array([_inverse(low)]))
        if low <= high:
            return "one scale", (np.array([1 / high]), np.array([_inverse(low)]))
        for name, bounds in (("one scale per row", self._rows()), ("one scale per column", self.columns)):
            if bounds is not None and np.all(bounds[0] <= bounds[1]):
                with np.errstate(divide="ignore"):
                    return name, (1 / bounds[1], 1 / bounds[0])
        if self.codes is not None and (z := _zero_point(*self.codes, dtype)) is not None:
            return f"one scale and zero point {z}", None
        return None

    def _rows(self) -> tuple[F64, F64] | None:
        if self.rows is None:
            return None
        return np.concatenate([r[0] for r in self.rows]), np.concatenate([r[1] for r in self.rows])

    @property
    def alive(self) -> bool:
        columns = self.columns is not None and bool(np.all(self.columns[0] <= self.columns[1]))
        return self.tensor[0] <= self.tensor[1] or self.rows is not None or columns or self.codes is not None


def _inverse(x: float) -> float:
    return 1 / x if x > 0 else math.inf


def fits(fine: F32, coarse: F32, dtype: str, fit: Fit) -> Fit:
    """Narrow ``fit`` by one run of whole rows. ``fine``, ``coarse``: (rows, columns), coarse stored as ``dtype``."""
    a = fine.astype(np.float64)
    low, high = Cells(dtype)(coarse)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = low / a, high / a
    lower = np.where(a > 0, first, np.where(a < 0, second, np.where((low <= 0) & (high >= 0), -np.inf, np.inf)))
    upper = np.where(a > 0, second, np.where(a < 0, first, np.where((low <= 0) & (high >= 0), np.inf, -np.inf)))
    bad = ~np.isfinite(a) | ~np.isfinite(coarse)
    same = (a == coarse) | (np.isnan(a) & np.isnan(coarse))
    lower[bad], upper[bad] = np.where(same[bad], -np.inf, np.inf), np.where(same[bad], np.inf, -np.inf)
    lower = np.maximum(lower, 0.0)

    tensor = (max(fit.tensor[0], float(lower.max())), min(fit.tensor[1], float(upper.min())))
    row = (lower.max(axis=1), upper.min(axis=1))
    rows = [*fit.rows, row] if fit.rows is not None and bool(np.all(row[0] <= row[1])) else None
    columns = fit.columns
    if columns is not None:
        columns = (np.maximum(columns[0], lower.max(axis=0)), np.minimum(columns[1], upper.min(axis=0)))
    codes = fit.codes
    if codes is not None:
        codes = _narrow_codes(codes, a, coarse)
    return Fit(tensor, rows, columns, codes)


def _narrow_codes(codes: tuple[F64, F64], a: F64, coarse: F32) -> tuple[F64, F64] | None:
    """Track the range of ``a`` per code; give up when ranges overlap more than affine rounding allows."""
    index = (coarse.astype(np.int64) + 128).ravel() % 384
    np.minimum.at(codes[0], index, a.ravel())
    np.maximum.at(codes[1], index, a.ravel())
    used = codes[0] <= codes[1]
    low, high = codes[0][used], codes[1][used]
    return codes if bool(np.all(low[2:] >= high[:-2])) else None


def _zero_point(smallest: F64, largest: F64, dtype: str) -> int | None:
    """An integer z for which one u puts u*a + z into the cell of every code, or None."""
    used = np.nonzero(smallest <= largest)[0]
    q = (used - 128).astype(np.float64)
    low, high = q - 0.5 - _SLACK, q + 0.5 + _SLACK
    least, most = (-128.0, 127.0) if dtype == "I8" else (0.0, 255.0)
    low[q <= least], high[q >= most] = -np.inf, np.inf
    x = np.concatenate([smallest[used], largest[used]])
    low, high = np.tile(low, 2), np.tile(high, 2)
    for z in range(-255, 256):
        below, above = low - z, high - z
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.where(
                x > 0, below / x, np.where(x < 0, above / x, np.where((below <= 0) & (above >= 0), 0, np.inf))
            )
            upper = np.where(x > 0, above / x, np.where(x < 0, below / x, np.inf))
        if 0 <= max(0.0, float(lower.max())) <= float(upper.min()) and float(upper.min()) > 0:
            return z
    return None


_QUESTION = Evidence(
    test="same_values",
    asked="Is B what A becomes when it is stored in another precision, orientation or 8-bit quantisation?",
    applied=True,
    null="none: every element is checked against the cell that rounding allows",
    assumes="tensors were brought together by name, digest or a corner of their values; the check itself does not "
    "depend on how",
    blind_to="quantisation with scales per block, rotation before quantisation, and copies that were also trained",
    statistic_of="tensors of B that are a re-encoding of A's, element by element",
    effect_of="their share of B's parameters",
)


@timed
def same_values(models: Models) -> Evidence:
    """Test every pair whose bytes differ but whose values may be the same."""
    a, b = models.a, models.b
    if models.effort == "quick":
        return not_applied(_QUESTION, "quick effort reads samples, and this test reads every value")
    todo = [p for p in models.pairs if _candidate(p)]
    if not todo:
        return not_applied(_QUESTION, "no pair of tensors differs in dtype or orientation only")
    found: list[Shared] = []
    how: dict[str, str] = {}
    scales: list[tuple[str, F64, F64]] = []
    differ: list[str] = []
    skipped: list[str] = []
    coarser = {"a": 0, "b": 0}
    for pair in todo:
        if pair.transposed and pair.a.numel > _MAX_TURNED:
            skipped.append(pair.b.name)
            continue
        outcome = _check(a, b, pair)
        if outcome is None:
            differ.append(pair.b.name)
        elif not outcome[0]:
            found.append(Shared(pair.b.name, pair.a.name, "trivial", pair.b.numel))
        else:
            found.append(Shared(pair.b.name, pair.a.name, "re_encoded", pair.b.numel))
            how[pair.b.name] = outcome[0]
            if FORMATS[pair.a.dtype] != FORMATS[pair.b.dtype] and "nothing lost" not in outcome[0]:
                coarser["b" if FORMATS[pair.b.dtype] < FORMATS[pair.a.dtype] else "a"] += 1
            if outcome[1] is not None:
                scales.append((pair.b.name, *outcome[1]))
    paired = {p.b.name for p in models.pairs if p.by != "values"} | {f.b for f in found}
    found.extend(_scale_tensors(b, scales, paired))
    shared = sum(f.numel for f in found)
    n = sum(f.kind == "re_encoded" for f in found)
    kinds = sorted(set(how.values()))
    simple = sum(f.kind == "trivial" for f in found)
    says = f"{n} of {len(todo)} pairs that differ in bytes hold the same values re-encoded"
    says += f" ({'; '.join(kinds[:4])}{'; …' if len(kinds) > 4 else ''})" if n else ""
    says += f"; {simple} more do, but have too few distinct values to show anything" if simple else ""
    later = "b" if coarser["b"] and not coarser["a"] else "a" if coarser["a"] and not coarser["b"] else None
    return replace(
        _QUESTION,
        says=says,
        statistic=float(n),
        effect=shared / max(b.numel, 1),
        n=len(todo),
        found=tuple(found),
        details={
            "n_same": n,
            "n_simple": simple,
            "n_differ": len(differ),
            "n_skipped": len(skipped),
            "how": dict(list(how.items())[:200]),
            "differ": differ[:200],
            "skipped": skipped[:200],
            "scales": {f.b: f.a for f in found if f.kind == "parameter"},
            "later": later,
        },
    )


def _candidate(pair: Pair) -> bool:
    """Both formats known, and not simply equal bytes or different bytes of one dtype and orientation."""
    if pair.a.dtype not in FORMATS or pair.b.dtype not in FORMATS:
        return False
    # Digests may be of values (compare), so equal ones in two dtypes are a cast that lost nothing.
    return pair.a.dtype != pair.b.dtype or (pair.transposed and pair.a.digest != pair.b.digest)


def _check(a: Side, b: Side, pair: Pair) -> tuple[str, tuple[F64, F64] | None] | None:
    """(how, scale intervals) when re-encoded, ("", None) when too simple to tell, None when the values differ."""
    forward = FORMATS[pair.b.dtype] <= FORMATS[pair.a.dtype]
    fine, coarse = (pair.a, pair.b) if forward else (pair.b, pair.a)
    fine_side, coarse_side = (a, b) if forward else (b, a)
    whole = fine_side.rows(fine).T if pair.transposed else None

    def both(values: int) -> Iterator[tuple[F32, F32]]:
        for start, stored in coarse_side.slices(coarse, values):
            stop = start + stored.shape[0]
            yield whole[start:stop] if whole is not None else fine_side.rows(fine, start, stop), stored

    how, scales = _cast(both(SLICE_VALUES // 4), coarse.dtype), None
    if how is None and fine.dtype != coarse.dtype:
        outcome = _scaled(both(SLICE_VALUES // 64), coarse)
        if outcome is None:
            return None
        how, scales = outcome
    if how is None:
        return None
    distinct: npt.NDArray[np.float32] = np.empty(0, np.float32)
    for _, stored in coarse_side.slices(coarse, SLICE_VALUES // 4):
        distinct = np.union1d(distinct, stored)
        if distinct.size >= _MIN_LEVELS:
            break
    if distinct.size < _MIN_LEVELS or fine_side.is_trivial(fine):
        return "", None
    turned = ", transposed" if pair.transposed else ""
    return f"{fine.dtype} to {coarse.dtype}, {how}{turned}", scales if forward else None


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


def _cast(pieces: Iterator[tuple[F32, F32]], dtype: str) -> str | None:
    """How B's values are a plain cast of A's, or None at the first element that is not."""
    lossless = nearest = towards_zero = True
    for values, stored in pieces:
        lossless = lossless and bool(np.array_equal(values, stored, equal_nan=True))
        both = rounded(np.ascontiguousarray(values), dtype)
        if both is None:
            nearest = towards_zero = False
        else:
            nearest = nearest and bool(np.array_equal(both[0], stored, equal_nan=True))
            towards_zero = towards_zero and bool(np.array_equal(both[1], stored, equal_nan=True))
        if not (lossless or nearest or towards_zero):
            return None
    return "nothing lost" if lossless else "a cast" if nearest else "a cast, cut off rather than rounded"


def _scaled(pieces: Iterator[tuple[F32, F32]], coarse: Tensor) -> tuple[str, tuple[F64, F64] | None] | None:
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


def _scale_tensors(b: Side, scales: list[tuple[str, F64, F64]], paired: set[str]) -> list[Shared]:
    """Tensors of B whose every value lies in the interval that a quantised tensor leaves for its scale."""
    by_size: dict[int, list[Tensor]] = {}
    for tensor in b.tensors.values():
        if tensor.name not in paired and tensor.dtype in FORMATS:
            by_size.setdefault(tensor.numel, []).append(tensor)
    used: set[str] = set()
    found: list[Shared] = []
    for name, low, high in scales:
        for tensor in by_size.get(low.size, []):
            if tensor.name in used or (low.size == 1 and tensor.name.rsplit("_", 1)[0] not in name):
                continue
            values = b.reader(tensor.name, 0, tensor.numel).astype(np.float64)
            if np.all((values >= low * (1 - 1e-6)) & (values <= high * (1 + 1e-6))):
                used.add(tensor.name)
                found.append(Shared(tensor.name, name, "parameter", tensor.numel))
                break
    return found
