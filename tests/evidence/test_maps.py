"""Layer, expert and unit maps on cases whose truth is known, exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, mixture, models, relayered, reordered_experts
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.budget import BUDGETS, Budget, UnitBudget
from weightprint.evidence.lookup import unit_table as table
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.verdict.maps import Maps, maps

H, LAYERS = 160, 8


def mapped(a: Arrays, b: Arrays) -> Maps:
    m = models(a, b)
    return maps(unit_agreement(m), m)


def resembling(seed: int, cosine: float = 0.6, layers: int = LAYERS) -> Arrays:
    """A decoder whose neighbouring layers share units loosely, as the layers of one residual stream do."""
    out = decoder(seed, layers=layers)
    for i in range(1, layers):
        for part in ("gate", "up", "down"):
            name, before = f"model.layers.{i}.mlp.{part}_proj.weight", f"model.layers.{i - 1}.mlp.{part}_proj.weight"
            out[name] = (cosine * out[before] + np.sqrt(1 - cosine**2) * out[name]).astype(np.float32)
    return out


@pytest.fixture(scope="module")
def parent() -> Arrays:
    return resembling(0)


DEPTHS = {
    "first half": [0, 1, 2, 3],
    "second half": [4, 5, 6, 7],
    "every other": [0, 2, 4, 6],
    "first half and last": [0, 1, 2, 3, 7],
    "0-5 and 2-7": [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7],
    "two inserted": [0, 1, -1, 2, 3, 4, -2, 5, 6, 7],
    "shuffled": [5, 2, 7, 0, 3, 6, 1, 4],
    "one repeated": [0, 1, 1, 2, 3, 4, 5, 6, 7],
}


@pytest.mark.parametrize("order", DEPTHS.values(), ids=DEPTHS.keys())
def test_layer_maps_are_exact(parent: Arrays, order: list[int]) -> None:
    b = relayered(child(parent, 0.9), order, decoder(5, layers=2))
    found = mapped(parent, b)
    assert [[*row[:2]] for row in found.layer_map] == [[i, j if j >= 0 else None] for i, j in enumerate(order)]
    assert all(row.clear for row in found.layers if row.a is not None)
    assert all(row.order == "same" and row.span == (0, H) for row in found.ffns if row.a is not None)
    assert {key[1] for key in found.unused} == set(range(LAYERS)) - set(order)
    assert [key[1] for key in found.unmatched] == [i for i, j in enumerate(order) if j < 0]


def test_a_layer_that_stands_twice_in_a_is_not_clear(parent: Arrays) -> None:
    found = mapped(relayered(parent, [0, 1, 1, 2]), child(relayered(parent, [0, 1, 2]), 0.95))
    assert [row.clear for row in found.layers] == [True, False, True]
    assert found.layers[1].a in (("decoder", 1), ("decoder", 2))
    assert len(found.says) == 1
    assert "decoder.1" in found.says[0]


def test_neighbours_of_what_is_gone_are_named_with_a_small_share_and_as_unclear() -> None:
    """Disjoint layers of one parent: each resembles both its neighbours, and none is there itself."""
    parent = resembling(0, 0.4)
    found = mapped(relayered(parent, [0, 2, 4, 6]), relayered(parent, [1, 3, 5]))
    for i, row in enumerate(found.layers):
        assert row.a in (("decoder", i), ("decoder", i + 1))
        assert 0.1 < row.share < 0.6
        assert not row.clear


def test_strangers_have_no_maps() -> None:
    found = mapped(decoder(1), decoder(2))
    assert [[*row[1:]] for row in found.layer_map] == [[None, 0.0]] * 4
    assert not found.expert_map
    assert len(found.unmatched) == len(found.unused) == 4


# Experts

WHOLE = list(range(H))
QUARTERS = [WHOLE[i : i + 40] for i in range(0, H, 40)]


def expected(rows: list[list[Any]]) -> list[list[Any]]:
    """The same rows for each of the two layers."""
    return [[i, *row[:1], i, *row[1:]] for i in range(2) for row in rows]


def plain(found: Maps) -> list[list[Any]]:
    """The expert map without its shares."""
    return [[*row[:3], row[4], row[5] and [*row[5]]] for row in found.expert_map]


def test_experts_that_are_copies() -> None:
    a = decoder(0, layers=2)
    found = mapped(a, child(mixture(a, [WHOLE] * 4, fresh=0.25), 0.95))
    assert plain(found) == expected([[e, None, [0, H]] for e in range(4)])
    assert all(0.65 < row[3] < 0.85 for row in found.expert_map)
    assert [[*row[:2]] for row in found.layer_map] == [[i, i] for i in range(2)]


def test_experts_that_are_parts() -> None:
    a = decoder(0, layers=2)
    found = mapped(a, child(mixture(a, QUARTERS), 0.95))
    assert plain(found) == expected([[e, None, [40 * e, 40 * e + 40]] for e in range(4)])
    assert {row.order for row in found.experts} == {"same", "shifted"}


def test_experts_that_are_parts_in_another_order() -> None:
    a = decoder(0, layers=2)
    turned = [list(np.random.default_rng(e).permutation(q)) for e, q in enumerate(QUARTERS)]
    found = mapped(a, child(mixture(a, turned), 0.95))
    assert {row.order for row in found.experts} == {"changed"}
    for row in found.experts:
        assert row.span is not None
        assert 40 * row.b[2] <= row.span[0] < row.span[1] <= 40 * row.b[2] + 40  # type: ignore[operator]


def test_experts_of_units_from_anywhere() -> None:
    a = decoder(0, layers=2)
    order = np.random.default_rng(0).permutation(H)
    found = mapped(a, child(mixture(a, [list(order[i : i + 40]) for i in range(0, H, 40)]), 0.95))
    assert plain(found) == expected([[e, None, None] for e in range(4)])
    assert all(row[3] > 0.9 for row in found.expert_map)


def different_experts(seed: int = 0) -> Arrays:
    """A Mixture whose experts have nothing in common."""
    a = decoder(seed, h=4 * H, layers=2)
    return mixture(a, [list(range(i, i + H)) for i in range(0, 4 * H, H)])


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [0, 0, 1, 1, 2, 2, 3, 3], [3, 1]])
def test_experts_shuffled_duplicated_dropped(order: list[int]) -> None:
    a = different_experts()
    found = mapped(a, child(reordered_experts(a, order), 0.9))
    assert plain(found) == expected([[e, j, [0, H]] for e, j in enumerate(order)])
    assert {key[2] for key in found.unused} == set(range(4)) - set(order)


def test_too_many_experts_for_all_pairs_are_found_by_way_of_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same maps in two steps, layers moved as well; all that changes is how many units were looked for."""
    monkeypatch.setattr(table, "_ALWAYS", 0.0)
    monkeypatch.setitem(BUDGETS, "standard", Budget(lookup=UnitBudget(limit=4.5e8)))
    order = [2, 0, 3, 1, 1, 2, 0, 3]
    a = different_experts()
    m = models(a, relayered(child(reordered_experts(a, order), 0.9), [1, 0]))
    evidence = unit_agreement(m)
    assert "blocks" in evidence.details["scope"]
    assert (evidence.log10_p or 0) < -10
    found = maps(evidence, m)
    assert plain(found) == [[i, e, 1 - i, j, [0, H]] for i in range(2) for e, j in enumerate(order)]
    assert all(row.share > 0.9 for row in found.ffns)
    strangers = unit_agreement(models(a, reordered_experts(different_experts(7), order)))
    assert (strangers.log10_p or 0) > -3
    assert strangers.details["found"] == 0


