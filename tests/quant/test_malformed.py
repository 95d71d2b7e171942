"""Components that are missing or contradict each other: a typed error that names the tensor, never wrong numbers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opening import find, found, opened
from stored import FORMS
from stored_eight_bits import fp8_block
from stored_layout import Stored, fp8, int8, scales
from stored_packed import bnb_int8, gptq, packed
from weightprint.quant.base import Unreadable

WHOLE = slice(None)
Array = np.ndarray[Any, Any]

#: form → component → why its absence is no error: the format calls it optional, or it is not of the weight.
OPTIONAL = {
    "m.q_proj.bias",
    "m.up.bias",
    "m.k_scale",
    "m.v_proj.weight",
    "m.up.weight_format",
    "m.up.weight_g_idx",
    "m.up.g_idx",
    "m.up.weight_shape",
}


def _is_optional(form: Stored, name: str) -> bool:
    last = name.rpartition(".")[2]
    beside = ("input", "activation", "_pre_scale", "zero_point", "global_scale", "per_tensor_scale", "nbits", "axis")
    return name in OPTIONAL or any(word in last for word in beside)


@pytest.mark.parametrize("label", list(FORMS))
def test_without_a_component_it_is_not_decoded(label: str, save: Callable[..., Path]) -> None:
    """Each needed component taken away in turn: an error on reading, or no quantised weight and a finding or plain."""
    form = FORMS[label](np.random.default_rng(5))
    for gone in form.tensors:
        if _is_optional(form, gone):
            continue
        left = {name: array for name, array in form.tensors.items() if name != gone}
        checkpoint = opened(save("a.safetensors", left, form.metadata), form.config)
        for weight in find(checkpoint):
            with pytest.raises(weightprint.FormatError) as caught:
                weight.read(checkpoint, WHOLE, WHOLE, 0 if len(weight.shape) == 3 else None)
            assert caught.value.tensor in form.tensors
            assert caught.value.path == checkpoint.files[0].path


@pytest.mark.parametrize("label", list(FORMS))
def test_a_component_of_another_shape_is_not_decoded(label: str, save: Callable[..., Path]) -> None:
    """Each component of the weight one row longer in turn: an error that names a tensor, or the tensors stay plain."""
    form = FORMS[label](np.random.default_rng(5))
    for name, array in form.tensors.items():
        if _is_optional(form, name) and not name.endswith(("g_idx", "zero_point", "weight_shape")):
            continue
        if array.ndim == 0:
            continue
        longer = np.concatenate([array, array[-1:]])
        checkpoint = opened(save("a.safetensors", form.tensors | {name: longer}, form.metadata), form.config)
        for weight in find(checkpoint):
            if weight.components[0] == name and weight.shape != form.shape:
                continue  # codes with one row more that still fit their scales: another sound weight
            with pytest.raises(weightprint.FormatError) as caught:
                weight.read(checkpoint, WHOLE, WHOLE, 0 if len(weight.shape) == 3 else None)
            assert caught.value.code == "quantisation"
            assert caught.value.tensor in form.tensors


@pytest.mark.parametrize("label", list(FORMS))
@pytest.mark.parametrize("kind", ["C64", "BOOL", "I64", "F32", "U8", "F8_E8M0"])
def test_a_component_of_another_dtype(
    label: str, kind: str, save: Callable[..., Path], numpy_dtypes: dict[str, Any]
) -> None:
    """Each component in turn as zeros of another dtype: refused, plain, or decoded as something that has its shape."""
    form = FORMS[label](np.random.default_rng(5))
    for name, array in form.tensors.items():
        other = np.zeros(array.shape, np.uint8).astype(numpy_dtypes[kind])
        checkpoint = opened(save("a.safetensors", form.tensors | {name: other}, form.metadata), form.config)
        for weight in find(checkpoint):
            with contextlib.suppress(weightprint.FormatError):
                assert weight.read(checkpoint, WHOLE, WHOLE).shape == weight.shape


def broken(save: Callable[..., Path], tensors: dict[str, Array], **more: Any) -> tuple[str, str]:
    """(tensor, message) of the error that reading raises."""
    checkpoint = opened(save("a.safetensors", tensors, more.get("metadata")), more.get("config"))
    weights, findings = found(checkpoint)
    (weight,) = weights
    with pytest.raises(weightprint.FormatError) as caught:
        weight.read(checkpoint, WHOLE, WHOLE)
    if isinstance(weight, Unreadable):
        assert [finding.code for finding in findings] in (["unreadable_quantisation"], ["not_decoded"])
        assert weight.parameters["problem"] == weight.problem
    return str(caught.value.tensor), caught.value.message


def test_the_message_says_expected_and_found(save: Callable[..., Path]) -> None:
    form = fp8_block(np.random.default_rng(0))
    wrong = form.tensors | {"m.q_proj.weight_scale_inv": scales(np.random.default_rng(0), 7, 5)}
    tensor, message = broken(save, wrong)
    assert tensor == "m.q_proj.weight_scale_inv"
    assert "[7, 5]" in message
    assert "[300, 200]" in message


def test_awq_in_gemv_arrangement(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "m.up.qweight": rng.integers(0, 99, (64, 16)).astype(np.int32),
        "m.up.qzeros": rng.integers(0, 99, (64, 1)).astype(np.int32),
        "m.up.scales": scales(rng, 64, 8, kind=np.float16),
    }
    assert "GEMV" in broken(save, tensors)[1]


@pytest.mark.parametrize("group", [-3, 4, 2**31 - 1])
def test_a_group_that_does_not_exist(group: int, save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0))
    table = form.tensors["m.up.g_idx"].copy()
    table[70] = group
    assert broken(save, form.tensors | {"m.up.g_idx": table})[0] == "m.up.g_idx"
    form = packed(np.random.default_rng(0), order=True)
    table = form.tensors["m.up.weight_g_idx"].copy()
    table[70] = group
    assert broken(save, form.tensors | {"m.up.weight_g_idx": table})[0] == "m.up.weight_g_idx"


def test_a_part_that_avoids_the_wrong_group_can_be_read(save: Callable[..., Path]) -> None:
    form = gptq(np.random.default_rng(0))
    form.tensors["m.up.g_idx"][70] = 99
    checkpoint = opened(save("a.safetensors", form.tensors), form.config)
    (weight,) = find(checkpoint)
    np.testing.assert_array_equal(weight.read(checkpoint, WHOLE, slice(0, 70)), form.values[:, :70])


def test_bitsandbytes_in_an_old_gpu_s_layout(save: Callable[..., Path]) -> None:
    form = bnb_int8(np.random.default_rng(0))
    form.tensors["m.up.weight_format"] = np.array(2, np.uint8)
    tensor, message = broken(save, form.tensors)
    assert tensor == "m.up.weight_format"
    assert "2" in message


STATES = [
    b"",
    b"{",
    b"[1, 2]",
    b"\xff\xfe",
    b"[" * 3000,
    b'{"shape": [10, 130]}',
    b'{"shape": [10, -130], "blocksize": 64}',
    b'{"shape": [10, 130.0], "blocksize": 64}',
    b'{"shape": [10, 130], "blocksize": 0}',
    b'{"shape": [10, 130], "blocksize": true}',
    b'{"shape": [1000000000000, 1000000000000], "blocksize": 64}',
    b'{"shape": "big", "blocksize": 64}',
    b'{"shape": [1300], "blocksize": 64}',
    b'{"shape": [10, 130], "blocksize": 64, "nested_blocksize": 256, "nested_offset": "x"}',
    b'{"shape": [10, 131], "blocksize": 64}',
    b'{"shape": [10, 130], "blocksize": 32}',
    b'{"shape": [10, 130], "blocksize": 64, "nested_blocksize": 4}',
]


@pytest.mark.parametrize("state", STATES)
def test_a_quant_state_that_is_none(state: bytes, save: Callable[..., Path]) -> None:
    form = FORMS["bnb nf4 double"](np.random.default_rng(0))
    name = "m.up.weight.quant_state.bitsandbytes__nf4"
    broken(save, form.tensors | {name: np.frombuffer(state, np.uint8).copy()})


METADATA = [
    "",
    "{",
    "[]",
    "null",
    json.dumps({"_type": "Int4TilePackedTo4dTensor", "_data": {}}),
    json.dumps({"_type": 7, "_data": {}}),
    json.dumps({"_type": "Int4PlainInt32Tensor", "_data": {"block_size": [1, 32]}}),
    json.dumps({"_type": "NVFP4Tensor", "_data": {"block_size": 16}}),
]


@pytest.mark.parametrize("said", METADATA)
def test_torchao_of_a_class_that_is_not_decoded(said: str, save: Callable[..., Path]) -> None:
    form = FORMS["torchao int4"](np.random.default_rng(0))
    broken(save, form.tensors, metadata={"m.up.weight": said})


def test_torchao_without_metadata(save: Callable[..., Path]) -> None:
    form = FORMS["torchao int4"](np.random.default_rng(0))
    assert "no metadata" in broken(save, form.tensors)[1]


SHAPES = [[24, 97], [23, 96], [24, 0], [24, -96], [24], [1, 24, 96, 1], [24, 2**40]]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_weight_shape_that_does_not_fit(shape: list[int], save: Callable[..., Path]) -> None:
    form = packed(np.random.default_rng(0))
    tensor, _ = broken(save, form.tensors | {"m.up.weight_shape": np.array(shape, np.int64)})
    assert tensor == "m.up.weight_shape"


def test_codes_of_three_bits_straddle_words(save: Callable[..., Path]) -> None:
    form = packed(np.random.default_rng(0), bits=3, rows=32)
    tensor, message = broken(save, form.tensors)
    assert tensor == "m.up.weight_packed"
    assert "3 bits" in message


def test_bytes_under_scales_in_no_known_layout(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors = {"m.up.weight": rng.integers(0, 9, (8, 8)).astype(np.uint8), "m.up.weight_scale": scales(rng, 1)}
    assert "no known layout" in broken(save, tensors)[1]


def test_fp4_packed_along_the_inputs(save: Callable[..., Path]) -> None:
    """ModelOpt's Llama 4: (experts, in / 2, out) under (experts, in / 16, out)."""
    rng = np.random.default_rng(0)
    tensors = {
        "m.experts.gate_up_proj": rng.integers(0, 255, (2, 32, 48)).astype(np.uint8),
        "m.experts.gate_up_proj_weight_scale": fp8(rng, 2, 4, 48),
        "m.experts.gate_up_proj_weight_scale_2": scales(rng),
    }
    assert "no known layout" in broken(save, tensors)[1]


