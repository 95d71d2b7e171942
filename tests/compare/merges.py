"""Small seeded models and the merges that are made of them, written in numpy, for the tests of recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Model = dict[str, np.ndarray[Any, Any]]

D, FFN, LAYERS, VOCABULARY = 32, 64, 6, 80
CONFIG = {"model_type": "llama", "hidden_size": D, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
          "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY}  # fmt: skip


def shapes(layers: int = LAYERS, vocabulary: int = VOCABULARY, d: int = D) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
    for n in range(layers):
        at = f"model.layers.{n}"
        found |= {f"{at}.self_attn.{r}_proj.weight": (d, d) for r in "qkvo"}
        found |= {f"{at}.mlp.{r}_proj.weight": (FFN, d) for r in ("gate", "up")}
        found |= {f"{at}.mlp.down_proj.weight": (d, FFN)}
        found |= {f"{at}.{norm}_layernorm.weight": (d,) for norm in ("input", "post_attention")}
    return found | {"model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}


def root(seed: int, **sizes: int) -> Model:
    """A model of its own."""
    rng = np.random.default_rng([seed, 1])
    return {
        name: (1 + 0.2 * rng.standard_normal(shape) if len(shape) == 1 else 0.1 * rng.standard_normal(shape)).astype(
            np.float32
        )
        for name, shape in shapes(**sizes).items()
    }


def tuned(model: Model, seed: int, size: float = 0.2) -> Model:
    """Trained on: every tensor moved by `size` of its spread, most entries by little and some by much."""
    rng = np.random.default_rng([seed, 2])
    return {
        name: (x + size * x.std() * rng.laplace(size=x.shape) / np.sqrt(2)).astype(np.float32)
        for name, x in model.items()
    }


def combined(models: Sequence[Model], combine: Callable[[str, list[np.ndarray[Any, Any]]], Any]) -> Model:
    return {n: np.asarray(combine(n, [m[n].astype(np.float64) for m in models]), np.float32) for n in models[0]}


def linear(models: Sequence[Model], weights: Sequence[float]) -> Model:
    return combined(models, lambda _, xs: sum(w * x for w, x in zip(weights, xs, strict=True)))


def layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if name.startswith("model.layers.") else None


def slerp(a: Model, b: Model, t: Callable[[int | None], float]) -> Model:
    def combine(name: str, xs: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        x, y = xs
        angle = np.arccos(np.vdot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))
        s = t(layer_of(name))
        if np.cos(angle) > 0.9995:
            return (1 - s) * x + s * y
        return (np.sin((1 - s) * angle) * x + np.sin(s * angle) * y) / np.sin(angle)

    return combined([a, b], combine)


def ties(base: Model, others: Sequence[Model], density: float, scale: float) -> Model:
    def combine(_: str, xs: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        deltas = np.stack([x - xs[0] for x in xs[1:]])
        for delta in deltas:
            flat = np.abs(delta).ravel()
            cut = np.sort(flat)[flat.size - round(density * flat.size)]
            delta[np.abs(delta) < cut] = 0
        agree = deltas * np.sign(deltas.sum(0)) > 0
        return xs[0] + scale * (deltas * agree).sum(0) / np.maximum(agree.sum(0), 1)

    return combined([base, *others], combine)


def dare(base: Model, others: Sequence[Model], drop: float, weights: Sequence[float], elect: bool = False) -> Model:
    rng = np.random.default_rng(5)

    def combine(_: str, xs: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        kept = np.stack(
            [w * (x - xs[0]) * (rng.random(x.shape) >= drop) / (1 - drop) for w, x in zip(weights, xs[1:], strict=True)]
        )
        if elect:
            kept = kept * (kept * np.sign(kept.sum(0)) > 0)
        return xs[0] + kept.sum(0)

    return combined([base, *others], combine)


def stacked(parts: Sequence[tuple[Model, Sequence[int]]]) -> Model:
    """Layers of several models one above the other; what stands outside is the first's."""
    made = {n: x for n, x in parts[0][0].items() if layer_of(n) is None}
    at = 0
    for model, layers in parts:
        for layer in layers:
            old, new = f"model.layers.{layer}.", f"model.layers.{at}."
            made |= {n.replace(old, new, 1): x for n, x in model.items() if n.startswith(old)}
            at += 1
    return made


def config_of(model: Mapping[str, Any]) -> dict[str, Any]:
    layers = {layer_of(n) for n in model} - {None}
    return {**CONFIG, "num_hidden_layers": len(layers)}
