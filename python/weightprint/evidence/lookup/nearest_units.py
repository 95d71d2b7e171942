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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weightprint import _core
from weightprint.evidence.nulls.exchange import in_range
from weightprint.evidence.pair import Basis
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import Read, on_channels, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, I64, Indices
from weightprint.util.linear_algebra import product

_PROBES, _TARGETS = 1024, 1024  # looked up at a time: their scores stay in the cache
_FEW = 256  # targets that rule most others out
_ROUNDING = np.float32(1e-4)  # of summed cosines
_BLOCK, _RUNS = 128, 8  # rows per block, and blocks, that tell the columns' statistics


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

    def some(self, rows: Indices) -> Probes:
        """These rows."""
        if rows.size == self.of.size:
            return self
        gate = None if self.gate is None else self.gate[rows]
        return Probes(self.of[rows], self.units[rows], self.up[rows], gate, self.down[rows])


@dataclass(frozen=True)
class Counts:
    """Probes against one FFN of A.

    Attributes:
        agreed: units of A named twice, by arrangement (0 as it is, then permuted) and FFN of B; int64 (1 + R, n).
        named: for every probe the unit of A that both name, -1 where they differ; int64 (probes,).
        likeness: for every probe the mean cosine with that unit, 0 where there is none; float32 (probes,).
    """

    agreed: I64
    named: I64
    likeness: F32


def standardised(x: F32, *, signed: bool) -> F32:
    """Columns centred (where signs mean something) and of unit rms, rows without their mean and of unit length.

    A LayerNorm takes the stream's mean away, so any constant may be added to a row. The mean is one over channels
    weighted by 1/rms^2, since plain means would carry an outlier channel into all others. Of many rows some say what
    the columns' means and rms are, so that all are gone through once. `x` may be overwritten.
    """
    x = in_range(x)
    if not (x.flags.writeable and (x.flags.c_contiguous or x.flags.f_contiguous)):
        x = x.copy()
    means, weights, scales = _of_columns(x, signed=signed)
    _core.standardise(x, means, weights, scales, scales, unit=True)
    return x


def _of_columns(x: F32, *, signed: bool) -> tuple[F32, F32, F32]:
    """Of some rows, spread evenly: means to be taken from the columns, weights of a row's mean (their sum is 1), and
    what columns are then multiplied by to have unit rms (0 for a column without spread); float32 (columns,) each."""
    if len(x) > _RUNS * _BLOCK:
        some = np.concatenate([x[i : i + _BLOCK] for i in np.linspace(0, len(x) - _BLOCK, _RUNS).astype(int)])
    else:
        some = x.copy()
    means = some.mean(axis=0) if signed else np.zeros(x.shape[1], np.float32)
    some -= means
    weights: F32 = np.zeros(x.shape[1], np.float32)
    for _ in range(2):
        power = np.einsum("ij,ij->j", some, some) / np.float32(len(some))
        finite: F32 = np.where(power > 0, power, np.float32(np.inf))
        weights = np.float32(1) / finite
        weights /= np.float32(max(float(weights.sum()), 1e-30))
        some -= (some @ weights)[:, None]
        some[:, power == 0] = 0
    rms = np.sqrt(np.einsum("ij,ij->j", some, some) / np.float32(len(some)))
    return means, weights, np.where(rms > 0, 1 / np.where(rms > 0, rms, np.float32(1)), np.float32(0))


#: Standardised up, gate (None without one) and down of some units of one FFN.
Piece = tuple[F32, F32 | None, F32]


def probes(group: Sequence[tuple[int, Ffn, Indices]], pieces: Sequence[Piece]) -> Probes:
    """The chosen units of some FFNs (number, FFN, units) of B, a piece for each; all gated or all plain."""
    gates = [gate for _, gate, _ in pieces if gate is not None]
    return Probes(
        of=np.concatenate([np.full(units.size, number, np.int64) for number, _, units in group]),
        units=np.concatenate([units for _, _, units in group]),
        up=np.concatenate([up for up, _, _ in pieces]),
        gate=np.concatenate(gates) if gates else None,
        down=np.concatenate([down for _, _, down in pieces]),
    )


def probe_reads(ffn: Ffn, units: Indices, channels: Indices) -> tuple[Read, ...]:
    """What `probe` reads in the basis as stored."""
    assert ffn.down is not None
    inputs = [Read(tensor, units, channels) for tensor in (ffn.up, ffn.gate) if tensor is not None]
    return *inputs, Read(ffn.down, channels, units)


def count_reads(ffn: Ffn, channels: Indices) -> tuple[Read, ...]:
    """What `count` reads."""
    assert ffn.down is not None
    inputs = [Read(tensor, None, channels) for tensor in (ffn.up, ffn.gate) if tensor is not None]
    return *inputs, Read(ffn.down, channels, None)


