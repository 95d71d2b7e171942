"""What is found in whole checkpoints: many layers, mixed schemes, what a config decides, and what stays plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opening import find, found, only, opened, same_bits
from stored import FORMS
from stored_eight_bits import fp8_block, fp8_per_tensor, int8_group
from stored_fp4 import gpt_oss, mxfp4, nvfp4, torchao_int4
from stored_layout import BF16, Stored, fp8, scales, words
from stored_packed import awq, bnb_4bit, gptq, packed
from weightprint.quant.weights import Weights

WHOLE = slice(None)
Array = np.ndarray[Any, Any]


def renamed(form: Stored, layer: str) -> dict[str, Array]:
    return {name.replace("m.", layer, 1): array for name, array in form.tensors.items()}


def test_many_schemes_in_one_checkpoint(save: Callable[..., Path]) -> None:
    """Every form that needs neither config nor metadata, side by side; each comes out as if it were alone."""
    forms = {
        f"layers.{k}.": make(np.random.default_rng(k))
        for k, (label, make) in enumerate(FORMS.items())
        if not any(word in label for word in ("torchao", "gptq", "original", "mlx", "bitnet"))
    }
    tensors = {name: array for layer, form in forms.items() for name, array in renamed(form, layer).items()}
    tensors["norm.weight"] = np.ones(8, BF16)
    weights, findings = found(checkpoint := opened(save("a.safetensors", tensors)))
    assert findings == []
    assert len(weights) == len(forms)
    by_name = {weight.name: weight for weight in weights}
    for layer, form in forms.items():
        weight = by_name[form.name.replace("m.", layer, 1)]
        assert weight.scheme == form.scheme
        same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)
    claimed = [name for weight in weights for name in weight.components]
    assert len(claimed) == len(set(claimed))


def test_weights_hold_decoded_and_plain_ones(save: Callable[..., Path]) -> None:
    form = fp8_per_tensor(np.random.default_rng(0))
    held = Weights(opened(save("a.safetensors", form.tensors)))
    assert list(held) == ["m.k_proj.weight", "m.v_proj.weight"]
    assert held["m.k_proj.weight"].nbytes == sum(a.nbytes for n, a in form.tensors.items() if "v_proj" not in n)
    same_bits(held.read("m.k_proj.weight", slice(2, 5), slice(3, 9)), form.values[2:5, 3:9])


def test_plain_checkpoints_have_none(save: Callable[..., Path]) -> None:
    """Names that look like scales, blocks and codes in models that are not quantised."""
    rng = np.random.default_rng(0)
    tensors = {
        "logit_scale": scales(rng),
        "layer_scale": scales(rng, 4),
        "norm.scale": scales(rng, 4),
        "norm.weight": scales(rng, 4),
        "attn.q_scale": scales(rng, 1),
        "attn.k_scale": scales(rng, 1),
        "down_blocks": scales(rng, 4, 4),
        "image.blocks": rng.integers(0, 9, (2, 3, 16)).astype(np.int32),
        "position_ids": np.arange(9),
        "mask": rng.integers(0, 2, (4, 4)).astype(np.uint8),
        "mask_scale": scales(rng, 4),
        "table": rng.integers(-9, 9, (4, 4)).astype(np.int8),
        "SCB": scales(rng, 3),
    }
    weights, findings = found(opened(save("a.safetensors", tensors)))
    assert weights == []
    assert findings == []


def test_a_weight_stored_twice_keeps_both(save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0))
    tensors = form.tensors | {"m.up.weight": np.zeros((3, 3), np.float32)}
    weights, findings = found(opened(save("a.safetensors", tensors), form.config))
    assert [weight.name for weight in weights] == ["m.up.qweight"]
    assert [finding.code for finding in findings] == ["stored_twice"]
    held = Weights(opened(save("a.safetensors", tensors), form.config))
    assert set(held) == {"m.up.qweight", "m.up.weight", "m.up.bias"}


def test_cache_scales_go_to_their_projection(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        tensors |= {f"attn.{name}.weight": fp8(rng, 4, 4), f"attn.{name}.weight_scale": scales(rng)}
    tensors |= {"attn.k_scale": scales(rng), "attn.v_scale": scales(rng), "attn.k_proj.k_scale": scales(rng)}
    tensors |= {"attn.attn.q_scale": scales(rng), "other.k_scale": scales(rng)}
    owner = {n: w.name for w in find(opened(save("a.safetensors", tensors))) for n in w.components}
    assert owner["attn.k_scale"] == owner["attn.k_proj.k_scale"] == "attn.k_proj.weight"
    assert owner["attn.v_scale"] == "attn.v_proj.weight"
    assert owner["attn.attn.q_scale"] == "attn.q_proj.weight"
    assert "other.k_scale" not in owner


# What a config decides


@pytest.mark.parametrize(
    ("said", "offset"),
    [
        ({"quant_method": "gptq"}, 1),
        ({"quant_method": "gptq", "checkpoint_format": "gptq"}, 1),
        ({"quant_method": "gptq", "checkpoint_format": "gptq_v2"}, 0),
        ({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}, 1),
        ({"quant_method": "auto-round", "packing_format": "auto_round"}, 0),
    ],
)
def test_gptq_s_zero_points(said: dict[str, str], offset: int, save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0), version=2 - offset)
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors), {"quantization_config": said}))
    assert "assumed" not in weight.parameters
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_gptq_tells_its_format_by_values(version: int, bits: int, save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0), bits=bits, version=version)
    middle = 1 << (bits - 1)
    zeros = np.full((4, 64), middle - (version == 1))
    form.tensors["m.up.qzeros"] = words(zeros, bits)
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    assert "assumed" not in weight.parameters
    assert weight.parameters["checkpoint_format"] == ("gptq" if version == 1 else "gptq_v2")
    codes = np.stack([(form.tensors["m.up.qweight"].view(np.uint32) >> (bits * k)) for k in range(32 // bits)], 1)
    codes = (codes & (2 * middle - 1)).reshape(-1, 64).astype(np.float32)
    expected = (codes - np.float32(middle)) * form.tensors["m.up.scales"].astype(np.float32).repeat(32, 0)
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), expected.T)


def test_without_any_word_on_it_v1_is_assumed_and_said(save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0))
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    assert weight.parameters["assumed"] == "checkpoint_format"
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_blocks_of_another_size_need_the_config(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    codes, grid = fp8(rng, 192, 288), scales(rng, 2, 3)
    tensors = {"m.up.weight": codes, "m.up.weight_scale_inv": grid}
    by_128 = np.repeat(np.repeat(grid, 128, 0), 128, 1)[:192, :288]
    by_96 = np.repeat(np.repeat(grid, 96, 0), 96, 1)
    for config, repeated in (
        ({}, by_128),
        ({"quantization_config": {"weight_block_size": [96, 96]}}, by_96),
        ({"text_config": {"quantization_config": {"weight_block_size": [96, 96]}}}, by_96),
        ({"quantization_config": {"weight_block_size": [17, 17]}}, by_128),
        ({"quantization_config": {"weight_block_size": [0, "x"]}}, by_128),
        ({"quantization_config": {"config_groups": {"a": {"weights": {"block_structure": [96, 96]}}}}}, by_96),
    ):
        weight = only(checkpoint := opened(save("a.safetensors", tensors), config))
        same_bits(weight.read(checkpoint, WHOLE, WHOLE), codes.astype(np.float32) * repeated)


HOSTILE: list[Any] = [[], 3, "fp8", None, {"config_groups": []}, {"config_groups": {"a": 3}}, {"bits": [4]}]


@pytest.mark.parametrize("said", HOSTILE)
def test_a_config_of_another_form_is_no_obstacle(said: Any, save: Callable[..., Path]) -> None:
    form = fp8_block(np.random.default_rng(0))
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors), {"quantization_config": said}))
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_a_config_that_promises_zero_points(save: Callable[..., Path]) -> None:
    form = packed(np.random.default_rng(0), zero=False)
    weights = {"num_bits": 4, "symmetric": False}
    config = {"quantization_config": {"config_groups": {"a": {"weights": weights}}}}
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors), config))
    with pytest.raises(weightprint.FormatError, match="zero_point is missing"):
        weight.read(checkpoint, WHOLE, WHOLE)


def test_packed_without_its_shape_needs_the_bits(save: Callable[..., Path]) -> None:
    form = packed(np.random.default_rng(0))
    del form.tensors["m.up.weight_shape"]
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors), form.config))
    same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    with pytest.raises(weightprint.FormatError):
        weight.read(checkpoint, WHOLE, WHOLE)


# Sizes

sizes = st.integers(1, 70)
fast = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(form: Stored, data: st.DataObject, save: Callable[..., Path]) -> None:
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors, form.metadata), form.config))
    expert = data.draw(st.integers(0, form.shape[0] - 1)) if len(form.shape) == 3 else None
    whole = form.values if expert is None else form.values[expert]
    top, left = data.draw(st.integers(0, whole.shape[0])), data.draw(st.integers(0, whole.shape[1]))
    bottom, right = data.draw(st.integers(top, whole.shape[0])), data.draw(st.integers(left, whole.shape[1]))
    assert weight.shape == form.shape
    got = weight.read(checkpoint, slice(top, bottom), slice(left, right), expert)
    same_bits(got, whole[top:bottom, left:right])


@fast
@given(st.data(), st.integers(1, 400), st.integers(1, 400))
def test_any_size_of_fp8_blocks(save: Callable[..., Path], data: st.DataObject, rows: int, columns: int) -> None:
    form = fp8_block(np.random.default_rng(rows), rows, columns)
    check(form, data, save)


@fast
@given(st.data(), sizes, st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_any_size_of_int8_groups(
    save: Callable[..., Path], data: st.DataObject, rows: int, groups: int, size: int, order: bool
) -> None:
    form = int8_group(np.random.default_rng(rows), rows, groups, size, order)
    check(form, data, save)


@fast
@given(
    st.data(), st.sampled_from([2, 4, 8]), sizes, st.integers(1, 5), st.integers(1, 40), st.booleans(), st.booleans()
)
def test_any_size_of_packed_integers(
    save: Callable[..., Path],
    data: st.DataObject,
    bits: int,
    rows: int,
    groups: int,
    size: int,
    zero: bool,
    order: bool,
) -> None:
    form = packed(np.random.default_rng(rows), bits, rows, groups, size, zero, order)
    check(form, data, save)


@fast
@given(st.data(), st.sampled_from([2, 4, 8]), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_any_size_of_gptq(
    save: Callable[..., Path], data: st.DataObject, bits: int, out: int, groups: int, size: int, order: bool
) -> None:
    form = gptq(np.random.default_rng(out), bits, 32 * out, groups, 16 * size, order)
    check(form, data, save)


@fast
@given(st.data(), st.integers(1, 9), st.integers(1, 5), st.integers(1, 40))
def test_any_size_of_awq(save: Callable[..., Path], data: st.DataObject, out: int, groups: int, size: int) -> None:
    check(awq(np.random.default_rng(out), 8 * out, groups, size), data, save)


@fast
@given(st.data(), sizes, sizes, st.sampled_from([1, 7, 64, 128]), st.booleans())
def test_any_size_of_nf4(
    save: Callable[..., Path], data: st.DataObject, rows: int, columns: int, block: int, double: bool
) -> None:
    form = bnb_4bit(np.random.default_rng(rows), "nf4", rows, columns, block, double)
    check(form, data, save)


@fast
@given(st.data(), st.integers(1, 4), sizes, st.integers(1, 5), st.booleans())
def test_any_size_of_gpt_oss(
    save: Callable[..., Path], data: st.DataObject, experts: int, out: int, groups: int, original: bool
) -> None:
    check(gpt_oss(np.random.default_rng(out), experts, out, groups, original), data, save)


@fast
@given(st.data(), sizes, st.integers(1, 9), st.sampled_from(["packed", "weight", "int8"]))
def test_any_size_of_mxfp4(save: Callable[..., Path], data: st.DataObject, rows: int, groups: int, form: str) -> None:
    check(mxfp4(np.random.default_rng(rows), rows, groups, form), data, save)


@fast
@given(st.data(), sizes, st.integers(1, 9), st.sampled_from(["packed", "modelopt"]))
def test_any_size_of_nvfp4(save: Callable[..., Path], data: st.DataObject, rows: int, groups: int, form: str) -> None:
    check(nvfp4(np.random.default_rng(rows), rows, groups, form), data, save)


@fast
@given(st.data(), sizes, st.integers(1, 9), st.integers(1, 30))
def test_any_size_of_torchao_int4(
    save: Callable[..., Path], data: st.DataObject, rows: int, groups: int, size: int
) -> None:
    check(torchao_int4(np.random.default_rng(rows), rows, groups, 2 * size), data, save)


def test_small_tensors_are_read_in_one_call(save: Callable[..., Path]) -> None:
    tensors = {f"{k}": np.arange(k, dtype=np.int16) for k in range(5)} | {"big": np.zeros(70_000, np.uint8)}
    file = opened(save("a.safetensors", tensors)).core_file(0)
    numbers = [file.find(name) for name in ("3", "0", "4", "3")]
    assert file.read_small(numbers) == [tensors[name].tobytes() for name in ("3", "0", "4", "3")]
    assert file.read_small([]) == []
    with pytest.raises(weightprint.UsageError, match="70000"):
        file.read_small([file.find("big")])
    with pytest.raises(IndexError):
        file.read_small([99])


def test_shapes_too_many_to_keep_are_read_one_by_one(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weightprint.quant.base._SMALL_TOTAL", 20)
    form = packed(np.random.default_rng(0))
    tensors = {n: a for k in range(3) for n, a in renamed(form, f"layers.{k}.").items()}
    weights = find(checkpoint := opened(save("a.safetensors", tensors), form.config))
    assert len(weights) == 3
    for weight in weights:
        same_bits(weight.read(checkpoint, WHOLE, WHOLE), form.values)


def test_a_step_is_refused(save: Callable[..., Path]) -> None:
    form = awq(np.random.default_rng(0))
    weight = only(checkpoint := opened(save("a.safetensors", form.tensors)))
    with pytest.raises(weightprint.UsageError):
        weight.read(checkpoint, slice(0, 8, 2), WHOLE)


def test_the_pair_of_bits_and_group_is_never_guessed(save: Callable[..., Path]) -> None:
    """MLX's shapes say bits times group: 4 times 64 may be 8 times 32."""
    form = FORMS["mlx 4"](np.random.default_rng(0))
    path = save("a.safetensors", form.tensors)
    with pytest.raises(weightprint.FormatError, match="quantization"):
        only(checkpoint := opened(path)).read(checkpoint, WHOLE, WHOLE)
    for said, bits in (((4, 64), 4), ((8, 32), 8), ((2, 128), 2)):
        config = {"quantization": {"bits": said[0], "group_size": said[1]}}
        assert only(opened(path, config)).parameters["bits"] == bits
    with pytest.raises(weightprint.FormatError):
        only(checkpoint := opened(path, {"quantization": {"bits": 3, "group_size": 64}})).read(checkpoint, WHOLE, WHOLE)
    odd = FORMS["mlx 5"](np.random.default_rng(0))
    same_bits(only(checkpoint := opened(save("b.safetensors", odd.tensors))).read(checkpoint, WHOLE, WHOLE), odd.values)


