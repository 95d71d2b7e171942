"""LoRA adapters: places of their tensors, and merged values against merges written out in numpy."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import weightprint
from miniature import Miniature, collect
from weightprint.anatomy.adapters.adapters import read_adapter
from weightprint.anatomy.adapters.merged import merge_adapter
from weightprint.anatomy.anatomy import anatomy
from weightprint.anatomy.place import Place
from weightprint.errors import FormatError, UnsupportedFormatError, UsageError

_MINIATURES = {mini.name: mini for mini in collect()}
LLAMA, GPT2, NEOX, GGUF = (_MINIATURES[name] for name in ("llama", "gpt2", "gpt_neox", "gguf-llama"))


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def save_adapter(folder: Path, tensors: dict[str, np.ndarray], **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, "base_model_name_or_path": "org/base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def factors(modules: dict[str, tuple[int, int]], r: int = 4, end: str = ".weight") -> dict[str, np.ndarray]:
    """A and B for modules with their (out, in)."""
    made = {}
    for seed, (module, (out, inn)) in enumerate(modules.items()):
        made[f"base_model.model.{module}.lora_A{end}"] = draw(r, inn, seed=seed)
        made[f"base_model.model.{module}.lora_B{end}"] = draw(out, r, seed=seed)
    return made


def of(mini: Miniature, *ends: str, transposed: bool = False) -> dict[str, tuple[int, int]]:
    """Modules of a miniature whose names end so, with (out, in)."""
    return {
        name.removesuffix(".weight"): x.shape[::-1] if transposed else x.shape
        for name, x in mini.tensors.items()
        if name.endswith(tuple(end + ".weight" for end in ends))
    }


def check_merged(tmp_path: Path, mini: Miniature, wanted: dict[str, np.ndarray], merged, tolerance=2e-5) -> None:
    """`merged` holds what the anatomy of a file with the `wanted` weights holds, whole and in part."""
    folder = tmp_path / "wanted"
    Miniature(mini.family, {**mini.tensors, **wanted}, mini.config, {}).write(folder)
    plain = anatomy(folder)
    assert plain.unmapped == merged.unmapped == ()
    assert merged.places() == plain.places()
    different = set()
    for place in plain.places():
        expected = plain.tensor(place.block, place.role, expert=place.expert)
        got = merged.tensor(place.block, place.role, expert=place.expert)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=str(place))
        base = mini.canonical.get(place)
        if base is not None and not np.array_equal(base, expected):
            different.add(place)
            assert not np.array_equal(got, base)
        elif base is not None:
            np.testing.assert_array_equal(got, base)
        rows, columns = slice(1, max(2, len(got) - 1)) if got.ndim else None, slice(2, 7)
        part = merged.tensor(place.block, place.role, rows=rows, columns=columns if got.ndim == 2 else None)
        wanted_part = expected[rows, columns] if got.ndim == 2 else expected[rows] if got.ndim else expected
        np.testing.assert_allclose(part, wanted_part, rtol=tolerance, atol=tolerance, err_msg=str(place))
    assert different


def test_places_of_a_llama_adapter(tmp_path):
    modules = of(LLAMA, "q_proj", "v_proj", "down_proj")
    tensors = factors(modules, end=".default.weight")
    tensors["base_model.model.lm_head.weight"] = draw(50, 20)
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = draw(4, 50)
    tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = draw(20, 4)
    found = anatomy(save_adapter(tmp_path / "a", tensors))
    assert found.unmapped == ()
    wanted = {Place("decoder", b, f"{role}.lora_{x}") for b in (0, 1) for role in ("q", "v", "down") for x in "ab"}
    wanted |= {Place("decoder", None, "head"), *(Place("decoder", None, f"embedding.lora_{x}") for x in "ab")}
    assert set(found.places()) == wanted
    assert found.family is None  # q_proj is many families' name
    assert all(place.part == "adapter" for place in wanted if "." in place.role)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.default.weight"
    np.testing.assert_array_equal(found.tensor(1, "q.lora_b"), tensors[name])
    np.testing.assert_array_equal(found.tensor(1, "q.lora_b", rows=slice(3, 9)), tensors[name][3:9])
    np.testing.assert_array_equal(found.tensor(None, "head"), tensors["base_model.model.lm_head.weight"])
    assert weightprint.scan(tmp_path / "a").n_tensors == len(tensors)


def test_places_of_a_fused_adapter_cut_b_and_share_a(tmp_path):
    modules = of(GPT2, "attn.c_attn", transposed=True)
    tensors = factors(modules)
    found = anatomy(save_adapter(tmp_path / "a", tensors, fan_in_fan_out=True))
    assert found.unmapped == ()
    width = next(iter(modules.values()))[1]
    for b in range(2):
        a, big = (tensors[f"base_model.model.transformer.h.{b}.attn.c_attn.lora_{x}.weight"] for x in "AB")
        for k, role in enumerate("qkv"):
            np.testing.assert_array_equal(found.tensor(b, f"{role}.lora_a"), a)
            np.testing.assert_array_equal(found.tensor(b, f"{role}.lora_b"), big[k * width : (k + 1) * width])


@pytest.mark.parametrize("rslora", [False, True])
def test_merge_of_llama(tmp_path, rslora):
    modules = of(LLAMA, "q_proj", "k_proj", "o_proj", "up_proj", "lm_head")
    tensors = factors(modules)
    adapter = save_adapter(tmp_path / "a", tensors, use_rslora=rslora)
    scale = 12 / (math.sqrt(4) if rslora else 4)
    wanted = {}
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        wanted[module + ".weight"] = (LLAMA.tensors[module + ".weight"] + scale * b @ a).astype(np.float32)
    check_merged(tmp_path, LLAMA, wanted, merge_adapter(LLAMA.write(tmp_path / "base"), adapter))


def test_merge_with_patterns(tmp_path):
    modules = of(LLAMA, "q_proj", "v_proj")
    tensors = factors(modules)
    tensors |= {  # another rank where the pattern says so
        f"base_model.model.model.layers.1.self_attn.q_proj.lora_{x}.weight": y
        for x, y in (("A", draw(2, 20)), ("B", draw(24, 2)))
    }
    patterns = {
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"v_proj": 1, "^model.*q_proj": 6},
    }
    adapter = read_adapter(save_adapter(tmp_path / "a", tensors, **patterns))
    assert dict(adapter.scales) == {
        "model.layers.0.self_attn.q_proj": 6 / 4,
        "model.layers.1.self_attn.q_proj": 6 / 2,
        "model.layers.0.self_attn.v_proj": 1 / 4,
        "model.layers.1.self_attn.v_proj": 1 / 4,
    }
    wanted = {}
    for module, scale in adapter.scales.items():
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        wanted[module + ".weight"] = LLAMA.tensors[module + ".weight"] + np.float32(scale) * (b @ a)
    check_merged(tmp_path, LLAMA, wanted, merge_adapter(LLAMA.write(tmp_path / "base"), tmp_path / "a"))


def dora(weight, b, a, scale, m):
    """W' of a linear layer (out x in), from the paper: m · V / ‖V‖ by output."""
    v = weight.astype(np.float64) + scale * (b.astype(np.float64) @ a)
    return (m[:, None] * v / np.sqrt((v * v).sum(axis=1))[:, None]).astype(np.float32)


