"""`_core`'s decoders of quantised weights and rectangles, against numpy in float32 one operation at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from weightprint import _core
from weightprint.errors import FileChangedError, UsageError

from tests.conftest import NUMPY_DTYPES, Save

F32 = NDArray[np.float32]


def floats(data: bytes, *shape: int) -> F32:
    return np.frombuffer(data, np.float32).reshape(shape)


def same(found: F32, expected: F32) -> None:
    """The same bits, or both NaN."""
    assert found.shape == expected.shape
    equal = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
    assert equal.all(), np.argwhere(~equal)[:5]


def bits_of(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Every bit pattern is as likely as any other; bool has two."""
    if dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    size = np.dtype(dtype).itemsize
    raw = rng.integers(0, 256, (*shape, size), dtype=np.uint8)
    return raw.reshape(-1).view(dtype).reshape(shape)


RECTS = [
    (0, 0, 0, 0),
    (0, 6, 0, 70),
    (2, 3, 0, 70),
    (0, 6, 69, 1),
    (5, 1, 0, 1),
    (1, 4, 7, 21),
    (1, 5, 3, 64),
    (6, 0, 70, 0),
]


@pytest.mark.parametrize("name", sorted(NUMPY_DTYPES))
def test_rectangle_is_a_slice_of_the_whole(save: Save, name: str) -> None:
    values = bits_of(np.random.default_rng(1), NUMPY_DTYPES[name], (2, 3, 70))
    file = _core.SafetensorsFile(save("a.safetensors", {"before": np.zeros(3, np.uint8), "x": values}))
    i = file.find("x")
    whole = values.reshape(6, 70)
    for first_row, n_rows, first_column, n_columns in RECTS:
        part = np.ascontiguousarray(whole[first_row : first_row + n_rows, first_column : first_column + n_columns])
        assert _core.read_rect(file, i, first_row, n_rows, first_column, n_columns, raw=True) == part.tobytes()
        if name == "C64":
            with pytest.raises(UsageError) as caught:
                _core.read_rect(file, i, first_row, n_rows, first_column, n_columns)
            assert caught.value.code == "complex_values"
            continue
        found = floats(_core.read_rect(file, i, first_row, n_rows, first_column, n_columns), n_rows, n_columns)
        with np.errstate(invalid="ignore", over="ignore"):
            same(found, part.astype(np.float32))


def test_a_sample_is_rows_and_columns_of_the_whole(save: Save) -> None:
    values = np.random.default_rng(1).standard_normal((2, 3, 70), dtype=np.float32)
    file = _core.SafetensorsFile(save("a.safetensors", {"x": values, "z": values.view(np.complex64)}))
    x, out = file.find("x"), np.empty((4, 5), np.float32)
    read = _core.read_sample(file, x, out, [(5, 1), (0, 3)], [(2, 3), (68, 2)])
    assert np.array_equal(out, values.reshape(6, 70)[[5, 0, 1, 2]][:, [2, 3, 4, 68, 69]])
    assert read == 4 * 68 + 4 * (3 * 70 - 2)  # neighbouring rows in one go, with the little between them
    for bad, rows, columns, code in [
        (out, [(6, 1)], None, "range_out_of_bounds"),
        (out, [(0, 4)], [(3, 2), (0, 3)], "bad_runs"),
        (out, [(0, 3)], [(0, 5)], "length_mismatch"),
        (out.T, [(0, 5)], [(0, 4)], "not_contiguous"),
    ]:
        with pytest.raises(UsageError) as caught:
            _core.read_sample(file, x, bad, rows, columns)
        assert caught.value.code == code
    with pytest.raises(UsageError) as caught:
        _core.read_sample(file, file.find("z"), out, [(0, 4)], [(0, 5)])
    assert caught.value.code == "complex_values"


def test_nearest_adds_up_parts_tile_after_tile() -> None:
    rng = np.random.default_rng(3)
    up, gate = rng.standard_normal((2, 50, 200)).astype(np.float32)
    best, at = np.zeros(50, np.float32), np.full(50, -1, np.int64)
    for start in range(0, 200, 64):
        tile = slice(start, start + 64)
        parts = [(np.ascontiguousarray(up[:, tile]), False), (np.ascontiguousarray(gate[:, tile]), True)]
        _core.nearest(parts, start, best, at)
    total = np.abs(up) + gate
    assert np.array_equal(at, total.argmax(axis=1))
    assert np.array_equal(best, total.max(axis=1))
    for parts in (
        [(up, True)] * 3,
        [(up[:, ::2], True)],
        [(up[:40], True), (gate, True)],
        [(np.asfortranarray(up), True)],
    ):
        with pytest.raises(UsageError) as caught:
            _core.nearest(parts, 0, best, at)
        assert caught.value.code == "bad_scores"


