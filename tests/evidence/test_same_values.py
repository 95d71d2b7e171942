"""Re-encoded copies are recognised element by element; the smallest deviation is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from synthetic import Array, models
from weightprint.evidence import Evidence
from weightprint.evidence.same_values import same_values

BF16 = np.dtype(ml_dtypes.bfloat16)


def weights(*shape: int, seed: int = 0) -> Array:
    return (0.02 * np.random.default_rng(seed).standard_t(5, shape)).astype(np.float32)


def run(a: Array, b: Array) -> Evidence:
    return same_values(models({"w": a}, {"w": b}))


def how(a: Array, b: Array, **more: Array) -> str | None:
    evidence = same_values(models({"w": a}, {"w": b, **more}))
    return evidence.details["how"].get("w") if evidence.applied else None


@pytest.mark.parametrize("dtype", [BF16, np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_casts(dtype: Any) -> None:
    a = weights(40, 300)
    a[0, :4] = [0, -0.0, 1e-6, 3.0]
    assert "a cast" in str(how(a, a.astype(dtype)))
    assert "a cast" in str(how(a.astype(dtype), a))  # the other way round
    assert how(a, weights(40, 300, seed=1).astype(dtype)) is None


def test_a_cast_of_float64() -> None:
    a = np.random.default_rng(0).standard_normal((50, 50))
    assert how(a, a.astype(np.float32)) == "F64 to F32, nothing lost"
    assert "a cast" in str(how(a, a.astype(BF16)))


def test_bf16_cut_off_instead_of_rounded() -> None:
    a = weights(40, 300)
    cut = (a.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(BF16)
    assert how(a, cut) == "F32 to BF16, a cast, cut off rather than rounded"


def test_two_casts_of_one_original() -> None:
    a = weights(40, 300)
    a[0, :3] = [0, -1e-7, 2e-5]  # the last two are no normal numbers of float16
    for x, y in ((a.astype(BF16), a.astype(np.float16)), (a.astype(np.float16), a.astype(BF16))):
        evidence = run(x, y)
        assert "both cast from one original" in evidence.details["how"]["w"]
        assert evidence.details["later"] is None
    other = a.astype(np.float16)
    other[3, 5] *= np.float16(1.01)
    assert how(a.astype(BF16), other) is None


def test_one_element_a_step_off_is_refused() -> None:
    a = weights(40, 300)
    b = a.astype(BF16)
    b[31, 7] = (b[31, 7].astype(np.float32) * 1.02).astype(BF16)
    assert how(a, b) is None
    q = quantise(a, np.abs(a).max() / 127)
    q[31, 7] += 9 if q[31, 7] < 100 else -9  # so far off that no scale of its column or row explains it either
    assert how(a, q) is None


def quantise(a: Array, scale: Any, zero: int = 0, dtype: Any = np.int8) -> Array:
    info = np.iinfo(dtype)
    return np.clip(np.round(a / scale) + zero, info.min, info.max).astype(dtype)


@pytest.mark.parametrize(
    ("axis", "words"), [(None, "one scale"), (1, "one scale per row"), (0, "one scale per column")]
)
def test_int8_with_a_scale(axis: int | None, words: str) -> None:
    a = weights(96, 128) * (1 + np.arange(128) / 32) * (1 + np.arange(96)[:, None] / 32)
    scale = np.abs(a).max(axis=axis, keepdims=axis is not None) / 127
    assert how(a.astype(np.float32), quantise(a, scale)) == f"F32 to I8, {words}"


def test_int8_with_a_zero_point() -> None:
    a = weights(96, 128) + np.float32(0.03)
    low, high = float(a.min()), float(a.max())
    scale = (high - low) / 255
    zero = round(-128 - low / scale)
    assert how(a, quantise(a, scale, zero)) == f"F32 to I8, one scale and zero point {zero}"
    assert how(a, quantise(a, scale, zero + 128, np.uint8)) == f"F32 to U8, one scale and zero point {zero + 128}"


def test_saturated_int8_is_still_a_copy() -> None:
    a = weights(96, 128)
    assert how(a, quantise(a, np.abs(a).max() / 300)) == "F32 to I8, one scale"


def test_int8_of_strangers_is_refused() -> None:
    a, other = weights(96, 128), weights(96, 128, seed=3)
    for scale in (np.abs(other).max() / 127, np.abs(other).max(axis=1, keepdims=True) / 127):
        assert how(a, quantise(other, scale)) is None


def test_a_noised_copy_is_refused() -> None:
    a = weights(96, 128)
    noised = a + 0.05 * a.std() * np.random.default_rng(5).standard_normal(a.shape).astype(np.float32)
    assert how(a, quantise(noised, np.abs(noised).max() / 127)) is None
    assert how(a, noised.astype(BF16)) is None


def test_a_vector_cannot_be_fitted_value_by_value() -> None:
    a, b = weights(256), weights(256, seed=1)
    assert how(np.abs(a), np.abs(b).astype(BF16)) is None


def test_the_scales_of_a_quantised_tensor_are_recognised() -> None:
    a = weights(96, 128)
    scale = (np.abs(a).max(axis=1) / 127).astype(np.float32)
    b = {"w": quantise(a, scale[:, None]), "w_scale": scale, "other": np.abs(weights(96, seed=9))}
    found = {f.b: f.kind for f in same_values(models({"w": a}, b)).found}
    assert found == {"w": "re_encoded", "w_scale": "parameter"}


def test_a_transposed_quantised_copy_under_another_name() -> None:
    a = {"x": weights(96, 128), "y": weights(96, 128, seed=2)}
    q = quantise(a["y"], np.abs(a["y"]).max(axis=1, keepdims=True) / 127).T.copy()
    evidence = same_values(models(a, {"val_1": q}))
    assert [(f.b, f.a) for f in evidence.found] == [("val_1", "y")]
    assert evidence.details["how"]["val_1"] == "F32 to I8, one scale per column, transposed"
    assert evidence.details["later"] == "b"


def test_an_upcast_says_nothing_about_direction() -> None:
    a = weights(96, 128).astype(BF16)
    evidence = run(a, a.astype(np.float32))
    assert evidence.details["how"]["w"] == "F32 to BF16, nothing lost"
    assert evidence.details["later"] is None
    assert run(weights(96, 128), weights(96, 128).astype(BF16)).details["later"] == "b"


def test_simple_tensors_agree_but_show_nothing() -> None:
    a = np.where(np.arange(4096).reshape(64, 64) % 2, 0.5, 0.25).astype(np.float32)
    evidence = run(a, a.astype(BF16))
    assert evidence.statistic == 0
    assert [f.kind for f in evidence.found] == ["trivial"]


def test_non_finite_values_must_agree() -> None:
    a = weights(64, 64)
    a[3, 3], a[4, 4] = np.nan, np.inf
    assert "a cast" in str(how(a, a.astype(BF16)))
    b = a.astype(BF16)
    b[3, 3] = 0
    assert how(a, b) is None
