"""Nearest units, twice: by what a unit reads and, independently, by what it writes.

Unit i of an FFN is row i of the gate and of the up-projection (its input weights) and column i of the down-projection
(its output weights). Every channel is divided by its rms over the units, so gains and outlier channels drop out, and
every row is brought to unit length, so scale between up and down does. In a gated FFN a unit's up and down may change
sign together, so there absolute cosines are taken; the gate has no such freedom and is centred over the units first.

`Probes` are the sampled units of B that are looked for. `count` brings them together with all units of one FFN of A:
for every probe the unit nearest by input and the one nearest by output, and for each FFN of B how often both name the
same unit. A unit of A counts once for each FFN of B, so that duplicated units don't inflate a count. The same is done
again with B's channels in another order (the same order for inputs and outputs): hubs, correlated rows, and whatever
ties a unit's output weights to its input weights stay as they are, only the relation to A is gone.

Memory: the probes, and one matrix of one FFN of A on the chosen channels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightprint.evidence._base import F32, Basis, Side
from weightprint.evidence._exchange import tame
from weightprint.evidence._sample import Indices, on_channels, sampled_columns, sampled_rows
from weightprint.evidence._units import Ffn
from weightprint.linear import product

__all__ = ["Counts", "Probes", "count", "probes", "standardised"]

I64 = npt.NDArray[np.int64]
_PROBES, _TARGETS = 512, 1024  # looked up at a time: their scores stay in the cache


@dataclass(frozen=True)
class Probes:
    """Sampled units of several FFNs of B, written in A's channels, standardised.

    Attributes:
        of: number of the FFN that a row belongs to; int64 (rows,).
        units: its unit number there; int64 (rows,).
        up, gate, down: float32 (rows, channels); gate is None for plain FFNs.
    """

    of: I64
    units: I64
    up: F32
    gate: F32 | None
    down: F32


@dataclass(frozen=True)
class Counts:
    """Probes against one FFN of A.

    Attributes:
        agreed: units of A named twice, by arrangement (0 as it is, then permuted) and FFN of B; int64 (1 + R, n).
        named: for every probe the unit of A that both name, -1 where they differ; int64 (rows,).
        likeness: for every probe the mean cosine with that unit, 0 where there is none; float32 (rows,).
        seconds: spent multiplying.
    """

    agreed: I64
    named: I64
    likeness: F32
    seconds: float


def standardised(x: F32, *, signed: bool) -> F32:
    """Columns centred (where signs mean something) and of unit rms, rows without their mean and of unit length.

    A LayerNorm takes the stream's mean away, so any constant may be added to a row. The mean is one over channels
    weighted by 1/rms^2, since plain means would carry an outlier channel into all others.
    """
    x = tame(x)
    x = x - x.mean(axis=0, keepdims=True) if signed else x.copy()
    for _ in range(2):
        power = np.einsum("ij,ij->j", x, x) / np.float32(len(x))
        weights = 1 / np.where(power > 0, power, np.float32(np.inf))
        x -= (x @ weights / max(float(weights.sum()), 1e-30))[:, None]
        x[:, power == 0] = 0
    rms = np.sqrt(np.einsum("ij,ij->j", x, x) / np.float32(len(x)))
    x *= 1 / np.where(rms > 0, rms, np.float32(1))
    norms = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    x *= 1 / np.where(norms > 0, norms, np.float32(1))
    return x


def probes(side: Side, group: Sequence[tuple[int, Ffn, Indices]], basis: Basis, channels: Indices) -> Probes:
    """The chosen units of some FFNs (number, FFN, units) of B on these of A's channels; all gated or all plain."""
    ups: list[F32] = []
    gates: list[F32] = []
    downs: list[F32] = []
    for _, ffn, units in group:
        gated = ffn.gate is not None
        assert ffn.down is not None
        for tensor, out in ((ffn.up, ups), (ffn.gate, gates)):
            if tensor is not None:
                x = sampled_rows(side, tensor, units)
                gain = side.gain(tensor)
                x = basis.to_a(x if gain is None else x * gain)[:, channels]
                out.append(standardised(x, signed=not gated or tensor is ffn.gate))
        x = basis.to_a(sampled_columns(side, ffn.down, units))[:, channels]
        downs.append(standardised(x, signed=not gated))
    return Probes(
        of=np.concatenate([np.full(units.size, number, np.int64) for number, _, units in group]),
        units=np.concatenate([units for _, _, units in group]),
        up=np.concatenate(ups),
        gate=np.concatenate(gates) if gates else None,
        down=np.concatenate(downs),
    )


