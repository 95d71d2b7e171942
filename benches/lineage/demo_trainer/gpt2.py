"""A GPT-2 decoder in a page of JAX: how tests/anatomy/models/gpt2*.safetensors were made, and an oracle of the zoo's.

``python -m benches.lineage.demo_trainer.gpt2 OUTPUT.safetensors``

Trained by the zoo's trainer from weights drawn here; :func:`forward` only serves tests/lineage, as that of
:mod:`.model` does. Learned positions, LayerNorm with offsets, biases everywhere, q|k|v in one matrix, linear layers
stored (in x out) as GPT-2's Conv1D, the head tied to the embedding. A block is

    x + O·attention(Q n, K n, V n)      n = LayerNorm₁(x)
    x + down·gelu(up·n)                 n = LayerNorm₂(x)

tests/anatomy/models/gpt2.safetensors is what this writes, but for rounding (an older loop wrote it): 1,500 steps on the
library's modules, rounded to bfloat16; gpt2-ffn3.safetensors is with --seed 31 --ffn 144.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ..zoo import forms
from ..zoo.forms import Shape
from ..zoo.forms_train import Recipe
from ..zoo.model_folder import write_safetensors
from .demo_models import trained
from .model import Params


def init(config: Shape, seed: int) -> Params:
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


def forward(params: Params, config: Shape, tokens: jax.Array) -> jax.Array:
    """tokens (batch, time) → logits (batch, time, vocabulary)."""
    time = tokens.shape[1]
    x = params["wte.weight"][tokens] + params["wpe.weight"][:time]
    for layer in range(config.layers):
        block = f"h.{layer}"
        x = x + _attention(params, config, f"{block}.attn", _norm(params, f"{block}.ln_1", x))
        n = _norm(params, f"{block}.ln_2", x)
        x = x + _linear(params, f"{block}.mlp.c_proj", jax.nn.gelu(_linear(params, f"{block}.mlp.c_fc", n)))
    return _norm(params, "ln_f", x) @ params["wte.weight"].T


def _linear(params: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"]


def _norm(params: Params, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * params[f"{name}.weight"] + params[f"{name}.bias"]


def _attention(params: Params, config: Shape, name: str, n: jax.Array) -> jax.Array:
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
    parser.add_argument("--ffn", type=int, default=192)
    args = parser.parse_args()
    shape = forms.shape("gpt2", hidden=48, layers=4, ffn=args.ffn)
    recipe = Recipe("modules", 1500, 500 + args.seed, 3e-3, warmup=50, rows=16, context=128)
    tensors = trained({name: np.asarray(x) for name, x in init(shape, args.seed).items()}, shape, recipe, "gpt2")
    write_safetensors(args.output, {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()})
    print(f"{sum(x.size for x in tensors.values()):,} parameters", shape)


if __name__ == "__main__":
    main()
