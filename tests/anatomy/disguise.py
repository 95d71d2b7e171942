"""Checkpoints for the tests of inference: trained ones in disguise, and made-up families with known roles.

A case is (tensors by name in file order, truth by name). Truth is (block, role, expert), roles joined by "+" where
they share a tensor; it is written down from the models' own names, never from the code under test.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Truth = tuple[int | None, str, int | None]
_DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}

LLAMA = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{role}_proj": role for role in "qkvo"},
    **{f"mlp.{role}_proj": role for role in ("gate", "up", "down")},
}
GPT2 = {
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "q+k+v",
    "attn.c_proj": "o",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
OUTSIDE = {
    "model.embed_tokens": "embedding",
    "lm_head": "head",
    "model.norm": "final_norm",
    "wte": "embedding",
    "wpe": "position",
    "ln_f": "final_norm",
}


@dataclass(frozen=True)
class Case:
    """A checkpoint in memory, and what is true about it."""

    tensors: Mapping[str, Array]
    truth: Mapping[str, Truth]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.tensors.items()}

    def read(self, name: str, rows: slice | None, columns: slice | None) -> Array:
        value = self.tensors[name]
        cut = value[rows or slice(None)] if value.ndim == 1 else value[rows or slice(None), columns or slice(None)]
        return np.asarray(cut, np.float32)


def load(path: Path) -> dict[str, Array]:
    """A safetensors file in data order, by an independent page of code."""
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = {k: v for k, v in json.loads(raw[8 : 8 + n]).items() if k != "__metadata__"}
    out = {}
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        a, b = info["data_offsets"]
        out[name] = np.frombuffer(raw[8 + n + a : 8 + n + b], _DTYPES[info["dtype"]]).reshape(info["shape"])
    return out


def true_role(name: str) -> Truth:
    """From a Llama's or GPT-2's own name."""
    module, kind = name.rsplit(".", 1)
    suffix = "_bias" if kind == "bias" else ""
    found = re.match(r"(?:model\.layers|h)\.(\d+)\.(.*)", module)
    if not found:
        return None, OUTSIDE[module] + suffix, None
    block, rest = int(found[1]), found[2]
    expert = re.match(r"mlp\.experts\.(\d+)\.(\w+)_proj", rest)
    if expert:
        return block, expert[2], int(expert[1])
    if rest == "mlp.gate":
        return block, "router", None
    role = (LLAMA if rest in LLAMA else GPT2)[rest]
    return block, "+".join(part + suffix for part in role.split("+")), None


def llama(name: str) -> Case:
    """A trained model out of the package: "parent", "stranger", "moe"."""
    tensors = load(Path(str(files("weightprint.demo") / "models" / name / "model.safetensors")))
    return Case(tensors, {n: true_role(n) for n in tensors})


def gpt2(name: str = "gpt2") -> Case:
    """A trained GPT-2 of four blocks (benches/lineage/demo_trainer/gpt2.py): "gpt2", or "gpt2-ffn3" with an FFN of 3 d.

    Nothing was chosen on the second.
    """
    tensors = load(Path(__file__).parent / "models" / f"{name}.safetensors")
    return Case(tensors, {n: true_role(n) for n in tensors})


def untrained(case: Case) -> Case:
    """The same with values drawn anew: gains one, offsets and biases zero, matrices normal."""
    rng = np.random.default_rng(0)

    def fresh(name: str, value: Array) -> Array:
        if value.ndim > 1:
            return rng.normal(0, 0.02, value.shape).astype(np.float32)
        return np.zeros(value.shape, np.float32) if name.endswith("bias") else np.ones(value.shape, np.float32)

    return Case({n: fresh(n, v) for n, v in case.tensors.items()}, case.truth)


def sort(case: Case) -> Case:
    """In order of the alphabet."""
    return Case({n: case.tensors[n] for n in sorted(case.tensors)}, case.truth)


def _random_word(rng: random.Random, letters: str, length: int) -> str:
    return "".join(rng.choice(letters) for _ in range(length))


def rename(case: Case, order: str, seed: int = 0) -> Case:
    """Names replaced by random strings. `order`: "kept", "shuffled", or "sorted" by the random names."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    items = [(_random_word(rng, letters, 12), value, case.truth[name]) for name, value in case.tensors.items()]
    if order == "shuffled":
        rng.shuffle(items)
    if order == "sorted":
        items.sort(key=lambda item: item[0])
    return Case({n: v for n, v, _ in items}, {n: t for n, _, t in items})


def respell(case: Case, seed: int = 0) -> Case:
    """Every word of the names replaced by a made-up one; numbers and dots stay, so blocks can be seen."""
    rng = random.Random(seed)
    words: dict[str, str] = {}
    tensors, truth = {}, {}
    for name, value in case.tensors.items():
        parts = [
            p if p.isdigit() else words.setdefault(p, _random_word(rng, "bcdfghjlmnprstwxyz", 5))
            for p in name.split(".")
        ]
        tensors[".".join(parts)] = value
        truth[".".join(parts)] = case.truth[name]
    return Case(tensors, truth)


def made(entries: Iterable[tuple[str, tuple[int, ...], Truth]], seed: int = 0) -> Case:
    """A case from (name, shape, truth) with random values: gains near one, everything else around zero."""
    rng = np.random.default_rng(seed)
    tensors, truth = {}, {}
    for name, shape, true in entries:
        gain = true[1].endswith("norm")
        tensors[name] = (rng.normal(1 if gain else 0, 0.1, shape)).astype(np.float32)
        truth[name] = true
    return Case(tensors, truth)


Builder = Callable[[], Case]
