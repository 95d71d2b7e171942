"""Read the tensors of a PyTorch zip checkpoint (`state_dict.pt`) without torch and without running anything.

The container is a zip: `<root>/data.pkl` describes an ordered dict of tensors, `<root>/data/<key>` holds the raw
storages. A pickle is a program, so `data.pkl` goes through an unpickler whose `find_class` knows five names and maps
each to a stand-in of ours; every other global is refused. The stand-ins only record sizes and strides: the worst a
hostile file can do is ask for a storage that is not in the archive. For tests only; weightprint itself never reads
pickles.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<?",
}


class _Storage:
    """Stands for a torch storage class: only remembers the numpy dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)


def _rebuild_tensor(
    storage: npt.NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> npt.NDArray[Any]:
    """The array that a (storage, offset, size, stride) record describes, copied out contiguous."""
    if len(size) != len(stride) or offset < 0 or any(s < 0 for s in (*size, *stride)):
        raise pickle.UnpicklingError(f"bad tensor record: offset {offset}, size {size}, stride {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if all(size) and last >= storage.size:
        raise pickle.UnpicklingError(f"tensor of size {size} reaches past its storage of {storage.size} elements")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _rebuild_parameter(data: npt.NDArray[Any], *_: object) -> npt.NDArray[Any]:
    return data


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in STORAGES:
            return _Storage(STORAGES[name])
        raise pickle.UnpicklingError(f"refused: the pickle asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        kind, storage, key, _device, numel = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not str(key).isalnum():
            raise pickle.UnpicklingError(f"refused: unknown persistent record {kind!r}")
        array = np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), storage.dtype)
        if array.size < numel:
            raise pickle.UnpicklingError(f"storage {key} has {array.size} of {numel} elements")
        return array


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a zip `state_dict.pt` by name. Raises `pickle.UnpicklingError` on anything but plain tensors."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        state = _TensorUnpickler(archive, pickled.removesuffix("/data.pkl")).load()
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise pickle.UnpicklingError("not a flat dict of tensors")
    return dict(state)
