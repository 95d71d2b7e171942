"""Names as real checkpoints spell them."""

from __future__ import annotations

import pytest
from weightprint.naming import natural_key, parse, residual_axis

NAMES = [
    # name, layer, expert, role, shape with hidden size 64, residual axis
    ("model.layers.7.self_attn.q_proj.weight", 7, None, "q", (64, 64), 1),
    ("model.layers.7.self_attn.k_proj.weight", 7, None, "k", (16, 64), 1),
    ("model.layers.7.self_attn.q_norm.weight", 7, None, "norm", None, None),
    ("model.layers.7.self_attn.o_proj.weight", 7, None, "o", (64, 64), 0),
    ("model.layers.7.mlp.gate_proj.weight", 7, None, "gate", (160, 64), 1),
    ("model.layers.7.mlp.down_proj.weight", 7, None, "down", (64, 160), 0),
    ("model.layers.7.mlp.down_proj.weight", 7, None, "down", (64, 64), 0),
    ("model.layers.7.mlp.gate.weight", 7, None, "router", (8, 64), 1),
    ("model.layers.7.mlp.experts.12.up_proj.weight", 7, 12, "up", (160, 64), 1),
    ("model.layers.7.block_sparse_moe.experts.3.w2.weight", 7, 3, "down", (64, 160), 0),
    ("model.layers.7.post_attention_layernorm.weight", 7, None, "norm", None, None),
    ("model.embed_tokens.weight", None, None, "embedding", (200, 64), 1),
    ("lm_head.weight", None, None, "head", (200, 64), 1),
    ("model.norm.weight", None, None, "norm", None, None),
    ("transformer.h.3.attn.c_attn.weight", 3, None, "qkv", (64, 192), 0),
    ("transformer.h.3.attn.c_proj.weight", 3, None, "o", (64, 64), None),
    ("transformer.h.3.mlp.c_fc.weight", 3, None, "up", (64, 256), 0),
    ("transformer.h.3.mlp.c_proj.weight", 3, None, "down", (256, 64), 1),
    ("transformer.wpe.weight", None, None, "position", None, None),
    ("transformer.wte.weight", None, None, "embedding", (200, 64), 1),
    ("encoder.layer.2.attention.self.query.weight", 2, None, "q", (64, 64), 1),
    ("encoder.layer.2.attention.output.dense.weight", 2, None, "o", (64, 64), 0),
    ("encoder.layer.2.attention.output.LayerNorm.weight", 2, None, "norm", None, None),
    ("encoder.layer.2.intermediate.dense.weight", 2, None, "up", (256, 64), 1),
    ("encoder.layer.2.output.dense.weight", 2, None, "down", (64, 256), 0),
    ("embeddings.position_embeddings.weight", None, None, "position", None, None),
    ("encoder.block.1.layer.0.SelfAttention.o.weight", 1, None, "o", (64, 64), 0),
    ("encoder.block.1.layer.1.DenseReluDense.wi_0.weight", 1, None, "gate", (160, 64), 1),
    ("blk.11.attn_q.weight", 11, None, "q", (64, 64), 1),
    ("blk.11.attn_output.weight", 11, None, "o", (64, 64), 0),
    ("blk.11.ffn_norm.weight", 11, None, "norm", None, None),
    ("blk.11.ffn_gate.weight", 11, None, "gate", (160, 64), 1),
    ("token_embd.weight", None, None, "embedding", (200, 64), 1),
    ("layers.0.self_attn.in_proj_weight", 0, None, "qkv", (192, 64), 1),
    ("layers.0.linear1.weight", 0, None, "up", (256, 64), 1),
    ("layers.0.norm2.bias", 0, None, "norm", None, None),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", 0, None, "fixed", None, None),
    ("val_49_q", None, None, None, (64, 64), None),
]


@pytest.mark.parametrize(("name", "layer", "expert", "role", "shape", "axis"), NAMES)
def test_names(
    name: str, layer: int | None, expert: int | None, role: str | None, shape: tuple[int, int] | None, axis: int | None
) -> None:
    parsed = parse(name)
    assert (parsed.layer, parsed.expert, parsed.role) == (layer, expert, role)
    if shape is not None:
        assert residual_axis(parsed, shape, 64) == axis


def test_one_axis_of_the_right_length_settles_it() -> None:
    assert residual_axis(parse("whatever"), (64, 29), 64) == 0
    assert residual_axis(parse("whatever"), (29, 64), 64) == 1
    assert residual_axis(parse("whatever"), (29, 30), 64) is None


def test_kind_is_the_last_word() -> None:
    assert parse("layers.0.self_attn.in_proj_bias").kind == "bias"
    assert parse("layers.0.linear1.weight").kind == "weight"


def test_natural_order() -> None:
    names = ["layers.10.x", "layers.9.x", "layers.9.a", "embed", "layers.1.x"]
    assert sorted(names, key=natural_key) == ["embed", "layers.1.x", "layers.9.a", "layers.9.x", "layers.10.x"]


@pytest.mark.parametrize(
    "name", ["", ".", "layers.", "layers.x.y", "\x00", "a" * 4096, "layers.99999999999999999999.w"]
)
def test_odd_names_never_fail(name: str) -> None:
    assert parse(name).name == name
    natural_key(name)
