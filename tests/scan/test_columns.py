"""Columns of measurements: parts joined, picked and completed are what one scan of the same tensors gives."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import weightprint
from weightprint import _core
from weightprint.scan.columns import MEASURED, Columns, measure
from weightprint.scan.request import Request, Settings

EVERYTHING = Request(exact=True, rows=True, columns=True, digest=True)
rng = np.random.default_rng(5)


@pytest.fixture
def checkpoint(save):
    tensors = {
        "wide": rng.normal(size=(7, 30)).astype(np.float32),
        "codes": rng.integers(-9, 9, (4, 6)).astype(np.int8),  # counted whatever is asked
        "ends": np.array([np.nan, np.inf, 2**63, -1]),
        "big": np.array([2**64 - 1, 3], np.uint64),
        "none": np.zeros((0, 3), np.float16),
        "scalar": np.array(3, np.float32),
    }
    return weightprint.open(save("m.safetensors", tensors))


def same(a: Columns, b: Columns) -> bool:
    def plain(columns: Columns) -> dict[str, object]:
        return {k: v.tolist() if v.dtype == object else (v.dtype, v.tobytes()) for k, v in columns.arrays.items()}

    return plain(a) == plain(b)


@pytest.mark.parametrize("request_", [Request(), EVERYTHING], ids=["plain", "everything"])
def test_parts_in_any_order_are_the_whole(checkpoint, request_):
    infos = list(checkpoint.tensors)
    whole = measure(checkpoint, infos, request_, Settings())
    order = rng.permutation(len(infos)).tolist()
    parts = [measure(checkpoint, [infos[k]], request_, Settings(threads=1)) for k in order]
    assert same(Columns.join(parts).take(np.argsort(order)), whole)
    assert same(pickle.loads(pickle.dumps(whole)), whole)
    empty = measure(checkpoint, [], request_, Settings())
    assert same(Columns.join([empty, whole, empty]), whole)
    assert same(whole.take([]), empty)
    assert all(len(array) == len(infos) for array in whole.arrays.values())
    assert same(whole.take([2, 2, 0]), Columns.join([whole.take([2]), whole.take([2]), whole.take([0])]))


def test_columns_of_nothing_counted(checkpoint):
    """The core leaves columns out where it counted no tensor; here they say so."""
    wide = checkpoint.find("wide")
    assert "entropy" not in _core.scan([checkpoint.core_file(0)], [(0, wide.index)])
    found = measure(checkpoint, [wide], Request(), Settings())
    assert set(found.arrays) == {*MEASURED, "quantiles"}
    assert found["quantiles"].shape == (1, 9)
    assert np.isnan(found["quantiles"]).all()
    assert found["n_distinct"].tolist() == [-1]


def test_numbers_stay_exact(checkpoint):
    big = measure(checkpoint, [checkpoint.find("big")], Request(), Settings())
    assert big["max"].tolist() == [2**64 - 1]
    assert isinstance(big["max"][0], int)
