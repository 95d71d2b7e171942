"""Scales per tensor, row or column, and cells of the formats: what :mod:`.same_values` narrows slice by slice.

The formulas are there. Cells of bare integers and small floats are those of the format itself, whatever the scale. Of
the floating-point types that models are trained in a scale is no part: for them only a factor of exactly 1 is an
encoding, and any other one is a finding (:class:`Factor`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from weightprint.util.arrays import F32, F64
from weightprint.util.floats import MANTISSA, ulp

__all__ = ["FORMATS", "Cells", "Factor", "Fit", "Scaling", "factors_per_line", "fits", "mantissa_bits"]


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
            with np.errstate(invalid="ignore"):  # of infinities, which are compared as they are
                below, above = x - _neighbour(b, self.dtype, -1), _neighbour(b, self.dtype, +1) - x
            # Beyond the largest value a cell is as wide as within.
            low = x - np.where(np.isinf(below), above, below) / 2
            high = x + np.where(np.isinf(above), below, above) / 2
        with np.errstate(invalid="ignore"):  # open on both sides, or of NaN
            width = high - low
        slack = _SLACK * np.where(np.isfinite(width), width, 0.0)
        return low - slack, high + slack


def mantissa_bits(dtype: str) -> int:
    """Stored bits of the fraction; of integers, of what they hold beside the sign."""
    tiny = _TINY_FLOATS.get(dtype)
    return tiny[1] if tiny else MANTISSA[dtype][0] if dtype in MANTISSA else FORMATS[dtype]


def _neighbour(b: F32, dtype: str, side: int) -> F64:
    """The next representable value of BF16, F16 or F32 on one side."""
    towards = np.float32(side) * np.float32(np.inf)
    if dtype == "F16":
        with np.errstate(over="ignore"):
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


_CAST = "a cast"
_CODES = ("I8", "U8")  # integers are codes, of a scale of 1 too: what rounds to them is another thing without it


@dataclass(frozen=True)
class Scaling:
    """A scaling that explains every element of a tensor in codes.

    Attributes:
        how: in words; "a cast" where it is none.
        low, high: interval that is left for the scale of each group, float64 (groups,): what a code is multiplied by.
        zero: the zero point.
    """

    how: str
    low: F64 = field(default_factory=lambda: np.empty(0))
    high: F64 = field(default_factory=lambda: np.empty(0))
    zero: int = 0

    @property
    def cast(self) -> bool:
        """No scale is needed."""
        return self.how == _CAST


class Factor:
    """One factor for a whole tensor: y = f x before either or both were rounded to the types that they are stored in.

    Each element leaves an interval for |f|, from the half units in the last place on either side; all have one sign.
    """

    #: Of half a unit in the last place: a product may be rounded once more on its way.
    _ROUNDED = 0.51
    #: Which sides may have been rounded after they were multiplied.
    WAYS = ((0, 1), (1, 0), (1, 1))

    def __init__(self, dtype_x: str, dtype_y: str, ways: Sequence[tuple[int, int]] = WAYS) -> None:
        # Float64, and what is decoded, was rounded to float32 when it was read.
        self._types = tuple("F32" if dtype == "F64" or " " in dtype else dtype for dtype in (dtype_x, dtype_y))
        self._bounds = dict.fromkeys(ways, (0.0, math.inf))
        self._signs: set[float] = set()
        if not all(dtype in MANTISSA for dtype in self._types):
            self._bounds.clear()

    def add(self, x: F32, y: F32) -> None:
        """The next run of both, float32 of one shape."""
        known = np.isfinite(x) & np.isfinite(y)
        if not known.all() and not np.array_equal(x[~known], y[~known], equal_nan=True):
            self._bounds.clear()  # NaN and Inf stay what they are
        a, b = x[known].astype(np.float64), y[known].astype(np.float64)
        self._signs |= set(np.unique(np.sign(a) * np.sign(b)).tolist()) - {0.0}
        halves = [self._ROUNDED * ulp(v, dtype) for v, dtype in zip((a, b), self._types, strict=True)]
        a, b = np.abs(a), np.abs(b)
        for way, (least, most) in list(self._bounds.items()):
            da, db = (half * rounded for half, rounded in zip(halves, way, strict=True))
            with np.errstate(divide="ignore", invalid="ignore"):
                low = np.where(b > db, (b - db) / (a + da), 0.0)
                high = np.where(a > da, (b + db) / (a - da), math.inf)
            bounds = max(least, float(low.max(initial=0.0))), min(most, float(high.min(initial=math.inf)))
            self._bounds[way] = bounds
            if bounds[0] > bounds[1]:
                del self._bounds[way]

    @property
    def alive(self) -> bool:
        """Some factor is left."""
        return bool(self._bounds) and len(self._signs) <= 1

    @property
    def value(self) -> float | None:
        """The factor, with no more digits than the elements ask for; None where none fits, or 1 does."""
        if not self.alive or not self._signs:
            return None
        (sign,) = self._signs
        if sign > 0 and any(low <= 1 <= high for low, high in self._bounds.values()):
            return None
        known = [(low, high) for low, high in self._bounds.values() if 0 < low <= high < math.inf]
        if not known:
            return None
        low, high = min(known, key=lambda bounds: bounds[1] / bounds[0])
        middle = math.sqrt(low) * math.sqrt(high)
        shortest = (float(f"{middle:.{digits}g}") for digits in range(1, 18))
        return sign * next((x for x in shortest if low <= x <= high), middle)


def factors_per_line(x: F32, y: F32, dtypes: tuple[str, str]) -> F64 | None:
    """The factor of each row: y = f x in all of a row, before both were rounded to their types; None where a row has no
    such factor. float32 matrices of one shape, float64 (rows,)."""
    types = ["F32" if dtype == "F64" or " " in dtype else dtype for dtype in dtypes]
    known = np.isfinite(x) & np.isfinite(y)
    if not all(dtype in MANTISSA for dtype in types) or not known.all():
        return None
    a, b = x.astype(np.float64), y.astype(np.float64)
    da, db = (0.51 * ulp(v, dtype) for v, dtype in zip((a, b), types, strict=True))
    signs = np.sign(a) * np.sign(b)
    a, b = np.abs(a), np.abs(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(b > db, (b - db) / (a + da), 0.0).max(axis=1)
        high = np.where(a > da, (b + db) / (a - da), math.inf).min(axis=1)
    one_sign = (signs >= 0).all(axis=1) | (signs <= 0).all(axis=1)
    if not (one_sign & (low <= high) & (low > 0) & np.isfinite(high)).all():
        return None
    found: F64 = np.sqrt(low) * np.sqrt(high) * np.where((signs < 0).any(axis=1), -1.0, 1.0)
    return found


@dataclass
class Fit:
    """Which scalings are still possible, after the elements seen so far. Intervals (lo, hi) of u for each grouping."""

    tensor: tuple[float, float] = (0.0, math.inf)
    rows: list[tuple[F64, F64]] | None = None
    columns: tuple[F64, F64] | None = None
    codes: tuple[F64, F64] | None = None  # smallest and largest a of each 8-bit code

    def verdict(self, dtype: str) -> Scaling | None:
        """The simplest scaling left, None when all are contradicted."""
        low, high = self.tensor
        if low <= 1 <= high and dtype not in _CODES:
            return Scaling(_CAST)
        if dtype in MANTISSA:
            return None
        if low <= high:
            return Scaling("one scale", _inverses([high]), _inverses([low]))
        for name, bounds in (("one scale per row", self._rows()), ("one scale per column", self.columns)):
            if bounds is not None and np.all(bounds[0] <= bounds[1]):
                return Scaling(name, _inverses(bounds[1]), _inverses(bounds[0]))
        if self.codes is not None and (zero := _zero_point(*self.codes, dtype)) is not None:
            z, low, high = zero
            return Scaling(f"one scale and zero point {z}", _inverses([high]), _inverses([low]), z)
        return None

    def _rows(self) -> tuple[F64, F64] | None:
        if self.rows is None:
            return None
        return np.concatenate([r[0] for r in self.rows]), np.concatenate([r[1] for r in self.rows])

    @property
    def alive(self) -> bool:
        """Whether any kind of scale is still possible."""
        columns = self.columns is not None and bool(np.all(self.columns[0] <= self.columns[1]))
        return self.tensor[0] <= self.tensor[1] or self.rows is not None or columns or self.codes is not None


def _inverses(x: Sequence[float] | F64) -> F64:
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.asarray(x, np.float64))


def fits(fine: F32, coarse: F32, dtype: str, fit: Fit) -> Fit:
    """Narrow ``fit`` by one run of whole rows. ``fine``, ``coarse``: (rows, columns), coarse stored as ``dtype``."""
    low, high = Cells(dtype)(coarse)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = fine.astype(np.float64)
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


def _zero_point(smallest: F64, largest: F64, dtype: str) -> tuple[int, float, float] | None:
    """An integer z for which one u puts u*a + z into the cell of every code, and the interval of u; or None."""
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
        least_u, most_u = max(0.0, float(lower.max())), float(upper.min())
        if least_u <= most_u and most_u > 0:
            return z, least_u, most_u
    return None
