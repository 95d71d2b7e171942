"""Synthetic checkpoints with the tensor shapes of real models, in any size and dtype.

Shapes are those of Qwen2.5-0.5B (below 4 GB) and Llama-3-8B (from 4 GB); as many layers as the size asks for, never
fewer than one. A size too small for vocabulary and layers gets a smaller vocabulary, so that tests run in seconds.

Values are normal, as trained weights nearly are: the bit patterns that occur, and how often, decide what counting
costs. Drawing 4e9 normals would take minutes, so one pool of them is drawn, scaled by each tensor's own deviation,
rolled by its own offset, and repeated. FP8 tensors are scaled as quantised checkpoints are: the largest value lies near
the type's largest.

Files are streamed (memory: a few pools), written beside their final place and renamed, and kept for the next run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

POOL = 1 << 21
"""Values drawn once and repeated; 2 Mi f32 are 8 MiB."""
SHARD_BYTES = 5_000_000_000
"""What the hub's tools cut shards at."""
VERSION = 1
"""Raise it when the bytes change, so that old files are not taken for new ones."""


class Dtype(NamedTuple):
    """How one dtype is written."""

    name: str
    """In the header."""
    numpy: np.dtype[np.generic]
    scale: float
    """Factor on the values: 1, or what brings a weight of deviation 0.02 near the type's range."""
    largest: float
    """Values are clipped here, as quantisers do; infinite where nothing comes near the type's range."""


DTYPES = {
    "bf16": Dtype("BF16", np.dtype(ml_dtypes.bfloat16), 1.0, math.inf),
    "f16": Dtype("F16", np.dtype(np.float16), 1.0, math.inf),
    "f32": Dtype("F32", np.dtype(np.float32), 1.0, math.inf),
    "fp8": Dtype("F8_E4M3", np.dtype(ml_dtypes.float8_e4m3fn), 4000.0, 448.0),
}


@dataclass(frozen=True)
class Architecture:
    """What fixes the shapes of a decoder: sizes as in the model's config."""

    name: str
    hidden: int
    intermediate: int
    kv: int
    vocabulary: int
    biases: bool
    tied: bool


QWEN = Architecture("qwen2.5-0.5b", 896, 4864, 128, 151_936, biases=True, tied=True)
LLAMA = Architecture("llama-3-8b", 4096, 14_336, 1024, 128_256, biases=False, tied=False)
LLAMA_FROM = 4_000_000_000


class Tensor(NamedTuple):
    """One tensor to write."""

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)


def layer_tensors(arch: Architecture, layer: int) -> list[Tensor]:
    """The tensors of one decoder layer."""
    d, h, kv = arch.hidden, arch.intermediate, arch.kv
    matrices = {
        "self_attn.q_proj": (d, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, d),
        "mlp.gate_proj": (h, d),
        "mlp.up_proj": (h, d),
        "mlp.down_proj": (d, h),
    }
    shapes: dict[str, tuple[int, ...]] = {f"{k}.weight": v for k, v in matrices.items()}
    shapes |= {f"{norm}.weight": (d,) for norm in ("input_layernorm", "post_attention_layernorm")}
    if arch.biases:
        shapes |= {f"self_attn.{p}_proj.bias": (matrices[f"self_attn.{p}_proj"][0],) for p in "qkv"}
    return [Tensor(f"model.layers.{layer}.{name}", shape) for name, shape in shapes.items()]


def tensors_for(nbytes: int, itemsize: int) -> tuple[Architecture, list[Tensor]]:
    """The architecture and the tensors that come nearest to `nbytes` from below (or hold one layer)."""
    arch = LLAMA if nbytes >= LLAMA_FROM else QWEN
    layer = sum(t.numel for t in layer_tensors(arch, 0)) * itemsize
    row = arch.hidden * itemsize * (1 if arch.tied else 2)
    vocabulary = min(arch.vocabulary, max(1, int(nbytes * 0.6) // row))
    n_layers = max(1, (nbytes - vocabulary * row) // layer)
    # A vocabulary cut to fit takes up what the whole layers left over.
    vocabulary = max(1, min(arch.vocabulary, (nbytes - n_layers * layer) // row))
    tensors = [
        Tensor("model.embed_tokens.weight", (vocabulary, arch.hidden)),
        Tensor("model.norm.weight", (arch.hidden,)),
    ]
    if not arch.tied:
        tensors.append(Tensor("lm_head.weight", (vocabulary, arch.hidden)))
    for i in range(n_layers):
        tensors += layer_tensors(arch, i)
    return arch, sorted(tensors)


def cache_dir() -> Path:
    """Where checkpoints are kept: $WEIGHTPRINT_BENCH_DIR, or `.cache/bench` in the repository."""
    default = Path(__file__).resolve().parents[2] / ".cache" / "bench"
    return Path(os.environ.get("WEIGHTPRINT_BENCH_DIR", default))


def checkpoint(nbytes: int, dtype: str, cache: Path | None = None) -> Path:
    """The folder of the checkpoint of about `nbytes` in `dtype` (a key of `DTYPES`); written if it is not there.

    `cache` is where it is kept (default: `cache_dir()`).
    """
    kind = DTYPES[dtype]
    arch, tensors = tensors_for(nbytes, kind.numpy.itemsize)
    final = (cache or cache_dir()) / f"{arch.name}-{nbytes // 1_000_000}MB-{dtype}-v{VERSION}"
    if final.is_dir():
        return final
    unfinished = final.with_name(f".{final.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        write(unfinished, tensors, kind)
        unfinished.rename(final)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    return final


def shard_files(folder: Path) -> list[Path]:
    """The shards of a checkpoint written here, in order."""
    return sorted(folder.glob("*.safetensors"))


def write(folder: Path, tensors: list[Tensor], kind: Dtype) -> None:
    """Write `tensors` into `folder`, as one file or as shards with an index."""
    shards = list(cut(tensors, kind.numpy.itemsize))
    pool = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        weight_map |= {t.name: name for t in shard}
        with open(folder / name, "xb") as file:
            file.write(header(shard, kind))
            for tensor in shard:
                write_values(file, tensor, kind, pool)
    if len(shards) > 1:
        total = sum(t.numel for t in tensors) * kind.numpy.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def cut(tensors: list[Tensor], itemsize: int) -> Iterator[list[Tensor]]:
    """Shards of at most `SHARD_BYTES`, or of one tensor."""
    shard: list[Tensor] = []
    size = 0
    for tensor in tensors:
        nbytes = tensor.numel * itemsize
        if shard and size + nbytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += nbytes
    yield shard


def header(tensors: list[Tensor], kind: Dtype) -> bytes:
    """The length and the JSON header, padded so that the data starts at a multiple of eight."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + tensor.numel * kind.numpy.itemsize
        entries[tensor.name] = {"dtype": kind.name, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_values(file: BinaryIO, tensor: Tensor, kind: Dtype, pool: npt.NDArray[np.float32]) -> None:
    """Append the tensor's values: the pool, shifted, scaled and rolled by what the tensor's name says."""
    seed = zlib.crc32(tensor.name.encode())
    norm = tensor.name.endswith("norm.weight")
    deviation = 0.1 if norm else 0.015 + 0.01 * (seed % 997) / 997
    scaled = pool * np.float32(deviation) + np.float32(norm)
    scaled *= np.float32(kind.scale)
    if kind.largest < math.inf:
        np.clip(scaled, -kind.largest, kind.largest, out=scaled)
    values = np.roll(scaled.astype(kind.numpy), seed % POOL).view(np.uint8)
    left = tensor.numel * kind.numpy.itemsize
    while left > 0:
        left -= file.write(values[:left].data)