def probe(side: ModelView, ffn: Ffn, units: Indices, basis: Basis, channels: Indices) -> Piece:
    """These units of one FFN of B on these of A's channels."""
    assert ffn.down is not None
    gated = ffn.gate is not None
    # In the basis as stored, only the channels that are looked at need be read.
    as_stored = basis.matrix is None and basis.channels is None
    only = channels if as_stored else None

    def turned(x: F32) -> F32:
        return x if as_stored else basis.to_a(x)[:, channels]

    inputs: list[F32 | None] = []
    for tensor in (ffn.up, ffn.gate):
        if tensor is None:
            inputs.append(None)
            continue
        x = sampled_rows(side, tensor, units, only)
        gain = side.gain(tensor)
        x = turned(x if gain is None else x * (gain if only is None else gain[only]))
        inputs.append(standardised(x, signed=not gated or tensor is ffn.gate))
    down = turned(sampled_columns(side, ffn.down, units, only))
    up, gate = inputs
    assert up is not None
    return up, gate, standardised(down, signed=not gated)


def count(
    side: ModelView, ffn: Ffn, found: Probes, n: int, channels: Indices, orders: Sequence[I64], every: int = 1
) -> Counts:
    """All probes against one FFN of A, as they are; and each `every`-th with their channels in each of `orders`; `n`
    FFNs of B."""
    gated = ffn.gate is not None or found.gate is not None
    assert ffn.down is not None
    # Transposed as a view: products and everything else take it as it lies.
    down = standardised(sampled_rows(side, ffn.down, channels).T, signed=not gated)
    named_out, top_out = _nearest([(found.down, down, not gated)], orders, every)
    del down
    by_input = [(found.up, _inputs(side, ffn, "up", channels, signed=not gated), not gated)]
    if ffn.gate is not None and found.gate is not None:
        by_input.append((found.gate, _inputs(side, ffn, "gate", channels, signed=True), True))
    named_in, top_in = _confirmed(by_input, named_out, orders)
    parts = len(by_input)
    agree = (named_in == named_out) & (named_in >= 0)
    agreed = np.zeros((agree.shape[0], n), np.int64)
    for r, row in enumerate(agree):
        distinct = np.unique(found.of[row] * ffn.units + named_in[r, row])
        agreed[r] = np.bincount(distinct // ffn.units, minlength=n)
    likeness = np.where(agree[0], (top_in + top_out) / np.float32(parts + 1), np.float32(0))
    return Counts(agreed, np.where(agree[0], named_in[0], -1), likeness)


def _inputs(side: ModelView, ffn: Ffn, role: str, channels: Indices, *, signed: bool) -> F32:
    """All rows of up or gate on these channels, standardised."""
    tensor = ffn.up if role == "up" or ffn.gate is None else ffn.gate
    return standardised(on_channels(side, tensor, channels), signed=signed)


#: Probes, targets and whether the sign of their cosine counts: what is summed over several matrices of one FFN.
Part = tuple[F32, F32, bool]


def _nearest(parts: Sequence[Part], orders: Sequence[I64], every: int) -> tuple[I64, F32]:
    """For every probe the row of the targets with the largest summed cosine, int64 (1 + orders, probes), and that sum
    as things are, float32 (probes,). -1 where nothing speaks for any target, and for probes left out of the
    permutations."""
    n = len(parts[0][0])
    out, tops = np.full((1 + len(orders), n), -1, np.int64), np.zeros(n, np.float32)
    for r, order in enumerate([None, *orders]):
        of = np.arange(n) if order is None else np.arange(0, n, every)
        best, out[r, of] = _best(parts, of, order)
        tops = best if order is None else tops
    return out, tops


def _confirmed(parts: Sequence[Part], named: I64, orders: Sequence[I64]) -> tuple[I64, F32]:
    """As `_nearest`, but -1 also where another target is nearer than the one that is ``named``, int64 (1 + orders,
    probes): all that is asked is where both are the same. Nearly always some target of a few is nearer already; then
    the others need not be looked at."""
    out, tops = np.full(named.shape, -1, np.int64), np.zeros(named.shape[1], np.float32)
    units = len(parts[0][1])
    some = slice(None, None, units // _FEW) if units > 2 * _FEW else None
    for r, order in enumerate([None, *orders]):
        of = np.nonzero(named[r] >= 0)[0]
        if some is not None and of.size:
            score = np.zeros(of.size, np.float32)
            for x, y, signed in parts:
                cosine = np.einsum("ij,ij->i", x[of] if order is None else x[of][:, order], y[named[r, of]])
                score += cosine if signed else np.abs(cosine)
            nearer, _ = _best([(x, y[some], signed) for x, y, signed in parts], of, order)
            of = of[nearer <= score + _ROUNDING]
        best, out[r, of] = _best(parts, of, order)
        if order is None:
            tops[of] = best
    return out, tops


def _best(parts: Sequence[Part], of: Indices, order: I64 | None) -> tuple[F32, I64]:
    """Of these probes, their channels in this order: the largest summed cosine, and the target that has it, -1 where
    none is above 0. Unsigned cosines count by size."""
    best, at = np.zeros(of.size, np.float32), np.full(of.size, -1, np.int64)
    for first in range(0, of.size, _PROBES):
        here = slice(first, first + _PROBES)
        rows = [x[of[here]] if order is None else x[of[here]][:, order] for x, _, _ in parts]
        for start in range(0, len(parts[0][1]), _TARGETS):
            there = slice(start, start + _TARGETS)
            scores = [(product(x, y[there].T), signed) for x, (_, y, signed) in zip(rows, parts, strict=True)]
            _core.nearest(scores, start, best[here], at[here])
    return best, at
