"""Two token tables, looked at one after the other: B's leaves samples and what tells its rows apart, A's is held
against them.

Rows are told apart by a digest of each, or in large tables by keys: a few values of every row, summed to 64 bits. Pairs
of equal keys are read again and compared value by value, unless the two tables have one digest.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weightprint.evidence.nulls.exchange import choices, finite
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.model import MIN_DISTINCT, SLICE_VALUES, ModelView, Tensor
from weightprint.fingerprint.sampling import Read, pick, sampled_rows
from weightprint.fingerprint.steps import Collector, Round, Step, where
from weightprint.util import parallel
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import product, unit_rows

_TABLES = ("embedding", "head")
_LARGE = 1 << 25  # values of a table from which rows are told apart by a few of their values first
_KEY = 32
_NEAR, _APART = 0.5, 0.1  # or 5 standard deviations of a chance cosine, where channels are few


class _Keys(NamedTuple):
    """Keys of rows, and these rows' numbers."""

    keys: npt.NDArray[np.uint64]
    rows: Indices


_Rows = _Keys | list[bytes | None]  # keys of rows, or a digest of every row


def table_collector(models: ModelPair) -> Tables | None:
    """What this test does while the models stream by; needs their headers only. None at effort full, whose samples of
    B would take too much memory."""
    pairs = table_pairs(models)
    return Tables(models, pairs) if pairs and not models.budget.exhaustive else None


