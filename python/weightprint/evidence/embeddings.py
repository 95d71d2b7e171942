"""Embeddings: which rows of B's token tables are rows of A's, number by number or under other numbers?

*Equal rows.* Every row of both tables is digested (B's written in A's basis where that only renumbers channels and
flips signs). A row that is trivial, or occurs twice in its own table, never counts. The map row of B -> row of A says
what was done to the vocabulary: kept, extended, pruned, renumbered, or joined with another.

*Near rows.* After training no row is equal. Sampled rows of B, in A's basis, look for their nearest row in A by centred
cosine; a row is *found* when that cosine is above .5 (5/sqrt(d) in narrow models) and stands apart from the second
best. Kept numbers are then seen as found rows of equal number, another order as found rows of other numbers. For rows
of equal number the mean cosine is given, minus that of other rows: that is the free control. In a basis that was
fitted on the table itself nearness proves nothing, and only equal rows count.

*Channels.* In the basis as stored, each channel's column over rows of equal number looks for itself: hits, with the
exact bound 1/k! of :mod:`weightprint.evidence._exchange`. Two strangers that share a tokenizer and the data give their
tokens similar geometry, never the same channels, so the bound holds for them. Permuting *rows* would be no null at
all: one common direction (how often a token occurs) makes all rows of equal number a little alike.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from weightprint import parallel
from weightprint.evidence._base import (
    F32,
    MIN_DISTINCT,
    SLICE_VALUES,
    Basis,
    Evidence,
    Models,
    Region,
    Shared,
    Side,
    Tensor,
    not_applied,
    timed,
)
from weightprint.evidence._exchange import choices, finite, log10_p_hits
from weightprint.evidence._ranked import hits_of_copies, joint_orders, log10_p_of, rank_p
from weightprint.evidence._sample import Indices, pick, sampled_rows
from weightprint.linear import product

__all__ = ["embeddings"]

_TABLES = ("embedding", "head")
_ROWS = {"quick": 64, "standard": 512, "full": 2048}  # of B that look for their nearest row
_COLUMNS = {"quick": 2048, "standard": 8192, "full": 32768}  # rows over which channels are compared
_KNOWN = {"quick": 8192, "standard": 1 << 18, "full": 1 << 20}  # rows of A among which the nearest is sought
_CHANNELS = {"quick": 1024, "standard": 1024, "full": 1 << 20}  # over which the nearest is sought
_FEW = 256  # channels for that in large tables at effort standard
_LARGE = 1 << 25  # values of a table from which rows are told apart by a few of their values first
_KEY = 32
_NEAR, _APART = 0.5, 0.1  # or 5 standard deviations of a chance cosine, where channels are few
_DIGESTED = 1 << 18  # values per table that effort "quick" may read whole

_QUESTION = Evidence(
    test="embeddings",
    asked="Which rows of B's token tables are rows of A's, and does each channel find itself over shared rows?",
    applied=True,
    null="B was trained from an initialisation independent of A, so the residual channels of B are equally likely in "
    "any order (basis as stored only)",
    assumes="rows of equal number stand for the same token. Rows that both models took from a third embedding are "
    "found as well",
    blind_to="what lies outside the token tables; vocabularies replaced and trained from scratch; a rotation, unless "
    "the search for a basis has undone it",
    statistic_of="rows of B equal to a row of A, or hits of channels where none is",
    effect_of="share of B's rows that are found in A",
)


@dataclass(frozen=True, slots=True)
class _Table:
    """What was found for one table of B."""

    role: str
    a: Tensor
    b: Tensor
    tested: int  # rows of B that could count
    map: Indices  # (n, 2): row of B, row of A, equal
    sampled: int  # rows of B that looked for their nearest
    near: Indices  # (n, 2): row of B, row of A, near
    cosine: float  # of rows of equal number
    other: float
    named: Indices  # channel of B that each channel of A is most like, -1 for none; empty where that was not asked
    fitted: bool  # the basis was fitted on this table

    @property
    def channels(self) -> int:
        return self.named.size

    @property
    def hits(self) -> int:
        return int(np.count_nonzero(self.named == np.arange(self.named.size)))

    @property
    def kind(self) -> str:
        """What was done to the vocabulary, from the equal rows, else from the near ones."""
        if len(self.map) >= 2:
            return _kind(self.map, len(self.map) / max(self.tested, 1), self.a.shape[0], self.b.shape[0])
        if self.fitted:
            return "none"
        return _kind(self.near, len(self.near) / max(self.sampled, 1), self.a.shape[0], self.b.shape[0])

    @property
    def share(self) -> float:
        equal = len(self.map) / max(self.tested, 1)
        return equal if self.fitted else max(equal, len(self.near) / max(self.sampled, 1))


@timed
def embeddings(models: Models) -> Evidence:
    """Equal rows, near rows and channels, for the token embedding and the output head."""
    pairs = list(_pairs(models))
    if models.effort == "quick" and any(max(a.numel, b.numel) > _DIGESTED for _, a, b in pairs):
        return not_applied(_QUESTION, "quick effort reads samples, and rows are looked up in whole tables")
    found = [_compare(models, role, a, b) for role, a, b in pairs]
    if not found:
        return not_applied(_QUESTION, "no token table of equal width (in A's basis) was recognised in both models")
    best = max(found, key=lambda t: (len(t.map), t.share))
    p = [log10_p_hits(t.hits) for t in found if t.channels]
    log10_p = min(0.0, min(p) + np.log10(len(p))) if p else None
    equal = sum(len(t.map) for t in found)
    return replace(
        _QUESTION,
        says=_says(best),
        statistic=float(equal or sum(t.hits for t in found)),
        effect=best.share,
        n=sum(t.tested for t in found),
        log10_p=None if log10_p is None else float(log10_p),
        rank_p=_ranked([t for t in found if t.channels], models.seed),
        found=tuple(
            Shared(t.b.name, t.a.name, "exact", len(t.map) * t.b.shape[1])
            for t in found
            if len(t.map) and (t.a.digest is None or t.a.digest != t.b.digest)
        ),
        regions=tuple(
            Region(t.role, None, t.sampled, t.cosine, t.other, 0.0, t.hits, t.channels, (t.b.name,)) for t in found
        ),
        details={
            "rows_equal": len(best.map),
            "rows_tested": best.tested,
            "row_map_kind": best.kind,
            "rows_near": len(best.near),
            "rows_sampled": best.sampled,
            "basis": models.basis.kind,
            "basis_was_fitted_here": best.fitted,
            "tables": {
                t.role: {
                    "rows": [t.a.shape[0], t.b.shape[0]],
                    "equal": len(t.map),
                    "tested": t.tested,
                    "near": len(t.near),
                    "sampled": t.sampled,
                    "kind": t.kind,
                    "cosine_of_equal_numbers": t.cosine,
                    "cosine_of_other_rows": t.other,
                    "channel_hits": t.hits if t.channels else None,
                    "runs": _runs(t.map if len(t.map) >= 2 else t.near)[:20],
                }
                for t in found
            },
        },
    )


def _ranked(found: Sequence[_Table], seed: int) -> float | None:
    if not found:
        return None
    copies = np.stack([hits_of_copies(t.named, joint_orders(t.channels, seed)) for t in found])
    return rank_p(-log10_p_of(copies.max(axis=0)), copies.sum(axis=0), salt=[t.named.tolist() for t in found])


def _pairs(models: Models) -> list[tuple[str, Tensor, Tensor]]:
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
    return out


def _compare(models: Models, role: str, a: Tensor, b: Tensor) -> _Table:
    basis = models.basis
    equal, tested = np.empty((0, 2), np.int64), b.shape[0]
    if basis.kind == "identity" and a.shape[1] == b.shape[1] and min(a.numel, b.numel) >= _LARGE:
        equal, tested = _equal_by_keys(models, a, b)
    elif basis.kind != "rotation":
        equal, tested = _equal_rows(_digests(models.a, a, Basis()), _digests(models.b, b, basis))
    near, sampled = _near_rows(models, a, b)
    cosine, other = _in_place(models, a, b)
    counts = basis.kind == "identity" and a.shape[1] == b.shape[1] and min(a.shape[0], b.shape[0]) >= MIN_DISTINCT
    named = _channels_named(models, a, b) if counts else np.empty(0, np.int64)
    return _Table(role, a, b, tested, equal, sampled, near, cosine, other, named, role in basis.fitted)


def _digests(side: Side, tensor: Tensor, basis: Basis) -> list[bytes | None]:
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


def _equal_by_keys(models: Models, a: Tensor, b: Tensor) -> tuple[Indices, int]:
    """What `_equal_rows` says, for large tables: rows are told apart by a few of their values, and only those that
    have their like on the other side are read and digested whole."""
    columns = pick(a.shape[1], _KEY, models.seed, "keys of rows")
    ours, theirs = (_single_keys(side, tensor, columns) for side, tensor in ((models.a, a), (models.b, b)))
    _, in_a, in_b = np.intersect1d(ours[0], theirs[0], assume_unique=True, return_indices=True)
    order = np.argsort(theirs[1][in_b])
    likely, tested = np.stack([theirs[1][in_b], ours[1][in_a]], axis=1)[order], theirs[1].size
    kept = []
    step = max(1, SLICE_VALUES // a.shape[1])
    for part in (likely[i : i + step] for i in range(0, len(likely), step)):
        order = np.argsort(part[:, 1])
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        x = sampled_rows(models.a, a, part[order, 1])[back]
        kept.append(part[np.all(x == sampled_rows(models.b, b, part[:, 0]), axis=1)])
    return (np.concatenate(kept) if kept else likely), tested


def _single_keys(side: Side, tensor: Tensor, columns: Indices) -> tuple[npt.NDArray[np.uint64], Indices]:
    """Keys of the rows that differ from all others in these columns, and the rows' numbers. Equal rows have equal keys;
    the others hardly ever: a key is a sum of the values' bits with random odd factors, modulo 2^64."""
    values = sampled_rows(side, tensor, np.arange(tensor.shape[0]), columns) + np.float32(0)  # -0 is 0
    rich = np.flatnonzero(np.count_nonzero(np.diff(np.sort(values, axis=1), axis=1) > 0, axis=1) >= 7)
    factors = np.random.default_rng(columns.size).integers(0, 1 << 64, columns.size, np.uint64) | np.uint64(1)
    keys, first, times = np.unique(
        (values.view(np.uint32)[rich] * factors).sum(axis=1, dtype=np.uint64), return_index=True, return_counts=True
    )
    return keys[times == 1], rich[first[times == 1]]


