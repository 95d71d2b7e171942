"""Dense linear algebra, and the seconds it takes.

What a comparison costs beyond reading is products, solutions and decompositions of dense matrices, which are LAPACK's
and BLAS's and as fast as the machine allows. So they go through here, and `accounted` says how long they took:
`Comparison.gemm_seconds`. Sampling, decoding, sorting and looking for the nearest are not counted. Of pieces of work
that run side by side (:mod:`weightprint.util.parallel`) each counts for its part of the machine. Products may use all
of BLAS's threads; solutions and decompositions have one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from weightprint.util import parallel
from weightprint.util.arrays import F32, F64, Array

Floats = TypeVar("Floats", F32, F64)


@dataclass
class Spent:
    """Wall seconds and CPU seconds (of all threads) of dense linear algebra so far."""

    seconds: float = 0.0
    cpu: float = 0.0


_ADDING = threading.Lock()
_SPENT: ContextVar[tuple[Spent, ...]] = ContextVar("spent", default=())


@contextmanager
def accounted() -> Iterator[Spent]:
    """Counts what runs inside, in this thread; accounts may be nested, and the outer one counts everything."""
    spent = Spent()
    token = _SPENT.set((*_SPENT.get(), spent))
    try:
        yield spent
    finally:
        _SPENT.reset(token)


class _counted:  # used like a function: a generator takes longer than many a product
    __slots__ = ("_clock", "_cpu", "_sharing", "_started")

    def __enter__(self) -> None:
        parallel.check()
        self._sharing = parallel.sharing()
        self._clock = time.process_time if self._sharing == 1 else time.thread_time
        self._started, self._cpu = time.perf_counter(), self._clock()

    def __exit__(self, *_: object) -> None:
        seconds, cpu = (time.perf_counter() - self._started) / self._sharing, self._clock() - self._cpu
        with _ADDING:
            for spent in _SPENT.get():
                spent.seconds += seconds
                spent.cpu += cpu


def finite(x: Array) -> Array:
    """x with 0 in place of NaN and infinities: one such value keeps a decomposition from converging."""
    return x if np.isfinite(x).all() else np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def unit_rows(x: Floats, *, axis: int = 1, dots: bool = False) -> Floats:
    """Rows (``axis=0``: columns) of length one; those of zeros stay. ``dots`` sums a row's squares without a copy of x,
    in another order."""
    norms = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None] if dots else np.linalg.norm(x, axis=axis, keepdims=True)
    lengths: Floats = np.where(norms > 0, norms, x.dtype.type(1))
    return x / lengths


def row_cosines(x: Floats, y: Floats) -> Floats:
    """Cosine of each row of x with the row of y of the same number; 0 where one is zeros."""
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    out: Floats = np.einsum("ij,ij->i", x, y) / np.maximum(norms, 1e-30)
    return out


def product(x: Array, y: Array) -> Any:
    """``x @ y``."""
    with _counted():
        return x @ y


def solve(x: Array, y: Array) -> Any:
    """z with ``x @ z = y``."""
    with parallel.one_blas_thread(), _counted():
        return np.linalg.solve(finite(x), finite(y))


def lstsq(x: Array, y: Array) -> Array:
    """The z for which ``x @ z`` is nearest to y."""
    with parallel.one_blas_thread(), _counted():
        return np.linalg.lstsq(finite(x), finite(y), rcond=None)[0]


def svd(x: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition: u, s and v' with ``x = u @ diag(s) @ v'``."""
    with parallel.one_blas_thread(), _counted():
        return np.linalg.svd(finite(x), full_matrices=False)


def polar(x: Array) -> Array:
    """The orthogonal factor of the polar decomposition: the orthogonal matrix that is nearest to x."""
    u, _, vt = svd(x)
    return np.asarray(product(u, vt))


def svdvals(x: Array) -> Array:
    """Singular values, largest first."""
    with parallel.one_blas_thread(), _counted():
        return np.linalg.svd(finite(x), compute_uv=False)


def gram_singular_values(x: F64) -> F64:
    """Singular values from the smaller Gram matrix, largest first: what is below a hundred millionth of the largest is
    lost."""
    values: F64 = eigvalsh(product(x, x.T) if x.shape[0] <= x.shape[1] else product(x.T, x))[::-1]
    return np.sqrt(np.maximum(values, 0.0))


def eigvalsh(x: Array) -> Array:
    """Eigenvalues of a symmetric matrix, smallest first."""
    with parallel.one_blas_thread(), _counted():
        return np.linalg.eigvalsh(finite(x))


def eigh(x: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric matrix, smallest first, and its eigenvectors as columns."""
    with parallel.one_blas_thread(), _counted():
        values, vectors = np.linalg.eigh(finite(x))
        return values, vectors


def qr(x: Array) -> tuple[Array, Array]:
    """Thin QR decomposition: q with orthonormal columns and r upper triangular with ``x = q @ r``."""
    with parallel.one_blas_thread(), _counted():
        q, r = np.linalg.qr(finite(x))
        return q, r
