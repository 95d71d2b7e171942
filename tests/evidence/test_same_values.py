"""Re-encoded copies are recognised element by element; the smallest deviation is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from synthetic import Array, models
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.same_values import SameValues, same_values

BF16 = np.dtype(ml_dtypes.bfloat16)


def weights(*shape: int, seed: int = 0) -> Array:
    return (0.02 * np.random.default_rng(seed).standard_t(5, shape)).astype(np.float32)


def run(a: Array, b: Array) -> Evidence:
    return same_values(models({"w": a}, {"w": b}))


def how(a: Array, b: Array, **more: Array) -> str | None:
    evidence = same_values(models({"w": a}, {"w": b, **more}))
    return evidence.told(SameValues).how.get("w") if evidence.applied else None


def scaled(a: Array, b: Array, **more: Array) -> tuple[float | None, str] | None:
    """The factor that was named, and how it was found."""
    evidence = same_values(models({"w": a}, {"w": b, **more}))
    if not evidence.applied or "w" not in evidence.told(SameValues).scaled:
        return None
    assert [f.kind for f in evidence.found if f.b == "w"] == ["scaled"]
    assert "w" not in evidence.told(SameValues).how
    factor, words = evidence.told(SameValues).scaled["w"]
    return factor, words


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
        assert "both cast from one original" in evidence.told(SameValues).how["w"]
        assert evidence.told(SameValues).later is None
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
    a, codes = a.astype(np.float32), quantise(a, scale)
    assert how(a, codes, w_scale=scale.astype(np.float32).reshape(-1)) == f"F32 to I8, {words}"
    assert scaled(a, codes, w_scale=1.1 * scale.astype(np.float32).reshape(-1)) == (None, f"F32 to I8, {words}")
    assert scaled(a, codes) == (None, f"F32 to I8, {words}")
    assert scaled(codes, a) == (None, f"F32 to I8, {words}")


def test_int8_with_a_zero_point() -> None:
    a = weights(96, 128) + np.float32(0.03)
    low, high = float(a.min()), float(a.max())
    scale = (high - low) / 255
    zero = round(-128 - low / scale)
    for z, dtype, name in ((zero, np.int8, "I8"), (zero + 128, np.uint8, "U8")):
        codes, words = quantise(a, scale, z, dtype), f"F32 to {name}, one scale and zero point {z}"
        stored = {"w_scale": np.array([scale], np.float32), "w_zero": np.array([z], dtype)}
        assert how(a, codes, **stored) == words
        assert scaled(a, codes, w_scale=stored["w_scale"]) == (None, words)
        assert scaled(a, codes, w_scale=stored["w_scale"], w_zero=np.array([z + 1], dtype)) == (None, words)


def test_saturated_int8_is_still_a_copy() -> None:
    a = weights(96, 128)
    scale = np.array([np.abs(a).max() / 300], np.float32)
    assert how(a, quantise(a, scale), w_scale=scale) == "F32 to I8, one scale"


def test_int8_of_strangers_is_refused() -> None:
    a, other = weights(96, 128), weights(96, 128, seed=3)
    for scale in (np.abs(other).max() / 127, np.abs(other).max(axis=1, keepdims=True) / 127):
        assert how(a, quantise(other, scale), w_scale=scale.reshape(-1)) is None
        assert scaled(a, quantise(other, scale)) is None


def test_a_noised_copy_is_refused() -> None:
    a = weights(96, 128)
    noised = a + 0.05 * a.std() * np.random.default_rng(5).standard_normal(a.shape).astype(np.float32)
    assert scaled(a, quantise(noised, np.abs(noised).max() / 127)) is None
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
    scale = np.abs(a["y"]).max(axis=1, keepdims=True) / 127
    evidence = same_values(models(a, {"val_1": quantise(a["y"], scale).T.copy(), "val_1_scale": scale[:, 0]}))
    assert [(f.b, f.a, f.kind) for f in evidence.found] == [
        ("val_1", "y", "re_encoded"),
        ("val_1_scale", "y", "parameter"),
    ]
    assert evidence.told(SameValues).how["val_1"] == "F32 to I8, one scale per column, transposed"
    assert evidence.told(SameValues).later == "b"


def test_an_upcast_says_nothing_about_direction() -> None:
    a = weights(96, 128).astype(BF16)
    evidence = run(a, a.astype(np.float32))
    assert evidence.told(SameValues).how["w"] == "F32 to BF16, nothing lost"
    assert evidence.told(SameValues).later is None
    assert run(weights(96, 128), weights(96, 128).astype(BF16)).told(SameValues).later == "b"


@pytest.mark.parametrize("to", [BF16, np.float16, np.float32])
@pytest.mark.parametrize("of", [BF16, np.float16, np.float32])
@pytest.mark.parametrize("factor", [1.7, 1981.0, 1 / 1981, 1.01, -2.0])
def test_a_factor_that_nothing_stores_is_named(of: Any, to: Any, factor: float) -> None:
    a = weights(40, 300).astype(of)
    b = (a.astype(np.float32) * np.float32(factor)).astype(to)
    found = scaled(a, b)
    assert found is not None
    assert found[0] == pytest.approx(factor, rel=1e-2)
    b[31, 7] *= to(1.5) if isinstance(to, type) else to.type(1.5)
    assert scaled(a, b) is None
    assert how(a, b) is None


def test_a_step_of_the_type_is_no_factor_and_a_turned_sign_is_one() -> None:
    a = weights(40, 300)
    assert scaled(a, np.nextafter(a, np.float32(1))) is None
    assert scaled(a, -a) == (-1, "F32, one factor")
    assert scaled(a, np.float32(1.75) * a) == (1.75, "F32, one factor")


def test_what_overflows_was_not_rounded() -> None:
    a = weights(40, 300)
    a[3, 5] = 1e5
    with np.errstate(over="ignore"):
        b = a.astype(np.float16)
    assert how(a, b) is None


def test_what_all_underflowed_or_rounded_to_nothing_is_lost() -> None:
    a = weights(40, 300)
    tiny = a * np.float32(1e-8)
    for b in (tiny.astype(np.float16), tiny.astype(ml_dtypes.float8_e4m3fn), np.rint(a).astype(np.int8)):
        evidence = run(tiny, b)
        assert not evidence.applied or not [f for f in evidence.found if f.kind in ("re_encoded", "trivial")]
    coarse = np.rint(20 * a).astype(np.int8)  # a scale of 1, stored nowhere and then stored
    assert how(20 * a, coarse) is None
    assert [f.kind for f in same_values(models({"w": 20 * a}, {"w": coarse})).found] == ["scaled"]


def test_ids_in_another_integer_type_are_the_same_values() -> None:
    ids = np.random.default_rng(0).permutation(640).reshape(10, 64)
    assert how(ids, ids.astype(np.float32)) == "I64 to F32, nothing lost"


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
