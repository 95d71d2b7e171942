"""What the header says of one tensor, and what is known of one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor's place and form.

    Attributes:
        name: as stored; escape it before showing it.
        dtype: safetensors' name of the element type, e.g. ``"BF16"``.
        shape: as stored; of GGUF's tensors in blocks (`Checkpoint.ggml_types`), bytes along the last axis.
        file: number of its file in `Checkpoint.files`.
        index: its number within that file, in data order.
        begin: offset of its first byte in the file.
        end: offset after its last byte.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> with weightprint.open("weightprint-demo/parent") as model:
        ...     info = model.find("model.layers.0.mlp.up_proj.weight")
        >>> info.dtype, info.shape, info.nbytes
        ('BF16', (128, 48), 12288)
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int
    index: int
    begin: int
    end: int

    @property
    def numel(self) -> int:
        """Number of elements; a complex number is one."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin

    @property
    def components(self) -> int:
        """Real numbers per element: 2 for complex, else 1. Statistics run over these."""
        return 2 if self.dtype == "C64" else 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(rows, columns) with all leading axes flattened into rows; a vector is one row, a scalar (1, 1)."""
        return (prod(self.shape[:-1]), self.shape[-1]) if self.shape else (1, 1)

    def to_dict(self) -> dict[str, Any]:
        """Name, dtype, shape, numel, nbytes, file, begin and end, ready for JSON."""
        keys = ("name", "dtype", "shape", "numel", "nbytes", "file", "begin", "end")
        return {key: list(self.shape) if key == "shape" else getattr(self, key) for key in keys}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file: path, size in bytes, where its data starts, how many tensors, when its data changed, and its inode."""

    path: str
    nbytes: int
    data_start: int
    n_tensors: int
    mtime_ns: int
    ctime_ns: int

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return os.path.basename(self.path)
