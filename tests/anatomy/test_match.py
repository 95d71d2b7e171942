"""Choosing rows and cutting tensors where names, shapes and config.json disagree or fall short."""

from __future__ import annotations

from typing import Any

import pytest
from miniature import Miniature, collect
from weightprint.anatomy.families import decoders
from weightprint.anatomy.family import row, stack
from weightprint.anatomy.match import match
from weightprint.anatomy.place import Place, Rows

MINIATURES = {mini.name: mini for mini in collect()}
Shapes = dict[str, tuple[int, ...]]


def shapes(mini: Miniature, prefix: str = "") -> Shapes:
    return {prefix + name: array.shape for name, array in mini.tensors.items()}


def llama(prefix: str = "model.", blocks: int = 2, d: int = 24, h: int = 40, head: bool = True) -> Shapes:
    made: Shapes = {f"{prefix}embed_tokens.weight": (50, d), f"{prefix}norm.weight": (d,)}
    if head:
        made["lm_head.weight"] = (50, d)
    for b in range(blocks):
        at = f"{prefix}layers.{b}."
        for name, shape in {
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
            "self_attn.q_proj": (d, d),
            "self_attn.k_proj": (d // 2, d),
            "self_attn.v_proj": (d // 2, d),
            "self_attn.o_proj": (d, d),
            "mlp.gate_proj": (h, d),
            "mlp.up_proj": (h, d),
            "mlp.down_proj": (d, h),
        }.items():
            made[f"{at}{name}.weight"] = shape
    return made


@pytest.mark.parametrize("name", ["llama", "gemma2", "olmo2", "internlm2", "phi3", "mixtral", "deepseek", "gpt_oss"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "policy.language_model."])
def test_what_wrapping_puts_before_names_changes_nothing(name: str, prefix: str) -> None:
    mini = MINIATURES[name]
    plain, wrapped = match(shapes(mini), mini.config), match(shapes(mini, prefix), mini.config)
    assert not wrapped.unmatched
    assert [a.place for a in wrapped.assignments] == [a.place for a in plain.assignments]
    assert wrapped.families == plain.families


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_no_config_gives_the_same_or_says_what_it_lacks(name: str) -> None:
    """Without config.json every tensor either gets the same cut, or stays unmatched with a note that names it."""
    mini = MINIATURES[name]
    with_config, bare = match(shapes(mini), mini.config), match(shapes(mini), {})
    cuts = {a.view: a.place.role for a in with_config.assignments if not a.tied}
    for a in (a for a in bare.assignments if not a.tied):
        if bare.families[a.place.stack] == with_config.families.get(a.place.stack):
            assert cuts[a.view] == a.place.role
    for weight in bare.unmatched:
        alike = weight.split(".")[-2]
        assert any(alike in note for note in bare.notes), (weight, bare.notes)


def test_head_by_head_without_a_head_size_stays_whole() -> None:
    found = match(shapes(MINIATURES["internlm2"]), {})
    assert found.unmatched == ("model.layers.0.attention.wqkv.weight", "model.layers.1.attention.wqkv.weight")
    assert any("attention.wqkv" in note and "head size" in note for note in found.notes)
    assert found.geometry["decoder"].head_dim is None


def test_meta_without_params_takes_the_head_size_from_the_frequencies() -> None:
    mini = MINIATURES["llama_meta"]
    found = match(shapes(mini), {})
    assert not found.unmatched
    assert found.geometry["decoder"].head_dim == 6
    assert found.geometry["decoder"].guessed == ("head_dim", "heads")
    left = {name: shape for name, shape in shapes(mini).items() if name != "rope.freqs"}
    assert {name.rsplit(".", 2)[1] for name in match(left, {}).unmatched} == {"wq", "wk"}


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"hidden_size": 32}, "hidden size 32, the tensors say 24"),
        ({"num_attention_heads": 5}, "5 heads, the tensors have 24 rows"),
        ({"num_key_value_heads": 4}, "4 key-value heads, the tensors say 2"),
        ({"num_hidden_layers": 3}, "3 blocks, 2 are here"),
    ],
)
def test_a_config_that_tensors_contradict_is_dropped_with_a_note(changes: dict[str, Any], note: str) -> None:
    config = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, **changes}
    found = match(llama(), config)
    assert not found.unmatched
    assert any(note in n for n in found.notes), found.notes
    assert found.geometry["decoder"].hidden == 24
    assert found.geometry["decoder"].blocks == 2


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("model.layers.1.mlp.up_proj.weight", (40, 23), "reads 23 channels, where the hidden size is 24"),
        ("model.layers.1.mlp.down_proj.weight", (23, 40), "writes 23 channels"),
        ("model.layers.1.input_layernorm.weight", (23,), "23 values, where the hidden size is 24"),
        ("model.layers.1.self_attn.q_proj.bias", (23,), "23 values, where q has 24 rows"),
        ("model.embed_tokens.weight", (50, 23), "reads 23 channels"),
    ],
)
def test_a_shape_that_does_not_fit_is_unmatched_and_told(name: str, shape: tuple[int, ...], why: str) -> None:
    found = match({**llama(), name: shape}, {})
    assert found.unmatched == (name,)
    assert any(note.startswith(name) and why in note for note in found.notes), found.notes


