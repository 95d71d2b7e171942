"""Units of two models paired by their strong parts, compared by their weak ones.

A *unit* is some vectors in the stream: what it reads (gate, up) and what it writes (down). Both models' vectors are
given in one basis; :func:`directions` splits the stream, :func:`along` the vectors, :func:`paired` matches units by the
strong parts alone, and :func:`weak_parts` holds the weak parts of matched units against those of others that are alike
(:mod:`weightprint.evidence.nulls.alike`). What that is good for: :mod:`weightprint.evidence.convergence`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.nulls.alike import alike, copies, excess, excess_sd
from weightprint.evidence.nulls.exchange import log10_p_order
from weightprint.evidence.pair import Basis
from weightprint.util.arrays import F32, F64, Indices
from weightprint.util.linear_algebra import eigh, product, unit_rows

_STRONG, _WEAK = 1 / 2, 2 / 3  # matched by directions before the first, compared by as many as lie behind the second
FEWEST = 12  # matched units
_PAIRS = 256


@dataclass(frozen=True, slots=True)
class Directions:
    """Orthonormal columns (d_a, n) of A's stream: units are matched by `strong`, compared by `weak`."""

    strong: F32
    weak: F32


def common(basis: Basis, d: int) -> F32:
    """What of A's stream of width d B's channels reach: orthonormal columns (d, directions)."""
    if basis.matrix is not None and basis.matrix.shape[0] < d:
        return np.ascontiguousarray(basis.matrix.T)
    there = np.ones(d, bool) if basis.channels is None else basis.channels >= 0
    return np.eye(d, dtype=np.float32)[:, there]


def directions(vectors: Iterable[tuple[F32, bool]], space: F32) -> Directions:
    """Where both models together write much, and where they write and read little.

    ``vectors``: sets of rows over A's channels, of either model, and whether they are written; each set counts alike.
    """
    written, read = (np.zeros((space.shape[1],) * 2) for _ in range(2))
    for x, writes in vectors:
        _add(written if writes else read, product(x, space))
    by_writing = _strongest_first(written)
    half = max(2, round(_STRONG * len(written)))
    quiet = by_writing[:, half:]
    by_reading = _strongest_first(quiet.T @ read @ quiet)
    weak = product(quiet, by_reading[:, -max(2, len(written) - round(_WEAK * len(written))) :])
    return Directions(product(space, by_writing[:, :half]), product(space, weak))


def _strongest_first(moment: F64) -> F32:
    values, vectors = eigh(moment)
    return np.ascontiguousarray(vectors[:, np.argsort(-values)], dtype=np.float32)


def _add(total: F64, x: F32) -> None:
    moment = product(x.T, x)
    trace = float(np.trace(moment))
    if 0 < trace < math.inf:
        total += moment / trace


@dataclass(frozen=True, slots=True)
class Units:
    """Vectors of some units, (gate,) up, down, along the strong and the weak directions: (units, n) each."""

    strong: tuple[F32, ...]
    weak: tuple[F32, ...]

    @property
    def gated(self) -> bool:
        """Whether units have a gate beside their up-projection."""
        return len(self.strong) == 3

    def __len__(self) -> int:
        return len(self.strong[0])


def along(vectors: Iterable[F32], to: Directions) -> Units:
    """Vectors over A's channels, (gate,) up, down, taken along the directions."""
    held = list(vectors)
    strong, weak = (tuple(product(x, v) for x in held) for v in (to.strong, to.weak))
    return Units(strong, weak)


def paired(a: Units, b: Units) -> tuple[int, F32]:
    """By the strong parts: for how many units of B reading and writing name the same unit of A, and the likeness of
    all pairs, (A's units, B's)."""
    parts = [_cosines(x, y) for x, y in zip(a.strong, b.strong, strict=True)]
    read, written = sum(np.abs(p) for p in parts[:-1]), np.abs(parts[-1])
    agreed = int(np.count_nonzero(np.asarray(read).argmax(axis=0) == written.argmax(axis=0)))
    return agreed, parts[0] + np.abs(parts[1] + parts[2]) if a.gated else parts[0] + parts[1]


@dataclass(frozen=True, slots=True)
class WeakParts:
    """Matched units of A and B, and how alike their weak parts are (A's x B's)."""

    a: Indices
    b: Indices
    similarity: F32
    groups: list[Indices]  # of matched units that are alike in the strong directions
    strong: float  # mean cosine of matched units in the strong directions
    hits: Indices  # of B as it is, then of copies whose weak parts were dealt out anew

    def log10_p(self, copy: int = 0) -> float:
        """Bound on the chance of so many hits, of B or of one of its copies."""
        return log10_p_order(int(self.hits[copy]), [(rows.size, 1) for rows in self.groups])

    @property
    def effect(self) -> float:
        """Mean cosine of matched weak parts above that of others in their groups."""
        return excess(self.similarity, self.groups)

    @property
    def sd(self) -> float:
        """Deviation of the effect under the null."""
        return excess_sd(self.similarity, self.groups)


def weak_parts(a: Units, b: Units, likeness: F32, seed: int) -> WeakParts | None:
    """Units that are each other's best by the strong parts, and their weak parts; None where they are too few."""
    to = likeness.argmax(axis=0)
    j = np.nonzero(likeness.argmax(axis=1)[to] == np.arange(to.size))[0]
    i = to[j]
    if j.size < FEWEST:
        return None
    signs = np.ones((j.size, 1), np.float32)
    if a.gated:  # the sign of up and down together is free
        both = sum(np.sum(x[i] * y[j], axis=1) for x, y in zip(a.strong[1:], b.strong[1:], strict=True))
        signs = np.where(np.asarray(both) < 0, -1, 1).astype(np.float32)[:, None]
    total = np.zeros((len(a), j.size), np.float32)
    for k, (x, y) in enumerate(zip(a.weak, b.weak, strict=True)):
        total += _cosines(x, y[j] * (signs if a.gated and k > 0 else np.float32(1)))
    likely = likeness[:, j] / np.float32(len(a.strong))
    similarity = (total / np.float32(len(a.weak)) - _expected(likely, total / np.float32(len(a.weak)), i))[i]
    groups = alike(np.concatenate([unit_rows(x[i]) for x in a.strong], axis=1))
    strong = float(likely[i, np.arange(j.size)].mean())
    return WeakParts(i, j, similarity, groups, strong, copies(similarity, groups, seed))


def _expected(strong: F32, weak: F32, matched: Indices) -> F32:
    """Weak likeness that a pair of units has for its strong likeness, read off all pairs that are not matched.

    Means over the lower half of the pairs by strong likeness, the next quarter, and so on while `_PAIRS` are left; they
    never fall, and between them lines are straight.
    """
    off = np.ones(strong.shape, bool)
    off[matched, np.arange(matched.size)] = False
    order = np.argsort(strong[off], kind="stable")
    x, y = strong[off][order], weak[off][order]
    ends = [0]
    while x.size - ends[-1] >= 2 * _PAIRS:
        ends.append(ends[-1] + (x.size - ends[-1]) // 2)
    points, values = (np.add.reduceat(z.astype(np.float64), ends) / np.diff([*ends, x.size]) for z in (x, y))
    out: F32 = np.interp(strong, points, np.maximum.accumulate(values)).astype(np.float32)
    return out


def _cosines(x: F32, y: F32) -> F32:
    out: F32 = product(unit_rows(x - x.mean(axis=0)), unit_rows(y - y.mean(axis=0)).T)
    return out
