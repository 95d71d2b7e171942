"""Scans of more tensors than go through the core at once."""

import numpy as np
import pytest
import weightprint
from weightprint.scan import columns
from weightprint.scan.columns import measure
from weightprint.scan.request import Request, Settings


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_cut_into_calls_is_the_same(at_once, save, monkeypatch):
    rng = np.random.default_rng(0)
    tensors = {f"t{i}": rng.standard_normal((i % 4 + 1, 300)).astype(np.float32) for i in range(10)}
    tensors["bytes"] = rng.integers(0, 255, (5, 5)).astype(np.uint8)  # counted: quantiles in one call only
    with weightprint.open(save("m.safetensors", tensors)) as model:
        infos = list(model.tensors)
        request = Request(rows=True, digest=True)
        sketch = [7 if info.name == "t3" else None for info in infos]

        def scanned():
            kept = {k: np.zeros(infos[k].shape, np.float32) for k in (0, 4, 9) if infos[k].dtype == "F32"}
            keep = [(k, out, [(0, infos[k].shape[0])], None) for k, out in kept.items()]
            told = []
            settings = Settings(threads=1, progress=lambda done, total: told.append((done, total)))
            return measure(model, infos, request, settings, keep, sketch), kept, told

        want, kept_whole, _ = scanned()
        monkeypatch.setattr(columns, "_AT_ONCE", at_once)
        found, kept, told = scanned()
    assert found.arrays.keys() == want.arrays.keys()
    for name, column in want.arrays.items():
        if column.dtype == object:
            assert found[name].tolist() == column.tolist()
        else:
            assert np.array_equal(found[name], column, equal_nan=True)
    assert all(np.array_equal(kept[k], kept_whole[k]) for k in kept)
    assert all(kept[k].any() for k in kept)
    total = sum(info.nbytes for info in infos)
    assert told[-1] == (total, total)
    assert told == sorted(told)
