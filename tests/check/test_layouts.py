"""Folders that hold a model twice, in the layouts that makers publish, and the same with another model in its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
import weightprint
from small_models import BLOCKS, halves, index, llama, put, shards

_META = (
    ("model.embed_tokens", "tok_embeddings"), ("lm_head", "output"), ("model.layers", "layers"),
    ("self_attn.q_proj", "attention.wq"), ("self_attn.k_proj", "attention.wk"), ("self_attn.v_proj", "attention.wv"),
    ("self_attn.o_proj", "attention.wo"), ("mlp.gate_proj", "feed_forward.w1"), ("mlp.down_proj", "feed_forward.w2"),
    ("mlp.up_proj", "feed_forward.w3"), ("post_attention_layernorm", "ffn_norm"), ("input_layernorm", "attention_norm"),
    ("model.norm", "norm"),
)  # fmt: skip


def meta_names(w):
    """The same tensors as the makers' own code calls them."""
    renamed = {}
    for name, x in w.items():
        for old, new in _META:
            name = name.replace(old, new)
        renamed[name] = x
    return renamed


def half(w):
    return {name: x.astype(np.float16) for name, x in w.items()}


def variants(folder, stem, other, word="fp16"):
    put(folder, llama(), name=f"{stem}.safetensors")
    return put(folder, other, name=f"{stem}.{word}.safetensors")


def sharded_variants(folder, stem, other):
    for parts, word in ((halves(llama()), ""), (halves(other), ".fp16")):
        shards(folder, parts, stem=stem + word)
        files = [f"{stem}{word}-{k:05}-of-00002.safetensors" for k in (1, 2)]
        weight_map = {name: file for part, file in zip(parts, files, strict=True) for name in part}
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / f"{stem}{word}.safetensors.index.json").write_text(text)
    return folder


def consolidated(folder, other):
    parts = halves(llama())
    shards(folder, parts)
    files = [f"model-{k:05}-of-00002.safetensors" for k in (1, 2)]
    index(folder, {name: file for part, file in zip(parts, files, strict=True) for name in part})
    return put(folder, meta_names(other), name="consolidated.safetensors")


LAYOUTS = {
    "model.fp16": lambda f, w: variants(f, "model", half(w)),
    "diffusers": lambda f, w: variants(f, "diffusion_pytorch_model", half(w)),
    "diffusers, shards": lambda f, w: sharded_variants(f, "diffusion_pytorch_model", half(w)),
    "shards": lambda f, w: sharded_variants(f, "model", half(w)),
    "consolidated": consolidated,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_model_twice(tmp_path, layout):
    report = weightprint.check(LAYOUTS[layout](tmp_path / "m", llama()))
    assert report.sound, report.findings
    assert [f.code for f in report.findings] == ["second_copy"]
    with weightprint.open(tmp_path / "m") as opened:
        assert opened.n_tensors == len(llama())
        assert {info.dtype for info in opened.tensors} == {"F32"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_models_in_one_place(tmp_path, layout):
    report = weightprint.check(LAYOUTS[layout](tmp_path / "m", llama(seed=3)))
    assert [(f.code, f.severity) for f in report.findings] == [("another_model", "warning")]


def test_averaged_weights_beside(tmp_path):
    report = weightprint.check(variants(tmp_path / "m", "diffusion_pytorch_model", llama(seed=3), "non_ema"))
    assert [(f.code, f.severity) for f in report.findings] == [("other_files", "note")]


def test_a_part_is_not_held_against_the_whole(tmp_path):
    shards(tmp_path / "m", halves(llama()))
    found = weightprint.check(tmp_path / "m" / "model-00001-of-00002.safetensors").findings
    assert "part_of_set" in {f.code for f in found}
    assert not any(f.code == "config_blocks" for f in found), BLOCKS
