"""Training: next-byte cross-entropy, AdamW, a warm-up and a cosine, and nothing else.

AdamW (arXiv 1711.05101), step t, gradient g clipped to norm 1:

    m ← β₁m + (1−β₁)g     v ← β₂v + (1−β₂)g²     w ← w − η_t (m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε) + λw)

with λ only on matrices: decaying a gain towards zero would be a different model. A run is a function of its recipe
and its starting weights, so the same recipe gives the same model on the same machine and JAX version.
"""

import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..zoo import data
from .model import Params

BETA1, BETA2, EPS, DECAY = 0.9, 0.95, 1e-8, 0.1
BALANCE = 0.01
State = tuple[Params, Params, Params]


@dataclass(frozen=True)
class Recipe:
    """One run. Tokens seen = steps · rows · context."""

    text: str
    steps: int
    batch_seed: int
    rate: float = 4e-3
    warmup: int = 50
    rows: int = 16
    context: int = 128

    @property
    def tokens(self) -> int:
        return self.steps * self.rows * self.context


class Model(Protocol):
    """A model's shape, hashable, with its forward pass."""

    def forward(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """tokens (batch, time) → logits (batch, time, vocabulary) and a term to be kept small, 0 if there is none."""
        ...


def train(params: Params, config: Model, recipe: Recipe, label: str = "") -> Params:
    """Train `params` for `recipe.steps`; the input is left as it was. Progress goes to stderr."""
    text = data.load(recipe.text)
    rng = np.random.default_rng(recipe.batch_seed)
    zeros = {name: jnp.zeros_like(value) for name, value in params.items()}
    copy = {name: jnp.array(value) for name, value in params.items()}  # the step below gives its inputs away
    state: State = (copy, zeros, {name: jnp.zeros_like(value) for name, value in params.items()})
    began = time.monotonic()
    for step in range(recipe.steps):
        rows = data.batches(text.train, rng, recipe.rows, recipe.context)
        state, bits = _step(config, state, jnp.asarray(rows, jnp.int32), _rate(recipe, step), step + 1)
        if step % 100 == 99 or step + 1 == recipe.steps:
            spent = time.monotonic() - began
            print(f"{label:>16} step {step + 1:5d}  {float(bits):.3f} bits/byte  {spent:5.0f} s", file=sys.stderr)
    return state[0]


def evaluate(params: Params, config: Model, text_name: str, rows: int = 256, context: int = 128) -> float:
    """Bits per byte on `rows` windows of the held-out text, always the same windows."""
    text = data.load(text_name)
    windows = data.batches(text.held_out, np.random.default_rng(0), rows, context)
    return float(_bits(params, config, jnp.asarray(windows, jnp.int32))[0])


def _rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@partial(jax.jit, static_argnums=1)
def _bits(params: Params, config: Model, windows: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, imbalance = config.forward(params, windows[:, :-1])
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), windows[:, 1:, None], axis=-1)
    return -chosen.mean() / math.log(2), imbalance


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(config: Model, state: State, windows: jax.Array, rate: float, t: int) -> tuple[State, jax.Array]:
    params, first, second = state

    def objective(p: Params) -> tuple[jax.Array, jax.Array]:
        bits, imbalance = _bits(p, config, windows)
        return bits * math.log(2) + BALANCE * imbalance, bits

    grads, bits = jax.grad(objective, has_aux=True)(params)
    size = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
    scale = jnp.minimum(1.0, 1.0 / (size + 1e-12))
    new: State = ({}, {}, {})
    for name, w in params.items():
        g = grads[name] * scale
        m = BETA1 * first[name] + (1 - BETA1) * g
        v = BETA2 * second[name] + (1 - BETA2) * g * g
        towards = (m / (1 - BETA1**t)) / (jnp.sqrt(v / (1 - BETA2**t)) + EPS)
        new[0][name] = w - rate * (towards + (DECAY * w if w.ndim > 1 else 0.0))
        new[1][name], new[2][name] = m, v
    return new, bits