def test_fused_sizes_that_do_not_add_up() -> None:
    sound = shapes(MINIATURES["phi3"])
    odd = {**sound, "model.layers.0.self_attn.qkv_proj.weight": (49, 24)}
    found = match(odd, MINIATURES["phi3"].config)
    assert found.unmatched == ("model.layers.0.self_attn.qkv_proj.weight",)
    assert any("24 rows of queries" in note for note in found.notes)
    # OLMo with a plain activation: ff_proj is no fusion, and half of it would not fit ff_out.
    plain = {
        name: (36, 24) if name.endswith("ff_proj.weight") else shape
        for name, shape in shapes(MINIATURES["olmo"]).items()
    }
    found = match(plain, MINIATURES["olmo"].config)
    assert {name.split(".")[-2] for name in found.unmatched} == {"ff_proj"}
    assert any("18 rows, where down reads 36" in note for note in found.notes)


def test_blocks_may_differ_in_heads() -> None:
    """A pruned block: its own o says how many rows of its fused tensor are queries."""
    made = shapes(MINIATURES["phi3"])
    made["model.layers.1.self_attn.qkv_proj.weight"] = (12 + 6 + 6, 24)
    made["model.layers.1.self_attn.o_proj.weight"] = (24, 12)
    found = match(made, {})
    assert not found.unmatched
    rows = {(a.place.block, a.place.role): a.view.rows for a in found.assignments}
    assert rows[0, "k"] == Rows(24, 12)
    assert rows[1, "q"] == Rows(0, 12)
    assert rows[1, "k"] == Rows(12, 6)
    assert rows[1, "v"] == Rows(18, 6)


def test_latent_attention_tells_its_sizes_by_shapes_alone() -> None:
    geometry = match(shapes(MINIATURES["deepseek"]), {}).geometry["decoder"]
    assert (geometry.heads, geometry.nope_dim, geometry.rope_dim, geometry.value_dim) == (4, 5, 2, 3)
    assert (geometry.head_dim, geometry.experts, geometry.ffn, geometry.hidden) == (7, 3, 36, 20)
    assert geometry.guessed == ()


def test_old_spellings_of_sizes() -> None:
    geometry = match(shapes(MINIATURES["dbrx"]), MINIATURES["dbrx"].config).geometry["decoder"]
    assert (geometry.heads, geometry.kv_heads, geometry.head_dim, geometry.experts) == (4, 2, 6, 3)
    geometry = match(shapes(MINIATURES["chatglm2"]), MINIATURES["chatglm2"].config).geometry["decoder"]
    assert (geometry.heads, geometry.kv_heads, geometry.head_dim, geometry.vocabulary) == (4, 2, 6, 50)


TOWER = row(
    "tower",
    stack(
        "vision",
        "vision_model.encoder.layers.{b}.",
        "layer_norm1=attn_norm self_attn.{q,k,v}_proj={q,k,v}",
        outside="vision_model.post_layernorm=final_norm",
    ),
)


def test_a_tower_and_a_decoder_compose() -> None:
    made = llama("language_model.model.")
    made["vision_tower.vision_model.post_layernorm.weight"] = (8,)
    for b in range(3):
        at = f"vision_tower.vision_model.encoder.layers.{b}."
        made[f"{at}layer_norm1.weight"] = (8,)
        made |= {f"{at}self_attn.{role}_proj.weight": (8, 8) for role in "qkv"}
    config = {
        "model_type": "llava",
        "text_config": {"hidden_size": 24, "num_attention_heads": 4},
        "vision_config": {"hidden_size": 8, "num_attention_heads": 2},
    }
    found = match(made, config, [*decoders.FAMILIES, TOWER])
    assert not found.unmatched
    assert {stack: family.name for stack, family in found.families.items()} == {"decoder": "llama", "vision": "tower"}
    assert found.geometry["vision"].heads == 2
    assert found.geometry["decoder"].heads == 4
    assert not found.notes


