"""The reader of torch zips runs nothing: what is not a plain tensor is refused."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_zip import read_state_dict


class Torch(pickle.Pickler):
    """Writes what torch would: globals by name, storages as persistent ids."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, pid: tuple[Any, ...]) -> None:
        self.pid = pid


def archive(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled)
        for key, raw in storages.items():
            file.writestr(f"x/data/{key.removeprefix('s')}", raw)
    return path


def tensor(dtype: str, key: str, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The pickle of {"w": tensor}, in the opcodes that torch writes."""
    out = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
    out += b"(X\x07\x00\x00\x00storagectorch\n" + dtype.encode() + b"\n"
    for word in (key, "cpu"):
        out += b"X" + len(word).to_bytes(4, "little") + word.encode()
    out += pickle.dumps(numel, 0)[:-1] + b"tQ" + pickle.dumps(offset, 0)[:-1]
    for values in (size, stride):
        out += b"(" + b"".join(pickle.dumps(v, 0)[:-1] for v in values) + b"t"
    return out + b"\x89ccollections\nOrderedDict\n)RtRs."


def test_a_strided_tensor(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32)
    path = archive(tmp_path / "a.pt", tensor("FloatStorage", "0", 12, 1, (2, 3), (1, 2)), s0=values.tobytes())
    np.testing.assert_array_equal(read_state_dict(path)["w"], [[1, 3, 5], [2, 4, 6]])


@pytest.mark.parametrize(
    ("size", "stride"), [((2, 30), (6, 1)), ((13,), (1,)), ((2,), (100,)), ((2, 3), (1,)), ((-1,), (1,))]
)
def test_a_tensor_may_not_reach_past_its_storage(tmp_path: Path, size: Any, stride: Any) -> None:
    path = archive(tmp_path / "a.pt", tensor("FloatStorage", "0", 12, 0, size, stride), s0=bytes(48))
    with pytest.raises(pickle.UnpicklingError):
        read_state_dict(path)


@pytest.mark.parametrize(
    "call", ["os\nsystem", "builtins\neval", "builtins\ngetattr", "torch\nload", "torch._utils\n_rebuild_qtensor"]
)
def test_any_other_global_is_refused(tmp_path: Path, call: str) -> None:
    path = archive(tmp_path / "a.pt", b"c" + call.encode() + b"\n(X\x04\x00\x00\x00truetR.")
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_state_dict(path)


def test_storages_are_only_those_of_the_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", tensor("FloatStorage", "../data", 1, 0, (1,), (1,)), s0=bytes(4))
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_state_dict(path)


def test_only_dicts_of_tensors(tmp_path: Path) -> None:
    for value in ([1], {"a": 1}, collections.OrderedDict(a="x")):
        buffer = io.BytesIO()
        Torch(buffer, 2).dump(value)
        with pytest.raises(pickle.UnpicklingError):
            read_state_dict(archive(tmp_path / "a.pt", buffer.getvalue()))
