"""Zeros at the same places: a mask is architecture. Do the values beside it agree?

A fixed sparsity pattern (one random mask, 2:4, band, butterfly), trained under or put on afterwards, makes every row of
B most like the row of A with the same support, and every channel likewise: neither units nor channels are exchangeable,
whatever the values. So where two models have zeros in common beyond chance this is said as a fact of its own, the tests
that rest on such exchanges keep out of the verdict (:mod:`weightprint.verdict.withheld`), and another null speaks.

*Signs.* In a gated FFN, act(gate x) * (up x), a unit's up row and down column may change sign together and nothing
moves; so may a value dimension of attention and its column of the output projection. Initialisation and training treat
both signs alike, so if B's initialisation is independent of A every choice of signs is equally likely, one unit at a
time, given A and everything else of B; and a mask has no sign. With c_u the cosine of unit u's rows in A and B,

    P(sum c_u >= T) <= exp(-T^2 / (2 sum c_u^2))                        (Hoeffding 1963, exact)

A's rows are centred and lose their leading directions first, which looks at A alone. Plain FFNs have no such freedom
and are left to attention's values. Signs may have been fitted, too: the cosines must be above what the best order of
the same rows gives between other numbers (:mod:`weightprint.evidence.nulls.fitted`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from weightprint.evidence.budget import hidden_size
from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import double_centre, finite
from weightprint.evidence.nulls.fitted import FITTED, against_order, stands
from weightprint.evidence.nulls.ranked import COPIES, rank_p
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.test import Test
from weightprint.evidence.thresholds import LOG10_P
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.sampling import pick, residual_axis, sampled_rows
from weightprint.util.arrays import F32, F64
from weightprint.util.linear_algebra import product, svd, unit_rows
from weightprint.util.ranges import evenly

_CHANNELS = 1024
_SPARSE = 0.05  # zeros that make a pattern, of a matrix
_ALIKE = 0.1  # correlation of the two patterns from which they coincide
_UNITS, _BLOCKS = 256, 16  # whose signs are asked for
_COMMON = 8  # leading directions of A's rows are one in so many channels

_QUESTION = Evidence(
    test="common_zeros",
    asked="Have both models zeros at the same places, and do the values beside them agree?",
    null="B was trained from an initialisation independent of A, so given all else the sign of every gated unit's row "
    "of up, and of every value dimension's row of v, is equally likely to be either",
    assumes="initialisation and training treat both signs alike. A common random initialisation, or a common matrix "
    "added to both, breaks the null as shared training does",
    blind_to="copies whose units or value dimensions were permuted, turned or changed sign",
    statistic_of="matrices with zeros at the same places",
    effect_of="mean cosine of rows of up and v in place",
)


@dataclass(frozen=True, slots=True)
class _Signed:
    """Rows of one matrix in place: their cosines, and what the best order elsewhere gives beside what is reached."""

    name: str
    cosines: F64
    alike: tuple[float, float]


@partial(Test, decides="stored basis", of_order=True, kept="rows")
def common_zeros(models: ModelPair) -> Evidence:
    """Matrices whose zero patterns coincide and, where there are any, the signs of the rows beside them."""
    inside = [p for p in models.pairs if p.by_name and not p.transposed and _inside(p)]
    if not inside:
        return not_applied(_QUESTION, "no matrices of equal shape stand at the same place of both models")
    looked = evenly(inside, models.budget.zero_matrices, rounded=False)
    patterns = {p.b.name: alike for p in looked if (alike := _pattern(models, p)) is not None and alike >= _ALIKE}
    if not patterns:
        return not_applied(_QUESTION, "no matrix has zeros at the same places in both models")
    return _answer(models, patterns, len(looked), _signed(models, inside))


def _inside(pair: Pair) -> bool:
    return pair.a.rank2 and pair.b.rank2 and pair.known.layer is not None and pair.a.shape == pair.b.shape


def _pattern(models: ModelPair, pair: Pair) -> float | None:
    """Correlation of the two zero patterns on some rows; None where either has few zeros."""
    counted = [t.zeros / max(t.numel, 1) for t in (pair.a, pair.b) if t.zeros is not None]
    if counted and min(counted) < _SPARSE:
        return None
    rows = pick(pair.a.shape[0], models.budget.zero_rows, models.seed, str(pair.known.key), 1)
    columns = pick(pair.a.shape[1], _CHANNELS, models.seed, "zeros")
    x, y = (sampled_rows(side, t, rows, columns) == 0 for side, t in ((models.a, pair.a), (models.b, pair.b)))
    # Rows or columns without any value say nothing of a pattern inside: padding is as common as a width.
    live = ~(x.all(axis=1) | y.all(axis=1))[:, None] & ~(x.all(axis=0) | y.all(axis=0))
    u, v = x[live].astype(np.float64), y[live].astype(np.float64)
    if not u.size or min(u.mean(), v.mean()) < _SPARSE or max(u.mean(), v.mean()) >= 1:
        return None
    return float(np.corrcoef(u, v)[0, 1])


def _signed(models: ModelPair, inside: Sequence[Pair]) -> list[_Signed]:
    """Rows whose signs are free: up beside a gate, and v."""
    gated = [{f.key for f in ffns(side) if f.gate is not None} for side in (models.a, models.b)]
    width = hidden_size(models.a, models.b)
    free = []
    for pair in inside:
        place = pair.known.place
        if place is None or width is None or residual_axis(pair.known, width) != 1:
            continue
        key = (place.stack, place.block, place.expert)
        if place.role == "v" or (place.role == "up" and all(key in found for found in gated)):
            free.append(pair)
    return [found for pair in evenly(free, 2 * _BLOCKS, rounded=False) if (found := _rows(models, pair)) is not None]


def _rows(models: ModelPair, pair: Pair) -> _Signed | None:
    units = pick(pair.a.shape[0], _UNITS, models.seed, str(pair.known.key))
    channels = pick(pair.a.shape[1], _CHANNELS, models.seed, "channels of units")
    x = double_centre(sampled_rows(models.a, pair.a, units, channels))
    y = finite(sampled_rows(models.b, pair.b, units, channels))
    y = y - y.mean(axis=1, keepdims=True)
    _, _, v = svd(x)
    leading = v[: min(v.shape) // _COMMON]
    x = unit_rows(x - product(product(x, leading.T), leading))
    similarity: F32 = product(x, unit_rows(y).T)
    cosines = np.diagonal(similarity).astype(np.float64)
    return _Signed(pair.b.name, cosines, against_order(similarity, pair.a.shape[0])) if cosines.any() else None


def _answer(models: ModelPair, patterns: dict[str, float], looked: int, signed: list[_Signed]) -> Evidence:
    said = f"{len(patterns)} of {looked} matrices have zeros at the same places in both: a mask is architecture"
    details = {"matrices": len(patterns), "looked_at": looked, "correlation": patterns}
    if not signed:
        return replace(_QUESTION, says=said, statistic=float(len(patterns)), n=looked, details=details)
    cosines = np.concatenate([s.cosines for s in signed])
    total, squares = float(cosines.sum()), float(np.square(cosines).sum())
    log10_p = -(max(total, 0.0) ** 2) / (2 * squares) / math.log(10) if squares > 0 else 0.0
    real = [s for s in signed if stands(*s.alike)]
    withheld = None if real or log10_p > LOG10_P else f"rows beside the mask agree in place, but {FITTED}"
    signs = np.random.default_rng([models.seed, cosines.size, 63]).choice([-1.0, 1.0], (COPIES, cosines.size))
    effect = float(cosines.mean())
    return replace(
        _QUESTION,
        says=f"{said}; beside it {cosines.size} rows of up and v have cosine {effect:+.3f} in place",
        statistic=float(len(patterns)),
        effect=effect,
        n=looked,
        log10_p=None if withheld else min(0.0, log10_p),
        rank_p=rank_p([total, *(signs @ cosines).tolist()], salt=cosines.round(6).tolist()),
        detectable=math.sqrt(-2 * LOG10_P * math.log(10) / cosines.size) * float(cosines.std()),
        details=details | {"rows": int(cosines.size), "withheld": withheld},
    )
