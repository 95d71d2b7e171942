"""PCS, the parameters' cosine similarity [HuRef 2312.04828]: the cosine of all parameters of equal name and shape.

    PCS = sum_t <a_t, b_t> / (|a| |b|),   |a|^2 = sum_t |a_t|^2 over the same tensors

Parameters whose shapes differ are left out, as the authors do. The centred form beside it double-centres every matrix
(row and column means out) and takes the mean out of every vector before the same formula.

Known false positives: raw cosines see shared means. Norm gains around one alone give strangers .99, and a model whose
gains are large (or whose embedding dominates the norm) scores as its most trivial part does: a tiny Llama and a tiny
GPT-2, trained apart, reach .48 by their gains (measured; centred .00). Known misses: any
permutation, rotation, changed width, renamed or refused tensors; all of them cost nothing to make.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.nulls.exchange import double_centre
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import named_pairs, sampled_pair
from weightprint.evidence.test import Test
from weightprint.util.arrays import F32

_QUESTION = Evidence(
    test="pcs",
    asked="Do all parameters of equal name and shape point in one direction?",
    null="none: descriptive. Shared means (norm gains) give strangers cosines up to 1",
    assumes="nothing: it decides nothing",
    blind_to="permuted or rotated copies, other names, tensors whose shapes differ",
    statistic_of="cosine of all same-named parameters, as published (not centred)",
    effect_of="the same with every tensor centred",
)


@partial(Test, published=True)
def pcs(models: ModelPair) -> Evidence:
    """Cosine of all parameters that met by name or place, raw and centred; matrices by sampled rows."""
    pairs = named_pairs(models)
    if not pairs:
        return not_applied(_QUESTION, "no two tensors of equal name and shape")
    sums = np.zeros((2, 3))
    n = 0
    for pair in pairs:
        a, b = sampled_pair(models, pair)
        weight = pair.a.numel / max(a.size, 1)
        for row, (x, y) in enumerate(((a, b), (_centred(a), _centred(b)))):
            sums[row] += weight * np.array([np.vdot(x, y), np.vdot(x, x), np.vdot(y, y)], np.float64)
        n += a.size
    raw, centred = (float(d / math.sqrt(p * q)) if p * q > 0 else None for d, p, q in sums.tolist())
    if raw is None:
        return not_applied(_QUESTION, "all parameters that could be paired are zero on one side")
    return replace(
        _QUESTION,
        says=f"cosine of {len(pairs)} same-named tensors {raw:.4f}"
        + (f", centred {centred:+.4f}" if centred is not None else ""),
        statistic=raw,
        effect=centred,
        n=n,
        details={"tensors": len(pairs), "values": n, "left_out": len(models.b.tensors) - len(pairs)},
    )


def _centred(x: F32) -> F32:
    """Double-centred; a single row has only its mean to lose."""
    out: F32 = double_centre(x) if x.shape[0] > 1 else x - x.mean()
    return out
