"""Files that were changed at random, of each kind that weightprint reads; everything follows from a seed."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import weightprint
from safetensors.numpy import save, save_file
from weightprint.fingerprint.file import read, unpacked, write

Maker = Callable[[random.Random, Path], Path]

_DTYPES = (
    "F32",
    "F16",
    "BF16",
    "F64",
    "I8",
    "U8",
    "I32",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "C64",
    "X9",
    "",
    7,
)
_NUMBERS = (0, 1, -1, 2, 3, 7, 64, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, 10**30, 1.5, -0.0, 1e400, None, "8", [], True)
_NAMES = (
    "",
    ".",
    "..",
    "/",
    "weight",
    "a.weight",
    "model.layers.0.weight",
    "\x1b[31m",
    "\ud800",
    "é" * 200,
    "__metadata__",
)


def _tensors(rng: random.Random) -> dict[str, np.ndarray]:
    values = np.random.default_rng(rng.randrange(2**32))
    d, ffn = rng.choice(((8, 16), (16, 32)))
    found = {"model.embed_tokens.weight": (24, d), "model.norm.weight": (d,)}
    for i in range(2):
        at = f"model.layers.{i}."
        found |= {f"{at}self_attn.{p}_proj.weight": (d, d) for p in "qkvo"}
        found |= {f"{at}mlp.{p}_proj.weight": (ffn, d) for p in ("gate", "up")}
        found |= {f"{at}mlp.down_proj.weight": (d, ffn), f"{at}input_layernorm.weight": (d,)}
    return {name: values.standard_normal(shape).astype(np.float32) for name, shape in found.items()}


def _bytes_changed(rng: random.Random, content: bytes, within: int) -> bytes:
    """One to four changes, most of them among the first `within` bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(data), within)) if data and rng.random() < 0.8 else rng.randrange(len(data) + 1)
        some = rng.randbytes(rng.randint(1, 8))
        match rng.randrange(5):
            case 0:
                data[at : at + len(some)] = some
            case 1:
                data[at:at] = some
            case 2:
                del data[at : at + rng.randint(1, 64)]
            case 3:
                data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)]) if at < len(data) else b"\0"
            case _:
                del data[at:]
        if not data:
            break
    return bytes(data)


