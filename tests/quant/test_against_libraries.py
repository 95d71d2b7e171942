"""The libraries' own dequantisation, where they install: what they save must come out as they would compute it.

None of them is needed to develop weightprint; each test is skipped without its library. Where a library multiplies in
a narrower type, it is asked for float32, or the result is compared after the same rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import only, opened, same_bits

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")

WHOLE = slice(None)
Tensors = Mapping[str, Any]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., np.ndarray[Any, Any]]:
    """``decoded(tensors, config=…, metadata=…)``: saved by safetensors' own writer, decoded by weightprint."""

    def through(
        tensors: Tensors, config: Mapping[str, Any] | None = None, metadata: dict[str, str] | None = None
    ) -> np.ndarray[Any, Any]:
        from safetensors.torch import save_file

        path = tmp_path / "a.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
        weight = only(checkpoint := opened(path, config))
        return weight.read(checkpoint, WHOLE, WHOLE)

    return through


# compressed-tensors


def _compressed(kind: str, arguments: dict[str, Any], columns: int = 192) -> tuple[dict[str, Any], Any]:
    """(what the library saves, what it decompresses to in float32) for a random (48, columns) weight."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    weight = torch.randn(48, columns)
    state: dict[str, Any] = {"weight": weight}
    strategy = str(getattr(args.strategy, "value", args.strategy))
    shaped = weight
    if strategy in ("group", "tensor_group"):
        shaped = weight.unflatten(-1, (-1, args.group_size))
    if strategy == "block":
        down, across = args.block_structure
        padded = torch.nn.functional.pad(weight, (0, -columns % across, 0, -48 % down))
        shaped = padded.unflatten(0, (-1, down)).unflatten(-1, (-1, across)).transpose(1, 2).flatten(-2)
    low, high = (weight.min(), weight.max()) if strategy == "tensor" else (shaped.amin(-1), shaped.amax(-1))
    more: dict[str, Any] = {}
    if strategy == "tensor_group":
        state["weight_global_scale"] = more["global_scale"] = generate_gparam(weight.min(), weight.max())
    if strategy == "channel":
        low, high = low[:, None], high[:, None]
    scale, zero = calculate_qparams(low, high, args, **more)
    state |= {"weight_scale": scale.float()}
    if not args.symmetric:
        state["weight_zero_point"] = zero
    compressor = BaseCompressor.get_value_from_registry(kind)
    saved = compressor.compress(dict(state), scheme)
    back = compressor.decompress(dict(saved), scheme)["weight"]
    named = {f"m.up.{name}": tensor for name, tensor in saved.items()}
    return named, back.float().numpy()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["group", "channel"])
def test_compressed_tensors_packed(
    bits: int, symmetric: bool, strategy: str, decoded: Callable[..., np.ndarray[Any, Any]]
) -> None:
    group = {"group_size": 64} if strategy == "group" else {}
    args = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, **group}
    saved, expected = _compressed("pack-quantized", args)
    same_bits(decoded(saved), expected)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["group", "channel", "tensor"])
def test_compressed_tensors_int8(symmetric: bool, strategy: str, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    group = {"group_size": 48} if strategy == "group" else {}
    args = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": strategy, **group}
    saved, expected = _compressed("int-quantized", args)
    same_bits(decoded(saved), expected)


@pytest.mark.parametrize("strategy", ["channel", "tensor", "block"])
def test_compressed_tensors_fp8(strategy: str, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    block = {"block_structure": [32, 128]} if strategy == "block" else {}
    args = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, **block}
    saved, expected = _compressed("float-quantized", args)
    config = {"quantization_config": {"config_groups": {"group_0": {"weights": block}}}}
    same_bits(decoded(saved, config), expected)


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("nvfp4-pack-quantized", {"strategy": "tensor_group", "group_size": 16}),
        ("mxfp4-pack-quantized", {"strategy": "group", "group_size": 32}),
    ],
)
def test_compressed_tensors_fp4(kind: str, args: dict[str, Any], decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    saved, expected = _compressed(kind, {"num_bits": 4, "type": "float", "symmetric": True, **args})
    got = decoded(saved)
    if kind.startswith("nvfp4"):  # the library decodes in bfloat16: two roundings of 2^-9 each
        np.testing.assert_allclose(got, expected, rtol=2.0**-7)
    else:
        same_bits(got, expected)


# bitsandbytes


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(96, 200), (300, 256)])
def test_bitsandbytes_4bit(
    kind: str, double: bool, storage: str, shape: tuple[int, int], decoded: Callable[..., np.ndarray[Any, Any]]
) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(shape)
    codes, state = functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=double, quant_type=kind, quant_storage=getattr(torch, storage)
    )
    expected = functional.dequantize_4bit(codes, state)
    saved = {f"m.up.weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    got = decoded(saved | {"m.up.weight": codes})
    if not double:  # FP4's two zeros are one in the stored table
        np.testing.assert_array_equal(got, expected.numpy())
    # the library adds the offset of nested scales in one step with their product where it can
    np.testing.assert_allclose(got, expected.numpy(), rtol=2.0**-22, atol=0)


def test_bitsandbytes_int8(decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, stats, _ = functional.int8_vectorwise_quant(torch.randn(40, 70).half())
    saved = {"m.up.weight": codes, "m.up.SCB": stats, "m.up.weight_format": torch.tensor(0, dtype=torch.uint8)}
    same_bits(decoded(saved), functional.int8_vectorwise_dequant(codes, stats).numpy())


# torchao


def _torchao(tensor: Any) -> tuple[Tensors, dict[str, str]]:
    support = pytest.importorskip("torchao.prototype.safetensors.safetensors_support")
    flat: tuple[Tensors, dict[str, str]] = support.flatten_tensor_state_dict({"m.up.weight": tensor})
    return flat


@pytest.mark.parametrize("granularity", ["PerRow", "PerTensor", "PerBlock"])
def test_torchao_float8(granularity: str, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    ao = pytest.importorskip("torchao.quantization")
    size = ([32, 64],) if granularity == "PerBlock" else ()
    tensor = ao.Float8Tensor.from_hp(torch.randn(64, 192), granularity=getattr(ao, granularity)(*size))
    tensors, metadata = _torchao(tensor)
    same_bits(decoded(tensors, metadata=metadata), tensor.dequantize(torch.float32).numpy())


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("granularity", ["PerRow", "PerTensor", "PerGroup"])
def test_torchao_int8(granularity: str, asymmetric: bool, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    ao = pytest.importorskip("torchao.quantization")
    size = (32,) if granularity == "PerGroup" else ()
    mapping = ao.MappingType.ASYMMETRIC if asymmetric else ao.MappingType.SYMMETRIC
    tensor = ao.Int8Tensor.from_hp(
        torch.randn(48, 96) + 0.3, granularity=getattr(ao, granularity)(*size), mapping_type=mapping
    )
    tensors, metadata = _torchao(tensor)
    same_bits(decoded(tensors, metadata=metadata), tensor.dequantize(torch.float32).numpy())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_torchao_intx(bits: int, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    ao = pytest.importorskip("torchao.quantization")
    tensor = ao.IntxUnpackedToInt8Tensor.from_hp(torch.randn(48, 96), (1, 32), getattr(torch, f"int{bits}"))
    tensors, metadata = _torchao(tensor)
    same_bits(decoded(tensors, metadata=metadata), tensor.dequantize().float().numpy())


@pytest.mark.parametrize("swizzled", [False, True])
def test_torchao_nvfp4(swizzled: bool, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    module = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = torch.randn(160, 192)
    tensor = module.NVFP4Tensor.to_nvfp4(
        weight,
        per_tensor_scale=module.per_tensor_amax_to_scale(weight.abs().max()),
        is_swizzled_scales=swizzled,
    )
    tensors, metadata = _torchao(tensor)
    same_bits(decoded(tensors, metadata=metadata), tensor.dequantize(torch.float32).numpy())


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn_x2"])
def test_torchao_mx(kind: str, decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    module = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    tensor = module.MXTensor.to_mx(torch.randn(48, 96), getattr(torch, kind), block_size=32)
    tensors, metadata = _torchao(tensor)
    same_bits(decoded(tensors, metadata=metadata), tensor.dequantize(torch.float32).numpy())


# transformers


def test_transformers_gpt_oss_orientation(decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    """(experts, in, out), as the module of transformers holds gate_up_proj."""
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = torch.randint(0, 256, (3, 20, 4, 16), dtype=torch.uint8)
    exponents = torch.randint(100, 140, (3, 20, 4), dtype=torch.uint8)
    expected = mxfp4.convert_moe_packed_tensors(blocks, exponents, dtype=torch.float32)
    got = decoded({"m.experts.gate_up_proj_blocks": blocks, "m.experts.gate_up_proj_scales": exponents})
    same_bits(got, expected.numpy())


@pytest.mark.parametrize("kind", ["float32", "float8_e8m0fnu"])
@pytest.mark.parametrize("shape", [(256, 384), (2, 128, 256)])
def test_transformers_fp8_blocks(
    kind: str, shape: tuple[int, ...], decoded: Callable[..., np.ndarray[Any, Any]]
) -> None:
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = torch.randn(shape).mul(30).to(torch.float8_e4m3fn)
    grid = torch.rand(*shape[:-2], math.ceil(shape[-2] / 128), math.ceil(shape[-1] / 128)).to(getattr(torch, kind))
    expected = fp8.Fp8Dequantize(None)._dequantize_one(codes, grid, torch.float32)
    name = "m.q_proj.weight" if len(shape) == 2 else "m.experts.gate_up_proj"
    same_bits(decoded({name: codes, name + "_scale_inv": grid}), expected.numpy())


def test_transformers_fp4_experts(decoded: Callable[..., np.ndarray[Any, Any]]) -> None:
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = torch.randint(-128, 128, (24, 64), dtype=torch.int8)
    grid = torch.rand(24, 4).to(torch.float8_e8m0fnu)
    expected = fp8.Fp8Dequantize(None)._dequantize_one(codes, grid, torch.float32)
    same_bits(decoded({"m.w1.weight": codes, "m.w1.scale": grid}), expected.numpy())
