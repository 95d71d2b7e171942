"""Adapters of rarer forms: experts in one weight, core tensors of convolutions, VeRA, trained and virtual tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import weightprint
from weightprint.anatomy.adapters.merged import merge_adapter
from weightprint.anatomy.anatomy import anatomy
from weightprint.errors import FormatError, UnsupportedFormatError

R, EXPERTS, HIDDEN, FFN = 3, 4, 16, 20
Q = "model.layers.0.self_attn.q_proj"
CONV = "down_blocks.0.resnets.0.conv1"
AT = "lora_unet_down_blocks_0_resnets_0_conv1"


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def f64(x):
    return np.asarray(x, np.float64)


def save(folder, tensors, config=None, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, folder / name)
    if config is not None:
        (folder / ("adapter_config.json" if "peft_type" in config else "config.json")).write_text(json.dumps(config))
    return folder


def merged(tmp_path, base, adapter, config=None):
    """The merged weights, read from files."""
    a = save(tmp_path / "base", base)
    b = save(tmp_path / "adapter", adapter, config, "adapter_model.safetensors")
    return merge_adapter(a, b).weights


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


# Experts in one weight


def of_experts(b, a):
    """PEFT's two factors of all experts: A's rows expert by expert, B's columns rank by rank; (experts, in, out)."""
    return np.einsum("ore,eri->eio", f64(b).reshape(len(b), R, EXPERTS), f64(a).reshape(EXPERTS, R, -1))


