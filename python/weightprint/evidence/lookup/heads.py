"""Attention heads, as the two products that they are.

Head i scores positions by x' (W_q,i' W_k,i) y and writes W_o,i W_v,i x to the stream. Both are products (d x d, rank at
most the head size) in which everything inside the head cancels: q and k may be multiplied by M and M^-T, v and o by any
invertible map and its inverse, and nothing moves. With rotary positions the first product is the one at distance 0,
and only rotations of rotary pairs are free. A head of a grouped-query block has its own q and o and its group's k and
v. Biases of q, k and v are left out; gains of per-head query and key norms are too.

*Never d x d.* With L (size x d) and R (size x d) the factors of a head, P = L'R:

    <P_a, P_b> = tr(R_a' L_a L_b' R_b) = sum of (L_a L_b') * (R_a R_b')          (two size x size matrices)

and, for thousands of heads, P is kept as S_1' P S_2 with two fixed normal (d x s) matrices: inner products survive with
an error of 1/s times the norms (Johnson-Lindenstrauss), and d x d is never formed.

*Channels on one scale.* Each channel is divided by its root mean square over all heads' products, each product of
length one. That scale is itself a function of products, so no map inside a head can bend it; and it takes out norm
gains and outlier channels. P is then centred along both axes (rows of L and of R minus their mean over channels) and
its multiple of the identity taken out: every head of every model tends to have some.

*Latent attention* (MLA) stores W_q and, per head, W_k and W_v as products of low rank with the latent's norm in
between; they are multiplied out (:mod:`weightprint.anatomy.products` says how), all heads sharing the rotary keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from weightprint import _core
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.attentions import Attention
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import Read, on_channels, sampled_rows
from weightprint.util.arrays import F32, F64, Indices
from weightprint.util.linear_algebra import product, solve

Kind = Literal["qk", "vo"]
_EXTREME = (1e-8, 1e8)  # largest values of a head outside of which it is scaled first
_RIDGE = 1e-10  # of rows' mean square
_HELD = 1 << 23  # values of sketched factors in memory
_TOGETHER = 1 << 20  # values of heads that are multiplied in one go


@dataclass(frozen=True)
class Factors:
    """Left and right factors of all heads' products of one kind: float32 (heads, size, channels) and (key-value heads,
    size, channels). ``of`` is the number of a head's right factor, int64 (heads,)."""

    left: F32
    right: F32
    of: Indices

    @cached_property
    def trace(self) -> F32:
        """Trace of each head's product over channels less one: what channels have to do with themselves; (heads,)."""
        traces = [np.einsum("dc,dc->", x, self.right[g]) for x, g in zip(self.left, self.of, strict=True)]
        return np.array([t / max(self.left.shape[2] - 1, 1) for t in traces], np.float32)


def as_stored(basis: Basis, side: ModelView) -> bool:
    """Whether the side's channels are A's as they stand."""
    return side.label == "a" or (basis.matrix is None and basis.channels is None)


def reads(attention: Attention, channels: Indices) -> tuple[Read, ...]:
    """What `factors` reads of a block on channels as they are stored; nothing is promised of latent attention."""
    if attention.latent is not None:
        return ()
    parts = attention.parts
    return *(Read(parts[role], None, channels) for role in ("q", "k", "v")), Read(parts["o"], channels, None)


def factors(models: ModelPair, side: ModelView, attention: Attention, channels: Indices) -> dict[Kind, Factors]:
    """Both products' factors of every head, over these of A's channels.

    Holds one matrix of the block at a time, and the sampled channels of the others.
    """
    heads, groups = attention.heads, attention.kv_heads
    q, k, v = attention.multiplied(side, lambda tensor: _reading(models, side, tensor, channels))
    o = _writing(models, side, attention.parts["o"], channels)

    of = np.arange(heads) // (heads // groups)
    return {"qk": _standardised(q, k, of, groups), "vo": _standardised(o, v, of, groups)}


def _reading(models: ModelPair, side: ModelView, tensor: Tensor, channels: Indices) -> F32:
    """Rows over A's channels with the norm's gain folded in: (rows, channels)."""
    if as_stored(models.basis, side):
        return on_channels(side, tensor, channels)
    gain = side.gain(tensor)
    pieces = []
    for _, piece in side.slices(tensor):
        x = piece if gain is None else piece * gain
        pieces.append(models.basis.to_a(x)[:, channels])
    return np.concatenate(pieces)


def _writing(models: ModelPair, side: ModelView, tensor: Tensor, channels: Indices) -> F32:
    """Columns of a matrix that writes the stream, as rows over A's channels: (columns, channels)."""
    basis = models.basis
    if as_stored(basis, side):
        written: F32 = sampled_rows(side, tensor, channels).T
        return written
    if basis.matrix is None:
        return basis.to_a(np.ascontiguousarray(side.rows(tensor).T))[:, channels]
    turn = np.ascontiguousarray(basis.matrix[:, channels])
    out = np.zeros((tensor.shape[1], channels.size), np.float32)
    for start, piece in side.slices(tensor):
        out += product(piece.T, turn[start : start + piece.shape[0]])
    return out


