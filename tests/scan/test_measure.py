"""`_core.Measure`: values in memory give the very bits that a scan of a file with these values gives."""

from __future__ import annotations

import numpy as np
import pytest
from weightprint import _core
from weightprint.errors import UsageError

rng = np.random.default_rng(11)
EVERYTHING = {"exact": True, "rows": True, "columns": True, "digest": True}


def special(values):
    """A few values that are not finite, zeros of both signs, and a block far from the rest."""
    flat = values.reshape(-1)
    flat[:: max(1, flat.size // 7)] = 0.0
    flat[1 :: max(1, flat.size // 3)] = -0.0
    if flat.size > 10:
        flat[[2, 5, 7]] = np.nan, np.inf, -np.inf
        flat[flat.size // 2 : flat.size // 2 + 5] = 1e30
    return values


def measured(values, piece, **asked):
    measure = _core.Measure(values.shape, **asked)
    data = values.tobytes()
    for start in range(0, len(data), piece):
        measure.add(data[start : start + piece])
    return measure.finish()


# 2,500,000 values are more than one unit of 8 MiB, 131,072 one chunk of it.
SHAPES = [
    (),
    (1,),
    (0,),
    (3, 0),
    (7,),
    (40, 33),
    (5, 6, 70),
    (2_500_000,),
    (2_500, 1_000),
    (9, 400_001),
    (3_000_000, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("asked", [{}, {"rows": True, "columns": True}, EVERYTHING], ids=["plain", "lines", "all"])
def test_bits_of_a_scan(save, shape, asked):
    values = special(rng.normal(scale=0.02, size=shape).astype(np.float32))
    file = _core.SafetensorsFile(save("m.safetensors", {"w": values}))
    wanted = _core.scan([file], [(0, 0)], **asked)
    # Pieces within a chunk, across chunks and units, and all at once.
    for piece in (4 * 77_777, 4 * 1_048_579, 1 << 40):
        found = measured(values, piece, **asked)
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert found[key] == wanted[key], (key, piece)


def test_tiny_pieces(save):
    values = special(rng.normal(size=(31, 17)).astype(np.float32))
    file = _core.SafetensorsFile(save("m.safetensors", {"w": values}))
    assert measured(values, 4, **EVERYTHING) == _core.scan([file], [(0, 0)], **EVERYTHING)


def test_portable_kernels_too(save):
    values = rng.normal(size=(500, 700)).astype(np.float32)
    file = _core.SafetensorsFile(save("m.safetensors", {"w": values}))
    wanted = _core.scan([file], [(0, 0)], isa="portable")
    assert measured(values, 10_000, isa="portable") == wanted


def test_what_does_not_fit_is_an_error():
    incomplete = _core.Measure((2, 3))
    incomplete.add(bytes(12))
    with pytest.raises(UsageError, match="3 of 6 values"):
        incomplete.finish()
    with pytest.raises(UsageError, match="28 bytes added where 24"):
        _core.Measure((2, 3)).add(bytes(28))
    with pytest.raises(UsageError, match="5 bytes"):
        _core.Measure((2, 3)).add(bytes(5))
    with pytest.raises(UsageError, match="too many values"):
        _core.Measure((1 << 40, 1 << 40))
    over = _core.Measure((0,))
    over.finish()
    with pytest.raises(UsageError, match="finished"):
        over.finish()
    with pytest.raises(UsageError, match="finished"):
        over.add(b"")
