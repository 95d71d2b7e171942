"""Assignments between the hidden units of two FFNs, as the independence tests [2502.12292] use them.

Unit i is row i of the up-projection (or of the gate). Rows are compared by plain cosine, as published, and assigned one
to one at the largest sum. Only sampled units are taken at large sizes: the same numbers on both sides, in which a
copy's units meet themselves again.
"""

from __future__ import annotations

from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.assignment import assign
from weightprint.util.linear_algebra import product, unit_rows


def units(models: ModelPair, tensor: Tensor, want: int) -> Indices:
    """Which hidden units are looked at, the same for all blocks of this height."""
    return pick(tensor.shape[0], want, models.seed, "units")


def rows_of(side: ModelView, tensor: Tensor, which: Indices) -> F32:
    """Unit rows of unit length: (units, channels)."""
    return unit_rows(finite(sampled_rows(side, tensor, which)))


def assigned(a: F32, b: F32) -> Indices:
    """For each unit of A the unit of B that the assignment gives it."""
    return assign(-product(a, b.T)).columns
