"""Scales that are squared, inverted or other blocks', in every form; and sound ones, of real models too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import weightprint
from encoders import E2M1, FORMS, NF4, awq, gptq, nf4, sound
from small_models import llama, put, said

WIDTH, FFN, BLOCKS = 128, 256, 4
CONFIG = said(hidden_size=WIDTH, intermediate_size=FFN, num_key_value_heads=4)
MODULE = "model.layers.2.mlp.up_proj.weight"


def matrix(rows, columns, seed, tails=0.3):
    """Rows of differing size, some directions that stand out, some outliers: as trained ones have them."""
    rng = np.random.default_rng([seed, rows, columns])
    x = rng.standard_normal((rows, columns)) * np.exp(0.2 * rng.standard_normal((rows, 1)))
    x += rng.standard_normal((rows, 2)) @ rng.standard_normal((2, columns)) * 0.3
    x *= np.exp(tails * np.abs(rng.standard_normal((rows, columns))))
    return 0.02 * x


def model(form, spoil=sound, only="proj", tails=0.3, keep=1.0):
    """A Llama in this form; `spoil` is done to the scales of the modules with `only` in their names."""
    w = {name: x for name, x in llama().items() if "layers" not in name}
    w = {name: np.resize(x, (*x.shape[:-1], WIDTH)) for name, x in w.items()}
    for k in range(BLOCKS):
        block = f"model.layers.{k}."
        shapes = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in "qkvo"}
        shapes |= {"mlp.gate_proj": (FFN, WIDTH), "mlp.up_proj": (FFN, WIDTH), "mlp.down_proj": (WIDTH, FFN)}
        for n, (part, shape) in enumerate(shapes.items()):
            name = f"{block}{part}.weight"
            x = matrix(*shape, 10 * k + n, tails)
            x[np.abs(x) < np.quantile(np.abs(x), 1 - keep)] = 0
            w |= form(name, x, spoil if only in name else sound)
        for name in ("input", "post_attention"):
            w[f"{block}{name}_layernorm.weight"] = matrix(1, WIDTH, k)[0].astype(np.float32) + 1
    return w


def found(folder, w, config=CONFIG):
    return {f.code: f for f in weightprint.check(put(folder, w, config)).findings if f.severity != "note"}


def config_of(name):
    methods = {"gptq": "gptq", "awq": "awq", "nf4": "bitsandbytes"}
    method = methods.get(name.split()[0])
    if name == "mlx":
        return CONFIG | {"quantization": {"group_size": 32, "bits": 4}}
    said_of = {"quant_method": method, "bits": 4, "group_size": 32}
    return CONFIG | ({"quantization_config": said_of} if method in ("gptq", "awq") else {})


@pytest.mark.parametrize(
    ("form", "keep"), [*((form, 1.0) for form in FORMS), ("nf4", 0.6), ("awq", 0.6), ("int8", 0.6)]
)
def test_sound_scales(tmp_path, form, keep):
    assert not found(tmp_path / "m", model(FORMS[form], keep=keep), config_of(form))


FAULTS = {
    "squared": (np.square, ("squared",)),
    "inverted": (lambda s: 1 / s, ("inverted", "out_of_scale", "cut off", "infinite", "+Inf")),
    "shuffled": (lambda s: np.random.default_rng(0).permutation(s.ravel()).reshape(s.shape), ("another tensor's",)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMS)
def test_faults_of_all_scales(tmp_path, form, fault):
    spoil, words = FAULTS[fault]
    if form == "nf4 doubly":
        spoil = {"squared": np.square, "inverted": lambda s: 1 / s, "shuffled": lambda s: s[::-1] * 0.1}[fault]
    if (form, fault) == ("mxfp4", "shuffled"):
        pytest.skip("powers of two of one model are nearly all the same")
    here = found(tmp_path / "m", model(FORMS[form], spoil), config_of(form))
    assert here.keys() & {"scale_fit", "scale_values", "out_of_scale", "infinity"}, here
    if form not in ("nf4 doubly",):
        assert any(word in f.message for f in here.values() for word in words), here


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["nf4", "gptq", "awq", "int8"])
def test_faults_of_one_weight(tmp_path, form, fault):
    here = found(tmp_path / "m", model(FORMS[form], FAULTS[fault][0], only=MODULE), config_of(form))
    assert here, "nothing is said"
    assert all(MODULE.removesuffix(".weight") in f.message for f in here.values()), here


def test_scales_of_two_weights_exchanged(tmp_path):
    w = model(nf4)
    a, b = (f"model.layers.1.mlp.{part}_proj.weight.absmax" for part in ("gate", "up"))
    w[a], w[b] = w[b], w[a]
    here = found(tmp_path / "m", w)
    assert set(here) == {"scale_fit"}
    assert "layers.1.mlp.gate_proj" in here["scale_fit"].message
    assert "layers.1.mlp.up_proj" in here["scale_fit"].message


def test_a_nested_offset_of_zero(tmp_path):
    w = model(lambda name, x, spoil: nf4(name, x, double=True, offset=lambda mean: 0.0))
    assert "scale_values" in found(tmp_path / "m", w)


def test_groups_in_another_order(tmp_path):
    """desc_act: inputs of one group don't lie side by side."""

    def turned(name, x, spoil):
        order = np.random.default_rng(x.shape[1]).permutation(x.shape[1])
        made = gptq(name, x[:, order], spoil)
        inverse = np.argsort(order)
        stem = name.removesuffix("weight")
        codes = made[stem + "qweight"].view(np.uint32)
        every = (codes[:, None] >> (np.uint32(4) * np.arange(8, dtype=np.uint32)[:, None])) & np.uint32(15)
        every = every.reshape(-1, codes.shape[1])[inverse].reshape(codes.shape[0], 8, -1)
        made[stem + "qweight"] = (
            (every << (np.uint32(4) * np.arange(8, dtype=np.uint32)[:, None])).sum(1).astype(np.uint32).view(np.int32)
        )
        made[stem + "g_idx"] = made[stem + "g_idx"][inverse]
        return made

    config = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}}
    assert not found(tmp_path / "a", model(turned), config)
    assert "scale_fit" in found(tmp_path / "b", model(turned, np.square), config)


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("form", ["gptq groups", "awq"])
def test_zero_points_off_by_one(tmp_path, form, off):
    """As a file of one version of GPTQ is, read as the other's."""
    w = model(FORMS[form])
    for name in w:
        if name.endswith("qzeros"):
            words = w[name].view(np.uint32)
            every = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).astype(np.int64) + off & 15
            w[name] = (every << 4 * np.arange(8)).sum(-1).astype(np.uint32).view(np.int32)
    here = found(tmp_path / "m", w, config_of(form))
    assert ("too high" if off > 0 else "too low") in here["zero_points"].message


