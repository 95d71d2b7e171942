"""From pairs of vectors to a basis: which signed permutation, or which rotation, takes B's residual channels to A's.

Given n pairs (x_i, y_i), x_i over A's channels and y_i over B's, that would be equal if both were written in one basis,

- the *signed permutation* pairs channels j, k by |corr(x_.j, y_.k)| over the pairs, strongest first, each channel once:
  the stable matching when both sides prefer by the same number. It is optimal where the right partner is the best of
  its row and column, which is where a permutation was applied at all; a sum-optimal assignment [AWM 2510.06738] differs
  only among channels that match nothing well;
- the *rotation* minimises sum |x_i - y_i R|^2: the polar factor of sum y_i' x_i (Schönemann 1966). Where widths differ
  its rows or columns are orthonormal.

Only the sums are kept, so pairs can stream by.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from weightprint.util import linear_algebra
from weightprint.util.arrays import F32, Indices
from weightprint.util.assignment import strongest_first
from weightprint.util.linear_algebra import product, svd

__all__ = ["Cross", "cosines", "unit_rows"]

#: Rows are many here.
unit_rows = partial(linear_algebra.unit_rows, dots=True)

#: Values of a set of rows from which it is centred in parts.
_HELD = 1 << 22


class Cross:
    """Sums over pairs of rows: enough for correlations of channels and for the best rotation."""

    def __init__(self, d_a: int, d_b: int) -> None:
        self.n = 0
        self._products = np.zeros((d_b, d_a))
        self._sums = (np.zeros(d_a), np.zeros(d_b))
        self._squares = (np.zeros(d_a), np.zeros(d_b))

    @property
    def width(self) -> int:
        """The smaller of the two widths: as many pairs as a rotation needs."""
        return int(min(self._products.shape))

    def add(self, x: F32, y: F32) -> None:
        """Rows over A's channels (n, d_a) beside rows over B's (n, d_b)."""
        self.n += len(x)
        self._products += product(y.T, x)
        for rows, total, squares in zip((x, y), self._sums, self._squares, strict=True):
            total += rows.sum(axis=0, dtype=np.float64)
            squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)

    def join(self, other: Cross) -> None:
        """Add the other's pairs to these."""
        self.n += other.n
        self._products += other._products
        for mine, theirs in zip((*self._sums, *self._squares), (*other._sums, *other._squares), strict=True):
            mine += theirs

    def correlations(self) -> F32:
        """Correlation over the pairs of each channel of A with each of B: (d_a, d_b); 0 where one is constant."""
        if self.n < 2:
            return np.zeros(self._products.T.shape, np.float32)
        covariance = np.outer(self._sums[0] / -self.n, self._sums[1])
        covariance += self._products.T
        spread = [np.sqrt(np.maximum(q - s * s / self.n, 0)) for s, q in zip(self._sums, self._squares, strict=True)]
        inverse = [np.divide(1, x, out=np.zeros_like(x), where=x > 0) for x in spread]
        covariance *= inverse[0][:, None]
        covariance *= inverse[1]
        return covariance.astype(np.float32)

    def signed_permutation(self) -> tuple[Indices, F32]:
        """For each channel of A the channel of B (-1: none), and its sign (0: none)."""
        found = self.correlations()
        channels = strongest_first(np.abs(found))
        signs = np.sign(found[np.arange(channels.size), channels]).astype(np.float32)
        return np.where(signs == 0, -1, channels), np.where(channels < 0, np.float32(0), signs)

    def rotation(self) -> F32:
        """The orthogonal (d_b, d_a) matrix R for which rows y R come closest to rows x."""
        scale = float(np.abs(self._products).max()) or 1.0
        u, _, vt = svd((self._products / scale).astype(np.float32))
        out: F32 = product(u, vt)
        return out


def cosines(x: F32, y: F32) -> F32:
    """Cosine of every row of x with every row of y, after the mean row of each set is taken away."""
    if y.size >= _HELD:
        return cosines(y, x).T if x.size < _HELD else _in_parts(x, y)
    if x.size >= _HELD:
        return _in_parts(x, y)
    out: F32 = product(unit_rows(x - x.mean(axis=0)), unit_rows(y - y.mean(axis=0)).T)
    return out


def _in_parts(x: F32, y: F32) -> F32:
    """The same for large sets: a few thousand rows of x are centred and scaled at a time, and stay in the cache."""
    mean, known = x.mean(axis=0), np.ascontiguousarray(unit_rows(y - y.mean(axis=0)).T)
    out = np.empty((x.shape[0], y.shape[0]), np.float32)
    step = max(1, _HELD // 8 // x.shape[1])
    for start in range(0, x.shape[0], step):
        out[start : start + step] = product(unit_rows(x[start : start + step] - mean), known)
    return out
