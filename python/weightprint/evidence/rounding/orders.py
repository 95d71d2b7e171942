"""Are two tensors the same values in another order: rows or columns permuted, regrouped, reversed, or transposed?

Both are read once, in runs of rows, as float32 (of two types, the finer rounded to the coarser). Each value x is mixed
into 64 bits m(x), and sums of m(x), modulo 2^64, are kept per row and per column: with one fixed random factor per
place, which tell rows (columns) apart with their order, and without, which any order leaves as it is. The sum over all
says whether the values are the same ones at all; two tensors that differ have equal sums with a chance near 2^-64.

    rows of B are rows of A                 sums per row are the same set
    B is A transposed                       B's sums per row are A's per column, at their places
    rows and columns permuted               orderless sums name both; a second look at A, with its factors in B's
                                            order, must give B's sums per row

What moved whole is then told in words where a known regrouping does it, for every row, equal rows included. Values of
fewer than 64 kinds are never spoken of: tensors of few values may be rearranged into each other by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weightprint.evidence.pair import Pair
from weightprint.evidence.rounding.encodings import rounded
from weightprint.fingerprint.model import SLICE_VALUES, ModelView, Tensor
from weightprint.util.arrays import F32, I64

__all__ = ["U64", "Order", "may_be", "order", "vector_sums"]

U64 = npt.NDArray[np.uint64]

_NAMED = 1 << 19  # rows, up to which regroupings are tried
_SAMPLE = 64  # rows of which a regrouping is first asked
_HEAD = 1024  # rows of one head at most, for its rotary pairs
_FEWEST = 8  # rows that a regrouping is named for


@dataclass(frozen=True)
class Order:
    """How B's values are A's in another order.

    ``order``: in words, told from A to B, ``back`` from B to A. ``rows``, ``columns``: a number for the order of each,
    equal orders having equal ones; None for an axis that stayed, or whose order isn't known. ``blocks``: how many
    rows, and how many columns, moved together everywhere. ``whole``: rows or columns of a matrix kept together. Where
    they didn't, equal values are no more than that: a stranger's may have been mapped to A's, rank by rank. ``read``:
    no order at all, but other values that A's stand for (:mod:`.misread`).
    """

    order: str
    back: str
    rows: int | None = None
    columns: int | None = None
    blocks: tuple[int, int] = (1, 1)
    whole: bool = True
    read: bool = False


@dataclass(frozen=True)
class _Sums:
    rows: U64
    columns: U64
    rows_any: U64
    columns_any: U64

    @property
    def turned(self) -> _Sums:
        """Those of the tensor transposed."""
        return _Sums(self.columns, self.rows, self.columns_any, self.rows_any)


def order(a: ModelView, b: ModelView, pair: Pair) -> Order | None:
    """How B's values are A's in another order; None where they are others, too few to tell, or where they were."""
    matrix = pair.a.matrix[::-1] if pair.transposed else pair.a.matrix
    if matrix != pair.b.matrix or pair.a.offset != pair.b.offset or _silent(pair.a) or _silent(pair.b):
        return None
    if a.is_trivial(pair.a) or b.is_trivial(pair.b):
        return None
    dtype = _common(pair)
    x, y = _sums(_pieces(a, pair.a, dtype), pair.a.matrix), _sums(_pieces(b, pair.b, dtype), pair.b.matrix)
    x = x.turned if pair.transposed else x
    if x.rows_any.sum() != y.rows_any.sum() or np.array_equal(x.rows, y.rows):
        return None
    if _alike(x.rows, y.rows):
        return _axis(x.rows, y.rows, "rows")
    if _alike(x.columns, y.columns):
        vector = len(pair.b.shape) < 2
        return replace(_axis(x.columns, y.columns, "values" if vector else "columns"), whole=not vector)
    for here, there, noun, other in ((x.columns, y.rows, "rows", "columns"), (x.rows, y.columns, "columns", "rows")):
        if np.array_equal(here, there):
            return Order("transposed", "transposed")
        if _alike(here, there):
            return Order(f"transposed, {_words(here, there, noun)}", f"transposed, {_words(there, here, other)}")
    stacks = len(pair.b.shape) == 3 and pair.a.shape == pair.b.shape and not pair.transposed
    if stacks and any(np.array_equal(x.rows, vector_sums(b, pair.b, axis, dtype)) for axis in (0, 1)):
        return Order("every matrix transposed", "every matrix transposed")
    if _alike(x.rows_any, y.rows_any) and _alike(x.columns_any, y.columns_any):
        found = _both(a, pair, dtype, x, y)
        if found is not None:
            return found
    return Order("values in another order", "values in another order", whole=False)


def vector_sums(side: ModelView, tensor: Tensor, axis: int, dtype: str | None = None) -> U64:
    """A sum per vector along this axis (the last: per row), which tells vectors apart with the order of their values;
    in the order of the other axes. ``dtype``: the type to which values are rounded before."""
    *leading, columns = tensor.shape
    factors = _factors(tensor.shape[axis])
    if axis == len(leading):
        return np.concatenate([(_mixed(x) * factors).sum(axis=1) for _, x in _pieces(side, tensor, dtype)])
    size, stride = tensor.shape[axis], math.prod(leading[axis + 1 :])
    sums = np.zeros((math.prod(leading) // size, columns), np.uint64)
    for start, x in _pieces(side, tensor, dtype):
        rows = np.arange(start, start + len(x))
        group = rows // (stride * size) * stride + rows % stride
        by_group = np.argsort(group, kind="stable")
        groups, first = np.unique(group[by_group], return_index=True)
        weighed = _mixed(x) * factors[rows // stride % size, None]
        sums[groups] += np.add.reduceat(weighed[by_group], first, axis=0)
    return sums.ravel()


def may_be(of_a: float, of_b: float, pair: Pair) -> bool:
    """Whether two numbers that no order changes (a norm, a standard deviation; NaN: not known) let it be asked."""
    apart = 1e-6 if pair.a.dtype == pair.b.dtype else 1e-2
    return not abs(of_a - of_b) > apart * max(of_a, of_b)


def _silent(tensor: Tensor) -> bool:
    """Undecoded, or a list of integers: numbers of something, which two models may list in two orders."""
    integers = tensor.dtype[0] in "UI" and not tensor.coded
    return tensor.undecoded or tensor.dtype == "BOOL" or (integers and len(tensor.shape) < 2)


def _common(pair: Pair) -> str | None:
    """The type that both are rounded to before they are compared; None: neither is."""
    if pair.a.dtype == pair.b.dtype:
        return None
    plain = [t.dtype for t in (pair.a, pair.b) if not t.coded]
    known = [dtype for dtype in ("F16", "BF16", "F32") if dtype in plain]
    return None if {"F16", "BF16"} <= {*plain} or not known else min(known, key=("BF16", "F16", "F32").index)


def _pieces(side: ModelView, tensor: Tensor, dtype: str | None) -> Iterator[tuple[int, F32]]:
    for start, x in side.slices(tensor, SLICE_VALUES // 4):
        ways = None if dtype is None else rounded(np.ascontiguousarray(x), dtype)
        yield start, x if ways is None else ways[0]


def _sums(pieces: Iterator[tuple[int, F32]], matrix: tuple[int, int], factors: U64 | None = None) -> _Sums:
    """``factors``: of columns, where they are not the fixed ones."""
    n_rows, n_columns = matrix
    of_rows, of_columns = _factors(n_rows), _factors(n_columns) if factors is None else factors
    rows, rows_any = np.zeros(n_rows, np.uint64), np.zeros(n_rows, np.uint64)
    columns, columns_any = np.zeros(n_columns, np.uint64), np.zeros(n_columns, np.uint64)
    for start, x in pieces:
        here = slice(start, start + len(x))
        mixed = _mixed(x)
        rows_any[here] = mixed.sum(axis=1)
        columns_any += mixed.sum(axis=0)
        rows[here] = (mixed * of_columns).sum(axis=1)
        columns += (mixed * of_rows[here, None]).sum(axis=0)
    return _Sums(rows, columns, rows_any, columns_any)


def _factors(n: int) -> U64:
    factors: U64 = np.random.default_rng(18).integers(1 << 64, size=n, dtype=np.uint64) | np.uint64(1)
    return factors


def _mixed(x: F32) -> U64:
    """64 well mixed bits for each value's 32: multiplication and shifts, as a finaliser of hashes does."""
    m: U64 = (np.ascontiguousarray(x).view(np.uint32).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((29, 0xD6E8FEB86659FD93), (32, 0xC2B2AE3D27D4EB4F)):
        m ^= m >> np.uint64(shift)
        m *= np.uint64(factor)
    m ^= m >> np.uint64(31)
    return m


def _alike(x: U64, y: U64) -> bool:
    return x.size > 1 and np.array_equal(np.sort(x), np.sort(y))


def _matched(x: U64, y: U64) -> I64:
    """For each of y the number of its equal in x; equal ones in their order, those that stayed in place first."""
    stay = x == y
    source = np.arange(y.size)
    left_x, left_y = np.flatnonzero(~stay), np.flatnonzero(~stay)
    source[left_y[np.argsort(y[left_y], kind="stable")]] = left_x[np.argsort(x[left_x], kind="stable")]
    return source


def _both(a: ModelView, pair: Pair, dtype: str | None, x: _Sums, y: _Sums) -> Order | None:
    """Rows and columns permuted, if a second look at A says so."""
    if pair.transposed:
        return None
    rows, columns = _matched(x.rows_any, y.rows_any), _matched(x.columns_any, y.columns_any)
    factors = np.empty(columns.size, np.uint64)
    factors[columns] = _factors(columns.size)
    if not np.array_equal(_sums(_pieces(a, pair.a, dtype), pair.a.matrix, factors).rows[rows], y.rows):
        return None
    one, other = _axis(x.rows_any, y.rows_any, "rows"), _axis(x.columns_any, y.columns_any, "columns")
    words, back = f"{one.order}; {other.order}", f"{one.back}; {other.back}"
    return Order(words, back, one.rows, other.columns, (one.blocks[0], other.blocks[1]))


# In words


def _axis(x: U64, y: U64, noun: str) -> Order:
    """The order of y's rows (columns) among x's."""
    source = _matched(x, y)
    number = int((_mixed(source.astype(np.float32)) * _factors(y.size)).sum() >> np.uint64(11))
    rows, columns = (number, None) if noun == "rows" else (None, number)
    block = _block(source)
    return Order(_words(x, y, noun), _words(y, x, noun), rows, columns, (block, block))


def _block(source: I64) -> int:
    """How many move together, everywhere."""
    return int(np.gcd.reduce(np.append(np.flatnonzero(np.diff(source) != 1) + 1, source.size)))


def _words(x: U64, y: U64, noun: str) -> str:
    if (known := _regrouping(x, y, noun)) is not None:
        return known
    source = _matched(x, y)
    moved, block = int(np.count_nonzero(source != np.arange(y.size))), _block(source)
    whole = f"{noun} in blocks of {block}" if block >= _FEWEST else noun
    return f"{whole} in another order ({moved:,} of {y.size:,} moved)"


def _regrouping(x: U64, y: U64, noun: str) -> str | None:
    if not _FEWEST <= y.size <= _NAMED:
        return None
    places = _places(y.size)
    at = y[places]
    for sources, words, build in _regroupings(y.size):
        if np.array_equal(x[sources], at) and np.array_equal(x[build()], y):
            return words(noun)
    return None


def _places(n: int) -> I64:
    return np.unique(np.append(np.arange(8), np.linspace(0, n - 1, _SAMPLE).astype(np.int64)))


_Words = Callable[[str], str]
_Build = Callable[[], I64]


@lru_cache(maxsize=64)
def _regroupings(n: int) -> tuple[tuple[I64, _Words, _Build], ...]:
    """(where a sample of rows comes from, words, where all do) of every known regrouping of n rows, simplest first."""
    places = _places(n)
    return tuple((build()[places], words, build) for words, build in (*_flips(n), *_interleaved(n), *_as_of_heads(n)))


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, math.isqrt(n) + 1) if n % k == 0] + [
        n // k for k in range(math.isqrt(n), 0, -1) if n % k == 0 and k * k != n
    ]


