"""Which tensor meets which."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic import Array, child, decoder, hidden, models


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_equal_names_and_shapes() -> None:
    m = models({"x": noise(8, 8), "y": noise(8, 4)}, {"x": noise(8, 8, seed=1), "y": noise(8, 5)})
    assert [(p.a.name, p.b.name, p.by) for p in m.pairs] == [("x", "x", "name")]
    assert m.log10_pairings == 0


def test_a_prefix_on_one_side_is_dropped() -> None:
    a = {"encoder.layer.0.up.weight": noise(8, 8), "pooler.dense.weight": noise(4, 4)}
    b = {f"inner.{name}": x + 1 for name, x in a.items()}
    assert {(p.a.name, p.b.name) for p in models(a, b).pairs} == {(n, f"inner.{n}") for n in a}
    assert all(p.by_name for p in models(a, b).pairs)


def test_stacks_of_another_name_meet_by_layer() -> None:
    a = {f"net.stack.layers.{i}.fc1.weight": noise(8, 8, seed=i) for i in range(3)}
    b = {f"other.layers.{i}.fc1.weight": noise(8, 8, seed=9 + i) for i in range(3)}
    assert [(p.a.layer, p.b.layer) for p in models(a, b).pairs] == [(0, 0), (1, 1), (2, 2)]


def test_two_stacks_are_never_mixed_up() -> None:
    a = {f"{s}.layers.0.fc1.weight": noise(8, 8) for s in ("encoder", "decoder")}
    b = {f"m.{s}.layers.0.fc1.weight": noise(8, 8, seed=3) for s in ("encoder", "decoder")}
    assert {(p.a.name, p.b.name) for p in models(a, b).pairs} == {(n, f"m.{n}") for n in a}


def test_renamed_copies_meet_by_digest_and_by_values() -> None:
    a = {f"t{i}": noise(64, 64, seed=i) for i in range(4)} | {"u": noise(96, 64, seed=9)}
    b = {
        "p": a["t2"],
        "q": (a["t0"] + 0.1 * noise(64, 64, seed=20)).T.copy(),
        "r": a["t3"] + 0.1 * noise(64, 64, seed=21),
        "s": a["u"].T.copy(),
        "z": noise(64, 64, seed=40),
    }
    m = models(a, b)
    met = {(p.a.name, p.b.name, p.transposed, p.by) for p in m.pairs}
    assert met == {
        ("t2", "p", False, "digest"),
        ("t0", "q", True, "values"),
        ("t3", "r", False, "values"),
        ("u", "s", True, "values"),
    }
    # Four of B's squares could have met any of A's four in two orientations, or none; the last one A's only one, or
    # none.
    assert m.log10_pairings == pytest.approx(4 * math.log10(9) + math.log10(2))


def test_squares_turn_with_the_rectangles() -> None:
    a = decoder(0)
    b = {n: x.T.copy() if x.ndim == 2 and ".layers." in n else x for n, x in child(a, 0.9).items()}
    m = models(a, b)
    assert all(p.transposed == (".layers." in p.a.name) for p in m.pairs if p.a.rank2)
    assert m.log10_pairings == 0


def test_strangers_do_not_meet_by_values() -> None:
    a = hidden(decoder(1), 1, "x")
    b = hidden(decoder(2), 2, "y")
    pairs = models(a, b).pairs
    assert [p.by for p in pairs if p.a.rank2] == ["place"]  # the embeddings, by their shapes
