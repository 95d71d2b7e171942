"""A basis with no shared vocabulary and no unit order: units known by what no rotation changes.

A rotation R of the stream turns every vector x that lives in it into x R, and every second moment M of a set of such
vectors (rows of all q, of all v, columns of all o, the token table) into R' M R. So with g, u, w a unit's rows of gate
and up and its column of down, scaled to length one, the numbers

    x M y, x M M x      for x, y among g, u, w and M among the moments;  also |g|, |u||w|, g.u, g.w, u.w

are a *signature* that rotations, permutations, sign flips, the order of units, heads, blocks and tokens leave alone (in
a gated FFN the sign of a unit's u and w together is free, so only products that do not see it are used). Signatures are
replaced by ranks among the units of a model. The FFNs of B's fit half look for their units in A: mutual nearest
neighbours are *seeds*, the FFN of A with the most seeds is the counterpart, the seeds there give a first rotation
(Procrustes on gates, whose sign is sure), and a few rounds of matching by the vectors themselves and solving again
(:mod:`weightprint.evidence.alignment.refine`) settle it. The held-out half of the blocks decides whether it is real.

Measured on a trained decoder (5 blocks of 128 units, d 48), rotated and unit-permuted: seeds are right for 384 of 384
units with weight noise of 10 and 20 %, 309 of 316 with 50 %, 35 of 162 with 100 %, and none between strangers.
On SmolLM2-135M, rotated, tokens and units renumbered, with 10 % noise, 2048 of 2048. Eigenvectors of a
sum of moments would do for exact copies; noise mixes them wherever eigenvalues lie close, signatures average over it.

In wide models the signatures are taken in the span of the strongest directions (of all moments together), which turns
with the stream as they do. Moments are over sampled rows: 16,384 of them leave 1 % noise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from weightprint.evidence.alignment.held_out import fit_half
from weightprint.evidence.alignment.refine import Matched, refine
from weightprint.evidence.alignment.solve import Cross, unit_rows
from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.evidence.nulls.counts import log10_beta_tail
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import eigh, product
from weightprint.util.ranges import evenly

__all__ = ["Moments", "by_unit_signatures", "moments", "signatures", "signed"]

_READS = ("q", "k", "v", "embedding", "head")
_WRITES = ("o",)
_ROWS = 16384  # per role, for its moment
_SPAN = 512  # strongest directions, in wider models
_NEAREST = 3  # FFNs of A by relative depth for each of B; all of them at effort "full" or where that is cheap
_CHEAP = 0.1  # of the multiplications that the effort allows
_FFNS = 4  # of B's fit half
_UNITS = 512  # of each
_FEWEST = 8  # seeds
_SOMETHING = -2.0  # log10 p of seeds that lie in one FFN of A; strangers' lie anywhere, and need not be refined

Moments = dict[str, F32]


def moments(side: ModelView, d: int) -> Moments:
    """Second moments of the sets of vectors in the stream, one (d, d) matrix of trace one per role, gains folded."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for tensor in side.tensors.values():
        role = "" if tensor.place is None else tensor.place.role
        axis = 1 if role in _READS else 0 if role in _WRITES else None
        if axis is not None and tensor.rank2 and tensor.shape[axis] == d and not tensor.constant:
            found[role].append(tensor)
    out: dict[str, F32] = {}
    for role, tensors in found.items():
        total = np.zeros((d, d), np.float32)
        for tensor in tensors:
            x = _vectors(side, tensor, max(64, _ROWS // len(tensors)), role in _WRITES)
            total += product(x.T, x)
        if np.trace(total) > 0:
            out[role] = total / np.float32(np.trace(total))
    return out


def _vectors(side: ModelView, tensor: Tensor, most: int, writes: bool) -> F32:
    """Sampled vectors over the stream as rows, the gain of the feeding norm folded in."""
    vectors = pick(tensor.shape[1 if writes else 0], most, 0, "moments")
    x = sampled_columns(side, tensor, vectors) if writes else sampled_rows(side, tensor, vectors)
    gain = None if writes else side.gain(tensor)
    return finite(x if gain is None else x * gain)


def _span(m: Moments) -> F32 | None:
    """Orthonormal columns (d, span) of the strongest directions; None where the stream is no wider than that."""
    total: F32 = reduce(np.add, m.values())
    if total.shape[0] <= _SPAN:
        return None
    return np.ascontiguousarray(eigh(total)[1][:, -_SPAN:])


@dataclass(frozen=True, slots=True)
class _Units:
    """Some units of one FFN: their three vectors, gate None where there is none."""

    ffn: Ffn
    up: F32
    gate: F32 | None
    down: F32


def _units(models: ModelPair, side: ModelView, ffn: Ffn, units: Indices | None) -> _Units | None:
    up, gate = unit_inputs(side, ffn, units, fold=True)
    down = unit_outputs(side, ffn, units)
    return None if down is None else _Units(ffn, finite(up), gate, finite(down))


def signatures(units: Sequence[tuple[F32, F32 | None, F32]], m: Moments) -> F32:
    """(up, gate, down) of FFNs → ranks of their units' signatures, float32 (units of all, features), in ±.5."""
    columns: list[list[F32]] = []
    for up, gate, down in units:
        lengths = [np.linalg.norm(x, axis=1) for x in (up, down)]
        u, w = unit_rows(up), unit_rows(down)
        g = None if gate is None else unit_rows(finite(gate))
        out = [lengths[0] * lengths[1], np.einsum("ij,ij->i", u, w)]
        if g is not None and gate is not None:
            gu, gw = (np.einsum("ij,ij->i", g, x) for x in (u, w))
            out += [np.linalg.norm(gate, axis=1), np.abs(gu), np.abs(gw), gu * gw]
        for moment in m.values():
            um, wm = product(u, moment), product(w, moment)
            out += [np.einsum("ij,ij->i", x, y) for x, y in ((um, u), (wm, w), (um, w), (um, um), (wm, wm), (um, wm))]
            if g is not None:
                gm = product(g, moment)
                gu, gw = (np.einsum("ij,ij->i", gm, x) for x in (u, w))
                out += [np.einsum("ij,ij->i", gm, g), np.einsum("ij,ij->i", gm, gm), np.abs(gu), np.abs(gw), gu * gw]
        columns.append([np.asarray(x, np.float32) for x in out])
    table = np.stack([np.concatenate(parts) for parts in zip(*columns, strict=True)], axis=1)
    ranks = table.argsort(axis=0).argsort(axis=0)
    return (ranks / max(len(table) - 1, 1) - 0.5).astype(np.float32)


def by_unit_signatures(models: ModelPair) -> list[Basis]:
    """A signed permutation and a rotation from units matched by signature; none where too few are."""
    if not models.budget.whole:
        return []
    theirs = ffns(models.b)
    fit = [f for f in fit_half(theirs) if f.down is not None]
    ours = [f for f in ffns(models.a) if f.down is not None]
    if not ours or not fit:
        return []
    fit = evenly(fit, _FFNS)
    budget = models.budget.multiplications
    if _cost(ours) > _CHEAP * budget and not models.budget.exhaustive:
        ours = _near(ours, fit, 1 + max(f.block for f in theirs))
    gated = all(f.gate is not None for f in (*ours, *fit))
    if not gated and any(f.gate is not None for f in (*ours, *fit)):
        return []
    if _cost(ours) > budget:
        return []
    m_a, m_b = moments(models.a, ours[0].width), moments(models.b, fit[0].width)
    common = sorted(m_a.keys() & m_b.keys())
    if not common:
        return []
    known = [_units(models, models.a, f, None) for f in ours]
    asked = [_units(models, models.b, f, pick(f.units, _UNITS, models.seed, "signatures", run=8)) for f in fit]
    a, b = [u for u in known if u is not None], [u for u in asked if u is not None]
    matched, log10_p = _seeds(a, b, {r: m_a[r] for r in common}, {r: m_b[r] for r in common})
    if sum(m.a.size for m in matched) < _FEWEST or log10_p > _SOMETHING:
        return []
    first = Cross(ours[0].width, fit[0].width)
    for m in matched:
        first.add(unit_rows(m.read_a[0][m.a]), unit_rows(m.read_b[0][m.b]))
    found = f"units of {len(matched)} FFNs by rotation-invariant signatures"
    return refine(matched, first, found, frozenset(m.name for m in matched))


def _near(ours: Sequence[Ffn], fit: Sequence[Ffn], depth_b: int) -> list[Ffn]:
    """The FFNs of A at about the relative depths of these of B."""
    depth_a = 1 + max(f.block for f in ours)
    blocks = sorted({(f.stack, f.block) for f in ours})
    kept = set()
    for ffn in fit:
        apart = [abs(block / depth_a - ffn.block / depth_b) for _, block in blocks]
        kept |= {blocks[i] for i in np.argsort(apart, kind="stable")[:_NEAREST]}
    return [f for f in ours if (f.stack, f.block) in kept]


def _cost(ours: Sequence[Ffn]) -> float:
    """Multiplications, about: the moments of both sides, the signatures of A's units, and solving for rotations."""
    d, roles = ours[0].width, len((*_READS, *_WRITES))
    span = min(d, _SPAN)
    units = sum(f.units for f in ours)
    return float(2 * roles * _ROWS * d * d + units * 3 * (d * span + roles * span * span) + 60 * d**3)


def signed(units: Sequence[tuple[F32, F32 | None, F32]], m: Moments) -> F32:
    """`signatures` of (up, gate, down) of FFNs, in wide models in the span of the strongest directions."""
    span = _span(m)
    if span is None:
        return signatures(units, m)
    within = {role: product(product(span.T, x), span) for role, x in m.items()}
    return signatures(
        [
            (product(up, span), None if gate is None else product(finite(gate), span), product(down, span))
            for up, gate, down in units
        ],
        within,
    )


def _seeds(a: Sequence[_Units], b: Sequence[_Units], m_a: Moments, m_b: Moments) -> tuple[list[Matched], float]:
    """For each FFN of B the FFN of A with the most mutual nearest neighbours, and these; and log10 of how likely so
    many of them in one FFN are by chance, for the least likely and corrected (0: sure)."""
    sign_a, sign_b = (signed([(u.up, u.gate, u.down) for u in x], m) for x, m in ((a, m_a), (b, m_b)))
    owner_a, owner_b = (np.repeat(np.arange(len(x)), [len(u.up) for u in x]) for x in (a, b))
    start_a, start_b = (np.concatenate([[0], np.cumsum([len(u.up) for u in x])]) for x in (a, b))
    squares = np.einsum("ij,ij->i", sign_a, sign_a)
    nearest = np.concatenate(
        [(squares - 2 * product(sign_b[i : i + 512], sign_a.T)).argmin(axis=1) for i in range(0, len(sign_b), 512)]
    )
    squares = np.einsum("ij,ij->i", sign_b, sign_b)
    back = np.concatenate(
        [(squares - 2 * product(sign_a[i : i + 512], sign_b.T)).argmin(axis=1) for i in range(0, len(sign_a), 512)]
    )
    mutual = np.nonzero(back[nearest] == np.arange(len(sign_b)))[0]
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for i in mutual:
        j = nearest[i]
        x, y = int(owner_a[j]), int(owner_b[i])
        pairs[y, x].append((int(j - start_a[x]), int(i - start_b[y])))
    out = []
    sizes = np.diff(start_a)
    log10_p = 0.0 if len(a) > 1 else -math.inf  # of one FFN nothing can be told
    for y, units in enumerate(b):
        counts = [len(pairs[y, x]) for x in range(len(a))]
        x = int(np.argmax(counts))
        tail = (
            log10_beta_tail(counts[x], sum(counts) - counts[x] + 1, float(sizes[x] / sizes.sum()))
            if len(a) > 1
            else 0.0
        )
        log10_p = min(log10_p, tail + math.log10(len(a) * len(b)))
        found = np.array(pairs[y, x], np.int64).reshape(-1, 2)
        read_a, read_b = ([u.up] if u.gate is None else [u.gate, u.up] for u in (a[x], units))
        out.append(Matched(units.ffn.name, read_a, read_b, a[x].down, units.down, found[:, 0], found[:, 1]))
    return out, log10_p