def count(
    side: Side, ffn: Ffn, found: Probes, n: int, channels: Indices, orders: Sequence[I64], every: int = 1
) -> Counts:
    """All probes against one FFN of A, as they are; and each `every`-th with their channels in each of `orders`; `n`
    FFNs of B."""
    gated = ffn.gate is not None or found.gate is not None
    both = ffn.gate is not None and found.gate is not None
    seconds = 0.0
    by_input: list[tuple[F32, F32, bool]] = [
        (found.up, _inputs(side, ffn, "up", channels, signed=not gated), not gated)
    ]
    if both and found.gate is not None:
        by_input.append((found.gate, _inputs(side, ffn, "gate", channels, signed=True), True))
    named_in, top_in, spent = _nearest(by_input, orders, every)
    seconds += spent
    parts = len(by_input)
    del by_input
    assert ffn.down is not None
    down = standardised(np.ascontiguousarray(sampled_rows(side, ffn.down, channels).T), signed=not gated)
    named_out, top_out, spent = _nearest([(found.down, down, not gated)], orders, every)
    agree = (named_in == named_out) & (named_in >= 0)
    agreed = np.zeros((agree.shape[0], n), np.int64)
    for r, row in enumerate(agree):
        distinct = np.unique(found.of[row] * ffn.units + named_in[r, row])
        agreed[r] = np.bincount(distinct // ffn.units, minlength=n)
    likeness = np.where(agree[0], (top_in + top_out) / np.float32(parts + 1), np.float32(0))
    return Counts(agreed, np.where(agree[0], named_in[0], -1), likeness, seconds + spent)


def _inputs(side: Side, ffn: Ffn, role: str, channels: Indices, *, signed: bool) -> F32:
    """All rows of up or gate on these channels, standardised."""
    tensor = ffn.up if role == "up" or ffn.gate is None else ffn.gate
    return standardised(on_channels(side, tensor, channels), signed=signed)


def _nearest(parts: Sequence[tuple[F32, F32, bool]], orders: Sequence[I64], every: int) -> tuple[I64, F32, float]:
    """For every probe the row of the targets with the largest summed cosine, int64 (1 + orders, probes); that sum as
    things are, float32 (probes,); and seconds.

    ``parts``: (probes, targets, signed); unsigned cosines count by size. -1 where nothing speaks for any target, and
    for probes left out of the permutations.
    """
    n, targets = parts[0][0].shape[0], parts[0][1]
    out = np.full((1 + len(orders), n), -1, np.int64)
    tops = np.zeros(n, np.float32)
    started = time.perf_counter()
    for r in range(1 + len(orders)):
        of = slice(None) if r == 0 else slice(None, None, every)
        turned = [x if r == 0 else x[of][:, orders[r - 1]] for x, _, _ in parts]
        m = turned[0].shape[0]
        best, at = np.zeros(m, np.float32), np.full(m, -1, np.int64)
        for first, start in itertools.product(range(0, m, _PROBES), range(0, targets.shape[0], _TARGETS)):
            here = slice(first, first + _PROBES)
            total: F32 | None = None
            for x, (_, y, signed) in zip(turned, parts, strict=True):
                score = product(x[here], y[start : start + _TARGETS].T)
                if not signed:
                    np.abs(score, out=score)
                total = score if total is None else np.add(total, score, out=total)
            assert total is not None
            nearest = total.argmax(axis=1)
            top = total[np.arange(nearest.size), nearest]
            better = top > best[here]
            best[here][better], at[here][better] = top[better], nearest[better] + start
        out[r, of] = at
        tops = best if r == 0 else tops
    return out, tops, time.perf_counter() - started
