"""Synthetic decoders with the structure that makes strangers look alike, and the values a test is given.

Every model shares with every other: the trend of standard deviations over depth, heavy tails, and the *kinds* of
structure (a few outlier channels, rows that are correlated with each other). What differs is what training leaves
arbitrary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 and the small floats with numpy)
import numpy as np
import numpy.typing as npt
from weightprint.anatomy.infer.infer import infer
from weightprint.anatomy.match import match
from weightprint.anatomy.place import SURE
from weightprint.anatomy.roles import role_of
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.pairing import pair_tensors
from weightprint.fingerprint.model import ModelView, Tensor

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "int64": "I64",
}


def side(label: Any, arrays: Mapping[str, Array], config: Mapping[str, Any] | None = None) -> ModelView:
    """A model in memory, as the tests see one on disk; ``config`` as config.json beside it would say."""
    tensors: dict[str, Tensor] = {}
    shapes = {name: x.shape for name, x in arrays.items()}
    matched = match(shapes, config or {})
    found = (*matched.assignments, *infer(shapes, matched.unmatched, matched.assignments, None))
    places = {a.view.weight: a.place for a in found if a.view.whole and not a.tied and a.confidence >= SURE}
    for name, x in arrays.items():
        values = x.astype(np.float64)
        values = values[np.isfinite(values)]
        tensors[name] = Tensor(
            name=name,
            dtype=DTYPES[x.dtype.name],
            shape=x.shape,
            numel=x.size,
            nbytes=x.nbytes,
            digest=hashlib.blake2b(np.ascontiguousarray(x).tobytes()).hexdigest(),
            std=float(values.std()) if values.size else float("nan"),
            constant=bool(values.size == x.size > 0 and values.min() == values.max()),
            place=places.get(name),
        )
    flat = {name: np.ascontiguousarray(x).reshape(-1) for name, x in arrays.items()}

    def read(name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        return np.asarray(flat[name][start:stop], np.float32)

    by_place = {t.place: t for t in tensors.values() if t.place is not None}

    def gain(tensor: Tensor) -> npt.NDArray[np.float32] | None:
        if tensor.place is None:
            return None
        norms = (replace(tensor.place, role=n, expert=None) for n in role_of(tensor.place.role).norms)
        found = next((by_place[norm] for norm in norms if norm in by_place), None)
        return None if found is None else read(found.name, 0, found.numel)

    return ModelView(label, tensors, read, gain, matched.geometry)


def models(
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    seed: int = 0,
    effort: str = "standard",
    config: Mapping[str, Any] | None = None,
) -> ModelPair:
    """Two models in memory, paired; ``config`` stands beside both."""
    ours, theirs = side("a", a, config), side("b", b, config)
    pairs, log10_pairings = pair_tensors(ours, theirs)
    return ModelPair(ours, theirs, pairs, log10_pairings, seed, effort)


def decoder(seed: int, *, d: int = 64, h: int = 160, layers: int = 4, vocabulary: int = 200) -> Arrays:
    """A decoder of random weights with realistic structure, Hugging Face names, float32."""
    rng = np.random.default_rng([seed, 77])
    outliers = rng.choice(d, 3, replace=False)  # the same channels in all layers of one model

    def matrix(rows: int, columns: int, depth: float, axis: int) -> Array:
        x = rng.standard_t(4, (rows, columns))
        x += 0.7 * rng.standard_normal((rows, 2)) @ rng.standard_normal((2, columns))  # correlated rows
        x += 0.5 * np.abs(rng.standard_normal(columns))  # column means
        boost = np.ones(d)
        boost[outliers] = 8
        x = x * boost if axis == 1 else x * boost[:, None]
        return (0.02 * (1 + depth) * x).astype(np.float32)

    def gains(depth: float) -> Array:
        x = 0.4 + depth + 0.1 * rng.standard_normal(d)
        x[outliers] *= 4
        return x.astype(np.float32)

    out: Arrays = {"model.embed_tokens.weight": matrix(vocabulary, d, 0, 1)}
    for i in range(layers):
        depth, at = i / layers, f"model.layers.{i}."
        for part in "qkv":
            out[f"{at}self_attn.{part}_proj.weight"] = matrix(d, d, depth, 1)
        out[f"{at}self_attn.o_proj.weight"] = matrix(d, d, depth, 0)
        out[f"{at}mlp.gate_proj.weight"] = matrix(h, d, depth, 1)
        out[f"{at}mlp.up_proj.weight"] = matrix(h, d, depth, 1)
        out[f"{at}mlp.down_proj.weight"] = matrix(d, h, depth, 0)
        out[f"{at}input_layernorm.weight"] = gains(depth)
        out[f"{at}post_attention_layernorm.weight"] = gains(depth)
    out["model.norm.weight"] = gains(1)
    return out


def child(parent: Mapping[str, Array], rho: float, seed: int = 1) -> Arrays:
    """rho * parent + sqrt(1 - rho^2) * noise of the same spread, around the tensor's mean."""
    rng = np.random.default_rng([seed, 78])
    out: Arrays = {}
    for name, x in parent.items():
        noise = rng.standard_normal(x.shape) * x.std()
        out[name] = (x.mean() + rho * (x - x.mean()) + np.sqrt(1 - rho**2) * noise).astype(x.dtype)
    return out


