"""Statistics against numpy in float64, and the same bits however the work is handed out."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import weightprint
from weightprint.errors import FileChangedError, FormatError, TensorNotFoundError, UsageError
from weightprint.scan.result import PERCENTILES

rng = np.random.default_rng(2)
SHAPES = [(1,), (7,), (33, 65), (3, 100, 50), (20_000,)]

# What a moment may be off by, relative to the same moment of |x - mean|. F64 and integers are summed in f64: 20,000
# terms err by less than 20,000 x 2^-53 (2.3e-12). Narrower floats go through f32 lanes, in blocks of at most 4096
# elements over at least 16 lanes: a lane adds at most 256 terms, each rounding 2^-24, and a fourth power rounds four
# times as often. Counted types are exact but for the last roundings.
F64_SUMS = 1e-11
F32_LANES = 4 * 256 * 2.0**-24
IN_LANES = ("F32", "C64", "F16", "BF16")


def finite_values(array):
    if array.dtype == np.complex64:
        array = array.view(np.float32)
    values = array.astype(np.float64).ravel()
    return values, values[np.isfinite(values)]


def moments(values):
    """Two-pass moments by fsum: the oracle."""
    n = len(values)
    mean = math.fsum(values) / n
    centred = values - mean
    m2, m3, m4 = (math.fsum(centred**k) / n for k in (2, 3, 4))
    return {
        "mean": mean,
        "std": math.sqrt(m2),
        "rms": math.sqrt(math.fsum(values**2) / n),
        "l1": math.fsum(np.abs(values)),
        "l2": math.sqrt(math.fsum(values**2)),
        "skewness": m3 / m2**1.5 if m2 else math.nan,
        "kurtosis": m4 / m2**2 if m2 else math.nan,
    }


def random_tensor(name, dtype, shape):
    n = math.prod(shape)
    if name == "BOOL":
        return rng.integers(0, 2, n).astype(bool).reshape(shape)
    if name == "C64":
        return (rng.normal(size=n) + 1j * rng.normal(size=n)).astype(np.complex64).reshape(shape)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0 if name[0] == "U" else -100, 100, n).astype(dtype).reshape(shape)
    values = np.exp2(rng.integers(-6, 6, n)) if name == "F8_E8M0" else rng.normal(scale=2, size=n)
    return values.astype(dtype).reshape(shape)


@pytest.mark.parametrize("exact", [False, True])
def test_against_numpy_for_every_dtype(save, numpy_dtypes, exact):
    tensors = {
        f"{name}.{k}": random_tensor(name, dtype, s)
        for name, dtype in numpy_dtypes.items()
        for k, s in enumerate(SHAPES)
    }
    scan = weightprint.scan(save("m.safetensors", tensors), exact=exact)
    assert scan.n_tensors == len(tensors)
    assert scan.bytes_read == sum(array.nbytes for array in tensors.values())
    for name, array in tensors.items():
        row = scan[name]
        every, values = finite_values(array)
        assert row["numel"] == array.size
        assert (row["n"], row["n_finite"]) == (every.size, values.size)
        assert row["n_zero"] == np.count_nonzero(every == 0)
        assert row["sparsity"] == row["n_zero"] / row["n"]
        assert (row["min"], row["max"]) == (values.min(), values.max()), name
        assert row["abs_max"] == np.abs(values).max()
        assert row["abs_max_index"] == np.abs(every).argmax()
        counted = exact and array.dtype.itemsize <= 2
        relative = F32_LANES if name.split(".")[0] in IN_LANES and not counted else F64_SUMS
        wanted = moments(values)
        # Odd moments cancel: their error is measured against the spread, not against what is left.
        absolute = {"mean": wanted["rms"], "skewness": wanted["kurtosis"]}
        for key, value in wanted.items():
            allowed = relative * max(abs(value), absolute.get(key, 0.0), 1e-300)
            assert abs(row[key] - value) <= allowed or (math.isnan(value) and math.isnan(row[key])), (name, key)
        if not (exact or array.dtype.itemsize == 1 or name.startswith(("I16", "U16"))):
            continue
        for column, level in PERCENTILES:
            wanted = np.quantile(values, level, method="inverted_cdf")
            bound = row["quantile_error"] * abs(wanted) * (1 + 1e-12)
            assert abs(row[column] - wanted) <= bound, (name, column)
        if array.dtype.itemsize <= 2:
            assert row["quantile_error"] == 0
            distinct, counts = np.unique(values, return_counts=True)
            assert row["n_distinct"] == len(distinct)
            share = counts / counts.sum()
            assert row["entropy"] == pytest.approx(max(0.0, -(share * np.log2(share)).sum()), rel=1e-9, abs=1e-12)


def test_nan_and_infinity_are_counted_and_left_out(save):
    values = rng.normal(size=(50, 40)).astype(np.float32)
    values[3, 7] = values[20, 1] = np.nan
    values[2, 39], values[4, 0], values[4, 1] = np.inf, -np.inf, -np.inf
    values[0, 0] = -0.0
    row = weightprint.scan(save("m.safetensors", {"w": values}))["w"]
    assert (row["n_nan"], row["n_posinf"], row["n_neginf"], row["n_zero"]) == (2, 1, 2, 1)
    assert (row["first_nan"], row["first_inf"]) == (3 * 40 + 7, 2 * 40 + 39)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert row["n_finite"] == finite.size
    assert row["mean"] == pytest.approx(finite.mean(), abs=F32_LANES * finite.std())
    assert row["std"] == pytest.approx(finite.std(), rel=F32_LANES)


def test_empty_nothing_finite_and_exact_integers(save):
    tensors = {
        "empty": np.zeros((0, 3), np.float32),
        "nan": np.full(5, np.nan, np.float16),
        "big": np.array([2**64 - 1, 2**64 - 2, 1], np.uint64),
        "low": np.array([-(2**63), 2**63 - 1], np.int64),
    }
    scan = weightprint.scan(save("m.safetensors", tensors), exact=True, rows=True, columns=True, digest=True)
    for name in ("empty", "nan"):
        row = scan[name]
        assert row["min"] is row["max"] is row["abs_max"] is row["abs_max_index"] is None
        assert math.isnan(row["mean"])
        assert math.isnan(row["std"])
        assert (row["l1"], row["l2"], row["n_finite"]) == (0, 0, 0)
    assert (scan["big"]["min"], scan["big"]["max"]) == (1, 2**64 - 1)
    assert (scan["low"]["min"], scan["low"]["max"], scan["low"]["abs_max"]) == (-(2**63), 2**63 - 1, 2**63)
    assert math.isnan(scan["empty"]["sparsity"])
    assert '"mean": null' in scan.table.to_json()


def test_a_checkpoint_without_tensors(save):
    scan = weightprint.scan(save("m.safetensors", {}), digest=True)
    assert len(scan) == 0
    assert scan.table.to_jsonl() == ""
    assert scan.to_dict()["tensors"] == []


def test_rows_and_columns(save):
    tensors = {
        "w": rng.normal(size=(30, 17)).astype(np.float32),
        "stack": rng.normal(size=(3, 8, 9)).astype(np.float16),
        "wide": rng.normal(size=(5, 9000)).astype(np.float32),
        "double": rng.normal(size=(7, 300)),
        "b": np.ones(4, np.float32),
    }
    tensors["w"][5] = tensors["w"][29] = 0
    tensors["w"][:, 3] = 0
    scan = weightprint.scan(save("m.safetensors", tensors), rows=True, columns=True)
    for name in ("w", "stack", "wide", "double"):
        matrix = tensors[name].astype(np.float64).reshape(-1, tensors[name].shape[-1])
        for got, axis in ((scan.rows(name), 1), (scan.columns(name), 0)):
            error = F64_SUMS if name == "double" else F32_LANES
            np.testing.assert_allclose(got.mean, matrix.mean(axis), rtol=0, atol=error)
            np.testing.assert_allclose(got.std, matrix.std(axis), rtol=error, atol=1e-15)
            np.testing.assert_allclose(got.l2, np.linalg.norm(matrix, axis=axis), rtol=error)
    row = scan["w"]
    assert (row["dead_rows"], row["dead_columns"], row["row_l2_min"]) == (2, 1, 0)
    assert row["column_l2_max"] == scan.columns("w").l2.max()
    assert scan["b"]["dead_rows"] is None
    with pytest.raises(UsageError):
        scan.rows("b")
    with pytest.raises(UsageError, match="rows=True"):
        weightprint.scan(save("m.safetensors", tensors)).rows("w")
    with pytest.raises(TensorNotFoundError):
        scan.rows("x")


def assert_same_bits(a, b):
    assert a.digest == b.digest
    assert a.table.names == b.table.names
    for left, right in zip(a.table.columns, b.table.columns, strict=True):
        if isinstance(left.values, np.ndarray):
            assert left.values.tobytes() == right.values.tobytes(), left.name
        else:
            assert left.values == right.values, left.name


@pytest.fixture
def sharded(save_sharded):
    shards = [
        {f"layers.{k}.w": rng.normal(size=(60, 50 + k)).astype(np.float32) for k in range(20)},
        {"x": np.arange(9, dtype=np.int8), "empty": np.zeros(0, np.float16), "y": rng.normal(size=30_000)},
    ]
    return save_sharded("m", shards)


def test_the_same_bits_however_it_is_done(sharded):
    asked = {"exact": True, "rows": True, "columns": True, "digest": True}
    reference = weightprint.scan(sharded, threads=1, **asked)
    for threads, io in ((2, "pread"), (7, "mmap"), (None, "auto")):
        assert_same_bits(reference, weightprint.scan(sharded, threads=threads, io=io, **asked))
    with ThreadPoolExecutor(3) as pool:
        assert_same_bits(reference, weightprint.scan(sharded, executor=pool, **asked))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        seen = []
        spread = weightprint.scan(sharded, executor=pool, progress=lambda *at: seen.append(at), **asked)
    assert_same_bits(reference, spread)
    assert spread.rows("layers.3.w").l2.tobytes() == reference.rows("layers.3.w").l2.tobytes()
    assert seen[-1] == (reference.bytes_read, reference.bytes_read)


def test_progress_counts_bytes_and_can_stop(sharded):
    seen = []
    scan = weightprint.scan(sharded, progress=lambda *at: seen.append(at))
    assert seen[-1] == (scan.bytes_read, scan.bytes_read)
    assert seen == sorted(seen)

    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        weightprint.scan(sharded, progress=stop)


def test_choosing_tensors(sharded):
    assert weightprint.scan(sharded, include="layers.1*").names() == [f"layers.{k}.w" for k in (1, *range(10, 20))]
    assert weightprint.scan(sharded, include=["x", "[yz]"]).names() == ["x", "y"]
    assert weightprint.scan(sharded, exclude="layers.*").names() == ["empty", "x", "y"]
    assert weightprint.scan(sharded, include="layers.*", exclude=["*1?.w"]).n_tensors == 10
    with pytest.raises(UsageError, match=r"LAYERS.*layers\.0\.w"):
        weightprint.scan(sharded, include="LAYERS*")
    with pytest.raises(UsageError, match="no tensor"):
        weightprint.scan(sharded, exclude="*")
    with pytest.raises(UsageError, match="at least 1"):
        weightprint.scan(sharded, threads=0)
    with pytest.raises(UsageError, match="'stored' or 'canonical'"):
        weightprint.scan(sharded, of="both")


def test_natural_order(sharded):
    assert weightprint.scan(sharded).names() == ["empty", *(f"layers.{k}.w" for k in range(20)), "x", "y"]


def test_digest_is_blind_to_names_and_shards(save, save_sharded):
    a, b = rng.normal(size=(5, 6)).astype(np.float32), np.arange(7, dtype=np.int64)
    one = weightprint.scan(save("1.safetensors", {"a": a, "b": b}), digest=True)
    two = weightprint.scan(save_sharded("2", [{"other": b}, {"name": a}]), digest=True)
    three = weightprint.scan(save("3.safetensors", {"a": a.reshape(6, 5), "b": b}), digest=True)
    assert one.digest == two.digest != three.digest
    assert one["a"]["digest"] == two["name"]["digest"]
    assert len(one["a"]["digest"]) == 64
    lines = sorted(f"{d} {list(v.shape)} {one[n]['digest']}\n" for n, d, v in (("a", "F32", a), ("b", "I64", b)))
    assert one.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert weightprint.scan(save("1.safetensors", {"a": a})).digest is None


def test_a_scan_pickles_and_prints(sharded):
    scan = weightprint.scan(sharded, rows=True, digest=True)
    copy = pickle.loads(pickle.dumps(scan))
    assert_same_bits(scan, copy)
    assert repr(copy) == repr(scan)
    assert "23 tensors" in repr(scan)
    assert "<table>" in scan._repr_html_()
    assert scan.to_dict()["tensors"][1]["name"] == "layers.0.w"


def test_a_file_that_changed_gives_an_error(sharded):
    checkpoint = weightprint.open(sharded)
    path = checkpoint.files[0].path
    os.utime(path, ns=(5, 5))
    with pytest.raises(FileChangedError):
        weightprint.scan(checkpoint)
    with ThreadPoolExecutor(1) as pool, pytest.raises(FileChangedError):
        weightprint.scan(checkpoint, executor=pool)


def test_a_file_cut_after_opening(save):
    path = save("m.safetensors", {"w": np.ones(100_000, np.float32)})
    checkpoint = weightprint.open(path)
    os.truncate(path, 50_000)
    with pytest.raises((FileChangedError, FormatError)):
        weightprint.scan(checkpoint, io="pread")
