"""phi_U [Independence Tests 2502.12292]: does the assignment of up-projection rows put units where they stand?

Per block the rows of W_up of A are assigned to those of B (largest sum of cosines); the statistic is the rank
correlation of the assignment with the identity, and the blocks' p-values are combined after Fisher. Training treats the
hidden units of a block alike, so under independent initialisations every assignment is as likely as any other.

The authors turn rho into p by the t approximation, two-sided; that claim stands in ``details["claimed_log10_p"]`` for a
benchmark to judge, floored at 1/n! per block. It is not this tool's p-value: aligned_units has an exact one.

Known false positives: one initialisation trained twice on other data scores as a copy does (.9996 on tiny decoders,
measured): a shared start is not told from shared training. Rows are not centred, so a mean that all rows share leaves
the assignment to noise, which costs power and not validity. Known misses: permuted hidden units (phi_MATCH is for
these), permuted or rotated channels, other shapes or layers in another order; negative correlations count as much as
positive ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import blocks
from weightprint.evidence.published.tails import log10_fisher, log10_spearman, spearman
from weightprint.evidence.published.unit_assignments import assigned, rows_of, units
from weightprint.evidence.test import Test
from weightprint.util.ranges import evenly

_MIN_UNITS = 8

_QUESTION = Evidence(
    test="phi_u",
    asked="Does the best assignment of up-projection rows leave the hidden units in their places?",
    null="none here: the authors' p-value is quoted in the details",
    assumes="nothing: it decides nothing",
    blind_to="permuted hidden units, permuted or rotated channels, other shapes, layers in another order",
    statistic_of="mean rank correlation of the assignment with the identity",
    effect_of="share of units assigned to themselves",
)


@partial(Test, published=True)
def phi_u(models: ModelPair) -> Evidence:
    """Rank correlation per block, and the p-value that the authors would claim."""
    limit = models.budget.published
    a, b = blocks(models.a, ("up",)), blocks(models.b, ("up",))
    shapes = {i: block["up"].shape for i, block in a.items()}
    shared = [i for i in shapes if i in b and b[i]["up"].shape == shapes[i] and shapes[i][0] >= _MIN_UNITS]
    if not shared:
        return not_applied(_QUESTION, "no up-projections of equal shape in blocks of the same number")
    if len(a) != len(b):
        return not_applied(_QUESTION, f"the depths differ ({len(a)} and {len(b)} blocks)")
    rho, claims, same, n = [], [], [], 0
    for i in evenly(shared, limit.layers):
        which = units(models, a[i]["up"], limit.units)
        order = assigned(rows_of(models.a, a[i]["up"], which), rows_of(models.b, b[i]["up"], which))
        here = np.arange(order.size)
        rho.append(spearman(order, here))
        claims.append(log10_spearman(rho[-1], order.size))
        same.append(float(np.mean(order == here)))
        n += order.size
    score, claimed = float(np.mean(rho)), log10_fisher(claims)
    return replace(
        _QUESTION,
        says=f"the assignment of up-projection rows correlates {score:+.3f} with the identity over {len(rho)} blocks; "
        f"{np.mean(same):.1%} of units keep their place",
        statistic=score,
        effect=float(np.mean(same)),
        n=n,
        details={"spearman": rho, "claimed_log10_p": claimed, "claimed_log10_p_per_block": claims, "units": n},
    )
