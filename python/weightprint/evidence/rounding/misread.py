"""Are B's values A's bits read as another type, A's bytes in the other order, or A's values and a constant?

None of these is an order of values, and none an encoding: a loader that reads what the header says computes something
else. A file whose header says F16 of bfloat16 words, big-endian words copied as they were, norm gains stored less 1 for
a class that doesn't add it. All are told element by element, without a tolerance but the rounding of both types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from weightprint.evidence.pair import Pair
from weightprint.evidence.rounding.orders import Order
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32
from weightprint.util.floats import MANTISSA, WORD_BYTES, ulp, values_of, words_of

__all__ = ["misread"]

_FIRST = 1 << 12  # values that are asked before all of them
_KINDS = 16  # different values that a constant is named for
_LEAST = 0.1  # of such a constant


def misread(a: ModelView, b: ModelView, pair: Pair) -> Order | None:
    """In words, told both ways; None of other values, of codes, and of what is too simple to show anything."""
    x, y = pair.a, pair.b
    plain = not (x.coded or y.coded) and {x.dtype, y.dtype} <= WORD_BYTES.keys()
    if not plain or pair.transposed or x.shape != y.shape or x.offset != y.offset or not x.numel:
        return None
    if a.is_trivial(x) or b.is_trivial(y):
        return None
    if WORD_BYTES[x.dtype] == WORD_BYTES[y.dtype]:
        for swapped in (False, True):
            if (swapped or x.dtype != y.dtype) and _all(a, b, pair, _reader(x.dtype, y.dtype, swapped)):
                turned = ", the bytes of each value in the other order" * swapped
                to, back = (f" read as {t}" * (x.dtype != y.dtype) for t in (y.dtype, x.dtype))
                return Order(f"the same bits{to}{turned}", f"the same bits{back}{turned}", read=True)
    return _constant(a, b, pair) if len(y.shape) == 1 else None


def _reader(dtype: str, other: str, swapped: bool) -> Callable[[F32], F32]:
    """From A's values to those that its bits are to a reader of `other`."""

    def read(values: F32) -> F32:
        words = words_of(values, dtype)
        return values_of(words.byteswap() if swapped else words, other)

    return read


def _all(a: ModelView, b: ModelView, pair: Pair, read: Callable[[F32], F32]) -> bool:
    """Every value of B is what A's bits are read as; NaN is NaN."""
    return all(np.array_equal(read(x), y, equal_nan=True) for x, y in _slices(a, b, pair))


def _slices(a: ModelView, b: ModelView, pair: Pair) -> Iterator[tuple[F32, F32]]:
    """The same rows of both, a few of them first."""
    few = max(1, _FIRST // max(1, pair.b.matrix[1]))
    yield a.rows(pair.a, 0, few), b.rows(pair.b, 0, few)
    for start, y in b.slices(pair.b):
        yield a.rows(pair.a, start, start + len(y)), y


def _constant(a: ModelView, b: ModelView, pair: Pair) -> Order | None:
    """A's vector and one number, as far as both types can say it."""
    both = [side.rows(t).ravel() for side, t in ((a, pair.a), (b, pair.b))]
    if not all(np.isfinite(values).all() for values in both) or np.unique(both[0]).size < _KINDS:
        return None
    x, y = (values.astype(np.float64) for values in both)
    number = float(np.median(y - x))
    unit = max(_unit(x, pair.a), _unit(y, pair.b))
    if abs(number - round(number)) <= unit:
        number = float(round(number))
    if abs(number) < _LEAST or float(np.abs(y - x - number).max()) > unit:
        return None
    words = [f"{'plus' if n > 0 else 'less'} {abs(n):.4g}" for n in (number, -number)]
    return Order(f"the same values {words[0]}", f"the same values {words[1]}", read=True)


def _unit(values: npt.NDArray[np.float64], tensor: Tensor) -> float:
    """Half a step of the type at the largest value, and a little for the sum itself."""
    largest = np.array([np.abs(values).max()])
    return float(0.51 * ulp(largest, tensor.dtype if tensor.dtype in MANTISSA else "F32")[0])