def table_pairs(models: ModelPair) -> tuple[tuple[str, Tensor, Tensor], ...]:
    """Tables of the same role, of equal width once B is written in A's basis."""
    tables: list[dict[str, Tensor]] = []
    for side in (models.a, models.b):
        here: dict[str, Tensor] = {}
        for tensor in side.tensors.values():
            if tensor.place is not None and tensor.place.role in _TABLES and tensor.rank2 and not tensor.constant:
                here.setdefault(tensor.place.role, tensor)
        tables.append(here)
    out = []
    for role, b in tables[1].items():
        a = tables[0].get(role)
        if a is not None and models.basis.fits(b.shape[1], a.shape[1]):
            out.append((role, a, b))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Which rows and channels of one pair of tables are looked at.

    Attributes:
        by_keys: rows are told apart by the channels in ``keys`` first.
        asked: rows of B that look for their nearest on ``channels``, among the rows of A in ``known``.
        mean: rows of A that tell its mean row.
        place: rows of equal number that are compared.
        columns: rows over which channels look for themselves; None where they don't.
        compared: the channels that do.
    """

    by_keys: bool
    keys: Indices
    asked: Indices
    channels: Indices
    known: tuple[Indices, ...]
    mean: Indices
    place: Indices
    columns: Indices | None
    compared: Indices


@dataclass(frozen=True, slots=True)
class _OfB:
    """What is kept of a table of B until A's is at hand, in A's channels."""

    number: int  # of its rows
    rows: _Rows | None
    asked: F32
    place: F32
    columns: F32 | None


@dataclass(frozen=True, slots=True)
class Met:
    """What a table of B and one of A show together.

    Attributes:
        equal: (n, 2): row of B, row of A.
        tested: rows of B that could have been found equal.
        near: (n, 2): row of B, row of A.
        sampled: rows of B that looked for their nearest.
        cosine, other: mean centred cosine of rows of equal number, and of other rows.
        named: of the channels that were compared, by their order, the one of B that each of A is most like, -1 for
            none; empty where that was not asked.
    """

    equal: Indices
    tested: int
    near: Indices
    sampled: int
    cosine: float
    other: float
    named: Indices


@dataclass(eq=False)
class Tables(Collector):
    """Token tables of the same role (role, of A, of B): samples of B's are kept, and A's are held against them."""

    models: ModelPair = field(repr=False)
    pairs: tuple[tuple[str, Tensor, Tensor], ...]

    def __post_init__(self) -> None:
        super().__init__()
        self._samples = {role: _samples(self.models, a, b) for role, a, b in self.pairs}
        self._of_b: dict[str, _OfB] = {}
        self._met: dict[str, Met] = {}

    @property
    def what(self) -> Hashable:
        """Tables, effort, seed and basis."""
        models = self.models
        names = tuple((role, a.name, b.name) for role, a, b in self.pairs)
        return names, models.effort, models.seed, models.basis.kind, models.basis.found_by

    def rounds(self) -> list[Round]:
        """One round per pair of tables."""
        return [self._round(*pair) for pair in self.pairs]

    def _round(self, role: str, a: Tensor, b: Tensor) -> Round:
        some = self._samples[role]
        keys = [some.keys] if some.by_keys else []
        columns = [] if some.columns is None else [some.columns]
        theirs = [*(Read(b, None, k) for k in keys), *(Read(b, rows) for rows in (some.asked, some.place))]
        theirs += [Read(b, rows, some.compared) for rows in columns]
        ours = [*(Read(a, None, k) for k in keys), Read(a, some.place)]
        ours += [Read(a, rows, some.compared) for rows in columns]
        near = [Read(a, rows, some.channels) for rows in (some.mean, *some.known)]
        return (
            [Step(where(b), partial(self._keep, role, b), tuple(theirs))],
            [Step(where(a), partial(self._meet, role, a), (*ours, *near))],
        )

    def _rows(self, side: ModelView, tensor: Tensor, some: _Samples) -> _Rows | None:
        """What tells rows apart; None in a rotated basis, where no row stays as it was."""
        if some.by_keys:
            return _single_keys(side, tensor, some.keys)
        basis = self.models.basis
        return None if basis.kind == "rotation" else _digests(side, tensor, basis if side.label == "b" else Basis())

    def _keep(self, role: str, b: Tensor, side: ModelView) -> None:
        some, to_a = self._samples[role], self.models.basis.to_a
        self._of_b[role] = _OfB(
            b.shape[0],
            self._rows(side, b, some),
            _centred(to_a(_table(side, b, some.asked))[:, some.channels]),
            _centred(to_a(_table(side, b, some.place))),
            None if some.columns is None else _columns(_table(side, b, some.columns, some.compared)),
        )

    def _meet(self, role: str, a: Tensor, side: ModelView) -> None:
        some, theirs = self._samples[role], self._of_b.pop(role)
        rows = self._rows(side, a, some)
        equal, tested = np.empty((0, 2), np.int64), theirs.number
        if isinstance(rows, _Keys) and isinstance(theirs.rows, _Keys):
            equal, tested = _equal_keys(rows, theirs.rows)
        elif isinstance(rows, list) and isinstance(theirs.rows, list):
            equal, tested = _equal_rows(rows, theirs.rows)
        near = _near_rows(side, a, theirs.asked, some)
        cosine, other = _in_place(_centred(_table(side, a, some.place)), theirs.place)
        named = np.empty(0, np.int64)
        if some.columns is not None and theirs.columns is not None:
            named = choices(product(_columns(_table(side, a, some.columns, some.compared)), theirs.columns.T))
        self._met[role] = Met(equal, tested, near, some.asked.size, cosine, other, named)

    def met(self, models: ModelPair, role: str, a: Tensor, b: Tensor) -> Met:
        """What was found for one pair of tables, measured by now; equal keys are made sure of."""
        met = self._met[role]
        alike = a.digest is not None and (a.digest, a.dtype, a.shape) == (b.digest, b.dtype, b.shape)
        if alike or not self._samples[role].by_keys:
            return met
        return replace(met, equal=_equal_indeed(models, a, b, met.equal))


def _samples(models: ModelPair, a: Tensor, b: Tensor) -> _Samples:
    budget, seed = models.budget.tables, models.seed
    stored = models.basis.kind == "identity" and a.shape[1] == b.shape[1]
    large = min(a.numel, b.numel) >= _LARGE
    channels = budget.channels_of_large if large else budget.channels
    both = min(a.shape[0], b.shape[0])
    known = pick(a.shape[0], budget.known, seed, "known rows")
    step = max(1, (1 << 22) // a.shape[1])
    return _Samples(
        by_keys=large and stored,
        keys=pick(a.shape[1], _KEY, seed, "keys of rows"),
        asked=pick(b.shape[0], budget.asked, seed, "near rows", run=4),
        channels=pick(a.shape[1], channels, seed, "channels of near rows"),
        known=tuple(known[i : i + step] for i in range(0, known.size, step)),
        mean=pick(a.shape[0], 4096, seed, "mean row"),
        place=pick(both, budget.asked, seed, "rows in place", run=4),
        columns=pick(both, budget.columns_of_large if large else budget.columns, seed, "channels of rows")
        if stored and both >= MIN_DISTINCT
        else None,
        compared=pick(a.shape[1], budget.compared if large else a.shape[1], seed, "compared channels"),
    )


def _digests(side: ModelView, tensor: Tensor, basis: Basis) -> list[bytes | None]:
    """One digest per row of its float32 values; None for a row of fewer than 8 distinct values."""
    out: list[bytes | None] = []
    for _, x in side.slices(tensor):
        # -0 and 0 are one value, and flipping a sign must not part them.
        rows = np.ascontiguousarray(basis.to_a(x) + np.float32(0))
        some = np.sort(rows[:, :: max(1, rows.shape[1] // 64)], axis=1)
        rich = np.count_nonzero(np.diff(some, axis=1) > 0, axis=1) >= 7
        out += [
            hashlib.blake2b(row, digest_size=16).digest() if ok else None for row, ok in zip(rows, rich, strict=True)
        ]
    return out


def _single_keys(side: ModelView, tensor: Tensor, columns: Indices) -> _Keys:
    """Keys of the rows that differ from all others in these columns. Equal rows have equal keys; the others hardly
    ever: a key is a sum of the values' bits with random odd factors, modulo 2^64."""
    values = sampled_rows(side, tensor, np.arange(tensor.shape[0]), columns) + np.float32(0)  # -0 is 0
    rich = np.flatnonzero(np.count_nonzero(np.diff(np.sort(values, axis=1), axis=1) > 0, axis=1) >= 7)
    factors = np.random.default_rng(columns.size).integers(0, 1 << 64, columns.size, np.uint64) | np.uint64(1)
    keys, first, times = np.unique(
        (values.view(np.uint32)[rich] * factors).sum(axis=1, dtype=np.uint64), return_index=True, return_counts=True
    )
    return _Keys(keys[times == 1], rich[first[times == 1]])


