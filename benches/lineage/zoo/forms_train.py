"""Training of any form: next-token cross-entropy or a teacher's distribution, AdamW or SGD, all weights or LoRA.

AdamW (arXiv 1711.05101), step t, gradient g clipped to norm 1:

    m ← β₁m + (1−β₁)g     v ← β₂v + (1−β₂)g²     w ← w − η_t (m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε) + λw)

SGD with momentum: m ← .9 m + g, w ← w − η_t m. The decay λ is on matrices only. η_t rises over a warm-up and falls
along a cosine to a tenth. LoRA (arXiv 2106.09685) trains W + (α/r)·B·A for every matrix of a block's attention (and
FFN, if asked), A random, B zero, α = 2r, and is merged at the end. Distillation (arXiv 1503.02531) minimises
KL(teacher ‖ student).

Rates are in bits per byte whatever the vocabulary, so that models of different vocabularies can be compared.
A run is a function of its recipe and its starting weights; after `forms_runtime.prepare()` bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from . import data
from .forms import Shape, Stacked
from .forms_forward import Arrays, forward

BETA1, BETA2, EPS, DECAY, MOMENTUM = 0.9, 0.95, 1e-8, 0.1, 0.9
BALANCE = 0.01
CHUNK = 50  # steps between two lines of progress

Progress = Callable[[int, float], None]
State = tuple[Arrays, Arrays, Arrays]


@dataclass(frozen=True)
class Recipe:
    """One run. Tokens seen = steps · rows · context.

    Attributes:
        text: a text of `data.TEXTS`.
        optimiser: ``adamw`` or ``sgd`` (with momentum).
        vocabulary: how bytes become tokens, see `data.tokens`.
        lora: rank of the trained adapters, 0 to train all weights.
        lora_ffn: adapters on the FFN's matrices too, not only on q, k, v, o.
    """

    text: str
    steps: int
    batch_seed: int
    rate: float = 3e-3
    optimiser: str = "adamw"
    vocabulary: str = "bytes"
    lora: int = 0
    lora_ffn: bool = False
    warmup: int = 40
    rows: int = 4
    context: int = 64

    @property
    def tokens(self) -> int:
        return self.steps * self.rows * self.context


@dataclass(frozen=True)
class Teacher:
    """A trained model to learn from: its shape and stacked weights."""

    shape: Shape
    weights: Stacked


def train(
    weights: Stacked, s: Shape, recipe: Recipe, progress: Progress | None = None, teacher: Teacher | None = None
) -> Stacked:
    """Train stacked `weights` and return the result; `progress` is called with (steps done, bits per token)."""
    text = data.tokens(recipe.text, recipe.vocabulary)
    rng = np.random.default_rng(recipe.batch_seed)
    frozen = {role: jnp.asarray(x) for role, x in weights.items()}
    params = _adapters(weights, recipe) if recipe.lora else {role: jnp.array(x) for role, x in weights.items()}
    state: State = (
        params,
        {role: jnp.zeros_like(x) for role, x in params.items()},
        {role: jnp.zeros_like(x) for role, x in params.items()},
    )
    base = frozen if recipe.lora else {}
    taught = {role: jnp.asarray(x) for role, x in teacher.weights.items()} if teacher else {}
    how = (s, recipe.optimiser, recipe.lora, teacher.shape if teacher else None)
    for step in range(recipe.steps):
        rows = jnp.asarray(data.batches(text.train, rng, recipe.rows, recipe.context), jnp.int32)
        state, bits = _step(how, state, base, taught, rows, _rate(recipe, step), step + 1)
        if progress and (step % CHUNK == CHUNK - 1 or step + 1 == recipe.steps):
            progress(step + 1, float(bits))
    final = _merged(base, state[0]) if recipe.lora else state[0]
    return {role: np.asarray(x) for role, x in final.items()}


def evaluate(
    weights: Stacked, s: Shape, text_name: str, vocabulary: str = "bytes", rows: int = 128, context: int = 64
) -> float:
    """Bits per byte on `rows` windows of the held-out text, always the same windows."""
    text = data.tokens(text_name, vocabulary)
    windows = data.batches(text.held_out, np.random.default_rng(0), rows, context)
    params = {role: jnp.asarray(x) for role, x in weights.items()}
    return float(_bits(params, s, jnp.asarray(windows, jnp.int32))[0]) / text.bytes_per_token


def _rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


_ATTENTION, _FFN = ("q", "k", "v", "o"), ("gate", "up", "down")


def _adapters(weights: Stacked, recipe: Recipe) -> Arrays:
    rng = np.random.default_rng([recipe.batch_seed, recipe.lora])
    out: Arrays = {}
    for role in _ATTENTION + (_FFN if recipe.lora_ffn else ()):
        if (w := weights.get(f"block.{role}")) is not None:
            *lead, rows, columns = w.shape
            a = rng.standard_normal((*lead, recipe.lora, columns)) * columns**-0.5
            out[f"block.{role}.a"] = jnp.asarray(a, jnp.float32)
            out[f"block.{role}.b"] = jnp.zeros((*lead, rows, recipe.lora))
    return out


def _merged(base: Arrays, adapters: Arrays) -> Arrays:
    out = dict(base)
    for name, a in adapters.items():
        if name.endswith(".a"):
            role = name.removesuffix(".a")
            out[role] = out[role] + 2.0 * (adapters[f"{role}.b"] @ a)
    return out


@partial(jax.jit, static_argnums=1)
def _bits(params: Arrays, s: Shape, windows: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, imbalance = forward(params, s, windows[:, :-1])
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), windows[:, 1:, None], axis=-1)
    return -chosen.mean() / math.log(2), imbalance


@cache
def _decayed(role: str) -> bool:
    return not role.endswith(("norm", "_bias"))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    how: tuple[Shape, str, int, Shape | None],
    state: State,
    base: Arrays,
    taught: Arrays,
    windows: jax.Array,
    rate: float,
    t: int,
) -> tuple[State, jax.Array]:
    s, optimiser, rank, teacher = how
    params, first, second = state

    def objective(p: Arrays) -> tuple[jax.Array, jax.Array]:
        whole = _merged(base, p) if rank else p
        if teacher is None:
            bits, imbalance = _bits(whole, s, windows)
            return bits * math.log(2) + BALANCE * imbalance, bits
        wanted = jax.nn.softmax(forward(taught, teacher, windows[:, :-1])[0])
        logits, imbalance = forward(whole, s, windows[:, :-1])
        loss = -(wanted * jax.nn.log_softmax(logits)).sum(-1).mean()
        return loss + BALANCE * imbalance, loss / math.log(2)

    grads, bits = jax.grad(objective, has_aux=True)(params)
    size = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
    scale = jnp.minimum(1.0, 1.0 / (size + 1e-12))
    new: State = ({}, {}, {})
    for role, w in params.items():
        g = grads[role] * scale
        if optimiser == "adamw":
            m = BETA1 * first[role] + (1 - BETA1) * g
            v = BETA2 * second[role] + (1 - BETA2) * g * g
            towards = (m / (1 - BETA1**t)) / (jnp.sqrt(v / (1 - BETA2**t)) + EPS)
            towards = towards + (DECAY * w if _decayed(role) else 0.0)
        else:
            m, v = MOMENTUM * first[role] + g, second[role]
            towards = m
        new[0][role], new[1][role], new[2][role] = w - rate * towards, m, v
    return new, bits
