"""What a scan puts by is what `read_sample` reads: dtypes of whole bytes, rows across chunks and units, any threads."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint
from safetensors.numpy import save_file
from weightprint import _core
from weightprint.errors import UsageError

SHAPES = {
    "many rows": (3000, 1000),
    "rows longer than a chunk": (9, 300_000),
    "a vector": (70_001,),
    "three axes": (7, 5, 90),
}
ROWS, COLUMNS = [(1, 1), (3, 2)], [(0, 3), (10, 1), (31, 40)]


def made(path: Path, dtype: str, shape: tuple[int, ...]) -> _core.SafetensorsFile:
    rng = np.random.default_rng(len(shape))
    x = rng.integers(0, 100, shape) if np.dtype(dtype).kind in "iu" else rng.standard_normal(shape)
    save_file({"x": x.astype(dtype)}, path)
    return weightprint.open(path).core_file(0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16, "int8", "float64", "uint16"])
def test_kept_is_what_a_sample_reads(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    file = made(tmp_path / "x.safetensors", dtype, shape)
    n_rows = int(np.prod(shape[:-1]))
    rows = [run for run in [*ROWS, (n_rows - 1, 1)] if run[0] + run[1] <= n_rows and run[0] >= 0] or [(0, 1)]
    rows = sorted(set(rows))
    for chosen, columns in ((rows, COLUMNS), (rows, None), ([(0, n_rows)], COLUMNS), ([(0, n_rows)], None)):
        size = sum(n for _, n in chosen), shape[-1] if columns is None else sum(n for _, n in columns)
        read = np.full(size, np.nan, np.float32)
        _core.read_sample(file, 0, read, chosen, columns)
        plain = _core.scan([file], [(0, 0)], digest=True)
        for threads, io in ((1, "pread"), (3, "pread"), (2, "mmap")):
            kept = np.full(size, np.nan, np.float32)
            found = _core.scan([file], [(0, 0)], digest=True, threads=threads, io=io, keep=[(0, kept, chosen, columns)])
            np.testing.assert_array_equal(kept, read)
            assert found == plain


def test_several_are_kept_of_one_tensor(tmp_path: Path) -> None:
    file = made(tmp_path / "x.safetensors", "float32", (64, 50))
    whole = np.empty((64, 50), np.float32)
    _core.read_sample(file, 0, whole, [(0, 64)])
    first, second = np.empty((64, 2), np.float32), np.empty((3, 50), np.float32)
    _core.scan([file], [(0, 0)], keep=[(0, first, [(0, 64)], [(7, 2)]), (0, second, [(61, 3)], None)])
    np.testing.assert_array_equal(first, whole[:, 7:9])
    np.testing.assert_array_equal(second, whole[61:])


@pytest.mark.parametrize(
    ("keep", "code"),
    [
        ((1, (1, 1), [(0, 1)], [(0, 1)]), "no_such_tensor"),
        ((0, (2, 1), [(0, 1)], [(0, 1)]), "length_mismatch"),
        ((0, (2, 1), [(5, 1), (3, 1)], [(0, 1)]), "bad_runs"),
        ((0, (1, 1), [(64, 1)], [(0, 1)]), "range_out_of_bounds"),
        ((0, (1, 1), [(0, 1)], [(50, 1)]), "range_out_of_bounds"),
    ],
)
def test_what_can_not_be_kept_is_said(tmp_path: Path, keep: tuple[int, tuple[int, int], list, list], code: str) -> None:
    file = made(tmp_path / "x.safetensors", "float32", (64, 50))
    place, size, rows, columns = keep
    with pytest.raises(Exception, match=r".") as raised:
        _core.scan([file], [(0, 0)], keep=[(place, np.empty(size, np.float32), rows, columns)])
    assert raised.value.code == code  # type: ignore[attr-defined]
    turned = np.empty((2, 64), np.float32).T
    with pytest.raises(UsageError):
        _core.scan([file], [(0, 0)], keep=[(0, turned, [(0, 64)], [(0, 2)])])
