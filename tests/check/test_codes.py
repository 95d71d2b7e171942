"""docs/checks.md lists every code, and every code has an input that triggers it."""

from __future__ import annotations

import json
import os
import re
import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint
from encoders import nf4
from small_models import (
    BERT,
    BLOCKS,
    DOWN,
    FFN,
    LAST,
    MODULES,
    QUANT,
    UP,
    VOCABULARY,
    WIDTH,
    bert,
    changed,
    cut,
    experts,
    fp8,
    fresh,
    gate_codes,
    gptq,
    halves,
    holed,
    index,
    llama,
    lora,
    manifest,
    normal,
    put,
    said,
    sharded,
    shards,
    split_gguf,
    then,
    times,
    two,
    without_rights,
)
from weightprint.check.codes import CODES, markdown
from weightprint.errors import UsageError

ROOT = Path(__file__).parents[2]
MALFORMED = runpy.run_path(str(ROOT / "tests" / "malformed" / "table.py"))["rows"]()


def squared():
    """nf4, whose blocks' scales were squared."""
    w = {name: x for name, x in llama().items() if "_proj" not in name}
    for k in range(BLOCKS):
        for part in ("gate", "up"):
            name = f"model.layers.{k}.mlp.{part}_proj.weight"
            w |= nf4(name, np.tile(normal(FFN, WIDTH, seed=k), 2) * normal(FFN, 2 * WIDTH), np.square)
    return w


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
    "other_type": lambda f: put(f, {n: x.astype(ml_dtypes.bfloat16).view(np.float16) for n, x in llama().items()}),
    "repeated_blocks": lambda f: put(f, {n: llama()[re.sub(r"layers.\d", "layers.0", n)] for n in llama()}),
    "flat_parameters": lambda f: put(f, {"_fsdp_wrapped_module._flat_param": normal(1000)}),
    "training_states": lambda f: put(f, llama() | {"optimizer.state.0.exp_avg": normal(9, 9)}),
    "config_unfit": lambda f: put(f, {n: x[: len(x) // 2] for n, x in llama().items()}),
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
    "scale_fit": lambda f: put(f, squared()),
    "scale_apart": lambda f: put(f, fp8() | {"model.layers.1.mlp.up_proj.weight_scale": np.ones(1, np.float32)}),
    "saturated_codes": lambda f: put(f, fp8() | {
        UP.replace("__", "."): np.clip(3000 * normal(FFN, WIDTH), -448, 448).astype(ml_dtypes.float8_e4m3fn)}),
    "group_index": lambda f: put(f, gptq(7) | {"model.layers.1.mlp.up_proj.g_idx": np.full(WIDTH, 9, np.int32)},
                                 said(quantization_config=QUANT)),
    "config_shape": lambda f: put(f, bert(), BERT | {"max_position_embeddings": 128}),
    "config_bias": lambda f: put(f, llama(), said(attention_bias=True)),
    "config_blocks": lambda f: put(f, llama(), said(num_hidden_layers=BLOCKS + 1)),
    "config_family": lambda f: put(f, llama(), said(model_type="qwen2")),
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