def _equal_keys(a: _Keys, b: _Keys) -> tuple[Indices, int]:
    """What `_equal_rows` says, of keys: the pairs are likely equal."""
    _, in_a, in_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    order = np.argsort(b.rows[in_b])
    return np.stack([b.rows[in_b], a.rows[in_a]], axis=1)[order], b.rows.size


def _equal_indeed(models: ModelPair, a: Tensor, b: Tensor, likely: Indices) -> Indices:
    """Of pairs (row of B, row of A) with equal keys those that are equal, value by value."""
    kept = []
    step = max(1, SLICE_VALUES // a.shape[1])
    for part in (likely[i : i + step] for i in range(0, len(likely), step)):
        order = np.argsort(part[:, 1])
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        x = sampled_rows(models.a, a, part[order, 1])[back]
        kept.append(part[np.all(x == sampled_rows(models.b, b, part[:, 0]), axis=1)])
    return np.concatenate(kept) if kept else likely


def _equal_rows(a: Sequence[bytes | None], b: Sequence[bytes | None]) -> tuple[Indices, int]:
    """(row of B, row of A) for rows that are single in both tables, and how many rows of B could have been found."""
    single_a, single_b = Counter(a), Counter(b)
    row_of = {digest: i for i, digest in enumerate(a) if digest is not None and single_a[digest] == 1}
    usable = [(i, digest) for i, digest in enumerate(b) if digest is not None and single_b[digest] == 1]
    pairs = [(i, row_of[digest]) for i, digest in usable if digest in row_of]
    return np.array(pairs, np.int64).reshape(-1, 2), len(usable)


def _near_rows(side: ModelView, a: Tensor, y: F32, some: _Samples) -> Indices:
    """Sampled rows of B, (rows, channels) of length one, with the row of A that each is nearest to, where that stands
    apart."""
    mean = _table(side, a, some.mean, some.channels).mean(axis=0)
    top = np.full((some.asked.size, 2), -np.inf, np.float32)
    nearest_row = np.full(some.asked.size, -1, np.int64)
    rows = np.arange(some.asked.size)

    def look(part: Indices) -> tuple[Indices, F32, F32]:
        x = _table(side, a, part, some.channels)
        x -= mean
        norms = np.sqrt(np.einsum("ij,ij->i", x, x))
        alike = product(y, x.T)
        alike /= np.where(norms > 0, norms, np.float32(1))
        nearest = alike.argmax(axis=1)
        first = alike[rows, nearest]
        alike[rows, nearest] = -np.inf
        return part[nearest], first, alike.max(axis=1)

    for nearest, first, second in parallel.each(look, some.known):
        nearest_row = np.where(first > top[:, 0], nearest, nearest_row)
        both = np.concatenate([top, first[:, None], second[:, None]], axis=1)
        top = -np.sort(-both, axis=1)[:, :2]
    near = max(_NEAR, 5 / math.sqrt(some.channels.size))
    found = (top[:, 0] >= near) & (top[:, 0] - top[:, 1] >= _APART)
    pairs = np.stack([some.asked[found], nearest_row[found]], axis=1)
    # A row of A that many rows of B take for theirs is a hub.
    named, times = np.unique(pairs[:, 1], return_counts=True)
    return pairs[~np.isin(pairs[:, 1], named[times > 1])]


def _in_place(x: F32, y: F32) -> tuple[float, float]:
    """Mean centred cosine of rows of equal number, and of other rows."""
    n = x.shape[0]
    own = float(np.sum(x * y))
    return own / max(n, 1), (float(x.sum(axis=0) @ y.sum(axis=0)) - own) / max(n * n - n, 1)


def _columns(x: F32) -> F32:
    """Channels over rows that are centred and of length one, brought to length one themselves."""
    return _centred(_centred(x).T)


def _table(side: ModelView, tensor: Tensor, rows: Indices, channels: Indices | None = None) -> F32:
    x = sampled_rows(side, tensor, rows, channels)
    gain = side.gain(tensor)
    if gain is not None:
        x *= gain if channels is None else gain[channels]
    return finite(x)


def _centred(x: F32) -> F32:
    """Mean row taken away, rows of length one."""
    return unit_rows(x - x.mean(axis=0))
