"""A mix from fingerprints: inner products of linear sketches where :mod:`weightprint.compare.gram` reads values.

Sketches are linear, so a mix of models has the mix of their sketches, to rounding, and the least squares of
:mod:`weightprint.compare.mixing` find its weights as exactly as values do. What is not a mix leaves a residual r,
whose inner products the k numbers per matrix know with a variance of about |r|² |p|² / k; the weights have

    cov(w) = G⁻¹ (Σ G_m |r_m|² / k) G⁻¹         over matrices m, G = Σ G_m the Gram of what was fitted,

which is added to the spread over blocks. Signs of a sketch are fixed by place: only matrices in one place are compared,
and a passthrough merge, whose blocks came from elsewhere, is left unexplained there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weightprint.compare.gram import Gram, total
from weightprint.compare.merge_methods import body
from weightprint.compare.recipe_parts import Weight, weights
from weightprint.errors import UsageError
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.fingerprint.model import Tensor
from weightprint.fingerprint.stored import check_plans
from weightprint.util.arrays import F64
from weightprint.util.escape import escape

__all__ = ["NOTES", "sketched_grams", "sketched_weights"]

#: What no sketch says.
NOTES = (
    "from fingerprints: weights are of linear sketches of the matrices; intervals hold the deviation that these have",
    "needs the weights: the method (SLERP, task arithmetic, TIES, DARE, passthrough), whether the mix is the child "
    "value for value, blocks, units or channels in another order, norms and biases",
)


def sketched_grams(child: Fingerprint, parents: Sequence[Fingerprint]) -> list[Gram]:
    """Of every sketched matrix of the child, in its order; see :class:`weightprint.compare.gram.Gram`.

    Raises:
        UsageError: fingerprints of different plans (``other_plan``); a parent without a matrix of the child's places
            and shapes (``no_common_tensors``).
    """
    for parent in parents:
        check_plans(child, parent)
    there = [{(t.place or t.name, t.shape): t for t in parent.tensors.values() if t.sketched} for parent in parents]
    out = []
    for tensor in child.tensors.values():
        if tensor.sketched and not (tensor.place and tensor.place.part == "fixed"):
            found = [of.get((tensor.place or tensor.name, tensor.shape)) for of in there]
            out.append(_gram(child, tensor, parents, found))
    for number, parent in enumerate(parents):
        if not any(g.present[number] for g in out):
            message = (
                f"{escape(parent.source)} can't be mixed into {escape(child.source)}: no matrix has its shape there"
            )
            raise UsageError(message, path=parent.source, code="no_common_tensors")
    return out


def _gram(child: Fingerprint, tensor: Tensor, parents: Sequence[Fingerprint], found: Sequence[Tensor | None]) -> Gram:
    sketch = child.sketch(tensor.name)
    x = np.zeros((len(parents) + 1, sketch.size))
    for i, (of, t) in enumerate([(child, tensor), *zip(parents, found, strict=True)]):
        if t is not None:
            x[i] = of.sketch(t.name)
    x[[0, 1]] = x[[1, 0]]  # p_0, c, p_1 …
    x[1:] -= x[0]
    present = tuple(t is not None for t in found)
    return Gram(tensor.name, tensor.place, True, tensor.numel, present, x @ x.T, np.zeros(len(x)))


def sketched_weights(grams: Sequence[Gram], parents: Sequence[Fingerprint], seed: int) -> tuple[Weight, ...]:
    """The parents' weights over all layers, with 95 % intervals: below zero only where the whole interval is."""
    told = weights(grams, [parent.source for parent in parents], None, seed)
    if not told:
        return ()
    own = 2 * _deviation(body(grams), np.array([w.value for w in told]), parents[0].arrays["sketches"].shape[1])
    return tuple(_wider(weight, sd) for weight, sd in zip(told, own.tolist(), strict=True))


def _wider(weight: Weight, by: float) -> Weight:
    if weight.low is None or weight.high is None:
        return weight
    low = weight.value - math.hypot(weight.value - weight.low, by)
    high = weight.value + math.hypot(weight.high - weight.value, by)
    return replace(weight, low=max(low, 0.0) if weight.value >= 0 else low, high=high)


def _deviation(grams: Sequence[Gram], value: F64, buckets: int) -> F64:
    """Standard deviations of fitted weights by the sketches."""
    k = value.size
    used = [*range(2, k + 1), 0]  # p_1 - p_0 …, and p_0 itself
    residual = np.array([1 - value.sum(), 1.0, *(-value[1:])])
    meat = sum(
        (g.products[np.ix_(used, used)] * max(0.0, float(residual @ g.products @ residual)) for g in grams),
        np.zeros((k, k)),
    )
    bread = np.linalg.pinv(total(grams)[0][np.ix_(used, used)], hermitian=True)
    # The first parent has what is left: 1 - Σ of the others + what the weights sum to beyond one.
    turn = np.vstack([np.r_[-np.ones(k - 1), 1.0], np.eye(k)[: k - 1]])
    spread = turn @ bread @ meat @ bread @ turn.T / buckets
    out: F64 = np.sqrt(np.maximum(np.diag(spread), 0))
    return out
