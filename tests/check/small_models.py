"""Small models of every kind, and folders of them, that the tests of `check` spoil one at a time."""

from __future__ import annotations

import itertools
import json
import os
import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint

ROOT = Path(__file__).parents[2]
ENCODE = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["encode"]


WIDTH, FFN, HEADS, VOCABULARY, BLOCKS = 32, 128, 4, 96, 4
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "num_hidden_layers": BLOCKS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}


def normal(*shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)


def llama(seed=0, blocks=BLOCKS, head=True):
    w = {"model.embed_tokens.weight": normal(VOCABULARY, WIDTH, seed=seed)}
    for k in range(blocks):
        block, s = f"model.layers.{k}.", 100 * seed + 10 * k
        w[block + "input_layernorm.weight"] = 1 + normal(WIDTH, seed=s + 1)
        for r, (role, rows) in enumerate((("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2), ("o", WIDTH))):
            w[f"{block}self_attn.{role}_proj.weight"] = normal(rows, WIDTH, seed=s + 2 + r)
        w[block + "post_attention_layernorm.weight"] = 1 + normal(WIDTH, seed=s + 6)
        w[block + "mlp.gate_proj.weight"] = normal(FFN, WIDTH, seed=s + 7)
        w[block + "mlp.up_proj.weight"] = normal(FFN, WIDTH, seed=s + 8)
        w[block + "mlp.down_proj.weight"] = normal(WIDTH, FFN, seed=s + 9)
    w["model.norm.weight"] = 1 + normal(WIDTH, seed=seed + 77)
    return w | ({"lm_head.weight": normal(VOCABULARY, WIDTH, seed=seed + 78)} if head else {})


def put(folder, tensors, config=CONFIG, name="model.safetensors", metadata=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(ENCODE(tensors, metadata))
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def changed(**tensors):
    """A sound model with some tensors replaced (``__`` for a dot); None takes one out."""
    w = llama() | {name.replace("__", "."): value for name, value in tensors.items()}
    return {name: value for name, value in w.items() if value is not None}


def shards(folder, parts, *, of=None, stem="model", config=CONFIG):
    for k, part in enumerate(parts, 1):
        put(folder, part, config, f"{stem}-{k:05}-of-{of or len(parts):05}.safetensors")
    return folder


def index(folder, weight_map, total=None, text=None):
    data = {"metadata": {} if total is None else {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(data) if text is None else text)
    return folder


def halves(w):
    names = list(w)
    return [{name: w[name] for name in names[: len(names) // 2]}, {name: w[name] for name in names[len(names) // 2 :]}]


def sharded(folder, w=None):
    w = llama() if w is None else w
    parts = halves(w)
    shards(folder, parts)
    names = [f"model-{k:05}-of-00002.safetensors" for k in (1, 2)]
    return index(folder, {name: shard for part, shard in zip(parts, names, strict=True) for name in part})


MODULES = '[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]'
UP, DOWN = "model__layers__2__mlp__up_proj__weight", "model__layers__2__mlp__down_proj__weight"
LAST = "model-00002-of-00002.safetensors"


def holed(x, place, value):
    x = x.copy()
    x[place] = value
    return x


def gate_codes(w, dtype=ml_dtypes.float8_e4m3fn):
    """Gate's FP8 codes without their scales."""
    for name, x in w.items():
        if "gate_proj" in name:
            w[name] = (x / np.abs(x).max() * 448).astype(dtype).astype(np.float32)
    return w


def times(w, part, factor):
    return {name: x * np.float32(factor) if part in name else x for name, x in w.items()}


def fresh():
    w = llama()
    for name, x in w.items():
        w[name] = np.ones_like(x) if "norm" in name else (0.02 * np.sqrt(x.shape[1]) * x).astype(np.float32)
    return w


def experts(n=4, lacks=()):
    w = llama()
    for k in range(BLOCKS):
        for part in ("gate", "up", "down"):
            del w[f"model.layers.{k}.mlp.{part}_proj.weight"]
        w[f"model.layers.{k}.mlp.gate.weight"] = normal(n, WIDTH, seed=k)
        for e in range(n):
            for p, part in enumerate(("gate", "up", "down")):
                shape = (WIDTH, 48) if part == "down" else (48, WIDTH)
                w[f"model.layers.{k}.mlp.experts.{e}.{part}_proj.weight"] = normal(*shape, seed=50 * k + 5 * e + p)
    return {name: x for name, x in w.items() if name not in lacks}


def fp8(scale=1.0, without=()):
    w = llama()
    for name in [name for name in w if "_proj" in name]:
        x = w[name]
        s = np.abs(x).max() / 448
        w[name] = (x / s).astype(ml_dtypes.float8_e4m3fn)
        w[name + "_scale"] = np.array([s if scale == 1 else 1 / s], np.float32)
        w[name.replace(".weight", ".input_scale")] = np.array([0.5], np.float32)
    return {name: x for name, x in w.items() if name not in without}


def gptq(stored):
    """Symmetric 4-bit GPTQ; all zero points are `stored`."""
    w = llama()
    for k in range(BLOCKS):
        module = f"model.layers.{k}.mlp.up_proj."
        del w[module + "weight"]
        rng = np.random.default_rng(k)
        w[module + "qweight"] = rng.integers(-(2**31), 2**31, (WIDTH // 8, FFN), dtype=np.int64).astype(np.int32)
        w[module + "qzeros"] = np.full((1, FFN // 8), int(f"{stored:x}" * 8, 16), np.uint32).astype(np.int32)
        w[module + "scales"] = (np.abs(normal(1, FFN)) + 0.01).astype(np.float16)
        w[module + "g_idx"] = np.zeros(WIDTH, np.int32)
    return w


BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": WIDTH,
    "intermediate_size": FFN,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


def bert():
    w = {
        f"embeddings.{n}_embeddings.weight": normal(rows, WIDTH)
        for n, rows in (("word", VOCABULARY), ("position", 64), ("token_type", 2))
    }
    shapes = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    shapes |= {
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (FFN, WIDTH),
        "output.dense": (WIDTH, FFN),
    }
    for k, (name, shape) in itertools.product(range(BLOCKS), shapes.items()):
        w[f"encoder.layer.{k}.{name}.weight"] = normal(*shape, seed=k + len(name))
        w[f"encoder.layer.{k}.{name}.bias"] = normal(shape[0], seed=k + len(name))
    norms = [f"encoder.layer.{k}.{part}output" for k in range(BLOCKS) for part in ("attention.", "")]
    for seed, name in enumerate(["embeddings", *norms]):
        w[name + ".LayerNorm.weight"], w[name + ".LayerNorm.bias"] = (
            1 + normal(WIDTH, seed=seed),
            normal(WIDTH, seed=seed + 50),
        )
    return w


QUANT = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}


def lora(folder, zero=False, config=None, without=()):
    w = {}
    for k in range(3):
        module = f"base_model.model.model.layers.{k}.self_attn.q_proj.lora_"
        w[module + "A.weight"] = normal(8, WIDTH, seed=k)
        w[module + "B.weight"] = np.zeros((WIDTH, 8), np.float32) if zero else normal(WIDTH, 8, seed=k)
    w = {name: x for name, x in w.items() if not name.endswith(without or ("-",))}
    put(folder, w, None, "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]} | (config or {})
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def split_gguf(folder, total):
    pytest.importorskip("gguf")
    write = runpy.run_path(str(ROOT / "tests" / "checkpoint" / "gguf" / "gguf_files.py"))["write_gguf"]
    for k in range(2):
        pairs = {
            "split.no": ("uint16", k),
            "split.count": ("uint16", 2),
            "split.tensors.count": ("int32", total),
        }
        write(folder / f"m-{k + 1:05}-of-00002.gguf", {f"blk.{k}.ffn_up.weight": normal(8, 32, seed=k)}, pairs=pairs)
    return folder


def renamed_gguf(folder):
    split_gguf(folder, 2)
    os.rename(folder / "m-00002-of-00002.gguf", folder / "second.gguf")
    return folder / "second.gguf"


def manifest(folder, change):
    """(folder, a manifest of what it held before `change`)."""
    report = weightprint.check(put(folder, llama()))
    written = weightprint.Manifest.of(report.scan, report.files)
    w = llama()
    change(w)
    put(folder, w)
    return folder, written


def two(folder, w, name="other.safetensors", first=None):
    put(folder, llama() if first is None else first)
    return put(folder, w, CONFIG, name)


def cut(path, n=100):
    os.truncate(path, path.stat().st_size - n)


def then(folder, change):
    change(folder)
    return folder


def said(**config):
    return {**CONFIG, **config}


def without_rights(folder):
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    put(folder, llama())
    (folder / "config.json").chmod(0)
    return folder
