"""Disguises that compute the same function: permuted units, heads and channels, flipped signs, a rotated stream.

The residual stream is read and written by matrices only, so for any orthogonal Q

    E Qᵀ,  Q W  for every W that writes,  W diag(γ) Qᵀ diag(1/γ')  for every W that reads,  gains γ'

is the same model (SliceGPT, arXiv 2401.15024, section 3; RMSNorm commutes with Q). LayerNorm subtracts the mean as
well, so there Q must fix the vector of ones.
"""

from __future__ import annotations

import numpy as np

from .spelling import axes_of
from .work import ALL, GATED, Array, Index, Work, operation, partly_shuffled


@operation(forms=ALL, preserves=True, strengths=({"share": 1.0}, {"share": 0.5}, {"share": 0.1}))
def unit_permutation(work: Work, share: float = 1.0) -> None:
    """Reorder a share of the hidden units of every FFN and expert."""
    for ffn in work.ffns():
        order = partly_shuffled(work.rng, work.width(ffn), share)
        work.take("unit", order, under=ffn)
        work.units[ffn] = order


@operation(forms=ALL, preserves=True, strengths=({"share": 1.0}, {"share": 0.5}))
def head_permutation(work: Work, share: float = 1.0) -> None:
    """Reorder k/v heads, and the query heads inside each group."""
    queries, keys = [], []
    group = work.heads // work.kv_heads
    for i in range(work.depth):
        kv = partly_shuffled(work.rng, work.kv_heads, share)
        inside = [partly_shuffled(work.rng, group, share) for _ in kv]
        q = np.concatenate([k * group + order for k, order in zip(kv, inside, strict=True)])
        take_heads(work, i, q, kv, work.head_dim)
        queries.append(q)
        keys.append(kv)
    work.note(query_heads=[q.tolist() for q in queries], kv_heads=[k.tolist() for k in keys])


def take_heads(work: Work, layer: int, queries: Index, kv: Index, width: int) -> None:
    """Select query and k/v heads, `width` rows each, of one block."""
    at = f"model.layers.{layer}.self_attn"
    for axis, heads in (("query", queries), ("mixed", queries), ("key", kv), ("value", kv)):
        work.take(axis, (heads[:, None] * width + np.arange(width)).ravel(), under=at)


@operation(forms=ALL, preserves=True, strengths=({"share": 1.0}, {"share": 0.5}, {"share": 0.1}))
def channel_permutation(work: Work, share: float = 1.0) -> None:
    """Reorder the channels of the residual stream."""
    order = partly_shuffled(work.rng, work.hidden, share)
    work.take("channel", order)
    work.note(channels=order)


@operation(forms=GATED, preserves=True, strengths=({"share": 0.5}, {"share": 0.1}))
def sign_flips(work: Work, share: float = 0.5, channels: bool = True, units: bool = True) -> None:
    """Flip a share of the residual channels, and of the gated units (up and down together; the gate can't)."""
    _no_layernorm(work)
    if channels:
        signs = _signs(work, work.hidden, share)
        norms = {f"{norm}.weight" for norm in work.norms()}
        gains = {name: work.tensors.pop(name) for name in norms}
        work.scale("channel", signs)
        work.tensors |= gains
        work.note(channel_signs=signs.astype(int))
    if units:
        flipped = {}
        for ffn in work.ffns():
            signs = _signs(work, work.width(ffn), share)
            for part, factor in (("up", signs[:, None]), ("down", signs)):
                name = f"{ffn}.{part}_proj.weight"
                work.tensors[name] = work.tensors[name] * factor
            flipped[ffn] = np.flatnonzero(signs < 0).tolist()
        work.note(flipped_units=flipped)


def _signs(work: Work, n: int, share: float) -> Array:
    signs = np.ones(n, np.float32)
    signs[work.rng.choice(n, round(share * n), replace=False)] = -1
    return signs


@operation(forms=ALL, preserves=True, strengths=({}, {"gain_spread": 0.3}))
def rotation(work: Work, gain_spread: float = 0.0) -> None:
    """Turn the residual basis by a Haar matrix. Gains are absorbed; the new ones are one, or log-normal."""
    q = haar(work.rng, work.hidden)
    if work.layernorm:
        q = fixing_ones(q)
    work.untie()
    for norm, readers in work.norms().items():
        gain = work.gain(norm)
        new = np.exp(gain_spread * work.rng.standard_normal(work.hidden))
        for name in readers:
            x = work.tensors[name].astype(np.float64)
            work.tensors[name] = (((x * gain) @ q.T) / new).astype(np.float32)
        if f"{norm}.bias" in work.tensors:
            bias = work.tensors[f"{norm}.bias"].astype(np.float64)
            work.tensors[f"{norm}.bias"] = (new * (q @ (bias / gain))).astype(np.float32)
        work.set_gain(norm, new)
    read = {name for readers in work.norms().values() for name in readers}
    norms = tuple(f"{norm}." for norm in work.norms())
    for name, x in work.tensors.items():
        axes = axes_of(name)
        if "channel" not in axes or name in read or name.startswith(norms):
            continue
        wide = x.astype(np.float64)
        work.tensors[name] = (q @ wide if axes[0] == "channel" else wide @ q.T).astype(np.float32)


