"""Pairs in which B is a stranger that holds one part of A and nothing else, with the true share: parts alone.

Both models are drawn independently, with what makes trained strangers look alike: heavy tails, a few larger channels,
directions that all blocks of one model read, units that write what they read. Then one part of A takes the place of
B's:

    attention   q, k, v, o of every layer            embedding    the token table
    ffn         gate, up, down of every layer        one_expert   one expert of four in every layer
    two_layers  two whole layers                     upcycled     one expert of four is A's dense FFN, in every layer
    one_layer   one whole layer                      shared_body  as upcycled, and all but the experts is A's too

and it is *copied*, *trained* on (correlation .8 with A's values) or *reordered* (trained, with B's hidden units and
key-value groups of heads in orders of their own). The share is of B's parameters; norms, which a stranger's could be
too, go with their layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..zoo.model_folder import Tensors, Truth, ZooModel

__all__ = ["HOW", "PARTS", "SHAPES", "Pair", "Shape", "pair", "pairs"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Sizes of both models; without a gate the names are Llama's less gate_proj."""

    width: int = 128
    units: int = 320
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    vocabulary: int = 300
    gated: bool = True


#: Eight tokens a channel, as the widest published models have. Trained tables of two tokens a channel alone can't be
#: told from a basis fitted to them and are inconclusive.
SHAPES = (
    Shape(64, 160, 6, 4, 4, 512),
    Shape(96, 256, 6, 8, 2, 768),
    Shape(128, 512, 4, 8, 8, 1024, gated=False),
    Shape(192, 384, 5, 6, 6, 1536),
    Shape(256, 640, 4, 8, 4, 2048),
)
PARTS = ("attention", "ffn", "two_layers", "one_layer", "embedding", "one_expert", "upcycled", "shared_body")
HOW = ("copied", "trained", "reordered")
_KEPT = 0.8
_EXPERTS = 4


@dataclass(frozen=True)
class Pair:
    """A, B that holds ``part`` of it, and the share of B's parameters that are A's."""

    part: str
    how: str
    a: ZooModel
    b: ZooModel
    share: float


def pairs(shapes: tuple[Shape, ...] = SHAPES, seeds: int = 1) -> Iterator[Pair]:
    """Every part, way and shape, this many times."""
    for seed in range(seeds):
        for shape in shapes:
            for part in PARTS:
                for how in HOW:
                    yield pair(part, shape, seed, how)


def pair(part: str, shape: Shape, seed: int, how: str = "copied") -> Pair:
    """One pair; the same arguments give the same values."""
    rng = np.random.default_rng([seed, PARTS.index(part), HOW.index(how), shape.width, 17])
    expert = int(rng.integers(_EXPERTS))
    layers = rng.choice(shape.layers, 2, replace=False)
    ours = _decoder(shape, rng, _EXPERTS if part == "one_expert" else 0)
    theirs = _decoder(shape, rng, _EXPERTS if part in ("one_expert", "upcycled", "shared_body") else 0)
    taken = [n for n in theirs if _taken(part, n, layers, expert)]
    for name in taken:
        x = ours[name.replace(f".experts.{expert}.", ".") if name not in ours or part != "one_expert" else name]
        noise = rng.standard_normal(x.shape) * x.std()
        theirs[name] = x if how == "copied" else _KEPT * x + np.sqrt(1 - _KEPT**2) * noise
    if how == "reordered":
        _reorder(theirs, shape, rng)
    share = sum(theirs[n].size for n in taken) / sum(x.size for x in theirs.values())
    a, b = (_made(label, x, shape) for label, x in (("a", ours), ("b", theirs)))
    return Pair(part, how, a, b, share)


def _taken(part: str, name: str, layers: NDArray[Any], expert: int) -> bool:
    """Whether this tensor of B is A's."""
    one = f".experts.{expert}."
    return {
        "attention": ".self_attn." in name,
        "ffn": ".mlp." in name,
        "two_layers": any(f".layers.{i}." in name for i in layers),
        "one_layer": f".layers.{layers[0]}." in name,
        "embedding": "embed_tokens" in name,
        "one_expert": one in name,
        "upcycled": one in name,
        "shared_body": one in name or ".mlp." not in name,
    }[part]