def hidden(arrays: Mapping[str, Array], seed: int = 0, prefix: str = "t") -> Arrays:
    """The same tensors under names that say nothing, in an order that says nothing."""
    values = list(arrays.values())
    order = np.random.default_rng([seed, 79]).permutation(len(values))
    return {f"{prefix}{i}": values[j] for i, j in enumerate(order)}


def relayered(arrays: Mapping[str, Array], order: list[int], other: Mapping[str, Array] | None = None) -> Arrays:
    """The decoder whose layer i is layer ``order[i]`` of `arrays`; -1 - j stands for layer j of `other`."""
    out = {n: x for n, x in arrays.items() if ".layers." not in n}
    for i, j in enumerate(order):
        source = arrays if j >= 0 else (other or {})
        at = f"model.layers.{j if j >= 0 else -1 - j}."
        out |= {f"model.layers.{i}.{n[len(at) :]}": x for n, x in source.items() if n.startswith(at)}
    return out


def mixture(arrays: Mapping[str, Array], units: list[list[int]], fresh: float = 0.0, seed: int = 0) -> Arrays:
    """A Mixture of Experts from a decoder: expert e of every layer takes the units ``units[e]`` of its FFN, a share
    `fresh` of them drawn anew; and a random router."""
    rng = np.random.default_rng([seed, 80])
    out = {n: x for n, x in arrays.items() if ".mlp." not in n}
    for at in [n.removesuffix("up_proj.weight") for n in arrays if n.endswith("mlp.up_proj.weight")]:
        gate, up, down = (arrays[f"{at}{part}_proj.weight"] for part in ("gate", "up", "down"))
        for e, chosen in enumerate(units):
            new = rng.random(len(chosen)) < fresh
            parts = {"gate": gate[chosen].copy(), "up": up[chosen].copy(), "down": down[:, chosen].copy()}
            for part, x in parts.items():
                rows = x.T if part == "down" else x
                rows[new] = rng.standard_normal((int(new.sum()), rows.shape[1])) * x.std()
                out[f"{at}experts.{e}.{part}_proj.weight"] = x
        out[f"{at}gate.weight"] = (0.02 * rng.standard_normal((len(units), gate.shape[1]))).astype(np.float32)
    return out


def reordered_experts(arrays: Mapping[str, Array], order: list[int]) -> Arrays:
    """The Mixture of Experts whose expert e is expert ``order[e]`` of `arrays`, in every layer."""
    out = {n: x for n, x in arrays.items() if ".experts." not in n}
    for name, x in arrays.items():
        if ".experts." in name:
            head, _, rest = name.partition(".experts.")
            number, _, part = rest.partition(".")
            out |= {f"{head}.experts.{e}.{part}": x for e, j in enumerate(order) if j == int(number)}
    return out
