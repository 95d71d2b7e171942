"""Fingerprints of models that nobody has to write: drawn at the size of what is kept, on the headers of a shape.

A root is normal, with a few strong channels that all blocks share. A child is the root with noise of `noise` lengths;
a *permuted* one has other units by number, the same ones by content, and no sketch or inner product of an FFN left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import weightprint
from weightprint.anatomy.anatomy import Anatomy
from weightprint.fingerprint.fingerprint import STATISTICS, Fingerprint
from weightprint.fingerprint.layout import layout
from weightprint.fingerprint.live import outline
from weightprint.fingerprint.model import Tensor
from weightprint.fingerprint.parts import codes
from weightprint.fingerprint.plan import Plan

__all__ = ["drawn"]

F32 = np.ndarray


def drawn(folder: Path, sizes: Mapping[str, int], seed: int, kind: str = "root", noise: float = 0.0) -> Fingerprint:
    """A fingerprint of a model of these sizes (``layers width ffn heads kv_heads vocabulary``); its headers are written
    to `folder`, over a file that is one hole."""
    _headers(folder, sizes)
    plan = Plan()
    with weightprint.open(folder) as model:
        anatomy = Anatomy(model, values=False)
        side, _ = outline(anatomy, "a")
        at = {t.place: k for k, t in enumerate(side.tensors.values()) if t.place is not None}
        places = [t.place if t.rank2 else None for t in side.tensors.values()]
        norms = [None if place is None else anatomy.norm_before(place) for place in places]
        summary: dict[str, Any] = {
            "source": f"{kind} {seed}", "digest": f"{kind} {seed}", "files": [], "family": anatomy.family,
            "main_stack": anatomy.main_stack, "geometry": {s: g.to_dict() for s, g in anatomy.geometry.items()},
            "n_tensors": model.n_tensors, "n_parameters": anatomy.weights.n_parameters, "n_bytes": model.n_bytes,
            "version": weightprint.__version__,
        }  # fmt: skip
    tensors = {name: _measured(t, f"{kind} {seed} {noise}") for name, t in side.tensors.items()}
    rng, own = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    arrays: dict[str, np.ndarray] = {}
    slots = layout(side, plan, len(STATISTICS))
    for name, (_, shape) in slots.items():
        part, _, what = name.partition("/")
        if what.endswith("_scale") or part in ("gains", "statistics") or what.endswith(("by_number", "groups")):
            continue
        lost = kind == "permuted" and part in ("units", "angles")
        if what.endswith("/units"):
            h = sizes["ffn"]
            numbered = plan.numbered(h, plan.units // 2)
            left = np.setdiff1d(np.arange(h), numbered)
            orders = [each.permutation(left)[: shape[0] - numbered.size] for each in (rng, own)]
            arrays[name] = np.concatenate([numbered, orders[lost]]).astype(np.int32)
            continue
        x = rng.standard_normal(shape, dtype=np.float32) if part != "angles" else _angles(rng, sizes["width"])
        if lost:
            fresh = own.standard_normal(shape, dtype=np.float32) if part == "units" else _angles(own, sizes["width"])
            x = np.concatenate([fresh[: plan.units // 2], x[plan.units // 2 :]]) if part == "units" else fresh
        if shape[-1] == plan.channels and part != "angles":
            x[..., :3] *= 8
        if part == "vectors":
            x = 1 + np.float32(0.1) * x
        if noise:
            x = x + np.float32(noise * x.std()) * own.standard_normal(x.shape, dtype=np.float32)
        if f"{name}_scale" in slots:
            arrays[name], arrays[f"{name}_scale"] = codes(x)
        else:
            arrays[name] = x.astype(np.float16 if part in ("angles", "vectors") else np.float32)
    for name in slots:
        if name.endswith("/by_number"):
            arrays[name] = np.array([plan.units // 2], np.int32)
        if name.endswith("/groups"):
            arrays[name] = np.array([sizes["kv_heads"]], np.int32)
    arrays["gains"] = np.array([-1 if norm is None else at.get(norm, -1) for norm in norms], np.int32)
    told = [[0.0, t.std, t.std * t.numel**0.5, 5 * t.std, 0.0, 3.0, t.numel, 0, 0] for t in tensors.values()]
    arrays["statistics"] = np.array(told, np.float64)
    return Fingerprint(summary["source"], plan, summary, tensors, dict(sorted(arrays.items())))


def _measured(tensor: Tensor, of: str) -> Tensor:
    depth = tensor.layer or 0
    digest = f"{of} {tensor.name}"
    return replace(tensor, digest=digest, std=0.02 + 0.001 * depth, zeros=0, simple=False, sinusoidal=False)


def _angles(rng: np.random.Generator, width: int) -> F32:
    x = rng.standard_normal((128, width), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (x @ x.T)[np.triu_indices(128, 1)]


def _headers(folder: Path, s: Mapping[str, int]) -> None:
    if (folder / "config.json").exists():
        return
    head = s["width"] // s["heads"]
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [s["vocabulary"], s["width"]]}
    for i in range(s["layers"]):
        at = f"model.layers.{i}"
        for name, rows, columns in (
            ("self_attn.q_proj", s["width"], s["width"]), ("self_attn.k_proj", s["kv_heads"] * head, s["width"]),
            ("self_attn.v_proj", s["kv_heads"] * head, s["width"]), ("self_attn.o_proj", s["width"], s["width"]),
            ("mlp.gate_proj", s["ffn"], s["width"]), ("mlp.up_proj", s["ffn"], s["width"]),
            ("mlp.down_proj", s["width"], s["ffn"]),
        ):  # fmt: skip
            shapes[f"{at}.{name}.weight"] = [rows, columns]
        shapes[f"{at}.input_layernorm.weight"] = shapes[f"{at}.post_attention_layernorm.weight"] = [s["width"]]
    shapes |= {"model.norm.weight": [s["width"]], "lm_head.weight": [s["vocabulary"], s["width"]]}
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    config = {
        "model_type": "llama", "hidden_size": s["width"], "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"], "vocab_size": s["vocabulary"],
        "intermediate_size": s["ffn"], "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
