"""A model of the zoo: its tensors, its config, and the truth about how it came to be. One folder each.

    NAME/model.safetensors   tensors under the names that the hub uses (Llama form unless the form is another)
    NAME/config.json         what a loader would expect beside them
    NAME/truth.json          parents, operations with parameters, maps; never read by weightprint

A folder is written under a temporary name and renamed when it is whole, so a killed build leaves no half model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]

DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}


@dataclass(frozen=True)
class Truth:
    """What is known of a model because we made it.

    Attributes:
        name: the model's name in the zoo.
        kind: ``root``, ``descendant``, ``shared_init`` (only a random initialisation in common with a root) or
            ``distilled`` (a student: no weights in common).
        form: llama, qwen2, gemma, gpt2, moe.
        roots: the independently initialised and trained models whose *weights* are in it; its own name for a root, a
            student and a shared initialisation.
        parents: the models it was made from, by name.
        operations: from the first parent to this model, in order: ``{"name": …, "parameters": {…}}``, names as in
            METHODS.md section 5, snake_case. A chain lists all steps.
        layer_map: parent name → [[layer here, layer there or None], …]; absent where all blocks are in place.
        expert_map: [[layer here, expert here, parent's layer, [unit numbers there] or None for all in order], …].
        unit_map: layer here (as text) → the parent's unit number of each hidden unit here, -1 for a new one.
        init_seed, batch_seed, text, tokens: of the last training run; ``tokens`` 0 where nothing was trained.
        total_tokens: tokens that its weights have seen since their random initialisation, along the first parents.
        bits, unigram_bits: bits per byte on held-out text, and the unigram entropy of that text.
    """

    name: str
    kind: str
    form: str
    roots: tuple[str, ...]
    parents: tuple[str, ...] = ()
    operations: tuple[Mapping[str, Any], ...] = ()
    layer_map: Mapping[str, list[list[int | None]]] = field(default_factory=dict)
    expert_map: list[list[Any]] = field(default_factory=list)
    unit_map: Mapping[str, list[int]] = field(default_factory=dict)
    init_seed: int | None = None
    batch_seed: int | None = None
    text: str | None = None
    tokens: int = 0
    total_tokens: int = 0
    bits: float | None = None
    unigram_bits: float | None = None


@dataclass(frozen=True)
class ZooModel:
    """A model in memory: arrays by name in the order they are saved, the config, and the truth."""

    tensors: Tensors
    config: Mapping[str, Any]
    truth: Truth


def save(folder: Path, model: ZooModel) -> Path:
    """Write a model's folder; an existing one is replaced when the new one is whole."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_safetensors(part / "model.safetensors", model.tensors)
    (part / "config.json").write_text(json.dumps(model.config, indent=1, sort_keys=True) + "\n")
    (part / "truth.json").write_text(json.dumps(asdict(model.truth), sort_keys=True) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    return folder


def write_safetensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file, the same bytes for the same arrays: the package's writer orders metadata anew each time."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, x in tensors.items():
        header[name] = {"dtype": _CODES[x.dtype], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in tensors.values():
            file.write(np.ascontiguousarray(x).tobytes())


def truth_of(folder: Path) -> Truth:
    """The truth beside a saved model."""
    return Truth(**json.loads((folder / "truth.json").read_text()))


def read_safetensors(path: Path) -> Tensors:
    """The tensors of one file; plain floats come back as float32, other types as they are stored."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors: Tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        x = np.frombuffer(data[start + begin : start + end].tobytes(), DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = x.astype(np.float32) if entry["dtype"] in ("BF16", "F16", "F32", "F64") else x
    return tensors


def load(folder: Path) -> ZooModel:
    """A saved model, as :func:`read_safetensors` gives its tensors."""
    config = json.loads((folder / "config.json").read_text())
    return ZooModel(read_safetensors(folder / "model.safetensors"), config, truth_of(folder))
