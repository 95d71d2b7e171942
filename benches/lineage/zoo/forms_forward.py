"""The forward pass of every form, over stacked weights (see :mod:`.forms`): one block, run over the layers by a scan.

    x ← x + O·attention(Q n, K n, V n)                   n = norm₁(x)
    x ← x + down(act(gate n) * up n)                     n = norm₂(x)      (without a gate: down act(up n))

In a Mixture of Experts the hidden units of expert e are multiplied by its share of the router's softmax over the best
experts (0 for the others), and one product with all down-projections side by side sums the experts. Computing every
expert is wasted work only in principle: at this size it is faster than sorting tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .forms import Shape

Arrays = dict[str, jax.Array]


def forward(params: Arrays, s: Shape, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tokens (batch, time) → logits (batch, time, vocabulary) and the router's imbalance (0 when dense; 1 is even)."""
    time = tokens.shape[1]
    x = params["embedding"][tokens]
    if s.scaled:
        x = x * s.hidden**0.5
    if not s.rotary:
        x = x + params["position"][:time]
    table = _rope_table(s, time)
    mask = jnp.where(jnp.tril(jnp.ones((time, time), bool)), 0.0, -1e30)

    def block(x: jax.Array, p: Arrays) -> tuple[jax.Array, jax.Array]:
        x = x + _attention(p, s, _norm(p, "attn_norm", s, x), table, mask)
        y, uneven = _ffn(p, s, _norm(p, "ffn_norm", s, x))
        return x + y, uneven

    blocks = {role.removeprefix("block."): value for role, value in params.items() if role.startswith("block.")}
    x, uneven = jax.lax.scan(block, x, blocks)
    x = _norm(params, "final_norm", s, x)
    return x @ params["embedding" if s.tied else "head"].T, uneven.mean()


def _norm(p: Arrays, role: str, s: Shape, x: jax.Array) -> jax.Array:
    gain = 1 + p[role] if s.norm == "rms1" else p[role]
    if s.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = gain * x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + s.eps)
    return x + p[f"{role}_bias"] if f"{role}_bias" in p else x


def _linear(p: Arrays, role: str, x: jax.Array) -> jax.Array:
    y = x @ p[role].T
    return y + p[f"{role}_bias"] if f"{role}_bias" in p else y


def _rope_table(s: Shape, time: int) -> tuple[jax.Array, jax.Array]:
    frequency = s.theta ** (-jnp.arange(0, s.head, 2) / s.head)
    angle = jnp.tile(jnp.arange(time)[:, None] * frequency, (1, 2))
    return jnp.cos(angle), jnp.sin(angle)


def _attention(p: Arrays, s: Shape, n: jax.Array, table: tuple[jax.Array, jax.Array], mask: jax.Array) -> jax.Array:
    rows, time, _ = n.shape
    cos, sin = table

    def heads(role: str, count: int) -> jax.Array:
        return _linear(p, role, n).reshape(rows, time, count, s.head).transpose(0, 2, 1, 3)

    def turned(x: jax.Array) -> jax.Array:
        first, second = jnp.split(x, 2, axis=-1)  # the half-split convention of the hub
        return x * cos + jnp.concatenate([-second, first], axis=-1) * sin

    q, k, v = heads("q", s.heads), heads("k", s.kv_heads), heads("v", s.kv_heads)
    if s.rotary:
        q, k = turned(q), turned(k)
    group = s.heads // s.kv_heads
    q = q.reshape(rows * s.kv_heads, group * time, s.head)  # the heads of a group read the same k and v
    k, v = (x.reshape(rows * s.kv_heads, time, s.head) for x in (k, v))
    scores = (q @ k.swapaxes(-1, -2)).reshape(-1, group, time, time) * s.head**-0.5 + mask
    mixed = jax.nn.softmax(scores).reshape(-1, group * time, time) @ v
    mixed = mixed.reshape(rows, s.heads, time, s.head).transpose(0, 2, 1, 3).reshape(rows, time, -1)
    return _linear(p, "o", mixed)


def _ffn(p: Arrays, s: Shape, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    act = jax.nn.silu if s.act == "silu" else jax.nn.gelu
    if not s.experts:
        y = act(_linear(p, "gate", n)) * _linear(p, "up", n) if s.gated else act(_linear(p, "up", n))
        return _linear(p, "down", y), jnp.zeros(())
    d = n.shape[-1]
    chance = jax.nn.softmax(n @ p["router"].T)
    best, who = jax.lax.top_k(chance, s.experts_used)
    chosen = jax.nn.one_hot(who, s.experts)  # (batch, time, used, experts)
    weight = jnp.einsum("btu,btue->bte", best / best.sum(-1, keepdims=True), chosen)
    y = act(n @ p["gate"].reshape(-1, d).T) * (n @ p["up"].reshape(-1, d).T)
    y = (y.reshape(*y.shape[:-1], s.experts, -1) * weight[..., None]).reshape(y.shape)
    # Switch Transformer's balance, arXiv 2101.03961: experts · Σ_e (share of tokens) · (mean probability); 1 when even.
    share = chosen.sum(2).mean((0, 1)) / s.experts_used
    return y @ p["down"].transpose(0, 2, 1).reshape(-1, d), s.experts * (share * chance.mean((0, 1))).sum()
