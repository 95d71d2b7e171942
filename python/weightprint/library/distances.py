"""Distances in a group that add up along a tree of descent, and what stands elsewhere between two models.

With A = c P + X, where X knows nothing of the parent P (METHODS: what is new is orthogonal), the cosines of a chain
multiply, whatever was let go of (c): cos(A, B) = cos(A, P) cos(P, B). So the *length* of a path is

    d(A, B) = - 2 log cos(A, B)        about |A - B|² / |A|² where that is small

matrix by matrix, and the mean over matrices adds up as each of them does, however unlike they are. (Squared distances
add up too, but only as long as nothing decays; cosines of whole models do only if all matrices change alike.) Where a
model lacks matrices, the mean is over those that both have, each in units of its median over all pairs.

What values can't show (blocks dropped, units in another order, a new vocabulary) is counted beside it: *edits*, the
share of tensors that one of two models has in another shape, not at all, or somewhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weightprint.fingerprint.live import finite_view
from weightprint.fingerprint.model import Tensor
from weightprint.library.frame import Key, Products
from weightprint.library.members import Member
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import product, unit_rows

__all__ = ["Distances", "distances", "edits"]

_FARTHEST = 0.02  # cosine: beyond that nothing is told apart
_VALUES = 2048  # of a matrix that show whether it stands in place
_MOVED = 0.5  # of the cosine that its counterpart in the frame has


@dataclass(frozen=True, eq=False)
class Distances:
    """Of n models: the length of every matrix, float64 (matrices, n, n), NaN where one lacks it, and the block that
    each matrix is in; ``scales``: the median of each over pairs that differ."""

    keys: tuple[Key, ...]
    by_matrix: F64
    scales: F64

    @cached_property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """The blocks, in order."""
        return tuple(dict.fromkeys(key[0][:2] for key in self.keys))

    def weights(self, draw: F64 | None = None) -> F64:
        """How often each matrix counts where each block does so often; float64 (matrices,)."""
        draw = np.ones(len(self.blocks)) if draw is None else draw
        return draw[[self.blocks.index(key[0][:2]) for key in self.keys]]

    def common(self, draw: F64 | None = None) -> F64:
        """Lengths over what two models have in common, float64 (n, n), NaN where that is nothing."""
        return self._mean(self.by_matrix, draw)

    def of_children(self, draw: F64 | None = None) -> F64:
        """Lengths from each model (row) over all that another (column) has: of what the first lacks, the usual one.
        So those that lack much are no nearer for it."""
        own = np.where(np.eye(self.by_matrix.shape[1]) > 0, np.nan, self.by_matrix)
        there = np.isfinite(np.diagonal(self.by_matrix, axis1=1, axis2=2))[:, None, :]
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # of what nobody else has
            usual = np.nanmedian(own, axis=1, keepdims=True)
        filled = np.where(np.isnan(self.by_matrix), np.broadcast_to(usual, own.shape), self.by_matrix)
        return self._mean(np.where(there, filled, np.nan), draw)

    def _mean(self, lengths: F64, draw: F64 | None) -> F64:
        weights = self.weights(draw)
        under = np.tensordot(weights * self.scales, np.isfinite(lengths).astype(np.float64), 1)
        over = np.tensordot(weights, np.nan_to_num(lengths), 1)
        with np.errstate(all="ignore"):
            return np.asarray(np.where(under > 0, float(np.mean(self.scales)) * over / under, np.nan))


def _length(p: Products) -> F64:
    """-2 log cosine; exact to rounding for neighbours, since their differences are taken before the logarithm."""
    with np.errstate(all="ignore"):
        size = np.sqrt(p.own * p.own.T)
        off = (p.own + p.own.T - 2 * p.cross - np.square(np.sqrt(p.own) - np.sqrt(p.own.T))) / (2 * size)
    length = -2 * np.log1p(-np.clip(off, 0.0, 1 - _FARTHEST))
    return np.asarray(np.where((p.n > 0) & (size > 0), length, np.nan))


def distances(found: Sequence[Products]) -> Distances:
    """From the inner products of a frame; what no two models have in it (attention that no map could place) is left
    out, where anything is not."""
    told = [(p.key, _length(p)) for p in found]
    told = [(key, x) for key, x in told if np.isfinite(x[~np.eye(len(x), dtype=bool)]).any()] or told
    by_matrix = np.array([length for _, length in told])
    return Distances(tuple(key for key, _ in told), by_matrix, np.array([_scale(length) for length in by_matrix]))


def _scale(length: F64) -> float:
    """The median over pairs that differ."""
    apart = length[np.isfinite(length) & (length > 1e-9)]
    return float(np.median(apart)) if apart.size else 1.0


# Edits


def edits(members: Sequence[Member], lengths: F64) -> F64:
    """Share of the tensors of two models that only one has, in that shape and place: float64 (n, n)."""
    n = len(members)
    held: dict[object, list[int]] = {}
    seen: dict[object, list[tuple[int, F32]]] = {}
    for i, member in enumerate(members):
        for t in _tensors(member):
            key: object = t.name if t.place is None else (t.place, t.shape)
            held.setdefault(key, []).append(i)
            if t.rank2 and t.place is not None and not t.undecoded:
                seen.setdefault(key, []).append((i, _first(member, t)))
    common, count = np.zeros((n, n)), np.zeros(n)
    for key, at in held.items():
        same = np.ones((len(at), len(at)))
        if key in seen:
            order = [i for i, _ in seen[key]]
            rows = unit_rows(np.stack([x for _, x in seen[key]]))
            near = np.exp(-np.nan_to_num(lengths[np.ix_(order, order)], nan=0.0) / 2)
            same = (product(rows, rows.T) >= _MOVED * near).astype(np.float64)
            at = order
        common[np.ix_(at, at)] += same
        count[at] += 1
    every = count[:, None] + count - common
    out = 1 - common / np.maximum(every, 1)
    np.fill_diagonal(out, 0.0)
    return np.asarray(out)


def _tensors(member: Member) -> Iterable[Tensor]:
    of = member.side().tensors if member.kept is None else member.kept.tensors
    return (t for t in of.values() if t.place is None or t.place.part != "fixed")


def _first(member: Member, t: Tensor) -> F32:
    if member.kept is not None:
        return member.kept.sketch(t.name).astype(np.float32)
    side = finite_view(member.side())
    return side.rows(t, 0, max(1, min(t.shape[0], _VALUES // t.shape[1]))).reshape(-1)
