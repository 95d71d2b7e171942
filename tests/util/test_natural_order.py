"""Natural order."""

from __future__ import annotations

from weightprint.util.natural_order import natural_key


def test_layer_10_comes_behind_layer_9() -> None:
    names = ["layers.10.q", "layers.9.q", "layers.9.k", "layers.2", "embed"]
    assert sorted(names, key=natural_key) == ["embed", "layers.2", "layers.9.k", "layers.9.q", "layers.10.q"]
    assert len({natural_key(name) for name in [*names, "layers.09.q"]}) == 5  # equal numbers sort alike