def _standardised(left: F32, right: F32, of: Indices, groups: int) -> Factors:
    """Channels on one scale (a function of products alone), then both factors centred over channels.

    ``left``, ``right``: all heads' rows, and all groups', (rows, channels); they are overwritten.
    """
    flat = _tame(left, of.size), _tame(right, groups)
    left, right = (x.reshape(count, -1, x.shape[1]) for x, count in zip(flat, (of.size, groups), strict=True))
    inner_l, inner_r = product(left, left.transpose(0, 2, 1)), product(right, right.transpose(0, 2, 1))
    square = np.einsum("hij,hij->h", inner_l, inner_r[of], dtype=np.float64)
    weight = np.where(square > 0, 1 / np.where(square > 0, square, 1), 0).astype(np.float32)
    # Of the products that share a right factor, the left ones are added up first.
    pooled = np.zeros_like(inner_r)
    for w, g, inner in zip(weight, of, inner_l, strict=True):
        pooled[g] += w * inner
    power_l = _diagonals(left, weight[:, None, None] * inner_r[of])
    power_r = _diagonals(right, pooled)
    none, one = np.zeros(left.shape[2], np.float32), np.ones(left.shape[2], np.float32)
    for rows, power in zip(flat, (power_l, power_r), strict=True):
        scale = np.where(power > 0, 1 / np.sqrt(np.where(power > 0, power, 1)), 0).astype(np.float32)
        _core.standardise(rows, none, scale / np.float32(scale.size), scale, one, unit=False)
    return Factors(left, right, of)


def _diagonals(heads: F32, inner: F32) -> F32:
    """Sum over heads of the diagonal of x' m x, for x (size, channels) and m (size, size): float32 (channels,)."""
    total = np.zeros(heads.shape[2], np.float32)
    together = max(1, _TOGETHER // heads[0].size)
    for start in range(0, len(heads), together):
        x, m = heads[start : start + together], inner[start : start + together]
        # The products lie as x does, so that both are gone through alike.
        lies = x.strides[1] < x.strides[2]
        y = product(x.transpose(0, 2, 1), m.transpose(0, 2, 1)).transpose(0, 2, 1) if lies else product(m, x)
        total += np.einsum("hdc,hdc->hc", y, x).sum(axis=0)
    return total


def _tame(x: F32, heads: int) -> F32:
    """Finite, and no head's largest value so extreme that squares of squares leave float32; contiguous, row by row or
    column by column, so that heads are views of it."""
    if not (x.flags.writeable and x.flags.forc):
        x = x.copy()
    if x.flags.c_contiguous:
        top = np.array(_core.peaks(x, heads), np.float32)
    else:
        top = np.maximum(x.max(axis=1), -x.min(axis=1)).reshape(heads, -1).max(axis=1)
    if not np.isfinite(top).all():
        return _tame(finite(x), heads)
    if np.all((top == 0) | ((top > _EXTREME[0]) & (top < _EXTREME[1]))):
        return x
    out: F32 = x / np.repeat(np.where(top > 0, top, np.float32(1)), len(x) // heads)[:, None]
    return out


class Sketch:
    """Turns heads into vectors whose inner products are those of their products. ``dims`` ≥ channels: exact.

    ``orders``: of channels; a head is also turned into what it would be with its channels in each of them.
    """

    def __init__(self, channels: int, dims: int, seed: int, orders: Sequence[Indices] = ()) -> None:
        rng = np.random.default_rng([seed, channels, 11])
        if channels <= dims:
            left = right = np.eye(channels, dtype=np.float32)
        else:
            left, right = (
                rng.standard_normal((channels, dims), dtype=np.float32) / np.float32(np.sqrt(dims)) for _ in range(2)
            )
        # Of the centred identity, whatever the order: what every head has of it is taken out.
        self.identity = product((left - left.mean(axis=0)).T, right - right.mean(axis=0))
        self.dims = left.shape[1]
        # Channels in another order are the same as the sketch's rows in another order: one product for all orders.
        self.left, self.right = (np.concatenate([x, *(x[order] for order in orders)], axis=1) for x in (left, right))

    def __call__(self, factors: Factors, copies: bool = True) -> F32:
        """Unit vectors (1 + orders, heads, dims²), zero for a dead head; without ``copies`` only (1, heads, dims²)."""
        dims, heads = self.dims, len(factors.left)
        total, away = self.left.shape[1] // dims if copies else 1, factors.trace[:, None, None] * self.identity
        out = np.empty((total, heads, dims * dims), np.float32)
        together = max(1, _HELD // (factors.left[:, :, 0].size * dims))
        for first in range(0, total, together):
            some = slice(first * dims, min(first + together, total) * dims)
            left, right = product(factors.left, self.left[:, some]), product(factors.right, self.right[:, some])
            right = right[factors.of] if len(right) < heads else right
            for copy, at in zip(out[first : first + together], range(0, left.shape[2], dims), strict=True):
                here = slice(at, at + dims)
                x = product(left[:, :, here].transpose(0, 2, 1), right[:, :, here])
                x -= away
                x = x.reshape(heads, -1)
                norm = np.sqrt(np.einsum("hx,hx->h", x, x))[:, None]
                np.multiply(x, np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), 0), out=copy)
        return out


def overlaps(x: F32, y: F32) -> F64:
    """Mean squared cosine of the principal angles of pairs of row spaces, 1 for the same space: (pairs, rows, channels)
    each. With X'X = G, it is tr(G_x^-1 X'Y G_y^-1 Y'X) over the smaller number of rows."""
    wide, other = x.astype(np.float64), y.astype(np.float64)
    across = product(wide, other.transpose(0, 2, 1))
    turned = across.transpose(0, 2, 1)
    found: F64 = np.einsum("nij,nji->n", solve(_gram(wide), across), solve(_gram(other), turned)) / min(
        x.shape[1], y.shape[1]
    )
    return found


def _gram(x: F64) -> F64:
    """Inner products of rows, (pairs, rows, rows), with so much of the identity that rows may depend on each other."""
    gram: F64 = product(x, x.transpose(0, 2, 1))
    sizes = np.trace(gram, axis1=1, axis2=2) / x.shape[1]
    gram += np.where(sizes > 0, _RIDGE * sizes, 1)[:, None, None] * np.eye(x.shape[1])
    return gram