def test_codes_drawn_evenly_say_nothing(tmp_path):
    """Of such codes no block's largest stands out: whatever the scales are."""
    rng = np.random.default_rng(0)
    w = model(awq)
    for name in w:
        if name.endswith("qweight"):
            w[name] = rng.integers(-(2**31), 2**31, w[name].shape, dtype=np.int64).astype(np.int32)
        if name.endswith(".scales"):
            w[name] = rng.uniform(0.01, 0.02, w[name].shape).astype(np.float16)
    assert "scale_fit" not in found(tmp_path / "m", w, config_of("awq"))


GGUF = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


@pytest.mark.parametrize("kind", GGUF)
def test_gguf(tmp_path, kind):
    """The scale of a block lies in it, in its first two bytes (of Q4_1 and Q5_1 with the least value behind)."""
    gguf = pytest.importorskip("gguf")
    from gguf.quants import quantize

    def write(path, spoil):
        writer = gguf.GGUFWriter(path, "llama")
        for key, value in (("block_count", BLOCKS), ("embedding_length", WIDTH), ("feed_forward_length", FFN)):
            getattr(writer, f"add_{key}")(value)
        writer.add_head_count(4)
        number = gguf.GGMLQuantizationType[kind]
        for k in range(BLOCKS):
            for n, role in enumerate(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up")):
                stored = quantize(matrix(FFN if "ffn" in role else WIDTH, WIDTH, 10 * k + n).astype(np.float32), number)
                size = gguf.GGML_QUANT_SIZES[number][1]
                blocks = stored.reshape(-1, size)
                head = 4 if kind.endswith("_1") else 2
                heads = blocks[:, :head].copy().view(np.float16).astype(np.float64)
                new = np.sign(heads[:, :1]) * spoil(np.abs(heads[:, :1]))
                if head == 4:
                    new = np.concatenate([new, heads[:, 1:] * new / heads[:, :1]], 1)
                blocks[:, :head] = new.astype(np.float16).view(np.uint8)
                writer.add_tensor(f"blk.{k}.{role}.weight", blocks.reshape(stored.shape), raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {f.code: f for f in weightprint.check(path).findings}

    assert "scale_fit" not in write(tmp_path / "a.gguf", sound)
    assert write(tmp_path / "b.gguf", np.square).keys() & {"scale_fit", "out_of_scale"}
    if kind != "Q8_0":  # 127 to a scale: its reciprocal leaves half precision
        assert write(tmp_path / "c.gguf", lambda s: 1 / s).keys() & {"scale_fit", "out_of_scale"}


# Real models

CACHE = os.environ.get("WEIGHTPRINT_TEST_CACHE")
REAL = (
    "smollm2/f32.safetensors",
    "minilm/fp32.safetensors",
    "whisper/tiny.en.safetensors",
    "antiberty/model.safetensors",
)


@pytest.mark.skipif(not CACHE, reason="no cache of real models")
@pytest.mark.parametrize("form", ["nf4", "gptq groups", "mxfp4"])
@pytest.mark.parametrize("source", REAL)
def test_real_models(tmp_path, source, form):
    path = Path(CACHE) / source
    if not path.exists():
        pytest.skip(f"{source} isn't there")
    made, squared = {}, {}
    with weightprint.open(path) as checkpoint:
        chosen = [i.name for i in checkpoint.tensors if len(i.shape) == 2 and min(i.shape) >= 128]
        for name in chosen[:: max(1, len(chosen) // 10)]:
            x = checkpoint.read(name, 0, 128)
            x = np.asarray(x[: len(x) // 8 * 8, : x.shape[1] // 64 * 64], np.float64)
            if name.endswith(".weight") and np.abs(x).min(1).size and (np.abs(x).max(1) > 0).all():
                made |= FORMS[form](name, x)
                squared |= FORMS[form](name, x, np.square)
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}} if "gptq" in form else None
    codes = [
        {f.code for f in weightprint.check(put(tmp_path / str(k), w, config), select=["scale_fit"]).findings}
        for k, w in enumerate((made, squared))
    ]
    assert codes == [set(), {"scale_fit"}]


@pytest.mark.parametrize("table", [np.zeros(16), NF4[::-1], E2M1 / 6])
def test_a_table_that_is_not_nf4s(tmp_path, table):
    w = model(nf4)
    w[MODULE + ".quant_map"] = np.ascontiguousarray(table, np.float32)
    assert MODULE in found(tmp_path / "m", w)["fixed_table"].message


def test_all_scales_of_a_weight_are_one_number(tmp_path):
    w = model(lambda name, x, spoil: nf4(name, x, double=True))
    w[MODULE + ".absmax"] = np.full_like(w[MODULE + ".absmax"], 128)
    assert MODULE in found(tmp_path / "m", w)["scale_fit"].message