def test_merge_of_dora(tmp_path):
    modules = of(LLAMA, "q_proj", "gate_proj")
    tensors = factors(modules)
    for module, (out, _) in modules.items():
        tensors[f"base_model.model.{module}.lora_magnitude_vector"] = np.abs(draw(out)) + 1
    wanted = {}
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        m = tensors[f"base_model.model.{module}.lora_magnitude_vector"]
        wanted[module + ".weight"] = dora(LLAMA.tensors[module + ".weight"], b, a, 3, m)
    adapter = save_adapter(tmp_path / "a", tensors, use_dora=True)
    assert anatomy(adapter).tensor(0, "gate.lora_magnitude").shape == (36,)
    check_merged(tmp_path, LLAMA, wanted, merge_adapter(LLAMA.write(tmp_path / "base"), adapter))


@pytest.mark.parametrize("use_dora", [False, True])
def test_merge_of_gpt2_turned_and_fused(tmp_path, use_dora):
    modules = of(GPT2, "attn.c_attn", "attn.c_proj", "mlp.c_fc", transposed=True)
    tensors = factors(modules)
    wanted = {}
    for module, (out, _) in modules.items():
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        linear = GPT2.tensors[module + ".weight"].T
        if use_dora:
            m = np.abs(draw(out)) + 1
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = m
            wanted[module + ".weight"] = dora(linear, b, a, 3, m).T
        else:
            wanted[module + ".weight"] = (linear + 3 * (b @ a)).T
    adapter = save_adapter(tmp_path / "a", tensors, fan_in_fan_out=True)
    check_merged(tmp_path, GPT2, wanted, merge_adapter(GPT2.write(tmp_path / "base"), adapter))