def test_a_label_that_contradicts_symmetric_codes_is_a_finding(save: Callable[..., Path]) -> None:
    form = FORMS["gptq v2 under another label"](np.random.default_rng(0))
    _, (finding,) = found(opened(save("a.safetensors", form.tensors), form.config))
    assert (finding.code, finding.tensor) == ("mislabelled_zero_points", "m.up.qzeros")
    assert "would be 9" in finding.message


@pytest.mark.parametrize(
    ("scheme", "tensors"),
    [
        ("hqq", {"W_q": np.zeros((16, 64), np.uint8), "scale": np.ones((1, 64), np.float16), "zero": np.ones((1, 64))}),
        (
            "aqlm",
            {"codes": np.zeros((8, 4, 1), np.int16), "codebooks": np.ones((1, 256, 1, 8)), "scales": np.ones((8, 1))},
        ),
        ("quip_sharp", {"Qidxs": np.zeros((8, 4), np.int64), "SU": np.ones(8), "SV": np.ones(8), "Wscale": np.ones(1)}),
        (
            "vptq",
            {"indices": np.zeros((1, 8, 16), np.int32), "centroids.weight": np.ones((1, 2048)), "perm": np.ones(8)},
        ),
        (
            "exl2",
            {"q_weight": np.zeros((8, 16), np.int32), "q_scale": np.ones((1, 2)), "q_groups": np.zeros(4, np.int16)},
        ),
        ("words", {"weight": np.zeros((8, 16), np.uint32)}),
        ("exl3", {"trellis": np.zeros((1, 2, 64), np.int16), "suh": np.ones(16), "svh": np.ones(16)}),
    ],
)
def test_what_is_not_decoded_is_named_with_all_its_parts(
    scheme: str, tensors: dict[str, Array], save: Callable[..., Path]
) -> None:
    stored = {f"m.up.{end}": array for end, array in tensors.items()}
    others = {"m.up.bias": np.ones(8, np.float16), "m.down.weight": np.ones((8, 8), np.float16)}
    weight = only(checkpoint := opened(save("a.safetensors", stored | others)))
    assert (weight.scheme, set(weight.components)) == (scheme, set(stored))
    with pytest.raises(weightprint.FormatError, match=r"not decoded|no known scheme"):
        weight.read(checkpoint, WHOLE, WHOLE)
