"""Experts that are means of experts: each of B's is sum_k w_k of A's of that layer, w >= 0 (M-SMoE, arXiv 2310.01334).

Least squares of each expert of B, a few units of up, gate and down as one long vector, on all of A's experts of the
block. Experts may be near each other (they often began as copies), so a fit counts only if what it leaves is small
beside what tells the experts of A apart, and no weight is negative. Units must stand in their order: experts whose
units were permuted before they were averaged aren't seen, nor are means that were trained on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.operations.base import Operation, Row
from weightprint.operations.structure import Found, number
from weightprint.util.arrays import F64
from weightprint.util.linear_algebra import lstsq
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

__all__ = ["experts_merged"]

_LAYERS = 8  # whose values are read
_VALUES = 1 << 15  # of a matrix
_EXPERTS = 256
_LEFT = 0.02  # of the mean square that tells A's experts apart
_WEIGHT = 0.03  # a smaller weight is none
_BESIDE = 0.1  # the second weight of a mean, at least
_EQUAL = 0.02  # weights of one mean that differ by no more are equal
_MOST = 0.8  # of the layers

Block = tuple[str, int]


def experts_merged(facts: Facts, moved: Sequence[Found]) -> Iterable[Operation]:
    """``{"experts", "experts_of_a", "method", "groups": [[layer, [{A's expert: weight} of each of B's]], …], "of":
    layers looked at}``; method: ``"mean"`` or ``"weighted"``."""
    if not facts.models.budget.whole:
        return
    ours, theirs = _by_block(facts.models.a), _by_block(facts.models.b)
    source = {f.b.key[:2]: f.a.key[:2] for f in moved}
    layers = evenly(sorted(source), _LAYERS)
    weights = {at: _weights(facts, theirs[at], ours[source[at]]) for at in layers}
    found = {at: w for at, w in weights.items() if w is not None and any(_several(row) for row in w)}
    if len(found) < _MOST * len(layers):
        return
    means = [row for rows in found.values() for row in rows if _several(row)]
    even = all(np.ptp([*row.values()]) <= _EQUAL for row in means)
    n_b, n_a = len(theirs[layers[0]]), len(ours[source[layers[0]]])
    parameters: Row = {
        "experts": n_b,
        "experts_of_a": n_a,
        "method": "mean" if even else "weighted",
        "groups": [
            [at[1], [{str(e): number(w) for e, w in row.items()} for row in rows]] for at, rows in found.items()
        ],
        "of": len(layers),
    }
    where = f"{len(means)} of {sum(map(len, found.values()))} experts looked at are means of {n_a} experts of A"
    explained = (t for ffn in chain(*theirs.values()) for t in (ffn.up, ffn.gate, ffn.down) if t is not None)
    yield Operation("experts_merged", parameters, where, 0.95, frozenset(t.name for t in explained))


def _several(row: Mapping[int, float]) -> bool:
    return len(row) > 1 and sorted(row.values())[-2] >= _BESIDE


def _by_block(side: ModelView) -> Mapping[Block, list[Ffn]]:
    found: dict[Block, list[Ffn]] = defaultdict(list)
    for ffn in ffns(side):
        if isinstance(ffn.expert, int):
            found[ffn.key[:2]].append(ffn)
    return found


def _weights(facts: Facts, of_b: Sequence[Ffn], of_a: Sequence[Ffn]) -> list[dict[int, float]] | None:
    """For each expert of B the weights of A's; None where these don't explain all of them."""
    if len({f.up.shape for f in (*of_a, *of_b)}) > 1 or not 1 < len(of_a) <= _EXPERTS:
        return None
    x = np.stack([_values(facts.models.a, f) for f in of_a], axis=1)
    y = np.stack([_values(facts.models.b, f) for f in of_b], axis=1)
    if len({len(x), len(y)}) > 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    weights = lstsq(x, y)
    apart = float(np.square(x - x.mean(axis=1, keepdims=True)).sum(axis=0).mean())
    left = np.square(y - x @ weights).sum(axis=0)
    if apart <= 0 or left.max() > _LEFT * apart or weights.min() < -_WEIGHT:
        return None
    experts = [int(str(f.expert)) for f in of_a]
    return [{e: float(w) for e, w in zip(experts, column, strict=True) if w >= _WEIGHT} for column in weights.T]


def _values(side: ModelView, ffn: Ffn) -> F64:
    units = np.arange(min(ffn.units, max(1, _VALUES // ffn.width)))
    parts = (*unit_inputs(side, ffn, units), unit_outputs(side, ffn, units))
    return np.concatenate([x.ravel() for x in parts if x is not None]).astype(np.float64)
