"""GGUF files for the tests: well-formed ones by the package's own writer, hostile ones byte by byte."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gguf_files import write_gguf

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, {tensor: array or (bytes array, type)}, key=value…)`` by `gguf.GGUFWriter`."""

    def make(name: str, tensors: Mapping[str, Any], arch: str = "llama", **options: Any) -> Path:
        return write_gguf(tmp_path / name, tensors, arch, **options)

    return make


def string(text: str | bytes) -> bytes:
    """A length and the bytes."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    """One key-value pair."""
    return string(key) + struct.pack("<I", kind) + value


def tensor(name: str | bytes, sizes: list[int], kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    """One tensor's entry; sizes fastest axis first."""
    rank = len(sizes) if rank is None else rank
    return string(name) + struct.pack(f"<I{len(sizes)}QIQ", rank, *sizes, kind, offset)


def file_bytes(
    tensors: Sequence[bytes] = (),
    pairs: Sequence[bytes] = (),
    data: int = 0,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file: header, padding, `data` bytes."""
    counts = (len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data)


@pytest.fixture
def raw() -> dict[str, Callable[..., bytes]]:
    """The pieces above."""
    return {"string": string, "pair": pair, "tensor": tensor, "file": file_bytes}


def packed(values: np.ndarray[Any, Any], kind: str) -> tuple[np.ndarray[Any, Any], Any]:
    """Values quantised by the package, with their type, as `write` takes them."""
    number = gguf.GGMLQuantizationType[kind]
    return quants.quantize(values, number), number


@pytest.fixture
def pack() -> Callable[..., tuple[np.ndarray[Any, Any], Any]]:
    """The function above."""
    return packed
