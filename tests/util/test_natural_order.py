"""Natural order."""

from __future__ import annotations

from weightprint.util.natural_order import natural_key


def test_layer_10_comes_behind_layer_9() -> None:
    names = ["layers.10.q", "layers.9.q", "layers.9.k", "layers.2", "embed"]
    assert sorted(names, key=natural_key) == ["embed", "layers.2", "layers.9.k", "layers.9.q", "layers.10.q"]
    assert len({natural_key(name) for name in [*names, "layers.09.q"]}) == 5  # equal numbers sort alike


def test_a_number_may_be_of_any_length_and_of_any_script() -> None:
    names = ["a." + "9" * 5000, "a.1" + "0" * 5000, "a.7", "²", "١"]
    assert sorted(names, key=natural_key) == ["a.7", *names[:2], "²", "١"]
