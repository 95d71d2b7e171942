"""Read the tensors of a CTranslate2 `model.bin` without CTranslate2.

All numbers are little-endian. A string is a 16-bit length, then so many bytes, the last one zero.

    version u32 · spec's name · spec's revision u32 · number of variables u32
    per variable: name · rank u8 · dimensions u32 … · type u8 · number of bytes u32 · values
    number of aliases u32 · per alias: name · name of the variable it stands for

Nothing in the file is run; every length is checked against what is left. Layout from CTranslate2's
python/ctranslate2/specs/model_spec.py. For tests only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

#: Types by number; 5 is bfloat16, which none of the test models use.
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = memoryview(data), 0

    def take(self, n: int) -> memoryview:
        if n > len(self.data) - self.at:
            raise ValueError(f"{n} bytes expected at {self.at}, {len(self.data) - self.at} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def string(self) -> str:
        return bytes(self.take(self.number(2))).removesuffix(b"\0").decode()


def read_model(data: bytes) -> tuple[str, dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The spec's name, the variables, and the aliases. Raises ValueError for what is not such a file."""
    file = _Bytes(data)
    version = file.number(4)
    if version != 6:
        raise ValueError(f"version {version}: only 6 is known here")
    spec = file.string()
    file.number(4)  # revision
    variables: dict[str, npt.NDArray[Any]] = {}
    for _ in range(file.number(4)):
        name = file.string()
        shape = tuple(file.number(4) for _ in range(file.number(1)))
        kind, size = file.number(1), file.number(4)
        if kind not in TYPES or math.prod(shape) * np.dtype(TYPES[kind]).itemsize != size:
            raise ValueError(f"{name}: type {kind} of shape {shape} can't take {size} bytes")
        variables[name] = np.frombuffer(file.take(size), TYPES[kind]).reshape(shape)
    aliases = {file.string(): file.string() for _ in range(file.number(4))}
    if file.at != len(data):
        raise ValueError(f"{len(data) - file.at} bytes behind the last alias")
    return spec, variables, aliases
