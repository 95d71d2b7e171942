"""The reader of CTranslate2 files refuses what does not add up."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ctranslate2 import read_model


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, array: np.ndarray, kind: int) -> bytes:
    shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return string(name) + shape + struct.pack("<BI", kind, array.nbytes) + array.tobytes()


def model(*variables: bytes, version: int = 6, aliases: bytes = struct.pack("<I", 0)) -> bytes:
    start = struct.pack("<I", version) + string("Spec") + struct.pack("<II", 1, len(variables))
    return start + b"".join(variables) + aliases


def test_what_was_written_is_read() -> None:
    w, n = np.arange(6, dtype=np.float16).reshape(2, 3), np.array(4, np.int16)
    aliases = struct.pack("<I", 1) + string("head/weight") + string("a/weight")
    spec, variables, named = read_model(model(variable("a/weight", w, 4), variable("a/n", n, 2), aliases=aliases))
    assert spec == "Spec"
    assert named == {"head/weight": "a/weight"}
    assert variables["a/weight"].dtype == np.float16
    assert np.array_equal(variables["a/weight"], w)
    assert variables["a/n"].shape == ()
    assert variables["a/n"] == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model(version=5), "version 5"),
        (model(variable("w", np.zeros(3, np.float32), 4)), "w: type 4 of shape"),
        (model(variable("w", np.zeros(3, np.float32), 9)), "w: type 9"),
        (model(variable("w", np.zeros(3, np.float32), 0))[:-6], "are left"),
        (model() + b"x", "1 bytes behind"),
        (b"", "4 bytes expected at 0"),
    ],
)
def test_malformed(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_model(data)
