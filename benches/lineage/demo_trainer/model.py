"""A Llama decoder in a page of JAX, dense or Mixture of Experts: how the demo's models begin, and an oracle.

The zoo's trainer (:mod:`..zoo.forms`) trains the demo's models, too, from the weights that :func:`init` and
:func:`upcycle` draw here: another generator would make other models than those in the package. :func:`forward` only
serves tests/lineage (test_forms.py, test_operations.py): a second forward pass, block by block, written another way.

The parameters are one flat dict, tensor name → array, with the names and the (out, in) shapes that Hugging Face
checkpoints use. A block is

    x + O·attention(RoPE(Q n), RoPE(K n), V n)      n = x / rms(x) * γ_input
    x + down(silu(gate n) * up n)                   n = x / rms(x) * γ_post_attention

and in the MoE form the second line is a sum over the two experts that the router W_r likes best, weighted by the
softmax of W_r n taken over those two (the dense FFN written once per expert, DeepSeek-MoE's tensor names). All experts
are computed and the unwanted ones multiplied by zero: at this size that is faster than sorting tokens.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from ..zoo.forms import Shape

Params = dict[str, jax.Array]


def ffn_prefixes(config: Shape, layer: int) -> list[str]:
    """Where the gate, up and down matrices of a block live: one place when dense, one per expert otherwise."""
    mlp = f"model.layers.{layer}.mlp"
    return [f"{mlp}.experts.{e}" for e in range(config.experts)] if config.experts else [mlp]


def shapes(config: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape, in the order of the computation."""
    d, kv = config.hidden, config.kv_heads * config.head
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, d)}
    for layer in range(config.layers):
        block = f"model.layers.{layer}"
        out[f"{block}.input_layernorm.weight"] = (d,)
        out[f"{block}.self_attn.q_proj.weight"] = (d, d)
        out[f"{block}.self_attn.k_proj.weight"] = (kv, d)
        out[f"{block}.self_attn.v_proj.weight"] = (kv, d)
        out[f"{block}.self_attn.o_proj.weight"] = (d, d)
        out[f"{block}.post_attention_layernorm.weight"] = (d,)
        if config.experts:
            out[f"{block}.mlp.gate.weight"] = (config.experts, d)
        for mlp in ffn_prefixes(config, layer):
            out[f"{mlp}.gate_proj.weight"] = (config.ffn, d)
            out[f"{mlp}.up_proj.weight"] = (config.ffn, d)
            out[f"{mlp}.down_proj.weight"] = (d, config.ffn)
    out["model.norm.weight"] = (d,)
    out["lm_head.weight"] = (config.vocabulary, d)
    return out


def init(config: Shape, seed: int) -> Params:
    """Gains one, matrices normal with sd 1/√in, the two that write to the stream scaled by 1/√(2·layers) as well."""
    names = shapes(config)
    keys = jax.random.split(jax.random.key(seed), len(names))
    params: Params = {}
    for key, (name, shape) in zip(keys, names.items(), strict=True):
        if len(shape) == 1:
            params[name] = jnp.ones(shape)
            continue
        sd = 0.02 if name == "model.embed_tokens.weight" else shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            sd *= (2 * config.layers) ** -0.5
        params[name] = sd * jax.random.normal(key, shape)
    return params


def upcycle(params: Params, dense: Shape, experts: int, fresh: float, seed: int) -> tuple[Params, Shape]:
    """Dense → MoE: every expert a copy of the FFN in which a random share `fresh` of the units is drawn anew.

    Redrawing units (with the sd of the matrix they replace) is how Drop-Upcycling lets experts grow apart, see
    arXiv 2502.19261. The router starts small and random.
    """
    config = replace(dense, form="moe", experts=experts)
    out = {name: value for name, value in params.items() if ".mlp." not in name}
    key = jax.random.key(seed)
    for layer in range(config.layers):
        key, sub = jax.random.split(key)
        out[f"model.layers.{layer}.mlp.gate.weight"] = 0.02 * jax.random.normal(sub, (experts, config.hidden))
        for mlp in ffn_prefixes(config, layer):
            key, sub = jax.random.split(key)
            keys = jax.random.split(sub, 4)
            redrawn = jax.random.permutation(keys[0], config.ffn) < round(fresh * config.ffn)
            for k, role in zip(keys[1:], ("gate_proj", "up_proj", "down_proj"), strict=True):
                old = params[f"model.layers.{layer}.mlp.{role}.weight"]
                new = old.std() * jax.random.normal(k, old.shape)
                mask = redrawn[None, :] if role == "down_proj" else redrawn[:, None]
                out[f"{mlp}.{role}.weight"] = jnp.where(mask, new, old)
    return {name: out[name] for name in shapes(config)}, config