def dense_from(moe: Arrays, weights: list[float]) -> Arrays:
    """The FFN that is a weighted sum of the experts."""
    out = {n: x for n, x in moe.items() if ".mlp." not in n}
    for i in range(2):
        for part in ("gate", "up", "down"):
            at = f"model.layers.{i}.mlp."
            parts = [w * moe[f"{at}experts.{e}.{part}_proj.weight"] for e, w in enumerate(weights)]
            out[f"{at}{part}_proj.weight"] = np.sum(parts, axis=0).astype(np.float32)
    return out


def test_one_expert_made_dense() -> None:
    a = different_experts()
    found = mapped(a, child(dense_from(a, [0, 0, 1, 0]), 0.9))
    assert plain(found) == expected([[None, 2, [0, H]]])


def test_experts_side_by_side_in_one_dense_ffn_are_all_found() -> None:
    a = different_experts()
    b = {n: x for n, x in a.items() if ".mlp." not in n}
    for i in range(2):
        for part in ("gate", "up", "down"):
            at = f"model.layers.{i}.mlp."
            rows = [a[f"{at}experts.{e}.{part}_proj.weight"] for e in range(4)]
            b[f"{at}{part}_proj.weight"] = np.concatenate(rows, axis=1 if part == "down" else 0)
    m = models(a, b)
    evidence = unit_agreement(m)
    found = maps(evidence, m)
    assert sorted((row[0], row[4]) for row in found.expert_map) == [(i, e) for i in range(2) for e in range(4)]
    assert all(0.1 < row[3] < 0.4 for row in found.expert_map)  # a quarter each, from a sample
    assert all(row.found > 0.95 for row in found.ffns)
    assert evidence.effect is not None
    assert evidence.effect > 0.95


