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
exact bound 1/k! of :mod:`weightprint.evidence.nulls.exchange`. Two strangers that share a tokenizer and the data give
their tokens similar geometry, never the same channels, so the bound holds for them. Permuting *rows* would be no null
at all: one common direction (how often a token occurs) makes all rows of equal number a little alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict

import numpy as np

from weightprint.evidence.evidence import Details, Evidence, Region, Shared, not_applied
from weightprint.evidence.lookup.token_tables import Tables, table_collector, table_pairs
from weightprint.evidence.nulls.exchange import log10_p_hits
from weightprint.evidence.nulls.ranked import hits_of_copies, joint_orders, log10_p_of, rank_p
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.streamed import done, with_cost
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import Tensor
from weightprint.util.arrays import Indices

_QUESTION = Evidence(
    test="embeddings",
    asked="Which rows of B's token tables are rows of A's, and does each channel find itself over shared rows?",
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
        equal, near = len(self.map) / max(self.tested, 1), len(self.near) / max(self.sampled, 1)
        trained = not self.fitted and near >= _NEARLY_ALL > equal  # equal rows are those that training left alone
        if len(self.map) >= 2 and not trained:
            return _kind(self.map, equal, self.a.shape[0], self.b.shape[0])
        if self.fitted:
            return "none"
        return _kind(self.near, len(self.near) / max(self.sampled, 1), self.a.shape[0], self.b.shape[0])

    @property
    def share(self) -> float:
        equal = len(self.map) / max(self.tested, 1)
        return equal if self.fitted else max(equal, len(self.near) / max(self.sampled, 1))


_OWN = ("same rows", "same rows, some replaced", "extended", "first rows")
_JOINED = ", joined with other rows"
_NEARLY_ALL = 0.9  # of the rows, that were found


class TableRows(TypedDict):
    """One table: numbers of ``rows`` of A and B, rows of B that equal one of A of those that could, near ones of the
    sampled; ``kind``: what was done to the vocabulary; ``runs``: of rows that stand beside each other in both."""

    rows: Sequence[int]
    equal: int
    tested: int
    near: int
    sampled: int
    kind: str
    cosine_of_equal_numbers: float
    cosine_of_other_rows: float
    channel_hits: int | None
    runs: Sequence[Any]


@dataclass(frozen=True)
class Embeddings(Details):
    """Of the table that says most, then by role."""

    rows_equal: int
    rows_tested: int
    row_map_kind: str
    rows_near: int
    rows_sampled: int
    basis: str
    basis_was_fitted_here: bool
    tables: Mapping[str, TableRows]


def _mirrored(told: Embeddings, names: Mapping[str, str], models: ModelPair) -> Embeddings:
    fitted = told.basis_was_fitted_here
    return replace(told, tables={role: _mirrored_table(rows, fitted) for role, rows in told.tables.items()})


def _mirrored_table(told: TableRows, fitted: bool) -> TableRows:
    n_a, n_b = told["rows"]
    equal = told["equal"] >= 2
    near = told["near"] / max(told["sampled"], 1) * n_b / max(n_a, 1)
    share = min(1.0, (told["equal"] / max(n_a, 1)) if equal else near)
    share = min(1.0, near) if near >= _NEARLY_ALL and not fitted else share
    kind = told["kind"]
    if kind in _OWN:
        kind = "same rows" if n_a == n_b else "first rows" if n_a < n_b else "extended"
        kind = "same rows, some replaced" if share < 0.9 and n_a <= n_b else kind
    elif kind != "none":
        kind = kind.partition(",")[0] + ("" if share >= 0.9 else _JOINED)
    return {**told, "rows": [n_b, n_a], "kind": kind, "tested": n_a if equal else told["tested"]}


@partial(
    Test,
    bases=("stored", "found"),
    details=Embeddings,
    mirrored=_mirrored,
    collector=table_collector,
    cost="long",
    kept="rows",
)
def embeddings(models: ModelPair) -> Evidence:
    """Equal rows, near rows and channels, for the token embedding and the output head."""
    pairs = table_pairs(models)
    if any(max(a.numel, b.numel) > models.budget.tables.digested for _, a, b in pairs):
        return not_applied(_QUESTION, "quick effort reads samples, and rows are looked up in whole tables")
    if not pairs:
        return not_applied(_QUESTION, "no token table of equal width (in A's basis) was recognised in both models")
    collector, streamed = done(models, Tables(models, pairs))
    found = [_table(models, collector, *pair) for pair in pairs]
    best = max(found, key=lambda t: (len(t.map), t.share))
    p = [log10_p_hits(t.hits) for t in found if t.channels]
    log10_p = min(0.0, min(p) + np.log10(len(p))) if p else None
    equal = sum(len(t.map) for t in found)
    answer = replace(
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
        details=Embeddings(
            rows_equal=len(best.map),
            rows_tested=best.tested,
            row_map_kind=best.kind,
            rows_near=len(best.near),
            rows_sampled=best.sampled,
            basis=models.basis.kind,
            basis_was_fitted_here=best.fitted,
            tables={
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
        ),
    )
    return with_cost(answer, collector) if streamed else answer


def _table(models: ModelPair, collector: Tables, role: str, a: Tensor, b: Tensor) -> _Table:
    m = collector.met(models, role, a, b)
    fitted = role in models.basis.fitted
    return _Table(role, a, b, m.tested, m.equal, m.sampled, m.near, m.cosine, m.other, m.named, fitted)


def _ranked(found: Sequence[_Table], seed: int) -> float | None:
    if not found:
        return None
    copies = np.stack([hits_of_copies(t.named, joint_orders(t.channels, seed)) for t in found])
    return rank_p(-log10_p_of(copies.max(axis=0)), copies.sum(axis=0), salt=[t.named.tolist() for t in found])


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
