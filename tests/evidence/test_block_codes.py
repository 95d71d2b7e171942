"""Codes with scales per group: values in their cells, and the smallest things that aren't."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from weightprint.evidence.rounding.block_codes import Coded, coded
from weightprint.fingerprint.model import Tensor
from weightprint.quant.base import Levels

Array = np.ndarray[Any, Any]
NF4 = np.array(
    [-1, -0.696, -0.525, -0.395, -0.284, -0.185, -0.091, 0, 0.08, 0.161, 0.246, 0.338, 0.441, 0.563, 0.723, 1]
)


def weights(*shape: int, seed: int = 0) -> Array:
    return (0.02 * np.random.default_rng(seed).standard_t(5, shape)).astype(np.float32)


def grouped(a: Array, run: int) -> Array:
    return a.reshape(len(a), -1, run)


def absmax(a: Array, bits: int, run: int) -> Array:
    """To the nearest multiple of the largest size over 2^(bits-1) - 1, per group."""
    x = grouped(a, run)
    step = np.abs(x).max(-1, keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.rint(x / step) * step).astype(np.float32).reshape(a.shape)


def minmax(a: Array, bits: int, run: int) -> Array:
    """To 2^bits points from the smallest value to the largest."""
    x = grouped(a, run)
    low = x.min(-1, keepdims=True)
    step = (x.max(-1, keepdims=True) - low) / (2**bits - 1)
    return (np.rint((x - low) / step) * step + low).astype(np.float32).reshape(a.shape)


def table(a: Array, run: int) -> Array:
    """To the nearest number of a table times the largest size."""
    x = grouped(a, run)
    top = np.abs(x).max(-1, keepdims=True)
    return (NF4[np.abs((x / top)[..., None] - NF4).argmin(-1)] * top).astype(np.float32).reshape(a.shape)


def check(a: Array, b: Array, run: int, even: bool = True, dtype: str = "I4 test", precision: int = 24) -> Coded:
    tensor = Tensor("w", dtype, b.shape, b.size, b.size // 2, levels=Levels(run, even))
    return coded([(a[:50], b[:50]), (a[50:], b[50:])], tensor, precision)


@pytest.mark.parametrize("run", [16, 32, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [absmax, minmax])
def test_rounding_to_nearest_is_the_same(how: Any, bits: int, run: int) -> None:
    a = weights(96, 256)
    b = how(a, bits, run)
    found = check(a, b, run)
    assert found.same
    assert found.near
    assert math.sqrt(found.difference / found.size) == pytest.approx(
        np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-5
    )
    if bits > 2:  # of three levels both outer cells are open, and their width is a guess
        assert 0.7 < found.difference / found.rounding < 1.3


def test_tables_of_levels() -> None:
    a = weights(96, 256)
    assert check(a, table(a, 64), 64, even=False).same
    assert not check(weights(96, 256, seed=1), table(a, 64), 64, even=False).same


def test_strangers_are_far() -> None:
    b = absmax(weights(96, 256, seed=1), 4, 32)
    found = check(weights(96, 256), b, 32)
    assert not found.same
    assert not found.near


@pytest.mark.parametrize("change", [0.01, 0.03])
def test_a_small_change_before_rounding_is_no_re_encoding(change: float) -> None:
    a = weights(96, 256)
    b = absmax(a + change * weights(96, 256, seed=2), 4, 32)
    found = check(a, b, 32)
    assert not found.same
    assert found.near


def test_values_pushed_to_the_next_level_are_near_and_not_the_same() -> None:
    a = weights(96, 256)
    step = np.repeat(np.abs(grouped(a, 32)).max(-1) / 7, 32, axis=-1)
    up = np.random.default_rng(3).random(a.shape) < 0.03
    b = ((np.rint(a / step) + up) * step).astype(np.float32)
    found = check(a, b, 32)
    assert not found.same
    assert found.near


@pytest.mark.parametrize("every", [2, 100])
def test_erased_groups_are_seen(every: int) -> None:
    """A group of zeros has no cells, and what it had is gone."""
    a = weights(96, 256)
    b = grouped(absmax(a, 4, 32), 32).copy()
    b.reshape(-1, 32)[::every] = 0
    assert not check(a, b.reshape(a.shape), 32).same


def test_groups_that_are_tiny_beside_their_neighbours_may_be_zero() -> None:
    """As under one scale for a row of several groups."""
    a = weights(96, 256)
    a[:, :32] *= np.float32(1e-4)
    b = absmax(a, 4, 32)
    b[:, :32] = 0
    assert check(a, b, 32).same


def test_values_far_beyond_the_outermost_levels_are_seen() -> None:
    a = weights(96, 256)
    b = absmax(a, 4, 32)
    a[:, ::32] += np.sign(b[:, ::32]) * np.float32(0.3)
    assert not check(a, b, 32).same


def test_a_last_group_may_be_shorter() -> None:
    a = weights(96, 200)
    b = np.concatenate([absmax(a[:, :128], 4, 128), absmax(a[:, 128:], 4, 72)], axis=1)
    assert check(a, b, 128).same
    b[:, 128:] = absmax(weights(96, 72, seed=4), 4, 72)
    assert not check(a, b, 128).same


def test_the_finer_side_may_be_rounded_itself() -> None:
    """Both come from one float32 original: codes of it, and its bfloat16 copy."""
    original = weights(96, 256)
    bits = original.view(np.uint32)
    bf16 = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    b = absmax(original, 8, 32)
    assert check(bf16, b, 32, precision=8).same
    assert not check(bf16, b, 32, precision=24).same


def test_few_groups_show_nothing() -> None:
    a = weights(60, 4)
    assert not check(a[:3], absmax(a[:3], 8, 4), 4).same


def test_without_levels_only_the_size_is_judged() -> None:
    a = weights(96, 256)
    tensor = Tensor("w", "IQ2_XS gguf", a.shape, a.size, a.size // 4)
    found = coded([(a, absmax(a, 3, 32))], tensor, 24)
    assert (found.same, found.near, found.run) == (False, True, None)
    assert not coded([(a, -a)], tensor, 24).near
