"""Two factors in place of a matrix are read as their product, under the matrix' name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from hypothesis import given, settings
from hypothesis import strategies as st
from opening import find, opened
from safetensors.numpy import save_file
from weightprint.quant.weights import Weights

Array = np.ndarray[Any, Any]
SPELLINGS = {
    "ASVD": ("m.up_proj.ALinear.weight", "m.up_proj.BLinear.weight"),
    "in a row": ("m.up_proj.1.weight", "m.up_proj.0.weight"),
    "SVD-LLM": ("m.up_u_proj.weight", "m.up_v_proj.weight"),
}


def factors(out: int = 24, rank: int = 5, inputs: int = 18, dtype: Any = np.float32) -> tuple[Array, Array]:
    rng = np.random.default_rng(out * inputs + rank)
    return rng.standard_normal((out, rank)).astype(dtype), rng.standard_normal((rank, inputs)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_read_as_the_product(names: tuple[str, str], dtype: Any, save: Callable[..., Path]) -> None:
    u, v = factors(dtype=dtype)
    held = Weights(checkpoint := opened(save("a.safetensors", {**dict(zip(names, (u, v), strict=True)), "n": u[:, 0]})))
    assert set(held) == {"m.up_proj.weight", "n"}
    weight = held["m.up_proj.weight"]
    assert (weight.shape, weight.scheme, weight.parameters) == ((24, 18), "low_rank", {"rank": 5})
    assert weight.nbytes == u.nbytes + v.nbytes
    np.testing.assert_allclose(
        held.read(weight.name), u.astype(np.float64) @ v.astype(np.float64), rtol=1e-5, atol=1e-5
    )
    assert find(checkpoint)[0].levels is None


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_rectangle(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    u, v = factors()
    path = tmp_path_factory.mktemp("m") / "a.safetensors"
    save_file(dict(zip(SPELLINGS["ASVD"], (u, v), strict=True)), path)
    (r, rows), (c, columns) = (sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in (24, 18))
    got = Weights(opened(path)).read("m.up_proj.weight", slice(r, rows), slice(c, columns))
    np.testing.assert_allclose(got, (u @ v)[r:rows, c:columns], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "tensors",
    [
        {"m.up_u_proj.weight": factors()[0], "m.up_v_proj.weight": factors(rank=6)[1]},  # do not multiply
        {"m.up_u_proj.weight": factors()[0]},  # one of two
        dict(zip(SPELLINGS["SVD-LLM"], factors(8, 7, 8), strict=True)),  # more values than the product
        dict(zip(SPELLINGS["ASVD"], factors(), strict=True)) | {"m.up_proj.weight": np.ones((24, 18), np.float32)},
        dict(zip(SPELLINGS["ASVD"], (factors()[0], factors(dtype=np.float16)[1]), strict=True)),
        {"m.1.weight": factors()[0], "m.0.weight": factors()[1]},  # layers of some stack, with anything between them
        {"m.up_u_proj.weight": factors()[0].astype(np.int8), "m.up_v_proj.weight": factors()[1].astype(np.int8)},
    ],
)
def test_what_only_looks_like_factors_stays_as_it_is(tensors: dict[str, Array], save: Callable[..., Path]) -> None:
    assert set(Weights(opened(save("a.safetensors", tensors)))) == tensors.keys()


def test_value_projections_are_no_factors(save: Callable[..., Path]) -> None:
    """``v_u_proj`` and ``v_v_proj`` are v's; ``q_proj`` and ``v_proj`` are nobody's."""
    u, v = factors()
    names = {"a.v_u_proj.weight": u, "a.v_v_proj.weight": v, "b.q_proj.weight": u, "b.v_proj.weight": v}
    held = set(Weights(opened(save("a.safetensors", names))))
    assert held == {"a.v_proj.weight", "b.q_proj.weight", "b.v_proj.weight"}


def test_a_model_of_factors_is_scanned_and_diffed_as_one_of_products(save: Callable[..., Path]) -> None:
    u, v = factors(64, 9, 48)
    a = save("a.safetensors", dict(zip(SPELLINGS["SVD-LLM"], (u, v), strict=True)))
    b = save("b.safetensors", {"m.up_proj.weight": u @ v})
    (row,) = weightprint.diff(a, b).to_dict()["tensors"]
    assert row["name"] == "m.up_proj.weight"
    assert row["relative"] < 1e-6
    assert weightprint.scan(weightprint.anatomy(a), of="canonical").n_tensors == 1