@pytest.mark.parametrize("transposed", [False, True])
def test_standardise_overwrites_rows_however_they_lie(transposed: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 257)).astype(np.float32)  # more than a call does on the calling thread
    x[7] = 0
    shift, weights, scale, along = rng.standard_normal((4, 257)).astype(np.float32)
    shift[:] = 0
    wide = x.astype(np.float64)
    want = wide * scale - np.outer(wide @ weights.astype(np.float64), along)
    given = np.asfortranarray(x) if transposed else x.copy()
    _core.standardise(given, shift, weights, scale, along, unit=False)
    assert given == pytest.approx(want, abs=1e-4)
    _core.standardise(given, shift, shift, np.ones_like(scale), shift, unit=True)
    want[7] = 0
    lengths = np.linalg.norm(want, axis=1, keepdims=True)
    assert given == pytest.approx(want / np.where(lengths > 0, lengths, 1), abs=1e-5)
    for bad, line in ((given[:, ::2], shift[::2]), (given, shift[:-1]), (given, np.repeat(shift, 2)[::2])):
        with pytest.raises(UsageError) as caught:
            _core.standardise(bad, line, line, line, line, unit=True)
        assert caught.value.code == "bad_vectors"


def test_peaks_and_assignments_refuse_what_they_are_not_for() -> None:
    x = np.array([[1, -2], [np.nan, 4]], np.float32)
    first, second = _core.peaks(x, 2)
    assert first == 2
    assert np.isnan(second)
    for bad, pieces in ((x[:, ::2], 1), (x, 3), (x, 0)):
        with pytest.raises(UsageError) as caught:
            _core.peaks(bad, pieces)
        assert caught.value.code == "bad_vectors"
    assert _core.assign(np.array([[1.0, 0.0, 5.0], [0.0, 3.0, 5.0]])).tolist() == [1, 0]
    for cost in (np.ones((3, 2)), np.full((2, 2), np.nan), np.ones((4, 2)).T):
        with pytest.raises(UsageError) as caught:
            _core.assign(cost)
        assert caught.value.code == "bad_costs"


