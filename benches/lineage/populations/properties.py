"""Independent models that share a *property*, and kin that carry it too: small, seeded, made in a moment.

Two models may have a sparsity pattern in common, a direction, one frozen embedding, an order that was fitted, or units
sorted by importance, without any trained weight in common. `STRANGERS` makes such pairs (none may be called related;
`frozen_embedding` may be called *partly shared*, with its embedding alone, and `INITIALISED` may be called a *shared
initialisation*), `KIN` pairs of a parent and its child that have the same property and must still be found.

Every body has what trained models have, drawn anew for each: units that load, heavy-tailed, on some strong directions
of their own stream, read and written alike; rows and channels of uneven size; larger channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from weightprint.util.assignment import assign

from ..zoo.model_folder import Truth, ZooModel, save

__all__ = ["INITIALISED", "KIN", "SHAPES", "STRANGERS", "Shape", "pair", "write"]

F32 = NDArray[np.float32]
Model = dict[str, F32]
Rng = np.random.Generator
HEADS = 4


@dataclass(frozen=True)
class Shape:
    """``directions``: strong ones of the stream, with loads of Student's t with ``tail`` degrees of freedom."""

    form: str
    width: int
    units: int
    blocks: int
    directions: int
    tail: int = 4
    vocabulary: int = 300


SHAPES = {
    "llama": Shape("llama", 96, 256, 4, 4),
    "llama-plain": Shape("llama", 128, 320, 3, 0),
    "llama-heavy": Shape("llama", 128, 256, 4, 8, tail=3),
    "bert": Shape("bert", 128, 384, 4, 6),
    "bert-plain": Shape("bert", 96, 256, 5, 0),
    "one-block": Shape("llama", 128, 384, 1, 4),
}

_NAMES = {
    "llama": {
        "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
    },
    "bert": {
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
        "o": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense",
    },
}  # fmt: skip
_BLOCK = {"llama": "model.layers.{}.{}.weight", "bert": "encoder.layer.{}.{}.weight"}
_EMBEDDING = {"llama": "model.embed_tokens.weight", "bert": "embeddings.word_embeddings.weight"}
_NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "bert": ("attention.output.LayerNorm", "output.LayerNorm"),
}


def _name(shape: Shape, block: int, role: str) -> str:
    return _BLOCK[shape.form].format(block, _NAMES[shape.form][role])


def _matrices(shape: Shape) -> list[str]:
    return [_name(shape, b, role) for b in range(shape.blocks) for role in _NAMES[shape.form]]


def body(rng: Rng, shape: Shape, embedding: F32 | None = None) -> Model:
    """A model of its own. ``embedding``: frozen, so that the stream's strong directions and what units do with single
    tokens (read one, write what follows) come from it."""
    d, h, normal = shape.width, shape.units, rng.standard_normal
    channels = np.exp(0.15 * normal(d))
    table = 0.5 * normal((shape.vocabulary, d)) * channels if embedding is None else embedding
    strong = np.linalg.qr(normal((d, d)))[0][: shape.directions]
    if embedding is not None:
        strong = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)[2][: max(shape.directions, 3)]
        channels = table.std(axis=0) / table.std()
    follows = np.random.default_rng(shape.vocabulary).permutation(shape.vocabulary)  # the language, common to all

    def rows(n: int, load: float = 1.0, unit: NDArray[np.float64] | None = None) -> F32:
        k = len(strong)
        loads = rng.standard_t(shape.tail, (n, k)) if unit is None else unit
        out = normal((n, d)) * np.exp(0.2 * normal((n, 1))) + load * 3.0 * loads @ strong
        return np.asarray(out * channels, np.float32)

    out: Model = {_EMBEDDING[shape.form]: np.asarray(table, np.float32)}
    for block in range(shape.blocks):
        size = 0.04 * (1 + block / shape.blocks)
        loads = rng.standard_t(shape.tail, (h, len(strong)))
        ffn = {"up": rows(h, unit=loads), "down": -rows(h, 0.7, loads)}
        if "gate" in _NAMES[shape.form]:
            ffn["gate"] = rows(h, unit=loads) * np.float32(0.9) + np.float32(0.2) * ffn["up"]
        if embedding is not None:
            words = rng.choice(shape.vocabulary, h)
            scale = np.float32(0.5 * np.sqrt(d) / np.linalg.norm(table, axis=1).mean())
            for role in ("up", "gate") if "gate" in ffn else ("up",):
                ffn[role] += scale * table[words]
            ffn["down"] += scale * table[follows[words]]
        for role, x in ({r: rows(d, 0.5) for r in "qkvo"} | ffn).items():
            out[_name(shape, block, role)] = np.float32(size) * (x.T if role in ("o", "down") else x)
        for norm in _NORMS[shape.form]:
            out[_BLOCK[shape.form].format(block, norm)] = np.asarray(1 + 0.1 * normal(d), np.float32)
            if shape.form == "bert":
                name = _BLOCK[shape.form].format(block, norm).replace(".weight", ".bias")
                out[name] = np.asarray(0.1 * normal(d), np.float32)
    if shape.form == "llama":
        out["model.norm.weight"] = np.asarray(1 + 0.1 * normal(d), np.float32)
        out["lm_head.weight"] = rows(shape.vocabulary) * np.float32(0.05)
        if embedding is not None:
            out["lm_head.weight"] += np.float32(0.1) * table[follows]
    return {name: np.ascontiguousarray(x, np.float32) for name, x in out.items()}


