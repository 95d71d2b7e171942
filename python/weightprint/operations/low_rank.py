"""A LoRA merge: the difference has rank r in some matrices and is exactly zero in others (LoRA, arXiv 2106.09685).

The rank is how many singular values stand above what rounding to the stored type explains; the gap is the fall behind
the last of them. Adapters of one merge have one rank, so the rank is the commonest over the matrices. A matrix whose
last singular values are below the rounding shows fewer.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.verdict.facts import Facts

__all__ = ["low_rank"]

_MOST = 0.8  # of the changed matrices must be of low rank
_AGREE = 0.5  # of these must have the commonest rank, or it is nobody's adapter
_ORDER = ("q", "k", "v", "o", "gate", "up", "down", "router", "embedding", "head")


def low_rank(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"rank", "roles", "matrices", "gap", "ranks"}``: the commonest rank, the roles that have it, how many matrices
    changed, the smallest gap, and the rank per role where it differs."""
    changes = changes.without({c.b.name for c in changes.seen_as("grid")})  # rounded, and nothing else
    found = changes.of_kind("low rank", _MOST)
    if not found:
        return
    ranks = Counter(s.rank for _, s in found)
    rank, n = ranks.most_common(1)[0]
    if n < _AGREE * len(found):
        return
    by_role: dict[str, Counter[int]] = defaultdict(Counter)
    for change, seen in found:
        by_role[change.role][seen.rank] += 1
    roles = sorted(by_role, key=lambda r: (_ORDER.index(r) if r in _ORDER else len(_ORDER), r))
    per_role = {role: by_role[role].most_common(1)[0][0] for role in roles}
    gap = min(s.gap for _, s in found if s.rank == rank)
    parameters: Row = {
        "rank": rank,
        "roles": roles,
        "matrices": len(changes.matrices),
        "gap": float(f"{gap:.3g}") if math.isfinite(gap) else None,
    }
    if len(set(per_role.values())) > 1:
        parameters["ranks"] = per_role
    untouched = len(changes.untouched)
    others = [c for c in changes.changed if not c.b.rank2]
    beside = f"{untouched} tensors are untouched" + (f", {len(others)} vectors changed as well" if others else "")
    where = f"{n} of the {len(found)} matrices looked at differ by a matrix of exactly this rank; {beside}"
    yield Operation("lora_merge", parameters, where, 0.97 if n == len(found) and untouched and not others else 0.85)