@pytest.mark.parametrize(("name", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_rectangle_of_elements_that_share_bytes(tmp_path: Path, name: str, bits: int) -> None:
    rows, columns = 8, 37
    data = np.random.default_rng(2).integers(0, 256, rows * columns * bits // 8, dtype=np.uint8).tobytes()
    header = json.dumps({"x": {"dtype": name, "shape": [rows, columns], "data_offsets": [0, len(data)]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    file = _core.SafetensorsFile(path)
    numbers = int.from_bytes(data, "little")
    codes = [(numbers >> (bits * i)) & ((1 << bits) - 1) for i in range(rows * columns)]
    kind = {"F4": ml_dtypes.float4_e2m1fn, "F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn}[name]
    whole = np.array(codes, np.uint8).view(kind).astype(np.float32).reshape(rows, columns)
    for r, n, c, m in [(0, 8, 0, 37), (1, 3, 5, 7), (7, 1, 36, 1), (3, 4, 1, 36), (2, 2, 0, 37)]:
        same(floats(_core.read_rect(file, 0, r, n, c, m), n, m), np.ascontiguousarray(whole[r : r + n, c : c + m]))
    with pytest.raises(UsageError) as caught:
        _core.read_rect(file, 0, 0, 1, 0, 2, raw=True)
    assert (caught.value.code, caught.value.tensor) == ("not_whole_bytes", "x")


def test_rectangle_of_wide_and_long_matrices(save: Save) -> None:
    """Narrow columns of wide rows are read piece by piece, a row above 1 MiB in steps."""
    rng = np.random.default_rng(3)
    wide = rng.normal(size=(5, 700_000)).astype(np.float16)
    tall = rng.normal(size=(9000, 300)).astype(np.float32)
    file = _core.SafetensorsFile(save("a.safetensors", {"wide": wide, "tall": tall}))
    for name, array in (("wide", wide), ("tall", tall)):
        i, (rows, columns) = file.find(name), array.shape
        spans = [(0, rows, 0, columns), (1, 2, 0, columns), (0, rows, columns // 3, 7), (1, rows - 1, 1, columns - 1)]
        for r, n, c, m in spans:
            part = np.ascontiguousarray(array[r : r + n, c : c + m])
            same(floats(_core.read_rect(file, i, r, n, c, m), n, m), part.astype(np.float32))
            assert _core.read_rect(file, i, r, n, c, m, raw=True) == part.tobytes()


def test_rectangle_of_vectors_scalars_and_nothing(save: Save) -> None:
    tensors = {
        "vector": np.arange(5, dtype=np.float32),
        "scalar": np.float32(7).reshape(()),
        "empty": np.zeros((4, 0, 3), np.float32),
        "no columns": np.zeros((4, 3, 0), np.float32),
    }
    file = _core.SafetensorsFile(save("a.safetensors", tensors))
    assert floats(_core.read_rect(file, file.find("vector"), 0, 1, 1, 3), 3).tolist() == [1, 2, 3]
    assert floats(_core.read_rect(file, file.find("scalar"), 0, 1, 0, 1), 1).tolist() == [7]
    assert _core.read_rect(file, file.find("empty"), 0, 0, 0, 3) == b""
    assert _core.read_rect(file, file.find("no columns"), 3, 9, 0, 0) == b""


def test_rectangle_outside(save: Save) -> None:
    file = _core.SafetensorsFile(save("a.safetensors", {"x": np.zeros((3, 4), np.float32)}))
    for rect in [(0, 4, 0, 4), (3, 1, 0, 1), (0, 1, 4, 1), (0, 1, 1, 4), (2**64 - 1, 2, 0, 1), (0, 1, 1, 2**64 - 1)]:
        for raw in (False, True):
            with pytest.raises(UsageError) as caught:
                _core.read_rect(file, 0, *rect, raw=raw)
            assert (caught.value.code, caught.value.tensor) == ("range_out_of_bounds", "x")
            assert caught.value.path is not None
    with pytest.raises(IndexError):
        _core.read_rect(file, 1, 0, 1, 0, 1)


def test_rectangle_of_a_file_that_was_cut(save: Save) -> None:
    path = save("a.safetensors", {"x": np.zeros((300, 400), np.float32)})
    file = _core.SafetensorsFile(path)
    with path.open("r+b") as f:
        f.truncate(1000)
    with pytest.raises(FileChangedError):
        _core.read_rect(file, 0, 0, 300, 0, 400)


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8"])
def test_blocks_of_scales(name: str) -> None:
    rng = np.random.default_rng(4)
    rows, columns, block = 261, 300, 128
    codes = bits_of(rng, NUMPY_DTYPES[name], (rows, columns))
    scales = rng.normal(size=(3, 3)).astype(np.float32)
    spread = np.repeat(np.repeat(scales, block, 0), block, 1)[:rows, :columns]
    whole = codes.astype(np.float32) * spread
    found = _core.decode_scaled(codes.tobytes(), name, rows, columns, scales.tobytes(), 3, 3, block=(block, block))
    same(floats(found, rows, columns), whole)
    # A rectangle from the middle, with the part of the grid that covers it.
    part = np.ascontiguousarray(codes[130:261, 100:290])
    found = _core.decode_scaled(
        part.tobytes(), name, 131, 190, scales[1:3].tobytes(), 2, 3, block=(block, block), offset=(2, 100)
    )
    same(floats(found, 131, 190), np.ascontiguousarray(whole[130:261, 100:290]))


def test_rows_of_bitsandbytes_int8() -> None:
    rng = np.random.default_rng(5)
    codes = rng.integers(-127, 128, (17, 130)).astype(np.int8)
    absmax = rng.uniform(0.1, 3, (17, 1)).astype(np.float32)
    inverse = np.float32(1) / np.float32(127)
    found = _core.decode_scaled(
        codes.tobytes(), "I8", 17, 130, absmax.tobytes(), 17, 1, block=(1, 130), factor=float(inverse)
    )
    same(floats(found, 17, 130), codes.astype(np.float32) * absmax * inverse)


AWQ = [0, 2, 4, 6, 1, 3, 5, 7]
"""Place k of a word holds code AWQ[k] of eight."""


def pack(codes: NDArray[Any], bits: int, axis: int, order: list[int] | None = None) -> NDArray[np.int32]:
    """Codes into words along `axis`, by shifts of whole arrays."""
    per = 32 // bits
    codes = np.moveaxis(codes.astype(np.uint32), axis, 0)
    codes = np.concatenate([codes, np.zeros((-len(codes) % per, *codes.shape[1:]), np.uint32)])
    words = np.zeros((len(codes) // per, *codes.shape[1:]), np.uint32)
    for place in range(per):
        words |= codes[(order[place] if order else place) :: per] << np.uint32(bits * place)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)


@pytest.mark.parametrize("layout", ["gptq", "awq", "words", "bytes"])
@pytest.mark.parametrize("act_order", [False, True])
def test_packed_integers(layout: str, act_order: bool) -> None:
    rng = np.random.default_rng(6)
    for bits in (4,) if layout == "awq" else (2, 4, 8):
        out, n_in, group = 72, 192, 32
        n_groups = n_in // group
        codes = rng.integers(0, 1 << bits, (out, n_in))
        scales = rng.normal(size=(out, n_groups)).astype(np.float32)
        zeros = rng.integers(0, (1 << bits) + 1, (out, n_groups)).astype(np.float32)
        groups = (np.arange(n_in) // group).astype(np.int32)
        if act_order:
            groups = rng.permutation(groups)
        expected = (codes.astype(np.float32) - zeros[:, groups]) * scales[:, groups]
        packed: NDArray[Any]
        if layout == "gptq":
            packed = pack(codes.T, bits, 0)
        elif layout == "awq":
            packed = pack(codes.T, bits, 1, AWQ)
        else:
            packed = pack(codes, bits, 1)
            packed = packed.view(np.uint8) if layout == "bytes" else packed
        grid = (lambda a: np.ascontiguousarray(a.T)) if layout in ("gptq", "awq") else (lambda a: a)
        found = _core.decode_packed(
            packed.tobytes(),
            layout,
            packed.shape,
            bits,
            out,
            n_in,
            grid(scales).tobytes(),
            n_groups,
            groups.tobytes(),
            zeros=grid(zeros).tobytes(),
        )
        same(floats(found, out, n_in), expected)
        # Symmetric and signed codes.
        found = _core.decode_packed(
            packed.tobytes(),
            layout,
            packed.shape,
            bits,
            out,
            n_in,
            grid(scales).tobytes(),
            n_groups,
            groups.tobytes(),
            signed=True,
        )
        half = 1 << (bits - 1)
        same(floats(found, out, n_in), ((codes ^ half) - half).astype(np.float32) * scales[:, groups])


def test_unpack() -> None:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 16, (6, 64))
    for axis, name in ((0, "rows"), (1, "columns")):
        padded = np.concatenate([codes, np.zeros((2, 64), int)]) if axis == 0 else codes
        for order, places in (("linear", None), ("awq", AWQ)):
            words = pack(padded, 4, axis, places)
            found = _core.unpack(words.tobytes(), *words.shape, 4, axis=name, order=order)
            assert np.array_equal(np.frombuffer(found, np.uint8).reshape(padded.shape), padded)


def test_code_books() -> None:
    rng = np.random.default_rng(8)
    rows, columns, block = 6, 96, 64
    codes = rng.integers(0, 16, rows * columns)
    table = rng.normal(size=16).astype(np.float32)
    absmax = rng.uniform(size=rows * columns // block).astype(np.float32)
    expected = (table[codes] * absmax[np.arange(codes.size) // block]).reshape(rows, columns)
    high = (codes[::2] << 4 | codes[1::2]).astype(np.uint8)
    args = (table.tobytes(), absmax.tobytes())
    found = _core.decode_codebook(high.tobytes(), rows, columns, *args, block=block, stride=columns)
    same(floats(found, rows, columns), expected)
    found = _core.decode_codebook(high.tobytes(), 3, 40, *args, block=block, stride=columns, first=96 + 7)
    same(floats(found, 3, 40), np.ascontiguousarray(expected[1:4, 7:47]))

    # Double quantisation: the absmax are codes of 8 bits, in blocks of 256, plus an offset.
    nested, book = rng.integers(0, 256, 1000).astype(np.uint8), rng.normal(size=256).astype(np.float32)
    scales = rng.normal(size=4).astype(np.float32)
    found = _core.decode_lookup(nested.tobytes(), book.tobytes(), scales.tobytes(), block=256, add=0.25)
    same(floats(found, 1000), book[nested] * scales[np.arange(1000) // 256] + np.float32(0.25))


def test_mxfp4() -> None:
    rng = np.random.default_rng(9)
    rows, columns = 4, 128
    codes = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    exponents = rng.integers(0, 255, (rows, columns // 32)).astype(np.uint8)
    e2m1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    packed = codes[:, ::2] | codes[:, 1::2] << 4
    found = _core.decode_codebook(
        packed.tobytes(),
        rows,
        columns,
        e2m1.tobytes(),
        exponents.tobytes(),
        block=32,
        stride=columns,
        scale_dtype="F8_E8M0",
        low_first=True,
    )
    power = np.repeat(exponents.astype(np.int32) - 127, 32, axis=1)
    same(floats(found, rows, columns), np.ldexp(e2m1[codes].astype(np.float64), power).astype(np.float32))


_F = np.ones(4, np.float32).tobytes()
_G = np.zeros(4, np.int32).tobytes()
_T = np.ones(16, np.float32).tobytes()


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("unknown_dtype", lambda: _core.decode_scaled(b"1234", "F9", 1, 4, _F, 1, 4, block=(1, 1))),
        ("not_a_byte_type", lambda: _core.decode_scaled(b"1234", "F16", 1, 4, _F, 1, 4, block=(1, 1))),
        ("length_mismatch", lambda: _core.decode_scaled(b"1234", "I8", 10**12, 4, _F, 1, 4, block=(1, 1))),
        ("length_mismatch", lambda: _core.decode_scaled(b"1234", "I8", 1, 4, _F[1:], 1, 4, block=(1, 1))),
        ("grid_too_small", lambda: _core.decode_scaled(b"1234", "I8", 1, 4, _F, 4, 1, block=(1, 1))),
        ("unknown_layout", lambda: _core.decode_packed(b"1234", "gguf", (1, 1), 8, 1, 4, _F, 4, _G)),
        ("unknown_bits", lambda: _core.decode_packed(b"1234", "words", (1, 1), 3, 1, 4, _F, 4, _G)),
        ("stored_shape_mismatch", lambda: _core.decode_packed(b"1234", "words", (1, 1), 8, 1, 4, _F, 4, _G, first=1)),
        ("group_out_of_range", lambda: _core.decode_packed(b"1234", "words", (1, 1), 8, 1, 4, b"", 0, _G)),
        ("unknown_order", lambda: _core.unpack(b"1234", 1, 1, 4, order="marlin")),
        ("unknown_axis", lambda: _core.unpack(b"1234", 1, 1, 4, axis="depth")),
        ("length_mismatch", lambda: _core.decode_codebook(b"1234", 1, 8, _T[4:], _F, block=2, stride=8)),
        ("codes_too_short", lambda: _core.decode_codebook(b"1234", 10**12, 8, _T, _F, block=2, stride=8)),
        (
            "unknown_scale_dtype",
            lambda: _core.decode_codebook(b"1234", 1, 8, _T, _F, block=2, stride=8, scale_dtype="I8"),
        ),
        ("grid_too_small", lambda: _core.decode_lookup(b"1234", _T * 16, _F[:4], block=2)),
    ],
)
def test_what_does_not_fit_is_a_usage_error(code: str, call: Callable[[], bytes]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.code == code


def test_large_outputs_on_all_cores() -> None:
    """Above a few MiB, several threads share the rows."""
    rng = np.random.default_rng(10)
    codes = rng.integers(0, 256, (1500, 2049)).astype(np.uint8)
    scales = rng.normal(size=(12, 17)).astype(np.float32)
    found = _core.decode_scaled(codes.tobytes(), "F8_E4M3", 1500, 2049, scales.tobytes(), 12, 17, block=(128, 128))
    spread = np.repeat(np.repeat(scales, 128, 0), 128, 1)[:1500, :2049]
    same(floats(found, 1500, 2049), codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * spread)