@pytest.mark.parametrize("turned", [False, True])
def test_target_parameters(tmp_path, turned):
    """Two parameters of one module: the first that was wrapped lies one ``base_layer`` deeper."""
    up, down = draw(EXPERTS, HIDDEN, 2 * FFN), draw(EXPERTS, FFN, HIDDEN)
    at = "base_model.model.model.layers.0.mlp.experts."
    factors = {
        at + "base_layer.lora_A.weight": draw(EXPERTS * R, HIDDEN, seed=1),
        at + "base_layer.lora_B.weight": draw(2 * FFN, EXPERTS * R, seed=2),
        at + "lora_A.weight": draw(EXPERTS * R, FFN, seed=3),
        at + "lora_B.weight": draw(HIDDEN, EXPERTS * R, seed=4),
    }
    said = {"peft_type": "LORA", "r": R, "lora_alpha": 2 * R}
    said["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    where = "model.layers.0.mlp.experts."
    base = {where + "gate_up_proj": up, where + "down_proj": down, Q + ".weight": draw(HIDDEN, HIDDEN)}
    if turned:
        base |= {name: base[name].swapaxes(1, 2) for name in (where + "gate_up_proj", where + "down_proj")}
    weights = merged(tmp_path, base, factors, said)
    b, a, d, c = (factors[at + end] for end in (
        "base_layer.lora_B.weight", "base_layer.lora_A.weight", "lora_B.weight", "lora_A.weight"))  # fmt: skip
    for name, plain, update in (("gate_up_proj", up, of_experts(b, a)), ("down_proj", down, of_experts(d, c))):
        wanted = plain + 2 * update
        wanted = wanted.swapaxes(1, 2) if turned else wanted
        close(weights.read(where + name), wanted)
        close(weights.read(where + name, slice(1, 3)), wanted[1:3])
        close(weights.read(where + name, slice(2, 9), slice(3, 7), index=2), wanted[2, 2:9, 3:7])
    (told,) = anatomy(tmp_path / "adapter").adapters
    assert told.ranks == (R,)
    assert weightprint.check(tmp_path / "adapter").sound


def test_target_parameters_of_another_rank(tmp_path):
    at = "base_model.model.mlp.experts."
    said = {"peft_type": "LORA", "r": 5, "lora_alpha": 5, "target_parameters": ["mlp.experts.up"]}
    factors = {at + "lora_A.weight": draw(EXPERTS * R, HIDDEN), at + "lora_B.weight": draw(FFN, EXPERTS * R)}
    save(tmp_path / "a", factors, said, "adapter_model.safetensors")
    assert "adapter_config" in {f.code for f in weightprint.check(tmp_path / "a").findings if f.severity == "error"}


def test_mlx_experts(tmp_path):
    w, a, b = draw(EXPERTS, FFN, HIDDEN), draw(EXPERTS, R, HIDDEN), draw(EXPERTS, FFN, R)
    at = "model.layers.0.mlp.switch_mlp.up_proj"
    base = save(tmp_path / "base", {at + ".weight": w})
    adapter = save(tmp_path / "a", {at + ".lora_a": a, at + ".lora_b": b}, None, "adapters.safetensors")
    said = {"fine_tune_type": "lora", "lora_parameters": {"rank": R, "scale": 10.0}}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    weights = merge_adapter(base, adapter).weights
    wanted = w + 10 * f64(b) @ f64(a)
    close(weights.read(at + ".weight"), wanted)
    close(weights.read(at + ".weight", slice(2, 5), slice(1, 9), index=3), wanted[3, 2:5, 1:9])


# Convolutions with core tensors


def core(t, a, b):
    return np.einsum("ijkl,jr,ip->prkl", f64(t), f64(b), f64(a))


def tucker_lora():
    down, mid, up = draw(R, 6, 1, 1), draw(R, R, 3, 3), draw(8, R, 1, 1)
    tensors = {".lora_down.weight": down, ".lora_mid.weight": mid, ".lora_up.weight": up}
    return tensors, np.einsum("or,rskl,si->oikl", f64(up[:, :, 0, 0]), f64(mid), f64(down[:, :, 0, 0]))


def tucker_loha():
    parts = [x for k in (1, 2) for x in (draw(R, 8, seed=k), draw(R, 6, seed=k), draw(R, R, 3, 3, seed=k))]
    names = [f".hada_{word}" for k in (1, 2) for word in (f"w{k}_a", f"w{k}_b", f"t{k}")]
    a, b, t, c, d, u = parts
    return dict(zip(names, parts, strict=True)), core(t, a, b) * core(u, c, d)


def tucker_lokr():
    w1, t, a, b = draw(4, 2), draw(R, R, 3, 3), draw(R, 2), draw(R, 3)
    tensors = {".lokr_w1": w1, ".lokr_t2": t, ".lokr_w2_a": a, ".lokr_w2_b": b}
    return tensors, np.einsum("ab,prkl->apbrkl", f64(w1), core(t, a, b)).reshape(8, 6, 3, 3)


def lokr_of_factors():
    a, b, w2 = draw(4, R), draw(R, 2), draw(2, 3, 3, 3)
    tensors = {".lokr_w1_a": a, ".lokr_w1_b": b, ".lokr_w2": w2}
    return tensors, np.einsum("ab,prkl->apbrkl", f64(a) @ f64(b), f64(w2)).reshape(8, 6, 3, 3)


@pytest.mark.parametrize("make", [tucker_lora, tucker_loha, tucker_lokr, lokr_of_factors])
def test_convolutions(tmp_path, make):
    parts, update = make()
    w = draw(8, 6, 3, 3, seed=9)
    adapter = {AT + end: x for end, x in parts.items()} | {AT + ".alpha": np.float32(2 * R)}
    weights = merged(tmp_path, {CONV + ".weight": w}, adapter)
    close(weights.read(CONV + ".weight"), w + 2 * update)
    close(weights.read(CONV + ".weight", slice(3, 7)), (w + 2 * update)[3:7])
    (told,) = anatomy(tmp_path / "adapter").adapters
    assert told.ranks == (R,)
    assert weightprint.check(tmp_path / "adapter").sound


@pytest.mark.parametrize("axis", [0, 1])
def test_dora_of_outputs_and_of_inputs(tmp_path, axis):
    a, b, w = draw(R, HIDDEN), draw(HIDDEN, R), draw(HIDDEN, HIDDEN, seed=5)
    m = np.abs(draw(HIDDEN, seed=6)) + 1
    m = m[:, None] if axis == 0 else m[None]
    at = "lora_unet_" + Q.replace(".", "_")
    adapter = {at + ".lora_down.weight": a, at + ".lora_up.weight": b, at + ".dora_scale": m}
    v = w + f64(b) @ f64(a)
    wanted = v * m / np.linalg.norm(v, axis=1 - axis, keepdims=True)
    weights = merged(tmp_path, {Q + ".weight": w}, adapter)
    close(weights.read(Q + ".weight"), wanted)
    close(weights.read(Q + ".weight", slice(2, 9), slice(3, 8)), wanted[2:9, 3:8])


@pytest.mark.parametrize("out", [6, 8])
@pytest.mark.parametrize("form", ["PEFT", "LyCORIS, outputs", "LyCORIS, inputs"])
def test_dora_of_a_convolution(tmp_path, form, out):
    """PEFT's magnitudes are (1, out, 1, 1), LyCORIS' (out, 1, 1, 1) or (1, in, 1, 1)."""
    a, b, w = draw(R, 6, 3, 3), draw(out, R, 1, 1), draw(out, 6, 3, 3, seed=5)
    by_input = form.endswith("inputs")
    m = np.abs(draw(6 if by_input else out, seed=6)) + 1
    v = w + np.einsum("or,rikl->oikl", f64(b[:, :, 0, 0]), f64(a))
    axes = (0, 2, 3) if by_input else (1, 2, 3)
    shaped = m.reshape((1, -1, 1, 1) if by_input else (-1, 1, 1, 1))
    wanted = v * shaped / np.sqrt((v**2).sum(axes, keepdims=True))
    if form == "PEFT":
        at = f"base_model.model.{CONV}."
        adapter = {
            at + "lora_A.weight": a,
            at + "lora_B.weight": b,
            at + "lora_magnitude_vector": m.reshape(1, -1, 1, 1),
        }
        config = {"peft_type": "LORA", "r": R, "lora_alpha": R, "use_dora": True}
    else:
        adapter, config = {AT + ".lora_down.weight": a, AT + ".lora_up.weight": b, AT + ".dora_scale": shaped}, None
    weights = merged(tmp_path, {CONV + ".weight": w}, adapter, config)
    close(weights.read(CONV + ".weight"), wanted)
    close(weights.read(CONV + ".weight", slice(2, 5)), wanted[2:5])


def test_ia3_of_attention_and_ffn(tmp_path):
    """feedforward_modules are scaled by input, the others by output."""
    down = Q.replace("self_attn.q_proj", "mlp.down_proj")
    w, v = draw(HIDDEN, HIDDEN), draw(HIDDEN, HIDDEN, seed=1)
    out, inn = draw(HIDDEN, 1, seed=2), draw(1, HIDDEN, seed=3)
    adapter = {f"base_model.model.{Q}.ia3_l": out, f"base_model.model.{down}.ia3_l": inn}
    config = {"peft_type": "IA3", "target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    weights = merged(tmp_path, {Q + ".weight": w, down + ".weight": v}, adapter, config)
    close(weights.read(Q + ".weight"), w * out)
    close(weights.read(down + ".weight"), v * inn)


# VeRA, tokens


def test_vera(tmp_path):
    a, b, d, s = draw(R, 2 * HIDDEN), draw(2 * HIDDEN, R), draw(R, seed=1), draw(HIDDEN, seed=2)
    w, at = draw(HIDDEN, HIDDEN, seed=3), f"base_model.model.{Q}."
    adapter = {at + "vera_lambda_d": d, at + "vera_lambda_b": s, "base_model.vera_A": a, "base_model.vera_B": b}
    weights = merged(tmp_path, {Q + ".weight": w}, adapter, {"peft_type": "VERA", "r": R})
    close(weights.read(Q + ".weight"), w + (s[:, None] * f64(b[:HIDDEN])) @ (d[:, None] * f64(a[:, :HIDDEN])))
    (told,) = anatomy(tmp_path / "adapter").adapters
    assert (told.kinds, told.ranks) == ({"VeRA": 1}, (R,))
    assert anatomy(tmp_path / "adapter").unmapped == ()


def test_vera_without_its_shared_matrices(tmp_path):
    at = f"base_model.model.{Q}."
    adapter = {at + "vera_lambda_d": draw(R), at + "vera_lambda_b": draw(HIDDEN)}
    with pytest.raises(UnsupportedFormatError, match="vera_A"):
        merged(tmp_path, {Q + ".weight": draw(HIDDEN, HIDDEN)}, adapter, {"peft_type": "VERA", "r": R})


@pytest.mark.parametrize("inside", [False, True])
def test_trained_tokens(tmp_path, inside):
    table, own, w = draw(30, HIDDEN), draw(3, HIDDEN, seed=1), draw(HIDDEN, HIDDEN)
    at = "base_model.model.model.embed_tokens."
    if inside:
        said = {"peft_type": "LORA", "r": R, "lora_alpha": R, "trainable_token_indices": {"embed_tokens": [4, 9, 2]}}
        q = f"base_model.model.{Q}.lora_"
        adapter = {at + "token_adapter.trainable_tokens_delta": own}
        adapter |= {q + "A.weight": draw(R, HIDDEN), q + "B.weight": draw(HIDDEN, R)}
    else:
        said = {"peft_type": "TRAINABLE_TOKENS", "token_indices": [4, 9, 2]}
        adapter = {at + "trainable_tokens_delta": own}
    weights = merged(tmp_path, {"model.embed_tokens.weight": table, Q + ".weight": w}, adapter, said)
    wanted = table.copy()
    wanted[[4, 9, 2]] = own
    close(weights.read("model.embed_tokens.weight"), wanted)
    close(weights.read("model.embed_tokens.weight", slice(3, 10), slice(2, 5)), wanted[3:10, 2:5])
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(said | {"token_indices": [1]}))
    with pytest.raises(FormatError, match="which 3 tokens"):
        merge_adapter(tmp_path / "base", tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_virtual_tokens_are_named(tmp_path, kind):
    save(tmp_path / "a", {"prompt_embeddings": draw(8, HIDDEN)}, {"peft_type": kind}, "adapter_model.safetensors")
    (told,) = anatomy(tmp_path / "a").adapters
    assert "virtual tokens" in told.words
    (found,) = weightprint.check(tmp_path / "a").findings
    assert (found.code, found.severity) == ("adapter_kind", "note")


def test_other_forms_of_oft_are_named(tmp_path):
    """LyCORIS' blocks turn outputs, under a norm of their own."""
    at = "lora_unet_model_layers_0_q.oft_blocks"
    save(tmp_path / "a", {at: draw(8, 6, 6)}, {}, "adapter_model.safetensors")
    (told,) = anatomy(tmp_path / "a").adapters
    assert told.kinds == {"OFT": 1}
    (found,) = weightprint.check(tmp_path / "a").findings
    assert "turns the weights" in found.message


# Rotations


def block_diagonal(blocks):
    size = blocks.shape[-1]
    whole = np.zeros((len(blocks) * size,) * 2)
    for k, block in enumerate(blocks):
        whole[k * size :][:size, k * size :][:, :size] = block
    return whole


def cayley(skew):
    one = np.eye(len(skew))
    return np.linalg.solve((one + skew).T, (one - skew).T).T


def neumann(skew, terms):
    terms = max(terms, 4)
    powers = [np.linalg.matrix_power(skew, k) for k in range(terms)]
    return powers[0] + 2 * sum(powers[1:-1]) + powers[-1]


def skew_of(vector, size):
    made, places = np.zeros((size, size)), [(i, j) for i in range(size) for j in range(i + 1, size)]
    for value, (i, j) in zip(vector, places, strict=True):
        made[i, j], made[j, i] = value, -value
    return made


def oft_case(share=False, terms=None, size=4):
    """(tensors, config, R) of PEFT's OFT on HIDDEN inputs."""
    stored = 0.3 * draw(1 if share else HIDDEN // size, size * (size - 1) // 2, seed=4)
    turn = cayley if terms is None else lambda q: neumann(q, terms)
    blocks = np.array([turn(skew_of(vector, size)) for vector in stored])
    blocks = np.concatenate([blocks] * (HIDDEN // size)) if share else blocks
    config = {"peft_type": "OFT", "block_share": share, "oft_block_size": size, "use_cayley_neumann": terms is not None}
    return {f"{Q}.oft_R.weight": stored}, config | {"num_cayley_neumann_terms": terms or 5}, block_diagonal(blocks), 1


def boft_case(n, size=4, old=False):
    count = HIDDEN // size
    stored, s = 0.3 * draw(n, count, size, size, seed=5), 1 + 0.1 * draw(HIDDEN, 1, seed=6)
    whole = np.eye(HIDDEN)
    for k in range(n):
        blocks = block_diagonal(np.array([cayley((m - m.T) / 2) for m in stored[k].astype(np.float64)]))
        permutation = np.eye(HIDDEN)
        if n > 1:  # halves of blocks, those of even number first, within runs of 2ᵏ blocks
            order = []
            for run in np.arange(HIDDEN).reshape(count >> k, -1):
                halves = run.reshape(-1, size // 2)
                order += [*halves[0::2].ravel(), *halves[1::2].ravel()]
            permutation = permutation[order]
        whole = permutation @ blocks @ permutation.T @ whole
    if old:
        return {f"{Q}.oft_r": stored[0], f"{Q}.oft_s": s}, {"peft_type": "OFT"}, whole, s
    return {f"{Q}.boft_R": stored, f"{Q}.boft_s": s}, {"peft_type": "BOFT"}, whole, s


def hra_case(orthogonal=False):
    u = draw(HIDDEN, 4, seed=8)
    columns = f64(u).T
    if orthogonal:
        made = []
        for x in columns:
            made.append(x - sum((x @ y) / (y @ y) * y for y in made))
        columns = made
    whole = np.eye(HIDDEN)
    for x in columns:
        whole = whole @ (np.eye(HIDDEN) - 2 * np.outer(x, x) / (x @ x))
    return {f"{Q}.hra_u": u}, {"peft_type": "HRA", "r": 4, "apply_GS": orthogonal}, whole.T, 1


ROTATIONS = {
    "HRA": hra_case,
    "HRA, orthogonal": lambda: hra_case(True),
    "OFT, series of three": lambda: oft_case(terms=3),
    "OFT": oft_case,
    "OFT, shared": lambda: oft_case(share=True),
    "OFT, series": lambda: oft_case(terms=5),
    "OFT, short series": lambda: oft_case(terms=4),
    "OFT, older": lambda: boft_case(1, old=True),
    "BOFT": lambda: boft_case(1),
    "BOFT, two": lambda: boft_case(2),
    "BOFT, three": lambda: boft_case(3, size=2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", ROTATIONS)
def test_rotations(tmp_path, case, turned, dtype):
    tensors, config, r, s = ROTATIONS[case]()
    w = draw(HIDDEN, HIDDEN, seed=9).astype(dtype)
    wanted = (w.T if turned else w).astype(np.float64) @ r.T * s
    wanted = (wanted.T if turned else wanted).astype(np.float32)
    adapter = {f"base_model.model.{name}": x for name, x in tensors.items()}
    weights = merged(tmp_path, {Q + ".weight": w}, adapter, config | ({"fan_in_fan_out": True} if turned else {}))
    np.testing.assert_allclose(weights.read(Q + ".weight"), wanted, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(
        weights.read(Q + ".weight", slice(3, 9), slice(2, 5)), wanted[3:9, 2:5], rtol=2e-4, atol=2e-5
    )


def test_a_rotation_that_does_not_cover_the_inputs(tmp_path):
    adapter = {f"base_model.model.{Q}.oft_R.weight": draw(3, 6)}
    with pytest.raises(FormatError, match="don't cover"):
        merged(tmp_path, {Q + ".weight": draw(HIDDEN, HIDDEN)}, adapter, {"peft_type": "OFT"})


@pytest.mark.parametrize("form", ["own names", "wrapped"])
def test_trained_norms(tmp_path, form):
    """PEFT's LN_TUNING stores whole gains."""
    norm = Q.rpartition(".")[0].rpartition(".")[0] + ".input_layernorm"
    own, stays = draw(HIDDEN, seed=1), draw(HIDDEN, HIDDEN)
    name = f"{norm}.ln_tuning_layers.weight" if form == "wrapped" else f"{norm}.weight"
    base = {norm + ".weight": draw(HIDDEN), Q + ".weight": stays}
    weights = merged(tmp_path, base, {f"base_model.model.{name}": own}, {"peft_type": "LN_TUNING"})
    close(weights.read(norm + ".weight"), own)
    close(weights.read(Q + ".weight"), stays)
    assert weights.touched == {norm + ".weight"}
    (told,) = anatomy(tmp_path / "adapter").adapters
    assert told.kinds == {"norm weights": 1}
    assert weightprint.check(tmp_path / "adapter").sound


OTHERS = {
    "FOURIERFT": {f"{Q}.fourierft_spectrum": (20,)},
    "VBLORA": {f"{Q}.vblora_logits_A": (4, 2, 8), f"{Q}.vblora_logits_B": (2, 4, 8), "vblora_vector_bank": (8, 6)},
    "C3A": {f"{Q}.c3a_kernel": (2, 2, 6)},
    "ROAD": {f"{Q}.road_theta": (HIDDEN,), f"{Q}.road_alpha": (HIDDEN,)},
    "XLORA": {"internal_xlora_classifier.layers.0.weight": (4, HIDDEN)},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_kinds_without_a_formula_are_named(tmp_path, kind):
    front = "base_model." if kind == "XLORA" else "base_model.model."
    tensors = {front + name: draw(*shape, seed=k) for k, (name, shape) in enumerate(OTHERS[kind].items())}
    with pytest.raises(UnsupportedFormatError, match="merge_and_unload") as raised:
        merged(tmp_path, {Q + ".weight": draw(HIDDEN, HIDDEN)}, tensors, {"peft_type": kind})
    assert raised.value.code == "adapter_kind"
    (told,) = anatomy(tmp_path / "adapter").adapters
    assert kind.lower() in next(iter(told.kinds)).lower().replace("-", "")
    (found,) = weightprint.check(tmp_path / "adapter").findings
    assert (found.code, found.severity) == ("adapter_kind", "note")


# Names of FLUX

#: FLUX's modules, as its makers and as diffusers call them.
FLUX = {
    "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out.0",
    "double_blocks.0.txt_attn.proj": "transformer_blocks.0.attn.to_add_out",
    "double_blocks.11.img_mlp.0": "transformer_blocks.11.ff.net.0.proj",
    "double_blocks.11.img_mlp.2": "transformer_blocks.11.ff.net.2",
    "double_blocks.3.txt_mlp.0": "transformer_blocks.3.ff_context.net.0.proj",
    "double_blocks.3.txt_mlp.2": "transformer_blocks.3.ff_context.net.2",
    "double_blocks.3.img_mod.lin": "transformer_blocks.3.norm1.linear",
    "double_blocks.3.txt_mod.lin": "transformer_blocks.3.norm1_context.linear",
    "single_blocks.7.linear2": "single_transformer_blocks.7.proj_out",
    "single_blocks.7.modulation.lin": "single_transformer_blocks.7.norm.linear",
    "img_in": "x_embedder",
}


@pytest.mark.parametrize("maker", ["diffusion_model", "kohya"])
def test_flux_under_both_names(tmp_path, maker):
    a, b = {}, {}
    for k, (theirs, ours) in enumerate(FLUX.items()):
        down, up = draw(4, 24, seed=k), draw(24, 4, seed=100 + k)
        flat = "lora_unet_" + theirs.replace(".", "_")
        front, words = {
            "diffusion_model": (f"diffusion_model.{theirs}", ("lora_A", "lora_B")),
            "kohya": (flat, ("lora_down", "lora_up")),
        }[maker]
        a |= {f"{front}.{words[0]}.weight": down, f"{front}.{words[1]}.weight": up}
        b |= {f"transformer.{ours}.lora_A.weight": down, f"transformer.{ours}.lora_B.weight": up}
    for name, w in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        safetensors.numpy.save_file(w, tmp_path / name / "adapter_model.safetensors")
    found = weightprint.diff(tmp_path / "a", tmp_path / "b")
    assert found.counts == {"same": 2 * len(FLUX)}
