"""How well a basis does on FFNs that it was not found on: the score that all candidates share.

Units of B, written in A's basis, look for their nearest unit in an FFN of A twice: by what they read (rows of gate and
up) and by what they write (columns of down); at effort "quick" by the gate and by up, since columns are dear. The score
is the share of units for which both name the same one (METHODS unit agreement). By chance that happens to
sum_j in(j) out(j) / m of m units, where in(j) and out(j) count how often unit j of A was named: hubs are common where
a few channels are large. The score chooses between bases and drops those that align nothing; the tests of
:mod:`weightprint.evidence` then judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from weightprint.evidence.alignment.solve import cosines
from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import on_channels, pick, sampled_columns
from weightprint.util.arrays import F32, Indices
from weightprint.util.ranges import evenly

__all__ = ["Score", "fit_half", "score"]

_BLOCKS = 3  # FFNs of B
_NEAREST = 4  # FFNs of A for each, by relative depth, unless all are cheap
_CHEAP = 1e10  # multiplications
_UNITS = 128
_CHANNELS = 768  # of A's, sampled: enough to tell units apart
_LARGE = 1 << 24  # values of an FFN's matrix from which fewer blocks, and channels, are looked at


@dataclass(frozen=True, slots=True)
class Score:
    """Units of B whose two matchings agree, in the best FFN of A for each FFN tested. ``log10_p`` is of chance, not of
    independence."""

    agreed: int
    tested: int
    log10_p: float

    @property
    def share(self) -> float:
        """Agreeing units over tested ones."""
        return self.agreed / max(self.tested, 1)


def fit_half(found: Sequence[Ffn]) -> list[Ffn]:
    """The FFNs that a basis may be fitted on: every other block of every stack."""
    blocks = sorted({(ffn.stack, ffn.block) for ffn in found})
    chosen = set(blocks[::2])
    return [ffn for ffn in found if (ffn.stack, ffn.block) in chosen]


def score(models: ModelPair, basis: Basis) -> Score:
    """Unit agreement through a basis on FFNs that are not in its ``fitted``."""
    ours, theirs = ffns(models.a), [f for f in ffns(models.b) if not basis.saw(f.name)]
    if not ours or not theirs:
        return Score(0, 0, 0.0)
    large = not models.budget.exhaustive and max(f.up.numel for f in (*ours, *theirs)) >= _LARGE
    blocks, nearest, most = (_BLOCKS - 1, _NEAREST // 2, _CHANNELS // 3) if large else (_BLOCKS, _NEAREST, _CHANNELS)
    theirs = evenly(theirs, blocks, rounded=False)
    depth_a, depth_b = _depth(ours), _depth(ffns(models.b))
    cheap = sum(f.numel for f in ours) * _UNITS * len(theirs) <= _CHEAP
    agreed = tested = 0
    log10_p = 0.0
    for ffn in theirs:
        units = pick(ffn.units, _UNITS, models.seed, "basis", run=8)
        read, written = _two(models, models.b, ffn, units)
        if written is None:
            continue
        at = ffn.block / depth_b
        near = sorted(ours, key=partial(_apart, depth_a, at))
        best, best_p, looks = 0, 0.0, 0
        for other in near[: None if models.budget.exhaustive or cheap else nearest]:
            channels = pick(other.width, most, models.seed, "held out")
            known_read, known_written = _known(models, other, channels)
            if known_written is None or known_read is None or read is None:
                continue
            k, chance = _agree(basis, channels, read, written, known_read, known_written)
            looks += 1
            p = _poisson_tail(k, chance)
            if p < best_p or not best:
                best, best_p = k, p
        if looks:
            agreed, tested = agreed + best, tested + units.size
            log10_p += min(0.0, best_p + math.log10(looks))
    return Score(agreed, tested, log10_p)


def _apart(depth: int, at: float, ffn: Ffn) -> float:
    return abs(ffn.block / depth - at)


def _depth(found: Sequence[Ffn]) -> int:
    return 1 + max((f.block for f in found), default=0)


Parts = tuple[F32, ...]


def _two(models: ModelPair, side: ModelView, ffn: Ffn, units: Indices | None) -> tuple[Parts | None, F32 | None]:
    """The two looks at the units of an FFN: matrices to be joined, and one more."""
    up, gate = unit_inputs(side, ffn, units, fold=True)
    if ffn.down is None or ffn.down.numel > models.budget.columns_of:
        return (None, None) if gate is None else ((gate,), up)
    return ((up,) if gate is None else (gate, up)), unit_outputs(side, ffn, units)


def _known(models: ModelPair, ffn: Ffn, channels: Indices) -> tuple[Parts | None, F32 | None]:
    """The same of all units of an FFN of A, on these channels only; reads a few MB at a time."""
    side = models.a
    up, gate = (None if t is None else on_channels(side, t, channels) for t in (ffn.up, ffn.gate))
    assert up is not None
    if ffn.down is None or ffn.down.numel > models.budget.columns_of:
        return (None, None) if gate is None else ((gate,), up)
    written = sampled_columns(side, ffn.down, np.arange(ffn.units), channels)
    return ((up,) if gate is None else (gate, up)), written


def _agree(
    basis: Basis, channels: Indices, read: Parts, written: F32, known_read: Parts, known_written: F32
) -> tuple[int, float]:
    """Units whose two looks agree, and how many would by chance."""
    if len(read) != len(known_read):
        read, known_read = read[-1:], known_read[-1:]
    first = sum(np.abs(cosines(basis.to_a(y)[:, channels], x)) for y, x in zip(read, known_read, strict=True))
    second = np.abs(cosines(basis.to_a(written)[:, channels], known_written))
    one, two = np.asarray(first).argmax(axis=1), second.argmax(axis=1)
    named = [np.bincount(x, minlength=len(known_written)) for x in (one, two)]
    return int(np.count_nonzero(one == two)), float(named[0] @ named[1]) / max(one.size, 1)


def _poisson_tail(k: int, rate: float) -> float:
    """log10 of Chernoff's bound on P(Poisson(rate) >= k)."""
    if k <= rate:
        return 0.0
    return (k - rate - k * math.log(k / rate)) / math.log(10)
