"""Shared by all tests: a writer of safetensors that checks nothing, and numpy arrays as tensors of any dtype."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

# The tests' matrices are small: threads of BLAS would cost more than they give, here and in the processes started.
threadpool_limits(int(os.environ.setdefault("OMP_NUM_THREADS", "1")), "blas")

# A shell that runs the tests in the background has them ignore Ctrl-C, and so do all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

NUMPY_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I16": np.int16,
    "U16": np.uint16,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I32": np.int32,
    "U32": np.uint32,
    "F32": np.float32,
    "C64": np.complex64,
    "F64": np.float64,
    "I64": np.int64,
    "U64": np.uint64,
}
"""Every dtype of whole bytes, as numpy (with ml_dtypes) knows it."""

_F4 = np.dtype(ml_dtypes.float4_e2m1fn)  # numpy has a byte for each, the file half of one
_NAMES = {np.dtype(value): name for name, value in NUMPY_DTYPES.items()} | {_F4: "F4"}

Tensors = Mapping[str, np.ndarray[Any, Any]]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What carries ``slow_but_first`` is slow, but for the first of its parameters."""
    seen = set()
    for item in items:
        if item.get_closest_marker("slow_but_first"):
            test = item.nodeid.partition("[")[0]
            if test in seen:
                item.add_marker("slow")
            seen.add(test)


def encode(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file's bytes, tensors in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        if array.dtype == _F4:
            low, high = np.frombuffer(raw, np.uint8).reshape(-1, 2).T
            raw = (low | high << 4).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """``save(name, tensors, metadata=None)`` writes a file under `tmp_path` and returns its path."""

    def write(name: str, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(tensors, metadata))
        return path

    return write


@pytest.fixture
def save_sharded(save: Save) -> Callable[..., Path]:
    """``save_sharded(folder, shards, **changes)`` writes shards and their index; `changes` replaces index fields."""

    def write(
        folder: str,
        shards: Iterable[Tensors],
        total_size: int | None = None,
        weight_map: Any = None,
        stem: str = "model",
    ) -> Path:
        shards = list(shards)
        names = [f"{stem}-{k:05}-of-{len(shards):05}.safetensors" for k in range(1, len(shards) + 1)]
        paths = [save(f"{folder}/{name}", shard) for name, shard in zip(names, shards, strict=True)]
        size = sum(array.nbytes for shard in shards for array in shard.values())
        where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {
            "metadata": {"total_size": size if total_size is None else total_size},
            "weight_map": where if weight_map is None else {**where, **weight_map},
        }
        (paths[0].parent / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        return paths[0].parent

    return write


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``hub(repo, commit, files, main=True)`` lays files out as the hub cache does: links into ``blobs``."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))

    def add(repo: str, commit: str, files: Mapping[str, bytes], main: bool = True) -> Path:
        folder = cache / ("models--" + repo.replace("/", "--"))
        snapshot = folder / "snapshots" / commit
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        snapshot.mkdir(parents=True)
        for k, (name, data) in enumerate(files.items()):
            blob = folder / "blobs" / f"{commit}{k}"
            blob.write_bytes(data)
            os.symlink(Path("../../blobs") / blob.name, snapshot / name)
        if main:
            (folder / "refs" / "main").write_text(commit)
        return snapshot

    return add


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """The `encode` function, for tests that need a file's bytes."""
    return encode


@pytest.fixture
def numpy_dtypes() -> dict[str, Any]:
    """Name in the header → numpy dtype, for every dtype of whole bytes."""
    return NUMPY_DTYPES