def _equal_rows(a: Sequence[bytes | None], b: Sequence[bytes | None]) -> tuple[Indices, int]:
    """(row of B, row of A) for rows that are single in both tables, and how many rows of B could have been found."""
    single_a, single_b = Counter(a), Counter(b)
    where = {digest: i for i, digest in enumerate(a) if digest is not None and single_a[digest] == 1}
    usable = [(i, digest) for i, digest in enumerate(b) if digest is not None and single_b[digest] == 1]
    pairs = [(i, where[digest]) for i, digest in usable if digest in where]
    return np.array(pairs, np.int64).reshape(-1, 2), len(usable)


def _near_rows(models: Models, a: Tensor, b: Tensor) -> tuple[Indices, int]:
    """Sampled rows of B with the row of A that they are nearest to, where that stands apart."""
    asked = pick(b.shape[0], _ROWS[models.effort], models.seed, "near rows", run=4)
    want = _FEW if _is_large(models, a, b) else _CHANNELS[models.effort]
    channels = pick(a.shape[1], want, models.seed, "channels of near rows")
    y = _centred(models.basis.to_a(_table(models.b, b, asked))[:, channels])
    known = pick(a.shape[0], _KNOWN[models.effort], models.seed, "known rows")
    mean = _table(models.a, a, pick(a.shape[0], 4096, models.seed, "mean row"), channels).mean(axis=0)
    top = np.full((asked.size, 2), -np.inf, np.float32)
    where = np.full(asked.size, -1, np.int64)
    step = max(1, (1 << 22) // a.shape[1])
    rows = np.arange(asked.size)

    def look(part: Indices) -> tuple[Indices, F32, F32]:
        x = _table(models.a, a, part, channels)
        x -= mean
        norms = np.sqrt(np.einsum("ij,ij->i", x, x))
        alike = product(y, x.T)
        alike /= np.where(norms > 0, norms, np.float32(1))
        nearest = alike.argmax(axis=1)
        first = alike[rows, nearest]
        alike[rows, nearest] = -np.inf
        return part[nearest], first, alike.max(axis=1)

    for nearest, first, second in parallel.each(look, (known[i : i + step] for i in range(0, known.size, step))):
        where = np.where(first > top[:, 0], nearest, where)
        both = np.concatenate([top, first[:, None], second[:, None]], axis=1)
        top = -np.sort(-both, axis=1)[:, :2]
    near = max(_NEAR, 5 / math.sqrt(channels.size))
    found = (top[:, 0] >= near) & (top[:, 0] - top[:, 1] >= _APART)
    pairs = np.stack([asked[found], where[found]], axis=1)
    # A row of A that many rows of B take for theirs is a hub.
    named, times = np.unique(pairs[:, 1], return_counts=True)
    return pairs[~np.isin(pairs[:, 1], named[times > 1])], int(asked.size)


def _in_place(models: Models, a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean centred cosine of rows of equal number, and of other rows."""
    rows = pick(min(a.shape[0], b.shape[0]), _ROWS[models.effort], models.seed, "rows in place", run=4)
    x = _centred(_table(models.a, a, rows))
    y = _centred(models.basis.to_a(_table(models.b, b, rows)))
    n = rows.size
    own = float(np.sum(x * y))
    return own / max(n, 1), (float(x.sum(axis=0) @ y.sum(axis=0)) - own) / max(n * n - n, 1)


def _channels_named(models: Models, a: Tensor, b: Tensor) -> Indices:
    want = _COLUMNS["quick" if _is_large(models, a, b) else models.effort]
    rows = pick(min(a.shape[0], b.shape[0]), want, models.seed, "channels of rows")
    x, y = (_centred(_centred(_table(s, t, rows)).T) for s, t in ((models.a, a), (models.b, b)))
    return choices(product(x, y.T))


def _is_large(models: Models, a: Tensor, b: Tensor) -> bool:
    return models.effort == "standard" and min(a.numel, b.numel) >= _LARGE


def _table(side: Side, tensor: Tensor, rows: Indices, channels: Indices | None = None) -> F32:
    x = sampled_rows(side, tensor, rows, channels)
    gain = side.gain(tensor)
    if gain is not None:
        x *= gain if channels is None else gain[channels]
    return finite(x)


def _centred(x: F32) -> F32:
    """Mean row taken away, rows of length one."""
    out = x - x.mean(axis=0)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    scaled: F32 = out / np.where(norms > 0, norms, np.float32(1))
    return scaled


def _kind(rows: Indices, share: float, n_a: int, n_b: int) -> str:
    """What was done to the vocabulary."""
    if len(rows) < 2 or share < 0.02:
        return "none"
    own = float(np.mean(rows[:, 0] == rows[:, 1]))
    if own >= 0.95:
        if share < 0.9 and n_b <= n_a:
            return "same rows, some replaced"
        return "same rows" if n_a == n_b else "extended" if n_b > n_a else "first rows"
    words = "pruned" if float(np.mean(np.diff(rows[:, 1]) > 0)) >= 0.95 else "renumbered"
    return words if share >= 0.9 else f"{words}, joined with other rows"


def _runs(rows: Indices) -> list[list[int]]:
    """Stretches over which the number moves by a constant: [first row of B, row of A, rows of the stretch found]."""
    if len(rows) == 0:
        return []
    cuts = np.nonzero(np.diff(rows[:, 0] - rows[:, 1]) != 0)[0] + 1
    return [[int(p[0, 0]), int(p[0, 1]), len(p)] for p in np.split(rows, cuts)]


def _says(best: _Table) -> str:
    if len(best.map):
        return f"{len(best.map)} of {best.tested} rows of B's {best.role} are rows of A's, value by value ({best.kind})"
    if len(best.near) and not best.fitted:
        return (
            f"{len(best.near)} of {best.sampled} sampled rows of B's {best.role} stand close to one row of A's "
            f"({best.kind})"
        )
    return (
        f"no row of B's {best.role} is found in A's; rows of equal number have cosine {best.cosine:+.3f}, others "
        f"{best.other:+.3f}"
    )