def _flips(n: int) -> Iterator[tuple[_Words, _Build]]:
    """Of every r runs of c, in reverse."""
    for r in _divisors(n)[1:]:
        for c in _divisors(n // r):

            def build(r: int = r, c: int = c) -> I64:
                return np.arange(n).reshape(-1, r, c)[:, ::-1].ravel()

            def words(noun: str, r: int = r, c: int = c) -> str:
                within = "" if r * c == n else f" within {r * c}"
                if (r, c) == (2, 1):
                    return f"{noun} swapped in pairs{', as nibbles' if noun == 'columns' else ''}"
                runs = "" if c == 1 else ": halves" if r == 2 else f": blocks of {c}"
                return f"{noun}{runs} {'swapped' if r == 2 else 'reversed'}{within}"

            yield words, build


def _interleaved(n: int) -> Iterator[tuple[_Words, _Build]]:
    """In each of h groups, p parts of q runs of c: the first run of every part, the second, and so on."""
    for h in _divisors(n):
        for c in _divisors(n // h):
            for p in _divisors(n // h // c)[1:-1]:
                q = n // h // c // p

                def build(h: int = h, p: int = p, q: int = q, c: int = c) -> I64:
                    return _turned(np.arange(n), h, p, q, c)

                def words(noun: str, h: int = h, p: int = p, q: int = q, c: int = c) -> str:
                    way = "parts to interleaved" if p < q else "interleaved to parts"
                    if noun == "rows" and min(p, q) == 2 < max(p, q) and h > 1 and n // h <= _HEAD:
                        if c > 1:
                            heads = f"{h} heads undone as of {h * q}" if p == 2 else f"{h * p} heads undone as of {h}"
                            return f"rows regrouped, as rotary pairs of {heads}"
                        way = "half-split to interleaved" if p == 2 else "interleaved to half-split"
                        return f"rows regrouped, as rotary pairs of {h} heads: {way}"
                    where = "" if h == 1 else f" in {h} groups"
                    runs = "" if c == 1 else f", {c} at a time"
                    if p == q:
                        return f"{noun} regrouped{where}: {p} by {q} turned{runs}"
                    return f"{noun} regrouped{where}, {min(p, q)} parts{runs}: {way}"

                yield words, build


def _as_of_heads(n: int) -> Iterator[tuple[_Words, _Build]]:
    """Rotary pairs made as of one number of heads and undone as of another."""
    heads = [h for h in _divisors(n // 2) if n // h > 2] if n % 2 == 0 else []
    for made in heads:
        for undone in heads:
            for first, name in ((2, "pairs"), (-2, "halves")):

                def build(made: int = made, undone: int = undone, first: int = first) -> I64:
                    return _rotary(_rotary(np.arange(n), made, first), undone, -first)

                def words(noun: str, made: int = made, undone: int = undone, name: str = name) -> str:
                    return f"{noun} regrouped, as rotary {name} of {made} heads undone as of {undone}"

                if made != undone:
                    yield words, build


def _rotary(x: I64, heads: int, parts: int) -> I64:
    """Half-split to interleaved in every head for 2 parts, back for -2."""
    half = x.size // heads // 2
    return _turned(x, heads, *((2, half) if parts > 0 else (half, 2)), 1)


def _turned(x: I64, h: int, p: int, q: int, c: int) -> I64:
    """In each of h groups the first run of c of all p parts, the second of all, … of q."""
    out: I64 = x.reshape(h, p, q, c).swapaxes(1, 2).ravel()
    return out
