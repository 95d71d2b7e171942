"""MoTHer [2405.18432]: the distance of weights and the kurtosis of their distribution, for a pair.

Distance: the mean over matrices of equal name and shape of the relative difference

    sqrt(2 |W_a - W_b|^2 / (|W_a|^2 + |W_b|^2))      (0 for a copy, sqrt(2) for independent weights)

so that pairs of unlike scale can be ranked; the plain root mean square of the difference is in the details. Kurtosis:
the excess kurtosis of each square matrix, summed. Fine-tuning lowers it in the authors' vision transformers (the
specialisation stage), so the model with more of it is the likelier parent.

Known false positives: none by distance in this form (strangers sit at sqrt(2)); but nearest is not parent. The
direction is weak evidence: continued *pre*training raises kurtosis in place of lowering it. Known misses: whatever
moves weights apart in place, from permutations to long training.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from weightprint.evidence.evidence import Evidence, not_applied
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.parts import named_pairs, readable, sampled_pair
from weightprint.evidence.test import Test

_QUESTION = Evidence(
    test="mother",
    asked="How far apart are weights at the same place, and which model has the heavier tails?",
    null="none: descriptive. Independent weights lie sqrt(2) apart",
    assumes="nothing: it decides nothing",
    blind_to="permuted or rotated copies, other names or shapes, long training; the direction is a weak sign",
    statistic_of="minus the mean relative distance of same-named matrices",
    effect_of="that distance",
)


def excess_kurtosis(x: npt.NDArray[np.floating]) -> float:
    """Fourth moment over the squared variance, minus 3; nan for a constant."""
    centred = np.ravel(x).astype(np.float64)
    centred = centred - centred.mean() if centred.size else centred
    variance = float(np.mean(np.square(centred))) if centred.size else 0.0
    return float(np.mean(np.square(np.square(centred)))) / variance**2 - 3 if variance > 0 else float("nan")


@partial(Test, published=True)
def mother(models: ModelPair) -> Evidence:
    """Distance of a pair, both kurtoses, and which model they point to as the earlier one."""
    pairs = [p for p in named_pairs(models) if readable(p.a) and readable(p.b)]
    apart, plain, tails, n = [], [], [], 0
    for pair in pairs:
        a, b = sampled_pair(models, pair)
        squares = [float(np.vdot(x, x)) for x in (a - b, a, b)]
        if squares[1] + squares[2] > 0:
            apart.append(float(np.sqrt(2 * squares[0] / (squares[1] + squares[2]))))
            plain.append(float(np.sqrt(squares[0] / a.size)))
            n += a.size
        if pair.a.shape[0] == pair.a.shape[1]:
            tails.append((excess_kurtosis(a), excess_kurtosis(b)))
    if not apart:
        return not_applied(_QUESTION, "no two matrices of equal name and shape")
    distance = float(np.mean(apart))
    k_a, k_b = (float(v) for v in np.nansum(tails, axis=0)) if tails else (float("nan"), float("nan"))
    earlier = None if not tails or k_a == k_b else "a" if k_a > k_b else "b"
    return replace(
        _QUESTION,
        says=f"{len(apart)} same-named matrices lie {distance:.3f} apart (copies 0, independent weights 1.414)"
        + (f"; kurtosis {k_a:.2f} and {k_b:.2f}, which would make {earlier} the earlier one" if earlier else ""),
        statistic=-distance,
        effect=distance,
        n=n,
        details={
            "matrices": len(apart),
            "distance": distance,
            "root_mean_square": float(np.mean(plain)),
            "kurtosis_a": k_a if tails else None,
            "kurtosis_b": k_b if tails else None,
            "earlier": earlier,
        },
    )