def forward(params: Params, config: Shape, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tokens (batch, time) → logits (batch, time, vocabulary) and the router's imbalance (0 when dense; 1 is even)."""
    x = params["model.embed_tokens.weight"][tokens]
    cos, sin = _rope_table(config, tokens.shape[1])
    imbalance = jnp.zeros(())
    for layer in range(config.layers):
        block = f"model.layers.{layer}"
        x = x + _attention(params, config, block, _norm(params[f"{block}.input_layernorm.weight"], x, config), cos, sin)
        n = _norm(params[f"{block}.post_attention_layernorm.weight"], x, config)
        if config.experts:
            y, uneven = _experts(params, config, layer, n)
            imbalance = imbalance + uneven / config.layers
        else:
            y = _ffn(params, f"{block}.mlp", n)
        x = x + y
    return _norm(params["model.norm.weight"], x, config) @ params["lm_head.weight"].T, imbalance


def _norm(gain: jax.Array, x: jax.Array, config: Shape) -> jax.Array:
    return gain * x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.eps)


def _rope_table(config: Shape, time: int) -> tuple[jax.Array, jax.Array]:
    frequency = config.theta ** (-jnp.arange(0, config.head, 2) / config.head)
    angle = jnp.tile(jnp.arange(time)[:, None] * frequency, (1, 2))
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    first, second = jnp.split(x, 2, axis=-1)  # the half-split convention of Hugging Face's Llama
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def _attention(params: Params, config: Shape, block: str, n: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    def heads(role: str, count: int) -> jax.Array:
        y = n @ params[f"{block}.self_attn.{role}.weight"].T
        return y.reshape(*n.shape[:2], count, config.head).swapaxes(1, 2)

    q = _rotate(heads("q_proj", config.heads), cos, sin)
    k = _rotate(heads("k_proj", config.kv_heads), cos, sin)
    v = heads("v_proj", config.kv_heads)
    group = config.heads // config.kv_heads
    k, v = jnp.repeat(k, group, axis=1), jnp.repeat(v, group, axis=1)
    scores = q @ k.swapaxes(-1, -2) * config.head**-0.5
    time = n.shape[1]
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    mixed = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(n.shape)
    return mixed @ params[f"{block}.self_attn.o_proj.weight"].T


def _ffn(params: Params, mlp: str, n: jax.Array) -> jax.Array:
    gate = jax.nn.silu(n @ params[f"{mlp}.gate_proj.weight"].T)
    return (gate * (n @ params[f"{mlp}.up_proj.weight"].T)) @ params[f"{mlp}.down_proj.weight"].T


def _experts(params: Params, config: Shape, layer: int, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = jax.nn.softmax(n @ params[f"model.layers.{layer}.mlp.gate.weight"].T)
    best, who = jax.lax.top_k(p, config.experts_used)
    chosen = jax.nn.one_hot(who, config.experts)  # (batch, time, used, experts)
    weight = jnp.einsum("btu,btue->bte", best / best.sum(-1, keepdims=True), chosen)
    y = jnp.zeros_like(n)
    for expert, mlp in enumerate(ffn_prefixes(config, layer)):
        y = y + weight[..., expert, None] * _ffn(params, mlp, n)
    # Switch Transformer's balance, arXiv 2101.03961: experts · Σ_e (share of tokens) · (mean probability); 1 when even.
    share = chosen.sum(2).mean((0, 1)) / config.experts_used
    return y, config.experts * (share * p.mean((0, 1))).sum()