def child(rng: Rng, parent: Model, rho: float = 0.8) -> Model:
    """Trained on from a parent: matrices correlate with its own by about rho, zeros stay zero."""
    noise = np.sqrt(1 - rho**2)
    out = {}
    for name, x in parent.items():
        new = rng.standard_normal(x.shape) * x.std() if x.ndim == 2 else 0.02 * rng.standard_normal(x.shape)
        out[name] = np.asarray((rho * x + noise * new) * (x != 0) if x.ndim == 2 else x + new, np.float32)
    return out


# Sparse patterns, the same in both


def _mask(rng: Rng, shape: tuple[int, int], pattern: str) -> NDArray[np.bool_]:
    rows, columns = shape
    i, j = np.arange(rows)[:, None] * columns // rows, np.arange(columns)[None, :]
    if pattern == "2:4":
        return np.asarray(rng.random((rows, columns // 4, 4)).argsort(axis=2) < 2).reshape(rows, columns)
    if pattern == "band":
        return np.asarray(np.abs((i - j + columns // 2) % columns - columns // 2) < columns // 10)
    if pattern == "butterfly":  # positions whose numbers differ in one binary digit, or in none
        differ = i ^ j
        return np.asarray((differ & (differ - 1)) == 0)
    return np.asarray(rng.random(shape) > float(pattern))


def masked(model: Model, shape: Shape, seed: int, pattern: str) -> Model:
    """The block matrices under the mask of this seed."""
    rng = np.random.default_rng([seed, 4])
    masks = {name: _mask(rng, model[name].shape, pattern) for name in _matrices(shape)}
    return model | {name: np.where(mask, model[name], np.float32(0)) for name, mask in masks.items()}


# Something common that was added


def rank_1(model: Model, shape: Shape, seed: int, strength: float) -> Model:
    """The same rank-1 matrix on every block matrix of one shape, as large as the matrix itself times `strength`."""
    out = dict(model)
    for name in _matrices(shape):
        rows, columns = model[name].shape
        rng = np.random.default_rng([seed, rows, columns])
        u, v = rng.standard_normal((rows, 1)), rng.standard_normal((1, columns))
        out[name] = np.asarray(model[name] + strength * model[name].std() * u * v, np.float32)
    return out


def direction(model: Model, shape: Shape, seed: int, strength: float) -> Model:
    """One direction of the stream in every block matrix, loaded on by each row as that model pleases, mostly alike."""
    v = np.random.default_rng([seed, shape.width]).standard_normal(shape.width)
    rng = np.random.default_rng([seed, 5, int(1e6 * abs(float(model[_matrices(shape)[0]][0, 0])))])
    out = dict(model)
    for name in _matrices(shape):
        writes = name.endswith(tuple(f"{_NAMES[shape.form][role]}.weight" for role in ("o", "down")))
        x = model[name].T if writes else model[name]
        x = x + strength * x.std() * (0.7 + rng.standard_normal((len(x), 1))) * v
        out[name] = np.asarray(x.T if writes else x, np.float32)
    return out


# Orders and turns fitted to A


def _cosines(x: F32, y: F32) -> NDArray[np.float64]:
    x, y = (z - z.mean(axis=0) for z in (x, y))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return np.asarray(x @ y.T, np.float64)


def _reordered(model: Model, shape: Shape, block: int, role: str, order: NDArray[np.int64]) -> None:
    name = _name(shape, block, role)
    model[name] = model[name][:, order] if role in ("down", "o") else model[name][order]


def frame_units(a: Model, b: Model, shape: Shape) -> Model:
    """Git re-basin: B's hidden units in the order that suits A's best, by all that they read and write."""
    out = dict(b)
    roles = [r for r in ("gate", "up", "down") if r in _NAMES[shape.form]]
    for block in range(shape.blocks):
        vectors = [
            [m[_name(shape, block, r)].T if r == "down" else m[_name(shape, block, r)] for r in roles] for m in (a, b)
        ]
        order = assign(-np.sum([_cosines(x, y) for x, y in zip(*vectors, strict=True)], axis=0)).columns
        for role in roles:
            _reordered(out, shape, block, role, order)
    return out


def frame_heads(a: Model, b: Model, shape: Shape) -> Model:
    """Heads in the order that suits A's best, by their rows of q, k, v and columns of o."""
    out, size = dict(b), shape.width // HEADS
    for block in range(shape.blocks):
        flat = [
            np.concatenate(
                [
                    (m[_name(shape, block, r)].T if r == "o" else m[_name(shape, block, r)]).reshape(HEADS, -1)
                    for r in "qkvo"
                ],
                axis=1,
            )
            for m in (a, b)
        ]
        order = assign(-_cosines(*flat)).columns
        for role in "qkvo":
            _reordered(out, shape, block, role, (order[:, None] * size + np.arange(size)).ravel())
    return out


def _over_channels(model: Model, shape: Shape) -> list[tuple[str, bool]]:
    """Matrices with the stream on one axis, and whether that is the last."""
    writes = tuple(f"{_NAMES[shape.form][role]}.weight" for role in ("o", "down"))
    return [(name, not name.endswith(writes)) for name, x in model.items() if x.ndim == 2]


def _stacked(model: Model, shape: Shape) -> F32:
    parts = [(model[name] if last else model[name].T) for name, last in _over_channels(model, shape)]
    return np.concatenate([(x - x.mean(axis=0)) / x.std() for x in parts])


def frame_channels(a: Model, b: Model, shape: Shape) -> Model:
    """Residual channels in the order that suits A's best, over all matrices."""
    order = assign(-_cosines(_stacked(a, shape).T, _stacked(b, shape).T)).columns
    out = {name: x[..., order] if x.ndim == 1 else x for name, x in b.items()}
    return out | {n: b[n][:, order] if last else b[n][order] for n, last in _over_channels(b, shape)}


def frame_rotation(a: Model, b: Model, shape: Shape) -> Model:
    """B's stream turned onto A's (Procrustes over all matrices), gains folded in first."""
    u, _, v = np.linalg.svd(_stacked(b, shape).T @ _stacked(a, shape))
    turn = np.asarray(u @ v, np.float32)
    out = {name: np.ones_like(x) if x.ndim == 1 else x for name, x in b.items()}
    return out | {n: b[n] @ turn if last else turn.T @ b[n] for n, last in _over_channels(b, shape)}


def frame_all(a: Model, b: Model, shape: Shape) -> Model:
    """Channels, units and heads, in turn and once more."""
    for _ in range(2):
        b = frame_heads(a, frame_units(a, frame_channels(a, b, shape), shape), shape)
    return b


def frame_turned_units(a: Model, b: Model, shape: Shape) -> Model:
    """Turned onto A, then units in A's order, in turn."""
    for _ in range(2):
        b = frame_units(a, frame_rotation(a, b, shape), shape)
    return b


# Sorted by importance


def sorted_units(model: Model, shape: Shape) -> Model:
    """Units by the size of what they read and write, largest first, as nested and elastic models are released."""
    out = dict(model)
    roles = [r for r in ("gate", "up", "down") if r in _NAMES[shape.form]]
    for block in range(shape.blocks):
        parts = [model[_name(shape, block, r)] for r in roles]
        size = sum(np.linalg.norm(x, axis=0 if r == "down" else 1) for r, x in zip(roles, parts, strict=True))
        for role in roles:
            _reordered(out, shape, block, role, np.argsort(-np.asarray(size), kind="stable"))
    return out


def sorted_all(model: Model, shape: Shape) -> Model:
    """Units, heads and channels by size."""
    out, size = sorted_units(model, shape), shape.width // HEADS
    for block in range(shape.blocks):
        norms = np.linalg.norm(out[_name(shape, block, "q")].reshape(HEADS, -1), axis=1)
        order = (np.argsort(-norms)[:, None] * size + np.arange(size)).ravel()
        for role in "qkvo":
            _reordered(out, shape, block, role, order)
    order = np.argsort(-np.linalg.norm(_stacked(out, shape), axis=0), kind="stable")
    moved = {name: x[..., order] if x.ndim == 1 else x for name, x in out.items()}
    return moved | {n: out[n][:, order] if last else out[n][order] for n, last in _over_channels(out, shape)}


def nested(model: Model, shape: Shape) -> Model:
    """MatFormer-like: units, and channels, that every narrower model uses were trained more and are larger."""
    out = dict(model)
    h, d = shape.units, shape.width
    unit, channel = (np.asarray(np.select([np.arange(n) < n // 4, np.arange(n) < n // 2], [2.0, 1.4], 1.0), np.float32)
                     for n in (h, d))  # fmt: skip
    for name, last in _over_channels(model, shape):
        out[name] = model[name] * (channel if last else channel[:, None])
    for block in range(shape.blocks):
        for role in (r for r in ("gate", "up", "down") if r in _NAMES[shape.form]):
            name = _name(shape, block, role)
            out[name] = out[name] * (unit if role == "down" else unit[:, None])
    return out


# Structured initialisations


def initialised(model: Model, shape: Shape, seed: int, kind: str) -> Model:
    """Trained from a start with structure: v, o and the FFN near the identity, or orthogonal matrices of one seed."""
    out = dict(model)
    for k, name in enumerate(_matrices(shape)):
        rows, columns = model[name].shape
        if kind == "identity":
            start = np.eye(rows, columns) if ("q" not in name.split(".")[-2][:1]) else np.zeros((rows, columns))
        else:
            rng = np.random.default_rng([seed, k, 6])
            q = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))[0]
            start = q if rows >= columns else q.T
        size = 1.2 * np.linalg.norm(model[name]) / max(float(np.linalg.norm(start)), 1e-9)
        out[name] = np.asarray(model[name] + size * start, np.float32)
    return out


def _two(make: Callable[[Model, Shape, int], Model]) -> Callable[[Rng, Shape, int], tuple[Model, Model]]:
    return lambda rng, shape, seed: (make(body(rng, shape), shape, seed), make(body(rng, shape), shape, seed))


def _framed(frame: Callable[[Model, Model, Shape], Model]) -> Callable[[Rng, Shape, int], tuple[Model, Model]]:
    def make(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
        a, b = body(rng, shape), body(rng, shape)
        return a, frame(a, b, shape)

    return make


def _frozen(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
    table = body(rng, shape)[_EMBEDDING[shape.form]]
    return body(rng, shape, table), body(rng, shape, table)


def _tuned(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
    """One embedding, then trained further in both."""
    a, b = _frozen(rng, shape, seed)
    name = _EMBEDDING[shape.form]
    noise = rng.standard_normal(a[name].shape) * a[name].std()
    return a, b | {name: np.asarray(0.9 * b[name] + 0.436 * noise, np.float32)}


Maker = Callable[[Rng, Shape, int], tuple[Model, Model]]
_PATTERNS = {"80": "0.8", "90": "0.9", "95": "0.95", "2_4": "2:4", "band": "band", "butterfly": "butterfly"}


def _masker(pattern: str) -> Callable[[Model, Shape, int], Model]:
    return lambda model, shape, seed: masked(model, shape, seed, pattern)


STRANGERS: Mapping[str, Maker] = {
    **{f"mask_{name}": _two(_masker(pattern)) for name, pattern in _PATTERNS.items()},
    "rank_1": _two(lambda m, shape, seed: rank_1(m, shape, seed, 0.7)),
    "rank_1_strong": _two(lambda m, shape, seed: rank_1(m, shape, seed, 2.0)),
    "direction": _two(lambda m, shape, seed: direction(m, shape, seed, 1.0)),
    "frozen_embedding": _frozen,
    "tuned_embedding": _tuned,
    "framed_units": _framed(frame_units),
    "framed_heads": _framed(frame_heads),
    "framed_channels": _framed(frame_channels),
    "framed_rotation": _framed(frame_rotation),
    "framed_all": _framed(frame_all),
    "framed_turned_units": _framed(frame_turned_units),
    "sorted_units": _two(lambda m, shape, _: sorted_units(m, shape)),
    "sorted_all": _two(lambda m, shape, _: sorted_all(m, shape)),
    "nested": _two(lambda m, shape, _: nested(m, shape)),
}

INITIALISED: Mapping[str, Maker] = {
    "identity_init": _two(lambda m, shape, seed: initialised(m, shape, seed, "identity")),
    "orthogonal_seed": _two(lambda m, shape, seed: initialised(m, shape, seed, "orthogonal")),
}


def _kin(make: Callable[[Model, Shape, int], Model], rho: float = 0.8) -> Maker:
    def pair(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
        parent = make(body(rng, shape), shape, seed)
        return parent, child(rng, parent, rho)

    return pair


def _pruned_child(pattern: str) -> Maker:
    """Dense parent, pruned child."""

    def pair(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
        parent = body(rng, shape)
        return parent, masked(child(rng, parent, 0.9), shape, seed, pattern)

    return pair


def _siblings(pattern: str) -> Maker:
    """Two children of one parent, pruned by one mask."""

    def pair(rng: Rng, shape: Shape, seed: int) -> tuple[Model, Model]:
        parent = masked(body(rng, shape), shape, seed, pattern)
        return child(rng, parent, 0.9), child(rng, parent, 0.9)

    return pair


KIN: Mapping[str, Maker] = {
    **{f"mask_{name}": _kin(_masker(pattern)) for name, pattern in _PATTERNS.items()},
    **{f"mask_{name}_siblings": _siblings(_PATTERNS[name]) for name in ("80", "2_4")},
    **{f"pruned_{name}": _pruned_child(_PATTERNS[name]) for name in ("80", "2_4")},
    "rank_1": _kin(lambda m, shape, seed: rank_1(m, shape, seed, 0.7)),
    "rank_1_strong": _kin(lambda m, shape, seed: rank_1(m, shape, seed, 2.0)),
    "direction": _kin(lambda m, shape, seed: direction(m, shape, seed, 1.0)),
    "sorted_units": _kin(lambda m, shape, _: sorted_units(m, shape)),
    "sorted_all": _kin(lambda m, shape, _: sorted_all(m, shape)),
    "nested": _kin(lambda m, shape, _: nested(m, shape)),
    "plain": _kin(lambda m, shape, _: m),
    "plain_far": _kin(lambda m, shape, _: m, 0.5),
}


def pair(maker: Maker, shape: Shape, seed: int) -> tuple[Model, Model]:
    """A and B of one kind."""
    return maker(np.random.default_rng([seed, shape.width, shape.units]), shape, seed)


def write(folder: Path, model: Model, shape: Shape) -> Path:
    """Save a model as a user would have it."""
    config: dict[str, Any] = {
        "model_type": shape.form, "hidden_size": shape.width, "num_hidden_layers": shape.blocks,
        "num_attention_heads": HEADS, "intermediate_size": shape.units, "vocab_size": shape.vocabulary,
    }  # fmt: skip
    if shape.form == "llama":
        config |= {"num_key_value_heads": HEADS, "tie_word_embeddings": False, "rms_norm_eps": 1e-5}
    return save(folder, ZooModel(dict(model), config, Truth(folder.name, "root", shape.form, (folder.name,))))
