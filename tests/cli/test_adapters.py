"""Adapters on the command line: what each verb says of one, and of ``base+adapter``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from weightprint.cli import cli

D, RANK = 64, 8


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32) * np.float32(0.05)


def run(*args):
    return CliRunner().invoke(cli, list(map(str, args)))


def save(path, tensors, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, path, metadata)
    return path


def kohya(zero=False):
    """SDXL's U-Net and text encoder, with a convolution, as kohya's trainer saves them."""
    made = {}
    modules = [f"lora_unet_input_blocks_4_1_transformer_blocks_{b}_attn1_to_{r}" for b in (0, 1) for r in "qkv"]
    modules += [f"lora_te1_text_model_encoder_layers_{b}_mlp_fc1" for b in (0, 1)]
    for k, module in enumerate(modules):
        made[module + ".alpha"] = np.float16(4)
        made[module + ".lora_down.weight"] = draw(RANK, D, seed=k).astype(np.float16)
        made[module + ".lora_up.weight"] = (draw(D, RANK, seed=k) * (not zero)).astype(np.float16)
    at = "lora_unet_input_blocks_1_0_in_layers_2"
    made[at + ".alpha"] = np.float16(1)
    made[at + ".lora_down.weight"] = draw(4, 32, 3, 3).astype(np.float16)
    made[at + ".lora_up.weight"] = (draw(32, 4, 1, 1) * (not zero)).astype(np.float16)
    return made


def wan():
    """Factors, full differences of biases, of a norm and of the patch embedding."""
    made = {"diffusion_model.patch_embedding.diff": draw(D, 16, 1, 2, 2)}
    for b in range(3):
        for role in ("self_attn.q", "self_attn.k", "cross_attn.v_img", "ffn.0"):
            at = f"diffusion_model.blocks.{b}.{role}."
            made |= {at + "lora_down.weight": draw(RANK, D, seed=b), at + "lora_up.weight": draw(D, RANK, seed=b)}
            made[at + "diff_b"] = draw(D, seed=b)
        made[f"diffusion_model.blocks.{b}.cross_attn.norm_k_img.diff"] = draw(D, seed=b)
    return made


def lycoris():
    made = {}
    for b in range(3):
        for role in ("q_proj", "v_proj"):
            at = f"lora_te2_text_model_encoder_layers_{b}_self_attn_{role}"
            made |= {at + ".lokr_w1": draw(8, 8), at + ".lokr_w2": draw(16, 16), at + ".alpha": np.float32(1e9)}
        at = f"lora_unet_input_blocks_{4 + b}_1_proj_in"
        made |= {f"{at}.hada_w{k}_a": draw(D, 4) for k in (1, 2)} | {f"{at}.hada_w{k}_b": draw(4, D) for k in (1, 2)}
        made[at + ".alpha"] = np.float32(2)
    return made


FILES = {
    "kohya": (kohya(), ["LoRA of rank 4, 8, alpha 1, 4, on 9 modules", "attn1_to_q 2", "mlp_fc1 2", "kohya"], 9),
    "wan": (wan(), ["LoRA (12) and full difference (4) of rank 8, on 16 modules", "self_attn.q 3"], 16),
    "lycoris": (lycoris(), ["LoKr (6) and LoHa (3) of rank 4", "self_attn_q_proj 3"], 9),
}


@pytest.fixture(params=FILES)
def adapter(request, tmp_path):
    tensors, words, n_modules = FILES[request.param]
    return save(tmp_path / f"{request.param}.safetensors", tensors, {"ss_network_dim": "8"}), words, n_modules


def test_inspect_names_the_adapter(adapter):
    path, words, n_modules = adapter
    shown = " ".join(run("inspect", path).stdout.split())
    assert all(word in shown for word in words)
    assert "decoder" not in shown
    assert "no place" not in shown
    data = json.loads(run("inspect", path, "--json").stdout)["anatomy"]
    assert data["tensors"] == data["unmapped"] == []
    assert sum(n for a in data["adapters"] for n in a["kinds"].values()) == n_modules


def test_stats_pool_no_factor_as_a_role(adapter):
    rows = json.loads(run("stats", adapter[0], "--by", "role", "--format", "json").stdout)
    assert {row["role"] for row in rows} == {None}
    canonical = json.loads(run("stats", adapter[0], "--canonical", "--format", "json").stdout)
    assert len(canonical) == len(safetensors.numpy.load_file(adapter[0]))


def test_check_finds_nothing_in_a_sound_one(adapter):
    result = run("check", adapter[0], "--ignore", "outlier")
    assert result.exit_code == 0, result.stdout


def test_check_says_that_it_changes_nothing(tmp_path):
    result = run("check", save(tmp_path / "zero.safetensors", kohya(zero=True)))
    assert result.exit_code == 1
    assert "adapter_no_change" in result.stdout
    assert "this adapter changes nothing: all 9 second factors are zero" in result.stdout


# base+adapter


@pytest.fixture
def both(tmp_path):
    """A decoder of two blocks and a LoRA of it."""
    w = {"model.embed_tokens.weight": draw(96, D), "model.norm.weight": 1 + draw(D), "lm_head.weight": draw(96, D)}
    factors = {}
    for b in range(2):
        at = f"model.layers.{b}."
        w |= {at + f"{norm}_layernorm.weight": 1 + draw(D) for norm in ("input", "post_attention")}
        w |= {at + f"self_attn.{r}_proj.weight": draw(D, D, seed=ord(r)) for r in "qkvo"}
        w |= {at + f"mlp.{r}_proj.weight": draw(128, D, seed=b) for r in ("gate", "up")}
        w[at + "mlp.down_proj.weight"] = draw(D, 128, seed=b)
        module = f"base_model.model.{at}self_attn.q_proj."
        factors |= {module + "lora_A.weight": draw(RANK, D, seed=b), module + "lora_B.weight": draw(D, RANK, seed=b)}
    base = save(tmp_path / "base" / "model.safetensors", w).parent
    config = {"model_type": "llama", "hidden_size": D, "num_attention_heads": 4, "num_hidden_layers": 2}
    (base / "config.json").write_text(json.dumps(config))
    folder = save(tmp_path / "adapter" / "adapter_model.safetensors", factors).parent
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 16}))
    return base, folder


def test_every_verb_takes_base_and_adapter(both):
    base, adapter = both
    merged = f"{base}+{adapter}"
    shown = run("inspect", merged).stdout
    assert "merged  LoRA of rank 8, alpha 16, on 2 modules" in shown
    assert "recognised as llama" in shown
    assert run("check", merged, "--ignore", "outlier").exit_code == 0
    rows, before = (json.loads(run("stats", m, "--canonical", "--format", "json").stdout) for m in (merged, base))
    assert [a["name"] for a, b in zip(rows, before, strict=True) if a["std"] != b["std"]] == [
        "decoder.0.q",
        "decoder.1.q",
    ]
    result = run("diff", base, merged)
    assert result.exit_code == 1
    assert "2 changed, 19 same" in result.stdout
    assert run("diff", merged, merged).exit_code == 0
    assert run("compare", merged, merged).exit_code == 0
    said = json.loads(run("compare", base, merged, "--json").stdout)
    assert said["b"]["source"] == merged
    assert said["verdict"] == "shared_origin"
    assert "lora_merge" in {operation["name"] for operation in said["operations"]}


def test_compare_says_what_an_adapter_is_and_the_way_out(both):
    base, adapter = both
    result = run("compare", base, adapter)
    assert result.exit_code == 2
    assert "B is an adapter and no model (LoRA of rank 8, alpha 16, on 2 modules (q 2)" in result.stderr
    assert f"as BASE+{adapter}" in result.stderr


@pytest.mark.parametrize("verb", ["inspect", "check", "stats"])
@pytest.mark.parametrize("which", [0, 1])
def test_no_output_may_be_one_of_the_two(both, verb, which):
    name = ("model.safetensors", "adapter_config.json")[which]
    target = both[which] / name
    before = target.read_bytes()
    result = run(verb, f"{both[0]}+{both[1]}", "-o", target)
    assert "belongs to what is read" in result.stderr
    assert target.read_bytes() == before


def test_a_manifest_is_of_files(both, tmp_path):
    result = run("check", f"{both[0]}+{both[1]}", "--manifest", "write", tmp_path / "none.json")
    assert result.exit_code == 2
    assert "no file holds a merged model" in result.stderr