def test_merge_where_the_checkpoint_leaves_out_the_prefix(tmp_path):
    # GPT-2's own file has h.0.…, PEFT names modules as the code does.
    short = Miniature(
        "gpt2", {name.removeprefix("transformer."): x for name, x in GPT2.tensors.items()}, GPT2.config, GPT2.canonical
    )
    modules = of(GPT2, "attn.c_attn", transposed=True)
    tensors = factors(modules)
    wanted = {}
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        name = module.removeprefix("transformer.") + ".weight"
        wanted[name] = (short.tensors[name].T + 3 * (b @ a)).T
    adapter = save_adapter(tmp_path / "a", tensors, fan_in_fan_out=True)
    check_merged(tmp_path, short, wanted, merge_adapter(short.write(tmp_path / "base"), adapter))


def test_merge_of_neox_interleaved_heads(tmp_path):
    modules = of(NEOX, "attention.query_key_value", "mlp.dense_h_to_4h")
    tensors = factors(modules)
    wanted = {}
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        wanted[module + ".weight"] = NEOX.tensors[module + ".weight"] + 3 * (b @ a)
    check_merged(
        tmp_path, NEOX, wanted, merge_adapter(NEOX.write(tmp_path / "base"), save_adapter(tmp_path / "a", tensors))
    )


@pytest.mark.parametrize("use_dora", [False, True])
def test_merge_of_embeddings_and_a_tied_head(tmp_path, use_dora):
    embedding = GPT2.tensors["transformer.wte.weight"]
    a, b = draw(4, len(embedding)), draw(embedding.shape[1], 4)
    tensors = {
        "base_model.model.transformer.wte.lora_embedding_A": a,
        "base_model.model.transformer.wte.lora_embedding_B": b,
    }
    v = embedding.astype(np.float64) + 3 * (b.astype(np.float64) @ a).T
    if use_dora:
        m = np.abs(draw(embedding.shape[1])) + 1
        tensors["base_model.model.transformer.wte.lora_magnitude_vector"] = m
        v = v * (m / np.sqrt((v * v).sum(axis=0)))
    merged = merge_adapter(GPT2.write(tmp_path / "base"), save_adapter(tmp_path / "a", tensors))
    check_merged(tmp_path, GPT2, {"transformer.wte.weight": v.astype(np.float32)}, merged)
    np.testing.assert_array_equal(merged.tensor(None, "head"), merged.tensor(None, "embedding"))


def test_saved_modules_and_biases_stand_for_the_bases(tmp_path):
    modules = of(GPT2, "mlp.c_fc", transposed=True)
    tensors = factors(modules)
    bias = draw(*GPT2.tensors["transformer.h.0.mlp.c_fc.bias"].shape)
    norm = draw(*GPT2.tensors["transformer.ln_f.weight"].shape)
    tensors["base_model.model.transformer.h.0.mlp.c_fc.base_layer.bias"] = bias
    tensors["base_model.model.transformer.ln_f.modules_to_save.weight"] = norm
    tensors["base_model.model.transformer.h.1.mlp.c_fc.lora_B.bias"] = extra = draw(*bias.shape, seed=9)
    wanted = {"transformer.h.0.mlp.c_fc.bias": bias, "transformer.ln_f.weight": norm}
    wanted["transformer.h.1.mlp.c_fc.bias"] = GPT2.tensors["transformer.h.1.mlp.c_fc.bias"] + 3 * extra
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        wanted[module + ".weight"] = (GPT2.tensors[module + ".weight"].T + 3 * (b @ a)).T
    adapter = save_adapter(tmp_path / "a", tensors, fan_in_fan_out=True)
    check_merged(tmp_path, GPT2, wanted, merge_adapter(GPT2.write(tmp_path / "base"), adapter))