def test_eetq_is_recognised_and_refused(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors = {"m.up.weight": int8(rng, 8, 8), "m.up.weight_scales": scales(rng, 8, kind=np.float16)}
    assert "EETQ" in broken(save, tensors)[1]


WORDS = (
    *(
        "weight",
        "weight_scale",
        "weight_scale_inv",
        "weight_zero_point",
        "weight_g_idx",
        "weight_packed",
        "weight_shape",
    ),
    *("weight_scale_2", "weight_global_scale", "input_scale", "scale", "qweight", "qzeros", "scales", "g_idx", "SCB"),
    *("weight_format", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"),
    *("weight.quant_state.bitsandbytes__nf4", "up_blocks", "up_scales", "up", "up_scale", "k_scale", "weight._data"),
    *("weight._scale", "_weight_qdata", "_weight_scale", "_weight_zero_point", "qscale_weight"),
)
KINDS = ("U8", "I8", "I32", "I64", "F32", "BF16", "F16", "F8_E4M3", "F8_E8M0", "F64", "BOOL", "C64")
SIDES = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64])
DRAWN = st.dictionaries(
    st.sampled_from(WORDS), st.tuples(st.sampled_from(KINDS), st.lists(SIDES, max_size=4), st.integers(0, 255))
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=DRAWN)
def test_whatever_stands_together_is_decoded_or_refused(
    drawn: dict[str, Any], save: Callable[..., Path], numpy_dtypes: dict[str, Any]
) -> None:
    """Any dtypes and shapes under names of schemes: values of the promised shape, or a FormatError; nothing else."""
    tensors = {}
    for word, (kind, shape, value) in drawn.items():
        dtype = np.dtype(numpy_dtypes[kind])
        raw = bytes([value & (1 if kind == "BOOL" else 255)]) * (int(np.prod(shape)) * dtype.itemsize)
        tensors["m." + word] = np.frombuffer(raw, dtype).reshape(shape)
    checkpoint = opened(save("a.safetensors", tensors))
    weights, _ = found(checkpoint)
    claimed = [name for weight in weights for name in weight.components]
    assert len(claimed) == len(set(claimed))
    assert len({weight.name for weight in weights} | (set(tensors) - set(claimed))) == len(weights) + len(
        set(tensors) - set(claimed)
    )
    for weight in weights:
        with contextlib.suppress(weightprint.FormatError):
            assert weight.read(checkpoint, WHOLE, WHOLE).shape == weight.shape


