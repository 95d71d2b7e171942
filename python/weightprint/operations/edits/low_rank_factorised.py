"""Matrices cut to a low rank: B's is A's, projected on k directions of its outputs, its inputs or both.

With singular vectors U_k and V_k of A, the best matrix of rank k is U_k U_k'A = A V_k V_k'. Where inputs count by how
large they are (activation-aware truncation, arXiv 2403.07378) only the first form holds; where outputs do, the second.
What is left of A is at right angles to B: <B - A, B> = 0, which few rows show; for training it is about |B - A|^2, so
few matrices are read any further. A matrix that is stored as two factors is one of low rank whatever its values are:
there training may have followed. Then B's rank is counted (singular values above what rounding explains, and a fall
behind them), and A projected on B's own singular vectors must be B.

Ranks above nine tenths of the rows that are read (1,024 at most) are not seen, nor are products that were trained on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import GAP, Change, Changes
from weightprint.operations.structure import common
from weightprint.util import parallel
from weightprint.util.arrays import F64
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import eigh, product
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

__all__ = ["low_rank_factorised"]

_MATRICES = 16  # that are read
_ROWS = 1024  # of each, over all inputs; and as many inputs over all rows
_APART = 0.2  # of |B - A|^2, that <B - A, B> may be over the rows of a glance
_HIGHEST = 0.9  # of the rows read: a higher rank is not low
_FLOOR = 1.5  # singular values above so many times what rounding explains are the matrix's
_LEFT = 0.02  # of the change's mean square that projecting A may leave, beside rounding
_MOST = 0.8  # of the matrices of a role that were read

_WAYS = {
    (True, True): ("svd", "its best approximation of that rank"),
    (True, False): ("weighted_inputs", "a projection of A's outputs"),
    (False, True): ("weighted_outputs", "a projection of A's inputs"),
    (False, False): ("trained_since", "and values of its own"),  # told by its factors alone
}


@dataclass(frozen=True, slots=True)
class _Cut:
    change: Change
    rank: int
    kept: float
    way: tuple[bool, bool]


def low_rank_factorised(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"ranks": {role: rank, or [lowest, highest]}, "energy": {role: share of the sum of squares kept}, "method",
    "matrices", "of", "stored": "factors" or "products"}``."""
    if not facts.models.budget.whole:
        return
    by_role: dict[str, list[Change]] = defaultdict(list)
    for change in changes.matrices:
        if change.layer is not None and (_factors(change) or _at_right_angles(change)):
            by_role[change.role].append(change)
    each = max(1, _MATRICES // max(1, len(by_role)))
    read = {role: evenly(same, each) for role, same in by_role.items()}
    seen = parallel.each(lambda c: _cut(facts.models, c), (c for same in read.values() for c in same))
    found: dict[str, list[_Cut]] = defaultdict(list)
    for cut in seen:
        if cut is not None:
            found[cut.change.role].append(cut)
    roles = [role for role, cuts in found.items() if len(cuts) >= _MOST * len(read[role])]
    cuts = [cut for role in roles for cut in found[role]]
    if len(cuts) < 2:
        return
    method, words = _WAYS[common([cut.way for cut in cuts])]
    parameters: Row = {
        "ranks": {role: _one_or_range([c.rank for c in found[role]]) for role in roles},
        "energy": {role: round(float(np.mean([c.kept for c in found[role]])), 4) for role in roles},
        "method": method,
        "matrices": len(cuts),
        "of": sum(len(read[role]) for role in roles),
        "stored": "factors" if all(_factors(cut.change) for cut in cuts) else "products",
    }
    factors = ", stored as two factors" if parameters["stored"] == "factors" else ""
    where = f"{len(cuts)} matrices of {', '.join(roles)} have a low rank{factors}, each {words}"
    unseen = {c.b.name for role in roles for c in read[role]} - {cut.change.b.name for cut in cuts}
    explained = {c.b.name for role in roles for c in by_role[role] if method != "trained_since"} - unseen
    yield Operation("low_rank_factorised", parameters, where, 0.97, frozenset(explained))


def _factors(change: Change) -> bool:
    """Only B's is stored as two factors."""
    return change.b.scheme == "low_rank" != change.a.scheme


def _type(tensor: Tensor) -> str:
    """The type whose rounding its values carry: a product of stored factors is rounded when it is read."""
    return "F32" if tensor.scheme == "low_rank" else tensor.dtype


def _at_right_angles(change: Change) -> bool:
    stored = _type(change.a) in MANTISSA and _type(change.b) in MANTISSA
    return stored and change.kind not in ("zeros", "(zeros)") and abs(change.yy - change.xy) <= _APART * change.dd


def _one_or_range(ranks: Sequence[int]) -> int | list[int]:
    return ranks[0] if min(ranks) == max(ranks) else [min(ranks), max(ranks)]


def _cut(models: ModelPair, change: Change) -> _Cut | None:
    n, m = change.b.shape
    rows = pick(n, _ROWS, models.seed, f"rows of {change.b.name}", run=8)
    columns = pick(m, _ROWS, models.seed, f"inputs of {change.b.name}", run=8)
    every = np.arange(n)
    x, y = (sampled_rows(s, t, rows).astype(np.float64) for s, t in _sides(models, change))
    by_inputs = _projected(change, x, y)
    if by_inputs is None:
        return None
    x, y = (sampled_rows(s, t, every, columns).T.astype(np.float64) for s, t in _sides(models, change))
    by_outputs = _projected(change, x, y)
    if by_outputs is None or by_outputs[0] != by_inputs[0]:
        return None
    if not (by_inputs[1] or by_outputs[1] or _factors(change)):
        return None
    kept = float(np.vdot(y, y) / np.vdot(x, x))
    return _Cut(change, by_inputs[0], kept, (by_outputs[1], by_inputs[1]))


def _sides(models: ModelPair, change: Change) -> tuple[tuple[ModelView, Tensor], ...]:
    return (models.a, change.a), (models.b, change.b)


def _projected(change: Change, x: F64, y: F64) -> tuple[int, bool] | None:
    """(rank of y, whether it is x projected on the span of y's rows); None where the rank is not low."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    one, other = _type(change.a), _type(change.b)
    rank, basis = _span(y, other)
    if not rank or 0 < _span(x, one)[0] <= rank:
        return None
    left = y - product(product(x, basis), basis.T)
    rounding = float((ulp(x, one) ** 2 + ulp(y, other) ** 2).sum()) / 12
    d = y - x
    return rank, float(np.vdot(left, left)) <= 2 * rounding + _LEFT * float(np.vdot(d, d))


def _span(y: F64, dtype: str) -> tuple[int, F64]:
    """The rank of y above its rounding and an orthonormal basis of its rows' span; 0 where that is not low."""
    wide = y.shape[1] > y.shape[0]
    values, vectors = eigh(product(y, y.T) if wide else product(y.T, y))
    s, vectors = np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1]
    variance = ulp(y, dtype) ** 2 / 12
    floor = _FLOOR * (math.sqrt(float(variance.sum(axis=1).max())) + math.sqrt(float(variance.sum(axis=0).max())))
    rank = int(np.count_nonzero(s > max(floor, 1e-6 * float(s[0]))))
    if not 0 < rank <= _HIGHEST * s.size or s[rank - 1] < GAP * s[rank]:
        return 0, vectors
    basis = vectors[:, :rank]
    return rank, product(y.T, basis) / s[:rank] if wide else basis
