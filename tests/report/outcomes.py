"""Pairs of every kind of outcome, made here: small, seeded, and with known truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import weightprint
from safetensors.numpy import save_file
from synthetic import child, decoder, mixture

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
DEMO = Path(weightprint.__file__).parent / "demo" / "models"


class Kind(NamedTuple):
    """How a pair is made (folder → A, B, further parents), its verdict, and what its screen must say."""

    make: Callable[[Path], Sequence[str]]
    verdict: str
    says: tuple[str, ...]


def saved(folder: Path, name: str, tensors: Arrays, config: Mapping[str, Any] | None = None) -> str:
    """A model's folder."""
    path = folder / name
    path.mkdir()
    save_file({n: np.ascontiguousarray(x) for n, x in tensors.items()}, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return str(path)


def pair(a: Arrays, b: Arrays, *others: Arrays) -> Callable[[Path], Sequence[str]]:
    """Models in memory, written."""
    return lambda f: [saved(f, name, x) for name, x in zip(("a", "b", "c"), (a, b, *others), strict=False)]


def merge() -> Callable[[Path], Sequence[str]]:
    a, c = decoder(0), decoder(1)
    return pair(a, {n: np.float32(0.6) * a[n] + np.float32(0.4) * c[n] for n in a}, c)


def pruned() -> Arrays:
    """Half of the weights of every matrix of a layer are zero."""
    out = dict(decoder(0))
    for name, x in out.items():
        if ".layers." in name and x.ndim == 2:
            out[name] = np.where(np.abs(x) < np.median(np.abs(x)), np.float32(0), x)
    return out


def dropped() -> Arrays:
    """Without layer 2."""
    out = {n: x for n, x in decoder(0, layers=6).items() if ".layers.2." not in n}
    number = {"3": "2", "4": "3", "5": "4"}
    parts = {n: n.split(".") for n in out if ".layers." in n}
    names = {n: ".".join([*p[:2], number.get(p[2], p[2]), *p[3:]]) for n, p in parts.items()}
    return {names.get(n, n): x for n, x in out.items()}


def rounded() -> Arrays:
    """To 15 levels per row."""
    out = dict(decoder(0))
    for name, x in out.items():
        if ".layers." in name and x.ndim == 2:
            step = np.abs(x).max(1, keepdims=True) / 7
            out[name] = (np.round(x / step) * step).astype(np.float32)
    return out


def permuted() -> Arrays:
    """The units of every FFN in another order."""
    out, rng = dict(decoder(0)), np.random.default_rng(5)
    for layer in range(4):
        order = rng.permutation(160)
        at = f"model.layers.{layer}.mlp."
        for role in ("gate_proj", "up_proj"):
            out[f"{at}{role}.weight"] = out[f"{at}{role}.weight"][order]
        out[f"{at}down_proj.weight"] = out[f"{at}down_proj.weight"][:, order]
    return out


def towers(seed: int) -> Arrays:
    """A vision tower and a language model; the tower is of `seed`."""
    out: dict[str, Array] = {f"language_model.{n}": x for n, x in decoder(0, h=192, layers=3).items()}
    names = {f"self_attn.{k}_proj": f"self_attn.{k}_proj" for k in "qkv"} | {
        "self_attn.o_proj": "self_attn.out_proj",
        "mlp.up_proj": "mlp.fc1",
        "mlp.down_proj": "mlp.fc2",
        "input_layernorm": "layer_norm1",
        "post_attention_layernorm": "layer_norm2",
    }
    for name, x in decoder(seed, d=96, h=256, layers=3).items():
        module = name.removesuffix(".weight").split(".", 3)[-1]
        if ".layers." in name and module in names:
            out[f"vision_tower.vision_model.encoder.layers.{name.split('.')[2]}.{names[module]}.weight"] = x
    return out


def unreadable() -> Arrays:
    """Matrices of the FFNs stored as words that no known scheme decodes."""
    out, rng = dict(decoder(0)), np.random.default_rng(6)
    for name in list(out):
        if ".mlp." in name:
            rows, columns = out.pop(name).shape
            at = name.removesuffix(".weight")
            out[f"{at}.packed_words"] = rng.integers(0, 2**31, (rows, columns // 8)).astype(np.int32)
    return out


def broken() -> Arrays:
    """A NaN and an Inf in one matrix of a fine-tune."""
    out = {n: x.copy() for n, x in child(decoder(0), 0.99).items()}
    name = next(n for n in out if "3.mlp.down" in n)
    out[name][2, 2:4] = np.nan, np.inf
    return out


def adapted(folder: Path) -> Sequence[str]:
    """A base, and the base with an adapter."""
    base, rng = decoder(0), np.random.default_rng(7)
    path, lora = saved(folder, "base", base), folder / "lora"
    lora.mkdir()
    factors = {}
    for layer in range(4):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        factors[f"{at}.lora_A.weight"] = rng.normal(0, 0.1, (4, 64)).astype(np.float32)
        factors[f"{at}.lora_B.weight"] = rng.normal(0, 0.1, (64, 4)).astype(np.float32)
    save_file(factors, lora / "adapter_model.safetensors")
    (lora / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return [path, f"{path}+{lora}"]


def half(x: Arrays) -> Arrays:
    return {n: v.astype(ml_dtypes.bfloat16) for n, v in x.items()}


def mixed() -> Arrays:
    """The first two layers of one model, the rest of another."""
    ours, theirs = decoder(0), decoder(1)
    return {n: (ours if ".layers.0." in n or ".layers.1." in n else theirs)[n] for n in ours}


KINDS: dict[str, Kind] = {
    "identical": Kind(pair(decoder(0), decoder(0)), "identical", ("IDENTICAL", "certain")),
    "re-encoded": Kind(pair(decoder(0), half(decoder(0))), "re_encoded", ("RE-ENCODED", "certain")),
    "fine-tune": Kind(
        lambda f: [str(DEMO / "parent"), str(DEMO / "finetune")], "shared_origin", ("trained further", "moved 8")
    ),
    "upcycled": Kind(
        pair(decoder(0), mixture(decoder(0), [[*range(160)]] * 4, fresh=0.2)), "shared_origin", ("mixture of experts",)
    ),
    "merge": Kind(merge(), "shared_origin", ("A linear mix: 0.600 a + 0.400 c",)),
    "pruned": Kind(pair(decoder(0), pruned()), "shared_origin", ("pruned", "zero")),
    "layer dropped": Kind(pair(decoder(0, layers=6), dropped()), "shared_origin", ("layer", "dropped")),
    "quantised": Kind(pair(decoder(0), rounded()), "shared_origin", ("quantised to 4 bits",)),
    "permuted": Kind(pair(decoder(0), permuted()), "shared_origin", ("another order",)),
    "partly shared": Kind(pair(decoder(0), mixed()), "partly_shared", ("layers 0", "not found")),
    "siblings": Kind(
        pair(child(decoder(0), 0.98, 1), child(decoder(0), 0.98, 2)), "shared_origin", ("Who first",)
    ),
    "adapter": Kind(adapted, "shared_origin", ("rank 4",)),
    "two stacks": Kind(pair(towers(1), towers(3)), "partly_shared", ("decoder: found", "vision: not A's")),
    "undecoded words": Kind(pair(decoder(0), unreadable()), "shared_origin", ("not read: 4 tensors of B",)),
    "NaN": Kind(pair(decoder(0), broken()), "shared_origin", ("B holds 1 NaN", "1 Inf")),
    "strangers": Kind(pair(decoder(0), decoder(1)), "no_evidence", ("NO EVIDENCE", "Looked for")),
    "other width": Kind(pair(decoder(0), decoder(4, d=96)), "inconclusive", ("To decide", "of its own width")),
}  # fmt: skip
