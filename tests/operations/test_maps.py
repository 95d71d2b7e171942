"""METHODS 6.7 as a property: whatever was stacked, dropped, inserted, shuffled, split or merged, the map is exact.

Cases are drawn, not chosen: for each seed another parent, another order, other experts; and half of what is left is
noise (cosine .65 with the parent), as after long training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, mixture, models, relayered, reordered_experts
from weightprint.evidence.convergence import convergence
from weightprint.evidence.tests import TESTS
from weightprint.verdict.facts import Facts
from weightprint.verdict.maps import Maps

LAYERS, H = 8, 160
NOISE = {"exact": 1.0, "much is noise": 0.65}
WANTED = [test for test in TESTS if test.name in ("aligned_weights", "aligned_units", "unit_agreement")]


def mapped(a: Arrays, b: Arrays) -> Maps:
    """As `compare` makes them: of all tests that may say where a block is from."""
    m = models(a, b)
    found = Facts(m, tuple(test(m) for test in (*WANTED, convergence))).maps
    assert found is not None
    return found


def drawn_order(kind: str, rng: np.random.Generator) -> list[int]:
    """Layers of the parent in the child's order; a negative number is a new layer."""
    half = LAYERS // 2
    if kind == "half pruned":
        return sorted(rng.choice(LAYERS, half, replace=False).tolist())
    if kind == "first half and last":
        return [*range(half), LAYERS - 1]
    if kind == "two ranges stacked":
        start, stop = int(rng.integers(1, half)), int(rng.integers(half + 1, LAYERS))
        return [*range(stop), *range(start, LAYERS)]
    if kind == "two inserted":
        order = list(range(LAYERS))
        for new in (-1, -2):
            order.insert(int(rng.integers(1, len(order))), new)
        return order
    return [int(i) for i in rng.permutation(LAYERS)]


@pytest.mark.slow_but_first
@pytest.mark.parametrize("rho", NOISE.values(), ids=NOISE.keys())
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "kind", ["half pruned", "first half and last", "two ranges stacked", "two inserted", "shuffled"]
)
def test_layer_maps_are_exact(kind: str, seed: int, rho: float) -> None:
    order = drawn_order(kind, np.random.default_rng([seed, len(kind)]))
    parent = decoder(seed, layers=LAYERS)
    found = mapped(parent, relayered(child(parent, rho, seed), order, decoder(seed + 50, layers=2)))
    assert [[*row[:2]] for row in found.layer_map] == [[i, j if j >= 0 else None] for i, j in enumerate(order)]


def neighbourly(arrays: Arrays, share: float) -> Arrays:
    """The decoder with the first units of every layer much like those of the layer before, as in trained ones."""
    out = dict(arrays)
    rng = np.random.default_rng(9)
    n = round(share * H)
    for i in range(1, LAYERS):
        for part in ("gate", "up", "down"):
            x = out[f"model.layers.{i}.mlp.{part}_proj.weight"].copy()
            before = out[f"model.layers.{i - 1}.mlp.{part}_proj.weight"]
            same = (slice(n), slice(None)) if part != "down" else (slice(None), slice(n))
            x[same] = 0.8 * before[same] + 0.3 * x.std() * rng.standard_normal(before[same].shape).astype(np.float32)
            out[f"model.layers.{i}.mlp.{part}_proj.weight"] = x
    return out


@pytest.mark.slow
def test_dropped_layers_are_not_their_neighbours() -> None:
    """What A lacks is new in B, however much its neighbours resemble it; stacked copies go on being copies."""
    whole = neighbourly(decoder(7, layers=LAYERS), 0.2)
    dropped = relayered(whole, [0, 1, 3, 6, 7])
    told = mapped(dropped, whole)
    assert [a for _, a, _ in told.layer_map] == [0, 1, None, 2, None, None, 3, 4]
    stacked = [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    told = mapped(whole, child(relayered(whole, stacked), 0.9))
    assert [a for _, a, _ in told.layer_map] == stacked


def rows(found: Maps) -> set[tuple[Any, ...]]:
    """(B's layer, expert, A's layer, A's expert)."""
    return {(b, e, a, origin) for b, e, a, _, origin, _ in found.expert_map}


@pytest.mark.parametrize("rho", NOISE.values(), ids=NOISE.keys())
@pytest.mark.parametrize("fresh", [0.0, 0.5])
def test_experts_that_are_copies_with_units_drawn_anew(fresh: float, rho: float) -> None:
    parent = decoder(3, layers=2)
    found = mapped(parent, child(mixture(parent, [list(range(H))] * 4, fresh=fresh), rho))
    assert rows(found) == {(i, e, i, None) for i in range(2) for e in range(4)}


@pytest.mark.parametrize("rho", NOISE.values(), ids=NOISE.keys())
def test_experts_that_are_parts(rho: float) -> None:
    parent = decoder(4, d=128, layers=2)
    parts = [list(range(i, i + 40)) for i in range(0, H, 40)]
    found = mapped(parent, child(mixture(parent, [*parts, *parts]), rho))
    assert rows(found) == {(i, e, i, None) for i in range(2) for e in range(8)}
    assert {(row.b[2], row.span) for row in found.experts} == {(e, (e % 4 * 40, e % 4 * 40 + 40)) for e in range(8)}


def different_experts(seed: int) -> Arrays:
    wide = decoder(seed, h=4 * H, layers=2)
    return mixture(wide, [list(range(i, i + H)) for i in range(0, 4 * H, H)])


@pytest.mark.slow_but_first
@pytest.mark.parametrize("rho", NOISE.values(), ids=NOISE.keys())
@pytest.mark.parametrize("kind", ["shuffled", "duplicated", "dropped"])
def test_experts_moved(kind: str, rho: float) -> None:
    shuffled = [int(e) for e in np.random.default_rng(len(kind)).permutation(4)]
    order = {"shuffled": shuffled, "duplicated": [*shuffled, *shuffled], "dropped": shuffled[:2]}[kind]
    parent = different_experts(5)
    found = mapped(parent, child(reordered_experts(parent, order), rho))
    assert rows(found) == {(i, e, i, j) for i in range(2) for e, j in enumerate(order)}


@pytest.mark.parametrize("weights", [[0, 0, 1, 0], [0.25] * 4, [0.5, 0, 0, 0.5]])
def test_dense_ffns_made_from_experts_name_all_that_are_in_them(weights: list[float]) -> None:
    parent = different_experts(6)
    b = {n: x for n, x in parent.items() if ".mlp." not in n}
    for at in (f"model.layers.{i}.mlp." for i in range(2)):
        for part in ("gate_proj.weight", "up_proj.weight", "down_proj.weight"):
            b[at + part] = np.sum([w * parent[f"{at}experts.{e}.{part}"] for e, w in enumerate(weights)], axis=0)
    found = mapped(parent, child({n: x.astype(np.float32) for n, x in b.items()}, 0.95))
    assert rows(found) == {(i, None, i, e) for i in range(2) for e, w in enumerate(weights) if w}


def test_inserted_copies_that_write_nothing_are_found_by_what_they_read() -> None:
    parent = decoder(7)
    b = relayered(parent, [0, 1, 1, 2, 3])
    for name in ("mlp.down_proj", "self_attn.o_proj"):
        b[f"model.layers.2.{name}.weight"] = np.zeros_like(b[f"model.layers.2.{name}.weight"])
    assert [row[1] for row in mapped(parent, b).layer_map] == [0, 1, 1, 2, 3]