def test_a_second_decoder_is_told_by_where_it_stands() -> None:
    made = {**llama("thinker.model.", blocks=3), **llama("talker.model.", d=16, head=False)}
    made["talker.lm_head.weight"] = (50, 16)
    found = match(made, {"model_type": "qwen2"})
    assert not found.unmatched
    assert found.families.keys() == {"decoder", "decoder:talker.model.layers"}
    places = [a.place for a in found.assignments]
    assert len(set(places)) == len(places)


def test_shapes_choose_between_rows_with_the_same_names() -> None:
    rows = [
        row("linear", stack("decoder", "h.{b}.", "ln=attn_norm c_fc=up c_proj=down")),
        row("conv1d", stack("decoder", "h.{b}.", "ln=attn_norm c_fc=up.T c_proj=down.T")),
    ]
    for shape, name in (((12, 4), "linear"), ((4, 12), "conv1d")):
        made = {}
        for b in range(2):
            made |= {f"h.{b}.ln.weight": (4,), f"h.{b}.c_fc.weight": shape, f"h.{b}.c_proj.weight": shape[::-1]}
        found = match(made, {}, rows)
        assert found.families["decoder"].name == name
        assert not found.unmatched


def test_model_type_breaks_ties_and_a_tie_is_told() -> None:
    assert match(llama(), {"model_type": "gemma"}).families["decoder"].name == "gemma"
    assert match(llama(), {"model_type": "llama"}).notes == ()
    bare = match(llama(), {})
    assert bare.families["decoder"].name == "llama"
    assert any("gemma fits as well" in note for note in bare.notes)
    # It never beats names.
    assert match(shapes(MINIATURES["gemma2"]), {"model_type": "llama"}).families["decoder"].name == "gemma2"


def test_an_unknown_norm_makes_its_neighbours_less_sure() -> None:
    made = {**llama(), "model.layers.0.mystery_norm.weight": (24,), "model.layers.1.mystery_norm.weight": (24,)}
    found = match(made, {})
    assert found.unmatched == ("model.layers.0.mystery_norm.weight", "model.layers.1.mystery_norm.weight")
    sure = {a.place.role: a.confidence for a in found.assignments if a.place.block == 0}
    assert sure["attn_norm"] == sure["ffn_norm"] < 1.0 == sure["q"]
    assert any("mystery_norm" in note for note in found.notes)


def test_heads_that_are_the_embedding() -> None:
    made = llama(head=False)
    tied = [a for a in match(made, {}).assignments if a.tied]
    assert [(a.place, a.view.weight) for a in tied] == [(Place("decoder", None, "head"), "model.embed_tokens.weight")]
    denied = match(made, {"tie_word_embeddings": False})
    assert not any(a.tied for a in denied.assignments)
    assert any("no head is stored" in note for note in denied.notes)
    assert not any(a.tied for a in match(llama(), {}).assignments)


def test_a_row_must_explain_half_of_a_run() -> None:
    made: Shapes = {}
    for b in range(4):
        made |= {f"net.layers.{b}.strange{i}.weight": (24, 24) for i in range(8)}
        made[f"net.layers.{b}.self_attn.q_proj.weight"] = (24, 24)
    found = match(made, {})
    assert found.assignments == ()
    assert found.unmatched == tuple(made)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "layers.",
        "layers.1",
        "layers.x.q",
        "layers.99999999999999999999.mlp.up_proj.weight",
        "layers.١.mlp",
    ],
)
def test_odd_names_are_left_alone(name: str) -> None:
    found = match({**llama(), name: (3,)}, {})
    assert found.unmatched == (name,)


@pytest.mark.parametrize("shape", [(), (0,), (0, 24), (24, 0), (2**40, 0, 4), (1, 2, 3, 4)])
def test_odd_shapes_are_left_alone(shape: tuple[int, ...]) -> None:
    for name in ("model.layers.0.self_attn.qkv_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"):
        found = match({**shapes(MINIATURES["phi3"]), name: shape}, MINIATURES["phi3"].config)
        assert name in found.unmatched
    sparse = {**shapes(MINIATURES["mixtral_fused"]), "model.layers.0.mlp.experts.gate_up_proj": shape}
    assert "model.layers.0.mlp.experts.gate_up_proj" in match(sparse, {}).unmatched


def test_an_empty_checkpoint() -> None:
    found = match({}, {})
    assert found.assignments == found.unmatched == found.notes == ()
