"""One matrix in every form whose scales stand apart from its codes, with a fault done to the scales before they are
stored: by the formats' own arithmetic, in plain numpy."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np

NF4 = np.array(
    [
        "-1",
        "-0.6961928",
        "-0.5250731",
        "-0.39491749",
        "-0.28444138",
        "-0.18477343",
        "-0.09105004",
        "0",
        "0.0795803",
        "0.1609302",
        "0.2461123",
        "0.33791524",
        "0.44070983",
        "0.562617",
        "0.72295684",
        "1",
    ],
    np.float32,
)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_STEPS = np.linspace(-1, 1, 256)
#: bitsandbytes' 8-bit map of absmax codes is close to this: dense at 0, to both ends.
DYNAMIC = np.sort(np.sign(_STEPS) * 10.0 ** (np.abs(_STEPS) * 7 - 7)).astype(np.float32)


def sound(s):
    return s


def _words(codes, bits):
    codes = codes.astype(np.uint64).reshape(*codes.shape[:-1], -1, 32 // bits)
    return (codes << (np.uint64(bits) * np.arange(32 // bits, dtype=np.uint64))).sum(-1).astype(np.uint32)


def _halves(codes, low_first=True):
    pair = codes.astype(np.uint8).reshape(-1, 2)
    low, high = (pair[:, 0], pair[:, 1]) if low_first else (pair[:, 1], pair[:, 0])
    return low | high << 4


def _nearest(x, table):
    return np.abs(x[..., None] - table).argmin(-1)


def _range(x, bits):
    """(scale, zero point) of groups on the last axis, zero included."""
    low, high = np.minimum(x.min(-1), 0), np.maximum(x.max(-1), 0)
    scale = (high - low) / ((1 << bits) - 1)
    return scale, np.round(-low / scale)


def nf4(name, w, spoil=sound, block=64, double=False, nested=sound, offset=sound, table=NF4):
    flat = w.reshape(-1, block)
    absmax = np.abs(flat).max(1)
    codes = _nearest(flat / absmax[:, None], table)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(w.shape)}
    made = {name: _halves(codes, False).reshape(-1, 1), f"{name}.quant_map": table}
    if double:
        mean = absmax.mean()
        rest = (absmax - mean)[: len(absmax)]
        groups = [rest[k : k + 256] for k in range(0, len(rest), 256)]
        outer = np.array([np.abs(g).max() for g in groups])
        inner = np.concatenate([_nearest(g / m, DYNAMIC) for g, m in zip(groups, outer, strict=True)])
        made[f"{name}.absmax"] = inner.astype(np.uint8)
        made[f"{name}.nested_absmax"] = np.asarray(nested(outer), np.float32)
        made[f"{name}.nested_quant_map"] = DYNAMIC
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset(mean))}
    else:
        made[f"{name}.absmax"] = spoil(absmax).astype(np.float32)
    made[f"{name}.quant_state.bitsandbytes__nf4"] = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    return made


def _integers(w, group, bits, even):
    x = w.reshape(len(w), -1, group)
    if even:
        scale = np.abs(x).max(-1) / ((1 << (bits - 1)) - 1)
        zero = np.full_like(scale, 1 << (bits - 1))
    else:
        scale, zero = _range(x, bits)
    codes = np.clip(np.round(x / scale[..., None] + zero[..., None]), 0, (1 << bits) - 1)
    return codes.reshape(w.shape), scale, zero


def gptq(name, w, spoil=sound, group=32, even=True):
    codes, scale, zero = _integers(w, group, 4, even)
    stem = name.removesuffix("weight")
    return {
        stem + "qweight": np.ascontiguousarray(_words(codes, 4).T).view(np.int32),
        stem + "qzeros": _words((zero.T - 1) % 16, 4).view(np.int32),
        stem + "scales": spoil(np.ascontiguousarray(scale.T)).astype(np.float16),
        stem + "g_idx": (np.arange(w.shape[1]) // group).astype(np.int32),
    }


def awq(name, w, spoil=sound, group=32):
    codes, scale, zero = _integers(w, group, 4, False)
    places = np.arange(len(w)).reshape(-1, 8)[:, (0, 2, 4, 6, 1, 3, 5, 7)].ravel()
    stem = name.removesuffix("weight")
    return {
        stem + "qweight": _words(codes.T[:, places], 4).view(np.int32),
        stem + "qzeros": _words(zero.T[:, places], 4).view(np.int32),
        stem + "scales": spoil(np.ascontiguousarray(scale.T)).astype(np.float16),
    }


def packed(name, w, spoil=sound, group=32):
    codes, scale, _ = _integers(w, group, 4, True)
    return {
        name + "_packed": _words(codes, 4).view(np.int32),
        name + "_scale": spoil(scale).astype(ml_dtypes.bfloat16),
        name + "_shape": np.array(w.shape, np.int64),
    }


def mlx(name, w, spoil=sound, group=32):
    x = w.reshape(len(w), -1, group)
    low, scale = x.min(-1), np.ptp(x, axis=-1) / 15
    codes = np.clip(np.round((x - low[..., None]) / scale[..., None]), 0, 15)
    stem, stored = name.removesuffix("weight"), spoil(scale)
    return {
        name: _words(codes.reshape(w.shape), 4),
        stem + "scales": stored.astype(np.float16),
        stem + "biases": (low / scale * stored).astype(np.float16),
    }


def int8(name, w, spoil=sound):
    scale = np.abs(w).max(1, keepdims=True) / 127
    return {name: np.round(w / scale).astype(np.int8), name + "_scale": spoil(scale).astype(np.float32)}


def bnb_int8(name, w, spoil=sound):
    top = np.abs(w).max(1)
    stem = name.removesuffix("weight")
    return {name: np.round(w / top[:, None] * 127).astype(np.int8), stem + "SCB": spoil(top).astype(np.float32)}


def fp8(name, w, spoil=sound):
    scale = np.abs(w).max(1, keepdims=True) / 448
    return {name: (w / scale).astype(ml_dtypes.float8_e4m3fn), name + "_scale": spoil(scale).astype(np.float32)}


def nvfp4(name, w, spoil=sound):
    x = w.reshape(len(w), -1, 16)
    top = np.abs(x).max(-1)
    whole = top.max() / (6 * 448)
    stored = (top / 6 / whole).astype(ml_dtypes.float8_e4m3fn)
    codes = _nearest(x / np.maximum(stored.astype(np.float64) * whole, 1e-30)[..., None], E2M1)
    spoiled = spoil(stored.astype(np.float64) / 448)  # the largest is 448 with whatever whole goes with it
    return {
        name: _halves(codes).reshape(len(w), -1),
        name + "_scale": (spoiled / np.abs(spoiled).max() * 448).astype(ml_dtypes.float8_e4m3fn),
        name + "_scale_2": np.array(whole * 448 * np.abs(spoiled).max() / 448, np.float32),
    }


def mxfp4(name, w, spoil=sound):
    x = w.reshape(len(w), -1, 32)
    exponent = np.floor(np.log2(np.abs(x).max(-1))) - 2
    codes = _nearest(x / np.exp2(exponent)[..., None], E2M1)
    power = np.clip(np.round(np.log2(spoil(np.exp2(exponent)))) + 127, 0, 254)
    return {name: _halves(codes).reshape(len(w), -1), name + "_scale": power.astype(np.uint8)}


def hqq(name, w, spoil=sound, group=64):
    x = w.reshape(-1, group)
    scale, zero = _range(x, 4)
    codes = np.clip(np.round(x / scale[:, None] + zero[:, None]), 0, 15).astype(np.uint8)
    half = len(codes) // 2
    stem = name.removesuffix("weight")
    return {
        stem + "W_q": codes[:half] << 4 | codes[half:],
        stem + "scale": spoil(scale[:, None]).astype(np.float16),
        stem + "zero": zero[:, None].astype(np.float16),
        stem + "nbits": np.array(4, np.int64),
        stem + "group_size": np.array(group, np.int64),
        stem + "axis": np.array(1, np.int64),
        stem + "shape": np.array(w.shape, np.int64),
        stem + "packing": np.frombuffer(b"4bit_u8", np.uint8).copy(),
    }


FORMS = {
    "nf4": nf4,
    "nf4 doubly": lambda name, w, spoil=sound: nf4(name, w, double=True, nested=spoil),
    "gptq": gptq,
    "gptq groups": lambda name, w, spoil=sound: gptq(name, w, spoil, even=False),
    "awq": awq,
    "packed": packed,
    "mlx": mlx,
    "int8": int8,
    "bnb int8": bnb_int8,
    "fp8 rows": fp8,
    "nvfp4": nvfp4,
    "mxfp4": mxfp4,
}
