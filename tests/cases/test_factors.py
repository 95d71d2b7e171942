"""Factors that nothing stores, and casts that lose more than rounding does: named, told either way round, and no
certificate for them; neighbours of values, and values rounded to a narrower type inside their own, are no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from makers import BF16, Array, Arrays, folder, llama

from tests.conftest import encode

V, DOWN, GATE = (f"model.layers.1.{name}.weight" for name in ("self_attn.v_proj", "mlp.down_proj", "mlp.gate_proj"))


def save(at: Path, tensors: Arrays, dtype: Any = np.float32) -> Path:
    return folder(at, encode, {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in tensors.items()})


def both(a: Path, b: Path) -> list[tuple[Any, Any]]:
    return [(weightprint.compare(*pair), weightprint.diff(*pair)) for pair in ((a, b), (b, a))]


def readings(comparison: Any, first: str) -> dict[str, Any]:
    """Operations as one of them was first, by name."""
    past = comparison.history
    rows = past.operations if past.told_from == first else past.operations_if.get(f"{first}_first", ())
    return {o.name: o.parameters for o in rows}


@pytest.mark.parametrize(("factor", "kind"), [(1.0001, BF16), (1.0001, np.float32), (-1.0, BF16), (3.0, np.float16)])
def test_a_factor_is_named_and_inverted_however_near_to_one(tmp_path: Path, factor: float, kind: Any) -> None:
    w = llama(11)
    stored = {n: x.astype(kind).astype(np.float32) for n, x in w.items()}
    a = save(tmp_path / "a", w, kind)
    b = save(tmp_path / "b", stored | {V: stored[V] * np.float32(factor)})
    for (told, found), way in zip(both(a, b), (factor, 1 / factor), strict=True):
        assert told.verdict == "shared_origin"
        assert readings(told, "a")["scaled"]["factor"] == pytest.approx(way, rel=1e-5)
        assert readings(told, "b")["scaled"]["factor"] == pytest.approx(1 / way, rel=1e-5)
        assert "times 1," not in told.result.sentence
        (row,) = (r for r in found.table.to_records() if r["status"] == "changed")
        assert row["factor"] == pytest.approx(way, rel=1e-5)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_a_factor_of_each_row_or_column(tmp_path: Path, axis: str) -> None:
    w = llama(12)
    shape = (-1, 1) if axis == "row" else (1, -1)
    size = w[GATE].shape[0 if axis == "row" else 1]
    factors = np.exp(0.3 * np.random.default_rng(0).standard_normal(size)).astype(np.float32).reshape(shape)
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", w | {GATE: w[GATE] * factors})
    told = weightprint.compare(a, b)
    for first in ("a", "b"):
        found = readings(told, first)
        assert found.keys() == {"scaled"}
        assert found["scaled"]["per"] == axis
    assert readings(told, "a")["scaled"]["to"] == pytest.approx(float(factors.max()), rel=1e-3)


def halved(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


CASTS: dict[str, tuple[float, Callable[[Array], Array]]] = {
    "clipped": (4e6, lambda x: np.clip(x, -65504, 65504).astype(np.float16)),
    "overflowed": (4e6, halved),
    "below the smallest normal value": (1e-6, halved),
}


@pytest.mark.parametrize("how", CASTS)
@pytest.mark.filterwarnings("error")
def test_a_cast_that_leaves_the_range_of_its_type_is_no_rounding(tmp_path: Path, how: str) -> None:
    size, cast = CASTS[how]
    w = llama(13)
    fine = w | {DOWN: w[DOWN] * np.float32(size)}
    a = save(tmp_path / "a", fine)
    b = save(tmp_path / "b", {n: cast(x) if n == DOWN else x.astype(np.float16) for n, x in fine.items()})
    for told, found in both(a, b):
        assert told.verdict == "shared_origin"
        assert found.counts == {"changed": 1, "re_encoded": len(w) - 1}


def finer(seed: int) -> Arrays:
    """Values of all of float32's bits."""
    rng = np.random.default_rng(seed)
    return {n: (x * (1 + 0.01 * rng.standard_normal(x.shape))).astype(np.float32) for n, x in llama(seed).items()}


def test_values_rounded_at_random_were_not_trained(tmp_path: Path) -> None:
    fine, rng = finer(14), np.random.default_rng(1)

    def stochastic(x: Array) -> Array:
        bits = x.view(np.uint32) + rng.integers(0, 1 << 16, x.shape).astype(np.uint32)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(BF16)

    a, b = save(tmp_path / "a", fine), save(tmp_path / "b", {n: stochastic(x) for n, x in fine.items()})
    for told, found in both(a, b):
        assert told.verdict == "shared_origin"
        assert readings(told, "a").keys() == readings(told, "b").keys() == {"re_dtype"}
        assert set(found.counts) == {"changed"}


@pytest.mark.parametrize("kind", [BF16, np.float16])
def test_values_rounded_and_stored_as_before_are_re_encoded(tmp_path: Path, kind: Any) -> None:
    fine = finer(15)
    a = save(tmp_path / "a", fine)
    b = save(tmp_path / "b", {n: x.astype(kind).astype(np.float32) for n, x in fine.items()})
    for told, found in both(a, b):
        assert told.verdict == "re_encoded"
        assert set(found.counts) == {"re_encoded"}
        assert (readings(told, "a").keys() | readings(told, "b").keys()) <= {"re_dtype"}
    assert weightprint.compare(save(tmp_path / "c", finer(16)), b).verdict != "re_encoded"
