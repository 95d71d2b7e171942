"""A GPT-2 decoder in a page of JAX, trained by the same loop.

``python -m benches.lineage.demo_trainer.gpt2 OUTPUT.safetensors``

For tests that need trained weights of the other kind: learned positions, LayerNorm with offsets, biases everywhere,
q|k|v in one matrix, linear layers stored (in x out) as GPT-2's Conv1D, the head tied to the embedding. A block is

    x + O·attention(Q n, K n, V n)      n = LayerNorm₁(x)
    x + down·gelu(up·n)                 n = LayerNorm₂(x)

tests/anatomy/models/gpt2.safetensors is what this writes, on 1,500 steps of the library's modules, rounded to bfloat16,
and gpt2-ffn3.safetensors what it writes with --seed 31 --ffn 144.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from . import train
from .model import Params


@dataclass(frozen=True)
class Config:
    """The shape of a decoder."""

    hidden: int = 48
    layers: int = 4
    heads: int = 4
    ffn: int = 192
    vocabulary: int = 256
    positions: int = 128

    def forward(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits, and 0: see :func:`forward`."""
        return forward(params, self, tokens)


def init(config: Config, seed: int) -> Params:
    """Gains one, offsets and biases zero, matrices normal with sd 1/√in, those that write scaled by 1/√(2·layers)."""
    keys = iter(jax.random.split(jax.random.key(seed), 200))
    d, h = config.hidden, config.ffn
    writes = (2 * config.layers) ** -0.5

    def normal(rows: int, columns: int, sd: float) -> jax.Array:
        return sd * jax.random.normal(next(keys), (rows, columns))

    params: Params = {
        "wte.weight": normal(config.vocabulary, d, 0.02),
        "wpe.weight": normal(config.positions, d, 0.01),
    }
    for layer in range(config.layers):
        block = f"h.{layer}"
        params |= {f"{block}.ln_1.weight": jnp.ones(d), f"{block}.ln_1.bias": jnp.zeros(d)}
        params[f"{block}.attn.c_attn.weight"] = normal(d, 3 * d, d**-0.5)
        params[f"{block}.attn.c_attn.bias"] = jnp.zeros(3 * d)
        params[f"{block}.attn.c_proj.weight"] = normal(d, d, writes * d**-0.5)
        params[f"{block}.attn.c_proj.bias"] = jnp.zeros(d)
        params |= {f"{block}.ln_2.weight": jnp.ones(d), f"{block}.ln_2.bias": jnp.zeros(d)}
        params[f"{block}.mlp.c_fc.weight"] = normal(d, h, d**-0.5)
        params[f"{block}.mlp.c_fc.bias"] = jnp.zeros(h)
        params[f"{block}.mlp.c_proj.weight"] = normal(h, d, writes * h**-0.5)
        params[f"{block}.mlp.c_proj.bias"] = jnp.zeros(d)
    return params | {"ln_f.weight": jnp.ones(d), "ln_f.bias": jnp.zeros(d)}


def forward(params: Params, config: Config, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tokens (batch, time) → logits (batch, time, vocabulary), and 0 where a Mixture of Experts has its imbalance."""
    time = tokens.shape[1]
    x = params["wte.weight"][tokens] + params["wpe.weight"][:time]
    for layer in range(config.layers):
        block = f"h.{layer}"
        x = x + _attention(params, config, f"{block}.attn", _norm(params, f"{block}.ln_1", x))
        n = _norm(params, f"{block}.ln_2", x)
        x = x + _linear(params, f"{block}.mlp.c_proj", jax.nn.gelu(_linear(params, f"{block}.mlp.c_fc", n)))
    return _norm(params, "ln_f", x) @ params["wte.weight"].T, jnp.zeros(())


def _linear(params: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"]


def _norm(params: Params, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * params[f"{name}.weight"] + params[f"{name}.bias"]


def _attention(params: Params, config: Config, name: str, n: jax.Array) -> jax.Array:
    rows, time, d = n.shape
    fused = _linear(params, f"{name}.c_attn", n)
    q, k, v = (y.reshape(rows, time, config.heads, -1).swapaxes(1, 2) for y in jnp.split(fused, 3, axis=-1))
    scores = q @ k.swapaxes(-1, -2) * (d // config.heads) ** -0.5
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    return _linear(params, f"{name}.c_proj", (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(n.shape))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.lineage.demo_trainer.gpt2", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ffn", type=int, default=Config.ffn)
    args = parser.parse_args()
    from safetensors.flax import save_file

    config = Config(ffn=args.ffn)
    recipe = train.Recipe("modules", steps=1500, batch_seed=500 + args.seed, rate=3e-3)
    params = train.train(init(config, args.seed), config, recipe, label="gpt2")
    save_file({name: value.astype(jnp.bfloat16) for name, value in params.items()}, args.output)
    print(f"{sum(np.prod(value.shape) for value in params.values()):,} parameters", config)


if __name__ == "__main__":
    main()
