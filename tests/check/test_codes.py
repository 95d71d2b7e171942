"""docs/checks.md lists every code, and every code has an input that triggers it."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint.check.codes import CODES, markdown
from weightprint.errors import UsageError

ROOT = Path(__file__).parents[2]
ENCODE = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["encode"]
MALFORMED = runpy.run_path(str(ROOT / "tests" / "malformed" / "table.py"))["rows"]()

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


#: code → (folder) → what to check.
CASES = {
    "nan": lambda f: put(f, changed(**{UP: holed(normal(FFN, WIDTH), (3, 4), np.nan)})),
    "infinity": lambda f: put(f, changed(**{UP: holed(normal(FFN, WIDTH), (3, 4), -np.inf)})),
    "outlier": lambda f: put(f, {"w": holed(normal(200, 100), (17, 4), 5000)}, None),
    "almost_all_zero": lambda f: put(f, {"w": holed(np.zeros((1000, 200), np.float32), (0, 0), 1)}, None),
    "all_zero": lambda f: put(f, changed(**{DOWN: np.zeros((WIDTH, FFN), np.float32)})),
    "constant": lambda f: put(f, changed(**{DOWN: np.ones((WIDTH, FFN), np.float32)})),
    "dead_rows": lambda f: put(f, changed(**{UP: holed(normal(FFN, WIDTH), [3, 9], 0)})),
    "empty": lambda f: put(f, changed(**{UP: np.zeros((0,), np.float32)})),
    "duplicate_values": lambda f: put(f, changed(lm_head__weight=llama()["model.embed_tokens.weight"])),
    "fixed_table": lambda f: put(f, {"text.position_ids": holed(np.arange(77), 13, 14)[None]}, None),
    "codes_without_scales": lambda f: put(f, gate_codes(llama())),
    "out_of_scale": lambda f: put(f, fp8(scale=-1)),
    "never_trained": lambda f: put(f, fresh()),
    "no_tensors": lambda f: put(f, {}, None),
    "shard_missing": lambda f: then(sharded(f), lambda f: os.unlink(f / LAST)),
    "tensor_lost": lambda f: then(sharded(f), lambda f: cut(f / LAST)),
    "part_of_set": lambda f: sharded(f) / LAST,
    "split_tensors": lambda f: split_gguf(f, 5),
    "layer_gap": lambda f: put(f, {name: x for name, x in llama().items() if ".1." not in name}),
    "block_lacks": lambda f: put(f, changed(model__layers__3__self_attn__o_proj__weight=None)),
    "sibling_missing": lambda f: put(f, fp8(without=["model.layers.3.mlp.up_proj.input_scale"])),
    "head_missing": lambda f: put(f, llama(head=False)),
    "head_not_needed": lambda f: then(
        sharded(f, llama(head=False)),
        lambda f: (
            put(f, {"lm_head.weight": np.ones(3, np.float32)}, said(tie_word_embeddings=True), "head.safetensors"),
            cut(f / "head.safetensors", 4),
            index(
                f,
                json.loads((f / "model.safetensors.index.json").read_text())["weight_map"]
                | {"lm_head.weight": "head.safetensors"},
            ),
        ),
    ),
    "alias_dangling": lambda f: put(f, llama(head=False), None, metadata={"lm_head.weight": "absent.weight"}),
    "module_missing": lambda f: then(
        put(f, llama()),
        lambda f: (f / "modules.json").write_text(MODULES),
    ),
    "other_module": lambda f: then(
        put(f, llama()),
        lambda f: (
            put(f / "2_Dense", {"linear.weight": normal(8, 8)}, None),
            (f / "modules.json").write_text(MODULES),
        ),
    ),
    "tensor_parallel_ranks": lambda f: then(
        put(f, halves(llama())[0], name="model-rank-0-part-0.safetensors"),
        lambda f: put(f, halves(llama(1))[0], name="model-rank-1-part-0.safetensors"),
    ),
    "second_copy": lambda f: two(f, {n: x.astype(np.float16) for n, x in llama().items()}, "model.fp16.safetensors"),
    "another_model": lambda f: two(f, llama(1)),
    "unread_file": lambda f: then(two(f, llama()), lambda f: cut(f / "other.safetensors")),
    "other_files": lambda f: two(f, {"vae.conv.weight": normal(4, 5)}),
    "stale_index": lambda f: then(
        shards(f, halves(llama())), lambda f: index(f, dict.fromkeys(llama(), "model-00001-of-00030.safetensors"))
    ),
    "unreadable_quantisation": lambda f: put(
        f, fp8() | {"model.layers.0.mlp.up_proj.weight_scale": normal(3, 5), "x": normal(3)}
    ),
    "scale_without_codes": lambda f: put(f, llama() | {"model.layers.0.mlp.extra.SCB": normal(FFN)}),
    "undecoded_words": lambda f: put(
        f, changed(**{UP: (np.arange(FFN * WIDTH).reshape(FFN, WIDTH) * 77 % 251).astype(np.uint8)})
    ),
    "zero_points": lambda f: put(f, gptq(8), said(quantization_config=QUANT)),
    "not_decoded": lambda f: put(f, llama() | {
        "x.codes": np.zeros((8, 4, 1), np.int16), "x.codebooks": normal(1, 256, 1, 8), "x.scales": normal(8, 1)}),
    "second_scale": lambda f: put(f, fp8() | {"model.layers.1.mlp.up_proj.weight_scale_inv": np.ones(1, np.float32)}),
    "scale_values": lambda f: put(f, fp8() | {"model.layers.1.mlp.up_proj.weight_scale": np.zeros(1, np.float32)}),
    "scale_apart": lambda f: put(f, fp8() | {"model.layers.1.mlp.up_proj.weight_scale": np.ones(1, np.float32)}),
    "saturated_codes": lambda f: put(f, fp8() | {
        UP.replace("__", "."): np.clip(3000 * normal(FFN, WIDTH), -448, 448).astype(ml_dtypes.float8_e4m3fn)}),
    "group_index": lambda f: put(f, gptq(7) | {"model.layers.1.mlp.up_proj.g_idx": np.full(WIDTH, 9, np.int32)},
                                 said(quantization_config=QUANT)),
    "config_shape": lambda f: put(f, bert(), BERT | {"max_position_embeddings": 128}),
    "config_bias": lambda f: put(f, llama(), said(attention_bias=True)),
    "config_blocks": lambda f: put(f, llama(), said(num_hidden_layers=BLOCKS + 1)),
    "config_hidden": lambda f: put(f, llama(), said(hidden_size=2 * WIDTH)),
    "config_ffn": lambda f: put(f, llama(), said(intermediate_size=FFN // 2)),
    "config_experts": lambda f: put(
        f, experts(), said(model_type="qwen3_moe", num_experts=8, architectures=["Qwen3MoeForCausalLM"])
    ),
    "config_heads": lambda f: put(f, llama(), said(num_attention_heads=3)),
    "config_vocabulary": lambda f: put(f, llama(), said(vocab_size=VOCABULARY + 1)),
    "config_ties": lambda f: put(f, llama(), said(tie_word_embeddings=True)),
    "config_quantisation": lambda f: put(f, llama(), said(quantization_config=QUANT)),
    "config_duplicate_key": lambda f: put(f, llama(), '{"a": 1, "a": 2}'),
    "config_not_finite": lambda f: put(f, llama(), '{"a": Infinity}'),
    "config_not_json": lambda f: put(f, llama(), "{"),
    "config_not_object": lambda f: put(f, llama(), "[]"),
    "config_not_utf8": lambda f: then(put(f, llama()), lambda f: (f / "config.json").write_bytes(b'{"a": "\xfc"}')),
    "config_too_large": lambda f: put(f, llama(), "{" + " " * 16_000_000 + "}"),
    "config_unreadable": without_rights,
    "not_a_file": lambda f: then(put(f, llama(), None), lambda f: os.mkfifo(f / "config.json")),
    "link_outside": lambda f: then(put(f, llama(), None), lambda f: os.symlink("/etc/passwd", f / "config.json")),
    "adapter_factors": lambda f: lora(f, without=("2.self_attn.q_proj.lora_B.weight",)),
    "adapter_config": lambda f: lora(f, config={"r": 64}),
    "adapter_pattern": lambda f: lora(f, config={"rank_pattern": {"(a+)+": 8}}),
    "adapter_kind": lambda f: lora(f, config={"peft_type": "IA3"}),
    "adapter_no_change": lambda f: lora(f, zero=True),
    "total_size": lambda f: then(sharded(f), lambda f: index(f, json.loads(
        (f / "model.safetensors.index.json").read_text())["weight_map"], total=1)),
    "bad_total_size": lambda f: then(sharded(f), lambda f: index(f, {}, text=json.dumps({
        "metadata": {"total_size": 1.5e3},
        "weight_map": json.loads((f / "model.safetensors.index.json").read_text())["weight_map"]}))),
    "tensor_in_wrong_shard": lambda f: then(sharded(f), lambda f: index(f, json.loads(
        (f / "model.safetensors.index.json").read_text())["weight_map"] | {"model.embed_tokens.weight": LAST})),
    "tensor_missing": lambda f: then(sharded(f), lambda f: index(f, json.loads(
        (f / "model.safetensors.index.json").read_text())["weight_map"] | {"absent": LAST})),
    "tensor_not_in_index": lambda f: then(sharded(f), lambda f: index(f, {name: shard for name, shard in json.loads(
        (f / "model.safetensors.index.json").read_text())["weight_map"].items() if name != "model.norm.weight"})),
    "duplicate_tensor": lambda f: two(f, {"w": normal(3, 3)}, "b.safetensors", {}) and then(
        f, lambda f: os.rename(f / "model.safetensors", f / "c.safetensors")) and put(
        f, {"w": normal(3, 3)}, None, "a.safetensors"),
    "manifest_missing": lambda f: manifest(f, lambda w: w.pop("lm_head.weight")),
    "manifest_changed": lambda f: manifest(f, lambda w: w.update({"lm_head.weight": normal(96, WIDTH, seed=9)})),
    "manifest_extra": lambda f: manifest(f, lambda w: w.update({"new": normal(3)})),
    "manifest_files": lambda f: manifest(f, lambda w: w.update({"new": normal(3)})),
    "truncated": lambda f: then(put(f, llama()), lambda f: cut(f / "model.safetensors")),
}  # fmt: skip
CASES["stale_index_complete"] = CASES["stale_index"]

#: Caps whose inputs are too large for a test, refusals of the system, and what ends `check` instead of being found.
ELSEWHERE = {
    "io", "file_changed", "no_main_reference", "stored_twice", "shard_not_in_index", "index_too_large",
    "not_a_regular_file", "large_header", "too_many_tensors", "too_many_pairs", "metadata_too_large", "shape_too_large",
    "entry_too_large", "header_too_large",
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_every_code_has_an_input(tmp_path, code):
    made = CASES[code](tmp_path / "m")
    made, written = made if isinstance(made, tuple) else (made, None)
    report = weightprint.check(made, manifest=written)
    found = {finding.code: finding for finding in report.findings}
    assert code in found, report.findings
    assert set(found) <= set(CODES)
    assert found[code].severity in CODES[code].severity.split(", ")
    assert found[code].message.isprintable()


@pytest.mark.parametrize("row", [row for row in MALFORMED if row.kind == "file" and row.nbytes < 1 << 20], ids=str)
def test_every_code_of_the_format(tmp_path, row):
    path = tmp_path / "m.safetensors"
    path.write_bytes(row.content())
    findings = weightprint.check(path).findings
    expected = {row.strict, row.compatible, *row.notes} - {"ok"}
    assert {finding.code for finding in findings} <= set(CODES)
    assert not expected or expected & {finding.code for finding in findings}
    for finding in findings:
        assert finding.severity in CODES[finding.code].severity.split(", "), finding


def test_nothing_is_listed_that_nothing_has():
    of_format = {code for row in MALFORMED for code in (row.strict, row.compatible, *row.notes)}
    of_gguf = {code for code in CODES if code.startswith("gguf_")}
    assert set(CODES) - set(CASES) - of_format - of_gguf <= ELSEWHERE
    assert of_format - {"ok"} <= set(CODES)
    folder = ROOT / "python" / "weightprint" / "checkpoint" / "gguf"
    said_by_gguf = re.findall(r'code="(gguf_\w+)"', "".join(path.read_text() for path in folder.glob("*.py")))
    assert of_gguf - {"gguf_file", *said_by_gguf} == set()
    assert set(said_by_gguf) <= set(CODES)


def test_the_page_is_the_table():
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert page.endswith(markdown()), "run: python -m weightprint.check.codes, and put its tables into docs/checks.md"


@pytest.mark.parametrize(
    "make",
    [
        lambda f: put(f, llama()),
        lambda f: put(f, llama(head=False), said(tie_word_embeddings=True)),
        lambda f: put(f, llama(head=False), said(architectures=["LlamaModel"])),
        lambda f: put(f, experts(), said(model_type="qwen3_moe", num_experts=4, moe_intermediate_size=48)),
        lambda f: put(f, fp8()),
        lambda f: put(f, gptq(7), said(quantization_config=QUANT)),
        lambda f: put(f, gptq(8), said(quantization_config=QUANT | {"checkpoint_format": "gptq_v2"})),
        lambda f: put(f, {n: x.astype(ml_dtypes.bfloat16) for n, x in llama().items()}),
        lambda f: put(f, bert(), BERT),
        lambda f: put(f, times(llama(), "embed_tokens", 50)),
        lambda f: put(f, {"text.position_ids": np.arange(77)[None], "w": normal(8, 8)}, None),
        lambda f: put(f, {"position_ids": np.arange(9, dtype=np.float32), "inv_freq": 1e4 ** -np.arange(0, 1, 0.1)}),
        sharded,
        lambda f: shards(f, halves(llama())),
        lambda f: lora(f),
        lambda f: split_gguf(f, 2),
        lambda f: put(f, llama(), said(vocab_size=VOCABULARY - 6, num_nextn_predict_layers=1)),
        lambda f: put(f, llama(blocks=BLOCKS + 1), said(num_nextn_predict_layers=1)),
        lambda f: put(sharded(f), {f"x.{n}": x for n, x in llama().items()}, name="consolidated.safetensors"),
    ],
)  # fmt: skip
def test_what_is_sound_is_called_sound(tmp_path, make):
    report = weightprint.check(make(tmp_path / "m"))
    assert report.sound, report.findings


def test_select_and_ignore(tmp_path):
    w = changed(**{UP: holed(normal(FFN, WIDTH), (3, 4), np.nan), DOWN: np.zeros((WIDTH, FFN), np.float32)})
    folder = put(tmp_path / "m", w)
    assert {f.code for f in weightprint.check(folder).findings} == {"nan", "all_zero"}
    assert {f.code for f in weightprint.check(folder, select=["nan"]).findings} == {"nan"}
    assert {f.code for f in weightprint.check(folder, ignore=["nan"]).findings} == {"all_zero"}
    assert weightprint.check(folder, ignore=["nan", "all_zero"]).sound
    with pytest.raises(UsageError, match="did you mean all_zero"):
        weightprint.check(folder, ignore=["all_zeros"])


def test_a_rank_that_is_not_the_first_is_looked_at(tmp_path):
    first, second = halves(llama())[0], halves(llama(1))[0]
    second["model.embed_tokens.weight"] = holed(second["model.embed_tokens.weight"], (1, 1), np.nan)
    put(tmp_path, first, name="model-rank-0-part-0.safetensors")
    put(tmp_path, second, name="model-rank-1-part-0.safetensors")
    (found,) = weightprint.check(tmp_path, select=["nan"]).findings
    assert found.message.startswith("rank 1: ")