def test_a_vocabulary_that_grew(tmp_path):
    tensors = factors(of(LLAMA, "q_proj")) | {
        "base_model.model.model.embed_tokens.weight": draw(53, 20),
        "base_model.model.lm_head.weight": draw(53, 20, seed=1),
    }
    merged = merge_adapter(LLAMA.write(tmp_path / "base"), save_adapter(tmp_path / "a", tensors))
    np.testing.assert_array_equal(merged.tensor(None, "head"), tensors["base_model.model.lm_head.weight"])
    assert merged.geometry["decoder"].vocabulary == 53
    assert merged.tensor(0, "q").shape == (24, 20)


def test_merge_by_place_on_gguf_names_and_rotary_pairs(tmp_path):
    """The adapter speaks the hub's names, the base is a GGUF model: its q and k hold their rows in pairs."""
    base = GGUF
    d, ffn = base.config["hidden_size"], base.config["intermediate_size"]
    heads, kv, hd = (base.config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    modules = {}
    for b in range(2):
        at = f"model.layers.{b}."
        modules |= {at + "self_attn.q_proj": (heads * hd, d), at + "self_attn.k_proj": (kv * hd, d)}
        modules |= {at + "mlp.down_proj": (d, ffn)}
    tensors = factors(modules)
    adapter = save_adapter(tmp_path / "a", tensors)
    merged = merge_adapter(base.write(tmp_path / "base"), adapter)
    assert merged.unmapped == ()
    for module in modules:
        b = int(module.split(".")[2])
        role = {"q_proj": "q", "k_proj": "k", "down_proj": "down"}[module.split(".")[-1]]
        a, big = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        wanted = base.canonical[Place("decoder", b, role)] + 3 * (big @ a)
        np.testing.assert_allclose(merged.tensor(b, role), wanted, rtol=2e-5, atol=2e-5)
        part = merged.tensor(b, role, rows=slice(3, 10), columns=slice(1, 5))
        np.testing.assert_allclose(part, wanted[3:10, 1:5], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(merged.tensor(0, "v"), base.canonical[Place("decoder", 0, "v")])


def test_folding_works_on_merged_values(tmp_path):
    tensors = factors(of(LLAMA, "q_proj"))
    merged = merge_adapter(LLAMA.write(tmp_path / "base"), save_adapter(tmp_path / "a", tensors))
    gain = LLAMA.canonical[Place("decoder", 0, "attn_norm")]
    np.testing.assert_allclose(merged.tensor(0, "q", fold_norms=True), merged.tensor(0, "q") * gain, rtol=1e-6)


def test_merged_pickles_and_says_what_it_touched(tmp_path):
    merged = merge_adapter(LLAMA.write(tmp_path / "base"), save_adapter(tmp_path / "a", factors(of(LLAMA, "q_proj"))))
    again = pickle.loads(pickle.dumps(merged))
    np.testing.assert_array_equal(again.tensor(1, "q"), merged.tensor(1, "q"))
    name = "model.layers.1.self_attn.q_proj.weight"
    assert merged.weights.touched == {name, name.replace(".1.", ".0.")}
    assert merged.weights.stored(name) is None
    assert merged.weights.stored("model.norm.weight") is not None


# What can't be merged


def refused(tmp_path, kind, match, tensors=None, base=LLAMA, **config):
    adapter = save_adapter(tmp_path / "a", factors(of(LLAMA, "q_proj")) if tensors is None else tensors, **config)
    with pytest.raises(kind, match=match) as caught:
        merge_adapter(base.write(tmp_path / "base"), adapter)
    assert caught.value.path or caught.value.tensor
    return caught.value


def test_modules_that_the_base_lacks_are_named(tmp_path):
    tensors = factors(of(LLAMA, "q_proj") | {"model.layers.7.self_attn.q_proj": (24, 20)})
    assert refused(tmp_path, FormatError, r"layers\.7\.self_attn\.q_proj", tensors).code == "adapter_base"
    tensors = factors({"model.layers.0.something.else": (24, 20)})
    refused(tmp_path, FormatError, r"model\.layers\.0\.something\.else", tensors)


def test_shapes_that_do_not_fit_the_base(tmp_path):
    tensors = factors({"model.layers.0.self_attn.q_proj": (24, 22)})
    assert refused(tmp_path, FormatError, r"\[24, 20\].*\[24, 22\]", tensors).code == "adapter_base"


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "olora"}, "path_initial_model"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    ],
)
def test_other_kinds_are_refused(tmp_path, config, match):
    assert refused(tmp_path, UnsupportedFormatError, match, **config).code == "adapter_kind"


