"""Our reader against the reference implementation, the installed `safetensors` package.

Three claims. The table says truly what the reference does. What `strict` accepts, the reference accepts, with the same
tensors. What the reference accepts, `compatible` accepts, except where a cap of ours (an error of type LimitError) says
no. One shape is the exception: `[2^63, 2, 0]` is empty, but the reference multiplies from the left and overflows; we
read it with the note `zero_after_overflow`.
"""

from __future__ import annotations

import json
import math
import runpy
import struct
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from weightprint import errors
from weightprint._core import SafetensorsFile

ROWS: list[Any] = runpy.run_path(str(Path(__file__).parents[1] / "malformed" / "table.py"))["rows"]()
FILES = [row for row in ROWS if row.kind == "file"]
SMALL = [row.content() for row in FILES if row.nbytes < 4000]
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def reference(content: bytes) -> Tensors | None:
    """What the reference reads, or None where it refuses."""
    try:
        listed = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        return None
    return {name: (info["dtype"], tuple(info["shape"]), bytes(info["data"])) for name, info in listed}


def ours(content: bytes, mode: str) -> tuple[Tensors | None, str, bool]:
    """What we read, or None; the error's code; whether a cap or the one exception is the reason to differ."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        try:
            file = SafetensorsFile(str(path), mode=mode)
        except errors.LimitError as e:
            return None, str(e.code), True
        except errors.WeightprintError as e:
            return None, str(e.code), False
        tensors = {}
        for i in range(file.n_tensors):
            name, dtype, shape, _, _ = file.tensor(i)
            tensors[name] = (dtype, tuple(shape), file.read_bytes(i))
        return tensors, "ok", any(note[0] == "zero_after_overflow" for note in file.notes)


def check(content: bytes) -> None:
    """All claims for one file."""
    theirs = reference(content)
    for mode in ["strict", "compatible"]:
        tensors, code, excused = ours(content, mode)
        if tensors is not None and not excused:
            assert tensors == theirs, f"{mode} reads what the reference does not"
        if theirs is not None and mode == "compatible":
            assert tensors is not None or excused, f"the reference accepts, compatible says {code}"


@pytest.mark.parametrize("row", FILES, ids=lambda row: row.name)
def test_the_table_knows_the_reference(row: Any) -> None:
    assert (reference(row.content()) is not None) == (row.reference == "accept")


@pytest.mark.parametrize("row", [row for row in FILES if row.nbytes < 1_000_000], ids=lambda row: row.name)
def test_rows_agree(row: Any) -> None:
    check(row.content())


names = st.text(max_size=20).filter(lambda name: name != "__metadata__")
metadata = st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A sound file as another writer might make it: any order, any spacing, escapes or not, any alignment."""
    tensors = draw(
        st.dictionaries(
            names, st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 5), max_size=4)), max_size=8
        )
    )
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        dims = [*shape, 4] if BITS[dtype] < 8 else shape
        size = math.prod(dims) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": dims, "data_offsets": [end, end + size]}
        end += size
    items = draw(st.permutations(list(header.items())))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), ("__metadata__", draw(metadata)))
    indent = draw(st.sampled_from([None, 0, 3]))
    try:
        text = json.dumps(dict(items), indent=indent, ensure_ascii=draw(st.booleans())).encode()
    except UnicodeEncodeError:
        text = json.dumps(dict(items), indent=indent).encode()
    text = text + b" " * draw(st.integers(0, 9))
    return struct.pack("<Q", len(text)) + text + bytes(i % 251 for i in range(end))


@given(written())
@settings(max_examples=300, deadline=None)
def test_what_others_write_is_read_the_same(content: bytes) -> None:
    theirs = reference(content)
    assert theirs is not None
    for mode in ["strict", "compatible"]:
        assert ours(content, mode)[0] == theirs


TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0061", b"0", b"1", b"4", b"-0", b"1.0", b"1e3", b" ", b"\n",
    b"\0", b"null", b"true", b'"t"', b'"dtype"', b'"shape"', b'"data_offsets"', b'"F32"', b'"__metadata__":null,',
    b'"__metadata__":{"a":"b","a":"c"},', b'"x":1,', b'"x":{"y":[]},', b"18446744073709551616", b"9223372036854775808",
    b'["F32",[1],[0,4]]', b'{"F32":null}', b'"e":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', b"\xef\xbb\xbf",
    b"\xff",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A row of the table or a written file, changed in a few places; mostly with its length put right again."""
    content = bytearray(draw(st.one_of(st.sampled_from(SMALL), written())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        until = min(len(content), at + draw(st.integers(0, 12)))
        content[at:until] = draw(st.sampled_from([b"", bytes(content[at:until]) * 2, *TOKENS]))
    last = content.rfind(b"}")
    if last >= 8 and draw(st.integers(0, 7)):
        content[:8] = struct.pack("<Q", last + 1 - 8)
    return bytes(content)


@pytest.mark.slow
@given(mutated())
@settings(max_examples=2000, deadline=None)
def test_mutated_files_agree(content: bytes) -> None:
    check(content)


@pytest.mark.parametrize(
    "dtype",
    [
        np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float16,
        np.float32, np.float64, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
    ],
    ids=lambda dtype: np.dtype(dtype).name,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3), (5, 1, 2)])
def test_what_numpy_saves(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path / "model.safetensors"
    saved = {"a.weight": values, "b": values[..., None]}
    try:
        safetensors.numpy.save_file(saved, str(path), metadata={"format": "np", "naïve": "ü"})
    except (KeyError, ValueError, safetensors.SafetensorError):
        pytest.skip("this version of safetensors.numpy does not save it")
    file = SafetensorsFile(str(path))
    assert file.metadata == {"format": "np", "naïve": "ü"}
    assert sorted(file.names()) == ["a.weight", "b"]
    for name, array in saved.items():
        i = file.find(name)
        assert file.tensor(i)[2] == array.shape
        assert file.read_bytes(i) == array.tobytes()


def test_index_of_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, str(path))
    with pytest.raises(errors.TensorNotFoundError):
        SafetensorsFile(str(path)).find("b")