def test_a_mean_of_two_experts_names_both() -> None:
    a = different_experts()
    found = mapped(a, dense_from(a, [0.0, 0.5, 0.0, 0.5]))
    assert sorted((row[0], row[4]) for row in found.expert_map) == [(i, e) for i in range(2) for e in (1, 3)]


# Units


def test_pruned_units_keep_their_order() -> None:
    a = decoder(0)
    keep = np.sort(np.random.default_rng(0).choice(H, 60, replace=False))
    b = child(a, 0.95)
    for name in [n for n in b if ".mlp." in n]:
        b[name] = b[name][:, keep] if "down" in name else b[name][keep]
    found = mapped(a, b)
    for row in found.ffns:
        assert row.order == "kept"
        assert np.mean(keep[row.units[:, 0]] == row.units[:, 1]) > 0.98


def test_doubled_units_are_counted() -> None:
    a = decoder(0)
    b = child(a, 0.95)
    twice = np.concatenate([np.arange(H), np.arange(60)])
    for name in [n for n in b if ".mlp." in n]:
        b[name] = b[name][:, twice] / np.float32(2) if "down" in name else b[name][twice]
    found = mapped(a, b)
    assert {row.repeats for row in found.ffns} == {2}
    assert all(row.share < 0.75 and row.found > 0.95 for row in found.ffns)


def test_what_has_no_down_projection_is_said() -> None:
    a = decoder(0)
    found = mapped(a, {n: x for n, x in child(a, 0.9).items() if "layers.2.mlp.down" not in n})
    assert [row.looked_for for row in found.layers] == [True, True, False, True]
    assert found.layers[2].a is None
    assert "could not be looked for" in found.says[0]


def test_a_second_test_speaks_where_the_first_could_not_look() -> None:
    """Layers inserted as copies whose outputs are zero until they are trained (block expansion)."""
    a = decoder(0)
    b = relayered(child(a, 0.9), [0, 1, 1, 2, 3])
    b["model.layers.2.mlp.down_proj.weight"] = np.zeros((64, H), np.float32)
    m = models(a, b)
    assert [row[1] for row in maps(unit_agreement(m), m).layer_map] == [0, 1, None, 2, 3]
    both = maps([unit_agreement(m), aligned_units(m)], m)
    assert [row[1] for row in both.layer_map] == [0, 1, 1, 2, 3]
    assert both.says == ()


def test_trained_experts_with_a_quarter_of_their_units_drawn_anew() -> None:
    """The demo's Mixture: upcycled from the parent by copy, then trained on."""
    from importlib.resources import as_file, files

    from weightprint.checkpoint.checkpoint import open as open_checkpoint
    from weightprint.compare.pipeline import examine

    with as_file(files("weightprint.demo") / "models") as folder:
        a, b = open_checkpoint(folder / "parent"), open_checkpoint(folder / "moe")
        there, back = ((m := examine(x, y)[2], maps(unit_agreement(m), m))[1] for x, y in ((a, b), (b, a)))
        a.close()
        b.close()
    assert plain(there) == [[i, e, i, None, [0, 128]] for i in range(5) for e in range(4)]
    assert all(0.6 < row[3] < 0.85 for row in there.expert_map)
    assert [[*row[:2]] for row in back.layer_map] == [[i, i] for i in range(5)]
    assert sorted(row[4] for row in back.expert_map) == sorted([0, 1, 2, 3] * 5)