@pytest.mark.parametrize(
    ("config", "match", "code"),
    [
        ({"lora_alpha": None}, "lora_alpha", "adapter_config"),
        ({"lora_alpha": True}, "lora_alpha", "adapter_config"),
        ({"lora_alpha": "16"}, "lora_alpha", "adapter_config"),
        ({"r": 8}, "rank 8", "adapter_config"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern", "adapter_config"),
        ({"rank_pattern": {"(a+)+": 4}}, "repeats too much", "adapter_pattern"),
        ({"alpha_pattern": {".*.*.*.*x": 4}}, "repeats too much", "adapter_pattern"),
        ({"alpha_pattern": {"(": 4}}, "regular expression", "adapter_pattern"),
    ],
)
def test_configs_that_do_not_say_the_scale(tmp_path, config, match, code):
    assert refused(tmp_path, FormatError, match, **config).code == code


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t, at: t.pop(at + "lora_B.weight"), "only one of the two"),
        (lambda t, at: t.update({at + "lora_B.weight": draw(24, 5)}), "r x in"),
        (lambda t, at: t.update({at + "lora_A.weight": draw(4, 20, 1, 1)}), "r x in"),
        (lambda t, at: t.update({at + "lora_A.other.weight": draw(4, 20)}), "several adapters"),
        (lambda t, at: t.update({at + "lora_magnitude_vector": draw(20)}), "lora_magnitude_vector"),
    ],
)
def test_broken_factors(tmp_path, change, match):
    tensors = factors(of(LLAMA, "q_proj"))
    change(tensors, "base_model.model.model.layers.0.self_attn.q_proj.")
    assert refused(tmp_path, FormatError, match, tensors).code == "adapter_factors"
    # As a model of its own it still opens: what has no place is named.
    found = anatomy(tmp_path / "a")
    assert found.unmapped
    assert any("q_proj" in finding.message for finding in found.findings)


def test_a_model_is_no_adapter(tmp_path):
    with pytest.raises(FormatError, match="no LoRA factors") as caught:
        merge_adapter(LLAMA.write(tmp_path / "base"), tmp_path / "base")
    assert caught.value.code == "no_adapter"


def test_a_folder_with_checkpoints_beside_reads_the_adapter(tmp_path):
    folder = save_adapter(tmp_path / "a", factors(of(LLAMA, "q_proj")))
    safetensors.numpy.save_file({"x": draw(3)}, folder / "optimizer.safetensors")
    checkpoint = weightprint.open(folder)
    assert [file.name for file in checkpoint.files] == ["adapter_model.safetensors"]
    assert [finding.code for finding in checkpoint.findings] == ["other_files"]


def test_statistics_of_a_merged_model(tmp_path):
    tensors = factors(of(LLAMA, "q_proj")) | {"base_model.model.lm_head.weight": draw(50, 20)}
    base = LLAMA.write(tmp_path / "base")
    merged = merge_adapter(base, save_adapter(tmp_path / "a", tensors))
    found, before = (weightprint.scan(model, of="canonical", digest=True) for model in (merged, base))
    changed = {name for name in found.names() if found[name]["digest"] != before[name]["digest"]}
    assert changed == {"decoder.0.q", "decoder.1.q", "decoder.head"}
    q = merged.tensor(1, "q").astype(np.float64)
    assert found["decoder.1.q"]["std"] == pytest.approx(q.std(), rel=1e-6)
    assert found["decoder.head"]["file"] is None
    with pytest.raises(UsageError, match="stored nowhere"):
        weightprint.scan(merged)