def haar(rng: np.random.Generator, n: int) -> Array:
    """An orthogonal n x n matrix, uniform: QR of a Gaussian with the signs of R's diagonal (arXiv math-ph/0609050)."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)))


def fixing_ones(q: Array) -> Array:
    """An orthogonal matrix that leaves the vector of ones alone: `q` corrected by the reflection that undoes it."""
    n = len(q)
    one = np.full(n, n**-0.5)
    v = q @ one - one
    return np.asarray(q - 2 * np.outer(v, v @ q) / (v @ v))


@operation(forms=ALL, preserves=True, strengths=({"spread": 0.3}, {"spread": 0.1}, {"spread": 1.0}))
def per_head_maps(work: Work, spread: float = 0.3) -> None:
    """Any invertible map between v and o of a k/v head; between q and k what the positions let through.

    With rotary positions q and k of pair i (rows i and i + width/2) may be turned by an angle and scaled against each
    other; without, any invertible map will do. Maps have log-normal singular values of this spread.
    """
    width, group = work.head_dim, work.heads // work.kv_heads
    for i in range(work.depth):
        for head in range(work.kv_heads):
            to_v = _invertible(work.rng, width, spread)
            to_k = _turns(work.rng, width, spread) if work.rope else _invertible(work.rng, width, spread)
            _map_rows(work, i, "v", head, to_v)
            _map_rows(work, i, "k", head, to_k)
            for q in range(head * group, (head + 1) * group):
                _map_rows(work, i, "q", q, np.linalg.inv(to_k).T)
                name, cut = f"model.layers.{i}.self_attn.o_proj.weight", slice(q * width, (q + 1) * width)
                x = work.tensors[name].copy()
                x[:, cut] = x[:, cut] @ np.linalg.inv(to_v)
                work.tensors[name] = x


def _map_rows(work: Work, layer: int, part: str, head: int, matrix: Array) -> None:
    for kind in ("weight", "bias"):
        name = f"model.layers.{layer}.self_attn.{part}_proj.{kind}"
        if name in work.tensors:
            x = work.tensors[name].copy()
            cut = slice(head * len(matrix), (head + 1) * len(matrix))
            x[cut] = matrix @ x[cut]
            work.tensors[name] = x


def _invertible(rng: np.random.Generator, n: int, spread: float) -> Array:
    return np.asarray(haar(rng, n) * np.exp(spread * rng.standard_normal(n)) @ haar(rng, n))


def _turns(rng: np.random.Generator, width: int, spread: float) -> Array:
    """Rotation and scale inside every rotary pair: commutes with RoPE (half-split convention)."""
    half = width // 2
    size = np.exp(spread * rng.standard_normal(half))
    angle = rng.uniform(0, 2 * np.pi, half)
    c, s = np.diag(size * np.cos(angle)), np.diag(size * np.sin(angle))
    return np.block([[c, -s], [s, c]])


@operation(forms=ALL, preserves=True, strengths=({"spread": 0.3}, {"spread": 0.1}, {"spread": 1.0}))
def scale_folding(work: Work, spread: float = 0.3, norms: bool = True, units: bool = True) -> None:
    """Move log-normal factors from norm gains into the matrices that read them, and from up- into down-projections."""
    for norm, readers in work.norms().items() if norms else ():
        if not readers:  # a tied head: the embedding is read raw as well
            continue
        factor = np.exp(spread * work.rng.standard_normal(work.hidden))
        work.set_gain(norm, work.gain(norm) * factor)
        if f"{norm}.bias" in work.tensors:
            work.tensors[f"{norm}.bias"] = (work.tensors[f"{norm}.bias"] * factor).astype(np.float32)
        for name in readers:
            work.tensors[name] = (work.tensors[name] / factor).astype(np.float32)
    for ffn in work.ffns() if units else ():
        if not work.gated(ffn):  # GELU is not homogeneous
            continue
        factor = np.exp(spread * work.rng.standard_normal(work.width(ffn)))
        up, down = f"{ffn}.up_proj.weight", f"{ffn}.down_proj.weight"
        work.tensors[up] = (work.tensors[up] * factor[:, None]).astype(np.float32)
        work.tensors[down] = (work.tensors[down] / factor).astype(np.float32)


def _no_layernorm(work: Work) -> None:
    if work.layernorm:
        raise ValueError("LayerNorm subtracts the mean: flipped channels would be another function")
