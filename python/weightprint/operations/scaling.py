"""Factors: tensors that are A's times one number which no file stores, or codes of A's without their scale.

Told by :mod:`weightprint.evidence.same_values`, value by value. What computes the same again elsewhere (a factor moved
from one matrix to the next) is :mod:`.gauge`'s to say; a factor is named all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from weightprint.evidence.same_values import SameValues
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.verdict.facts import Facts

__all__ = ["scaling"]

_ALIKE = 0.01  # factors that differ by no more are one


def scaling(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"factor", "tensors", "names"}``, ``"from"`` and ``"to"`` where factors differ; of codes ``{"how", …}``."""
    same = facts.told(SameValues)
    scaled = same.scaled if same else {}
    known = sorted((factor, name) for name, (factor, _) in scaled.items() if factor is not None)
    if known:
        low, middle, high = known[0][0], known[len(known) // 2][0], known[-1][0]
        one = low * high > 0 and abs(math.log(high / low)) <= _ALIKE
        parameters: Row = {"factor": float(f"{middle:.6g}"), "tensors": len(known)}
        parameters |= {} if one else {"from": float(f"{low:.6g}"), "to": float(f"{high:.6g}")}
        some = "" if one else ", each by its own factor"
        yield Operation(
            "scaled",
            parameters | {"names": [n for _, n in known]},
            f"every value of these {len(known)} tensors is A's times that, and nothing stores it{some}",
        )
    codes = {name: how for name, (factor, how) in scaled.items() if factor is None}
    if codes:
        parameters = {"tensors": len(codes), "how": sorted(set(codes.values())), "names": list(codes)}
        yield Operation("scaled", parameters, f"{len(codes)} tensors are codes whose scale is stored nowhere")
