"""The sizes in docs/fingerprint.md are computed from shapes; here they meet a real file."""

from __future__ import annotations

import pytest
import weightprint
from llama import HEADS, LAYERS, SIZE, VOCABULARY, D, H, draw, write

from benches.fingerprint import SHAPES, Shape, planned


def test_planned_bytes_are_those_of_a_file(save, tmp_path):
    weightprint.fingerprint(write("model", draw(1), save)).save(tmp_path / "model.fp")
    shape = Shape("test", LAYERS, D, H, HEADS, HEADS // 2, SIZE, VOCABULARY)
    assert sum(planned(shape).values()) == pytest.approx((tmp_path / "model.fp").stat().st_size, rel=0.1)


def test_sizes_are_within_the_targets():
    total = {shape.name: sum(planned(shape).values()) for shape in SHAPES}
    assert total["8B"] <= 12e6
    assert total["70B"] <= 40e6