def _decoder(shape: Shape, rng: np.random.Generator, experts: int) -> dict[str, F64]:
    """A decoder of random weights under Llama's names, matrices (out, in)."""
    d, directions = shape.width, rng.standard_normal((4, shape.width))
    boost = np.ones(d)
    boost[rng.choice(d, 3, replace=False)] = 4

    def rows(n: int, strength: float = 0.5) -> F64:
        x = rng.standard_t(5, (n, d)) + strength * rng.standard_t(4, (n, 4)) @ directions / 2
        out: F64 = 0.02 * x * boost
        return out

    def ffn(at: str) -> dict[str, F64]:
        up = rows(shape.units)
        down = rows(shape.units) + 0.3 * up
        gate = {f"{at}gate_proj.weight": rows(shape.units)} if shape.gated else {}
        return gate | {f"{at}up_proj.weight": up, f"{at}down_proj.weight": down.T}

    out = {"model.embed_tokens.weight": rows(shape.vocabulary)}
    head = d // shape.heads
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        for name, n in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            out[f"{at}self_attn.{name}_proj.weight"] = rows(n * head)
        out[f"{at}self_attn.o_proj.weight"] = rows(d).T
        for e in range(experts):
            out |= ffn(f"{at}mlp.experts.{e}.")
        out |= {f"{at}mlp.gate.weight": rows(experts)} if experts else ffn(f"{at}mlp.")
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"{at}{name}.weight"] = (0.5 + i / shape.layers) * (1 + 0.1 * rng.standard_normal(d))
    return out | {"model.norm.weight": 1 + 0.1 * rng.standard_normal(d), "lm_head.weight": rows(shape.vocabulary)}


def _reorder(tensors: dict[str, F64], shape: Shape, rng: np.random.Generator) -> None:
    """Hidden units of every FFN, and key-value groups of heads of every layer, in new orders; the function is kept."""
    head = shape.width // shape.heads
    for name in [n for n in tensors if n.endswith("up_proj.weight")]:
        at, order = name.removesuffix("up_proj.weight"), rng.permutation(shape.units)
        for part in ("gate_proj", "up_proj"):
            if (full := f"{at}{part}.weight") in tensors:
                tensors[full] = tensors[full][order]
        tensors[f"{at}down_proj.weight"] = tensors[f"{at}down_proj.weight"][:, order]
    for i in range(shape.layers):
        at, groups = f"model.layers.{i}.self_attn.", rng.permutation(shape.kv_heads)
        wide = (groups[:, None] * (shape.heads // shape.kv_heads) + np.arange(shape.heads // shape.kv_heads)).ravel()
        for part, order in (("q", wide), ("k", groups), ("v", groups)):
            tensors[f"{at}{part}_proj.weight"] = tensors[f"{at}{part}_proj.weight"][_rows(order, head)]
        tensors[f"{at}o_proj.weight"] = tensors[f"{at}o_proj.weight"][:, _rows(wide, head)]


def _rows(heads: NDArray[Any], size: int) -> NDArray[Any]:
    rows: NDArray[Any] = (heads[:, None] * size + np.arange(size)).ravel()
    return rows


def _made(label: str, tensors: Mapping[str, F64], shape: Shape) -> ZooModel:
    experts = sum(".experts." in n and n.endswith("up_proj.weight") for n in tensors) // shape.layers
    config: dict[str, Any] = {
        "model_type": "deepseek" if experts else "llama",
        "hidden_size": shape.width, "intermediate_size": shape.units, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    }  # fmt: skip
    if experts:
        config |= {"n_routed_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": shape.units}
    values: Tensors = {n: np.ascontiguousarray(x, np.float32) for n, x in tensors.items()}
    return ZooModel(values, config, Truth(name=label, kind="root", form="moe" if experts else "llama", roots=(label,)))
