"""What kind of difference is it? One matrix x of A, the same rows and channels y of B, d = y - x.

*Noise.* If d is independent normal noise of one standard deviation s, then its kurtosis is 3, the sums of squares over
rows and over columns are chi-squared, and its largest singular value is at the edge s(sqrt(m) + sqrt(n)) of a random
matrix (Marchenko & Pastur 1967; Geman 1980) and not above. Training fails all four by far. And d is independent of A:
<d, x> / s|x| is standard normal, so of two noised copies of one model neither is the other plus noise. B was rounded
when it was stored, which adds ulp²/12 to the mean square of d; where the ulp is not small beside s the addition is no
longer that, so only entries with ulp <= s/2 count, told from A's value alone, of which the noise is independent.

*Low rank.* d = L + e with L of rank r and e from rounding: independent entries of variance v_ij = (ulp(x_ij)² +
ulp(y_ij)² + ulp(d_ij)²)/12, whose largest singular value is about max_i sqrt(sum_j v_ij) + max_j sqrt(sum_i v_ij)
(Bandeira & van Handel 2016, arXiv 1408.6185, theorem 1.1). Singular values above that floor are L's; the gap is the
last of them over the first of the rest. A part of the rows and columns has the rank of the whole. Where either side was
quantised, its steps say how large e is: v_ij grows by their mean square over 12, more in longer rows; and what is left
without L must be no more than that, or something else was changed as well.

*Scaling.* y_ij = r_i x_ij c_j: factors moved between tensors that follow each other, or flipped signs, compute the
same. r and c by alternating least squares; what is left of d tells.

*Head maps.* An invertible map between the value and output maps of one head (and some between query and key) change no
output: y = M x on the rows of a head, M by least squares.

*Grid.* y lies on few evenly spaced points per group of inputs: it was quantised, whatever the type it is stored in. Two
kinds of grid per group of g inputs (or a row), b bits: ``absmax``: multiples of max|y| / (2^(b-1) - 1); ``minmax``:
min y + k (max y - min y) / (2^b - 1), k = 0 … 2^b - 1. Off the grid means further than a tenth of a step from it, which
four fifths of values that lie anywhere are.

*Pattern.* Exactly ``of - kept`` zeros in every ``of`` neighbouring inputs (2:4, arXiv 2104.08378).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.evidence.rounding.grids import Grid, grid
from weightprint.quant.base import Levels
from weightprint.util.arrays import F32, F64, Bools
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import gram_singular_values, lstsq, product

__all__ = ["WHOLE", "Difference", "look"]


WHOLE = 64  # rows that are looked at whole, for grids and patterns
_USABLE = 512  # entries that noise is judged on, at least
_FLOOR = 1.5  # singular values above so many floors are no rounding
_SIZE = 8  # rows and columns at least: of fewer every rank is low
_MOST_RANK = 0.5  # of the sampled rows or columns: above it "low" is nothing that could be seen
_EXACT = 2.0**-24  # relative precision of float32, in which both are read
_LEFT = 1.2  # of the mean square of rounding to codes, that may be left without what is of low rank
_SCALINGS = 12  # rounds of alternating least squares
_PATTERNS = (2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Difference:
    """See the module. ``n`` and what follows it are about noise, and meaningless where n is 0.

    Attributes:
        n: entries whose rounding is small enough.
        sd: standard deviation of d on these, the rounding taken off.
        normal: whether kurtosis, rows and columns are those of normal noise of one sd.
        rank: of d, 0 where it is not low; ``gap``: last singular value of it over the next.
        scaled: |y - r x c| / |d| after the best scaling of rows and columns.
        turned: |y - M x| / |d| of one head after the best map M inside it; 1 where there is no head to look at.
        grid, grid_of_a: the grid that y, or x, lies on; None for both where it is the same.
        pattern: (kept, of), or None.
        rounding: mean square of what rounding to the codes or grids of both sides makes; 0 where neither has any.
    """

    n: int
    sd: float
    normal: bool
    rank: int
    gap: float
    scaled: float
    turned: float
    grid: Grid | None
    grid_of_a: Grid | None
    pattern: tuple[int, int] | None
    rounding: float = 0.0


def look(
    x: F32,
    y: F32,
    dtype_a: str,
    dtype_b: str,
    some: tuple[F32, F32] | None = None,
    heads: tuple[F32, F32] | None = None,
    levels: tuple[Levels | None, Levels | None] = (None, None),
) -> Difference:
    """Measure one difference.

    Args:
        x, y: whole rows of A and B, float32 (rows, channels).
        dtype_a, dtype_b: the types that they were stored in.
        some: of more rows some channels, on which everything else is measured; None: on x and y too.
        heads: one attention head of each, float32 (head size, channels).
        levels: of A's and of B's codes; None where it is stored in none.
    """
    grids = grid(y, x), grid(x, y)
    alike = all(grids) and len({(g.bits, g.group, g.kind) for g in grids if g}) == 1
    pattern = _pattern(y)
    rounding = 0.0 if alike else _of_codes(y, x, levels[0], grids[1]) + _of_codes(x, y, levels[1], grids[0])
    a, b = (z.astype(np.float64) for z in some or (x, y))
    bad = ~(np.isfinite(a) & np.isfinite(b))
    a[bad] = b[bad] = 0.0
    d = b - a
    n, sd, normal = _noise(a, b, d, dtype_b)
    rank, gap = _rank(a, b, d, (dtype_a, dtype_b), rounding)
    return Difference(
        n=n,
        sd=sd,
        normal=normal,
        rank=rank,
        gap=gap,
        scaled=_scaled(a, b, d),
        turned=1.0 if heads is None else _turned(*heads),
        grid=None if alike else grids[0],
        grid_of_a=None if alike else grids[1],
        pattern=pattern,
        rounding=rounding,
    )


def _noise(a: F64, b: F64, d: F64, dtype: str) -> tuple[int, float, bool]:
    """(entries, sd, whether it is normal noise)."""
    nothing = (0, 0.0, False)
    first = float(np.median(np.abs(d))) / 0.6745
    if first <= 0 or dtype not in MANTISSA:
        return nothing
    usable = ulp(np.abs(a) + 4 * first, dtype) <= first / 2
    n = int(np.count_nonzero(usable))
    if n < _USABLE:
        return nothing
    values = d[usable]
    square = values * values
    second = float(square.mean())
    sd = math.sqrt(max(second - float(np.mean(ulp(b[usable], dtype) ** 2)) / 12, 0.0))
    kurtosis = float((square * square).mean()) / second**2 - 3
    uneven = max(_uneven(np.where(usable, d * d, 0.0), usable, second, axis) for axis in (0, 1))
    along = abs(float(values @ a[usable])) / (math.sqrt(second) * float(np.linalg.norm(a[usable])) + 1e-300)
    flat = along < 6 and abs(kurtosis) < 6 * math.sqrt(24 / n) + 0.02 and uneven < 6
    if not flat:
        return n, sd, False
    edge = _largest(np.where(usable, d, 0.0)) / (math.sqrt(second) * (math.sqrt(len(d)) + math.sqrt(d.shape[1])))
    # Fluctuations of the largest singular value: about m^(-2/3) of it (Johansson 2000; Johnstone 2001).
    return n, sd, edge < 1 + 3 * min(d.shape) ** (-2 / 3)


def _uneven(square: F64, usable: Bools, mean: float, axis: int) -> float:
    """How many standard deviations the spread of the sums of squares lies above that of equal variances."""
    counts = usable.sum(axis=axis)
    kept = counts >= 8
    if np.count_nonzero(kept) < 8:
        return 0.0
    sums, counts = square.sum(axis=axis)[kept] / mean, counts[kept]
    # Each term has mean 1 and variance 2 + 12/n under normal noise.
    terms = (sums - counts) ** 2 / (2 * counts)
    return float((terms.mean() - 1) / math.sqrt(np.mean(2 + 12 / counts) / terms.size))


def _largest(d: F64) -> float:
    return float(gram_singular_values(d)[0])


def _of_codes(fine: F32, coarse: F32, levels: Levels | None, on: Grid | None) -> float:
    """Mean square of what rounding to the codes, or to the grid, of one side makes; 0 where it has none."""
    if levels is not None and coarse.shape[1] % levels.run == 0:
        found = _core.cells(
            np.ascontiguousarray(fine), np.ascontiguousarray(coarse), levels.run, even=levels.even, precision=_EXACT
        )
        return float(found[4]) / coarse.size
    return 0.0 if on is None else on.rounding**2 * float(np.mean(np.square(coarse, dtype=np.float64)))


def _rank(a: F64, b: F64, d: F64, dtypes: tuple[str, str], rounding: float) -> tuple[int, float]:
    """(rank, gap) of what stands above rounding, (0, 0) where that is not low."""
    known = rounding > 0 or all(dtype in MANTISSA for dtype in dtypes)
    if not known or min(d.shape) < _SIZE or not d.any():
        return 0, 0.0
    squares = np.mean(b * b, axis=1, keepdims=True)
    variance = rounding * squares / max(float(squares.mean()), 1e-300) + np.zeros_like(d)
    for x, dtype in zip((a, b, d), (*dtypes, dtypes[1]), strict=True):
        variance += ulp(x, dtype) ** 2 / 12 if dtype in MANTISSA else 0.0
    floor = _FLOOR * (math.sqrt(float(variance.sum(axis=1).max())) + math.sqrt(float(variance.sum(axis=0).max())))
    s = gram_singular_values(d)
    floor = max(floor, 1e-7 * float(s[0]))
    rank = int(np.count_nonzero(s > floor))
    if not 0 < rank <= _MOST_RANK * s.size:
        return 0, 0.0
    if rounding > 0 and float(np.vdot(s[rank:], s[rank:])) > _LEFT * float(variance.sum()):
        return 0, 0.0
    return rank, float(s[rank - 1] / s[rank]) if s[rank] > 0 else math.inf


def _scaled(a: F64, b: F64, d: F64) -> float:
    """What is left of d once rows and columns of A are scaled as fits best."""
    size = float(np.linalg.norm(d))
    if size == 0:
        return 1.0
    both, squares = a * b, a * a
    columns = np.ones(a.shape[1])
    rows = np.ones(len(a))
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_SCALINGS):
            columns = np.nan_to_num(rows @ both / (rows**2 @ squares))
            rows = np.nan_to_num(both @ columns / (squares @ columns**2))
    return float(np.linalg.norm(b - rows[:, None] * a * columns)) / size


def _turned(x: F32, y: F32) -> float:
    """What is left of the difference once the rows of a head are mixed as fits best."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    size = float(np.linalg.norm(b - a))
    if 2 * len(a) > a.shape[1] or size == 0 or not np.isfinite(size):
        return 1.0
    mixed = lstsq(product(a, a.T), product(a, b.T))
    return float(np.linalg.norm(b - product(mixed.T, a))) / size


def _pattern(y: F32) -> tuple[int, int] | None:
    """(kept, of) where every group of neighbours has the same number of zeros, of the fewest neighbours; else None."""
    zero = y == 0
    if not 0.05 < float(zero.mean()) < 0.95:
        return None
    for of in _PATTERNS:
        if of > zero.shape[1]:
            return None
        counts = np.count_nonzero(zero[:, : zero.shape[1] // of * of].reshape(-1, of), axis=1)
        most = int(np.bincount(counts, minlength=of + 1).argmax())
        if 0 < most < of and float(np.mean(counts >= most)) > 0.999 and float(np.mean(counts == most)) > 0.98:
            return of - most, of
    return None