def test_nothing_is_allocated_for_what_a_state_promises(save: Callable[..., Path]) -> None:
    """A shape of 10^18 elements over a kilobyte of codes is refused from the sizes alone."""
    form = FORMS["bnb nf4"](np.random.default_rng(0))
    state = b'{"shape": [1000000000, 1000000000], "blocksize": 64}'
    name = "m.up.weight.quant_state.bitsandbytes__nf4"
    assert broken(save, form.tensors | {name: np.frombuffer(state, np.uint8).copy()})[0] == "m.up.weight"


def test_scales_without_codes_are_plain_and_said(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors = {f"m.{k}.weight_scale": scales(rng, 3) for k in range(4)}
    weights, findings = found(opened(save("a.safetensors", tensors)))
    assert weights == []
    assert [finding.code for finding in findings] == ["scale_without_codes"]
    assert "3 more" in findings[0].message


def test_scales_of_what_is_not_quantised_are_plain_and_said(save: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tensors = {"m.up.weight": scales(rng, 3, 3), "m.up.weight_scale": scales(rng, 3)}
    weights, findings = found(opened(save("a.safetensors", tensors)))
    assert weights == []
    assert "F32" in findings[0].message


def test_fp8_without_a_scale_is_plain(save: Callable[..., Path]) -> None:
    weights, findings = found(opened(save("a.safetensors", {"m.up.weight": fp8(np.random.default_rng(0), 4, 4)})))
    assert (weights, findings) == ([], [])
