"""phi_MATCH [Independence Tests 2502.12292]: do the gate and the up-projection pair hidden units in the same way?

For a gated FFN the units of A are assigned to those of B twice, by their gate rows and by their up rows. Independent
models have no reason to be paired alike twice; a copy is, wherever its units stand. The statistic is the rank
correlation of the two assignments. The authors match activations on data; with weights alone the rows take their place
(in the stored basis of residual channels). Where the depths differ all pairs of blocks are tried and each of B's keeps
its best one.

The p-value that the authors would claim (t approximation, two-sided, Fisher over blocks, Bonferroni over the blocks of
A that were tried) stands in ``details["claimed_log10_p"]``. They say themselves that it is not exact.

Known false positives: hubs. A row of B near the mean direction attracts many rows of A by gate and by up, and two
trainings of one recipe have their dead or saturated units in common, so both assignments agree without kinship. Known
misses: FFNs without a gate, permuted or rotated residual channels, another width.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import Blocks, blocks, common_width
from weightprint.evidence.published.tails import log10_fisher, log10_spearman, spearman
from weightprint.evidence.published.unit_assignments import assigned, rows_of, units
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import ModelView
from weightprint.util.arrays import F32
from weightprint.util.ranges import evenly

_ROLES = ("up", "gate")
_MIN_UNITS = 8

_QUESTION = Evidence(
    test="phi_match",
    asked="Do gate rows and up rows assign the hidden units of A to those of B in the same way?",
    null="none here: the authors' p-value is quoted in the details",
    assumes="nothing: it decides nothing",
    blind_to="FFNs without a gate, permuted or rotated residual channels, another width",
    statistic_of="mean rank correlation of the two assignments",
    effect_of="share of units that both assignments send to one unit",
)


@partial(Test, published=True)
def phi_match(models: ModelPair) -> Evidence:
    """Rank correlation of the two assignments per block of B, and the p-value that the authors would claim."""
    limit = models.budget.published
    a, b = blocks(models.a, _ROLES), blocks(models.b, _ROLES)
    if not a or not b:
        return not_applied(_QUESTION, "no gated FFN was recognised in both models")
    if common_width(a, b, "up") is None:
        return not_applied(_QUESTION, "the hidden sizes differ")
    straight = len(a) == len(b)
    numbers_a, numbers_b = evenly(list(a), limit.layers), evenly(list(b), limit.layers)
    if min(x[i]["up"].shape[0] for x, own in ((a, numbers_a), (b, numbers_b)) for i in own) < _MIN_UNITS:
        return not_applied(_QUESTION, f"fewer than {_MIN_UNITS} hidden units")
    theirs = [_rows(models, models.b, b, i, limit.units) for i in numbers_b]
    found = np.full((len(numbers_a), len(numbers_b), 3), np.nan)  # rank correlation, share, claimed log10 p
    for i, number in enumerate(numbers_a):
        ours = _rows(models, models.a, a, number, limit.units)
        for j in [i] if straight else range(len(numbers_b)):
            found[i, j] = _compare(ours, theirs[j])
    tried = 1 if straight else len(numbers_a)
    best = [int(np.nanargmin(found[:, j, 2])) for j in range(len(numbers_b))]
    rows = [found[i, j] for j, i in enumerate(best)]
    score, share = (float(np.mean([row[k] for row in rows])) for k in (0, 1))
    claims = [min(0.0, float(row[2]) + math.log10(tried)) for row in rows]
    return replace(
        _QUESTION,
        says=f"assignments by gate and by up rows correlate {score:+.3f} over {len(rows)} blocks; they name the same "
        f"unit for {share:.1%}",
        statistic=score,
        effect=share,
        n=len(rows),
        details={
            "spearman": [float(row[0]) for row in rows],
            "blocks": [[numbers_a[i], numbers_b[j]] for j, i in enumerate(best)],
            "claimed_log10_p": log10_fisher(claims),
            "claimed_log10_p_per_block": claims,
        },
    )


def _rows(models: ModelPair, side: ModelView, found: Blocks, number: int, want: int) -> tuple[F32, F32]:
    up, gate = found[number]["up"], found[number]["gate"]
    which = units(models, up, want)
    return rows_of(side, up, which), rows_of(side, gate, which)


def _compare(ours: tuple[F32, F32], theirs: tuple[F32, F32]) -> tuple[float, float, float]:
    """Rank correlation of the two assignments, the share on which they agree, and the claimed log10 p."""
    by_up, by_gate = (assigned(x, y) for x, y in zip(ours, theirs, strict=True))
    kept = (by_up >= 0) & (by_gate >= 0)
    rho = spearman(by_up[kept], by_gate[kept])
    return rho, float(np.mean(by_up[kept] == by_gate[kept])), log10_spearman(rho, int(kept.sum()))