def _json_changed(rng: random.Random, value: object, depth: int = 0) -> object:
    """`value` with one place in it replaced, doubled or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9 - 0.1 * depth:
        out, key = dict(value), rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                del out[key]
            case 1:
                out[rng.choice(_NAMES)] = out.pop(key)
            case _:
                out[key] = _json_changed(rng, value[key], depth + 1)
        return out
    if isinstance(value, list) and value and rng.random() < 0.8:
        out, k = list(value), rng.randrange(len(value))
        out[k : k + 1] = rng.choice(([], [out[k], out[k]], [_json_changed(rng, out[k], depth + 1)]))
        return out
    return rng.choice((*_NUMBERS, *_DTYPES, *_NAMES, {}, {"a": [1]}))


def safetensors_bytes(rng: random.Random, at: Path) -> Path:
    path = at / "model.safetensors"
    content = save(_tensors(rng))
    path.write_bytes(_bytes_changed(rng, content, 8 + int.from_bytes(content[:8], "little")))
    return path


def safetensors_header(rng: random.Random, at: Path) -> Path:
    path = at / "model.safetensors"
    content = save(_tensors(rng), {"format": "pt"})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    for _ in range(rng.randint(1, 3)):
        header = _json_changed(rng, header)
    told = json.dumps(header).replace("Infinity", "1e400").encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + content[end:])
    return path


def gguf_bytes(rng: random.Random, at: Path) -> Path:
    path = at / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    for name, values in _tensors(rng).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.write_bytes(_bytes_changed(rng, path.read_bytes(), 1500))
    return path


def json_beside(rng: random.Random, at: Path) -> Path:
    """An index or a config that was changed, beside sound shards."""
    tensors = _tensors(rng)
    names, half = list(tensors), len(tensors) // 2
    files = {f"model-0000{k + 1}-of-00002.safetensors": names[k * half : (k + 1) * half or None] for k in range(2)}
    files["model-00002-of-00002.safetensors"] = names[half:]
    for file, kept in files.items():
        save_file({name: tensors[name] for name in kept}, at / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {n: file for file, kept in files.items() for n in kept}}
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [8, 8]}} if rng.random() < 0.5 else {}
    )
    told: dict[str, object] = {"model.safetensors.index.json": index, "config.json": config}
    changed = rng.choice(list(told))
    told[changed] = _json_changed(rng, told[changed])
    for file, value in told.items():
        text = json.dumps(value).replace("Infinity", "1e400").encode()
        (at / file).write_bytes(
            _bytes_changed(rng, text, len(text)) if file == changed and rng.random() < 0.3 else text
        )
    return at


_SIBLINGS = (
    "qweight", "qzeros", "scales", "g_idx", "weight_scale", "weight_scale_inv", "weight_scale_2", "input_scale",
    "weight_packed", "weight_shape", "weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4", "SCB",
    "biases", "weight_blocks", "weight_scales",
)  # fmt: skip
_KINDS = (np.int32, np.uint8, np.int8, np.float16, np.float32, np.uint32, np.int64)


def quantised_siblings(rng: random.Random, at: Path) -> Path:
    """Weights beside tensors that quantised ones have, of any type and shape."""
    values = np.random.default_rng(rng.randrange(2**32))
    tensors = _tensors(rng)
    for name in [name for name in tensors if name.endswith("_proj.weight") and rng.random() < 0.5]:
        if rng.random() < 0.7:
            tensors[name] = tensors[name].astype(rng.choice(_KINDS), casting="unsafe")
        if rng.random() < 0.3:
            del tensors[name]
        for end in rng.sample(_SIBLINGS, rng.randint(1, 4)):
            shape = [rng.choice((0, 1, 2, 4, 8, 16)) for _ in range(rng.randint(0, 3))]
            some = values.integers(0, 100, shape)
            tensors[f"{name.removesuffix('weight')}{end}"] = np.asarray(some, dtype=rng.choice(_KINDS))
    path = at / "model.safetensors"
    save_file(tensors, path)
    return path


def odd_models(rng: random.Random, at: Path) -> Path:
    """Sound files of unsound models: values, shapes, names and parts as nobody trains them."""
    tensors = _tensors(rng)
    for name in rng.sample(list(tensors), rng.randint(1, 5)):
        x = tensors[name]
        match rng.randrange(8):
            case 0:
                x.reshape(-1)[rng.randrange(x.size)] = rng.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45))
            case 1:
                x[:] = rng.choice((0.0, 1.0, np.nan, np.inf))
            case 2:
                tensors[name] = np.ascontiguousarray(x.T)
            case 3:
                tensors[name] = x[: rng.randrange(len(x))]
            case 4:
                tensors[rng.choice(_NAMES[3:6])] = tensors.pop(name)
            case 5:
                del tensors[name]
            case 6:
                with np.errstate(all="ignore"):
                    tensors[name] = (x * rng.choice((1e30, 1e-30))).astype(rng.choice((np.float16, np.float64)))
            case _:
                tensors[name] = x.reshape(*x.shape, 1)
    path = at / "model.safetensors"
    save_file(tensors, path)
    return path


def fingerprints(rng: random.Random, at: Path) -> Path:
    """A fingerprint that says or holds something else, under a digest that fits."""
    save_file(_tensors(rng), at / "model.safetensors")
    path = at / "model.fp"
    weightprint.fingerprint(at / "model.safetensors").save(path)
    (at / "model.safetensors").unlink()
    arrays, found = read(path)
    metadata = {key: found[key] for key in ("plan", "summary")}
    changed = rng.choice(("plan", "summary", "tensors", "arrays", "arrays"))
    if changed in metadata:
        metadata[changed] = json.dumps(_json_changed(rng, json.loads(metadata[changed])))
    elif changed == "tensors":
        text = json.dumps(_json_changed(rng, unpacked(arrays["tensors"]))).replace("Infinity", "1e400")
        arrays["tensors"] = np.frombuffer(zlib.compress(text.encode()), np.uint8)
    else:
        name = rng.choice(sorted(arrays))
        array = arrays.pop(name).copy()
        match rng.randrange(4):
            case 0:
                arrays[name] = array[: rng.randrange(len(array) + 1)]
            case 1:
                arrays[name] = array.view(np.uint8) if array.flags.c_contiguous else array
            case 2 if array.size:
                array.reshape(-1)[rng.randrange(array.size)] = np.nan if array.dtype.kind == "f" else 99
                arrays[name] = array
            case _:
                arrays[rng.choice(_NAMES)] = array
    write(path, arrays, metadata)
    return path


def paths(rng: random.Random, at: Path) -> Path:
    """What is no file of tensors: loops of links, folders, other formats, nothing at all, names that paint."""
    path = at / rng.choice(("model.safetensors", "model.gguf", "a b.safetensors", "é\x1b[31m.safetensors", "x.bin"))
    match rng.randrange(7):
        case 0:
            path.symlink_to(path)
        case 1:
            path.mkdir()
        case 6:
            os.mkfifo(path)
        case 2:
            path.write_bytes(
                rng.choice((b"", b"GGUF", b"PK\x03\x04", b"\x80\x02", b"\x89HDF\r\n", b"version https://git-lfs"))
            )
        case 3:
            return at / ("x" * rng.choice((10, 300)))
        case 4:
            return at
        case _:
            (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": f"../{path.name}"}}))
            return at
    return path


KINDS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        safetensors_bytes, safetensors_header, gguf_bytes, json_beside, quantised_siblings, odd_models, fingerprints,
        paths,
    )
}  # fmt: skip


def mutated(kind: str, seed: int, n: int, at: Path) -> Iterator[Path]:
    """`n` models of a kind, each in a folder of its own below `at`."""
    for k in range(n):
        folder = at / f"{kind}-{seed}-{k}"
        folder.mkdir()
        yield KINDS[kind](random.Random(f"{kind} {seed} {k}"), folder)
