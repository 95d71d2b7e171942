"""Groups of units alike, the bound on what dealing out within them gives, and pairing by strong parts."""

from __future__ import annotations

import numpy as np
import pytest
from weightprint.evidence.lookup.weak_parts import Units, paired, weak_parts
from weightprint.evidence.nulls.alike import alike, copies, excess, excess_sd
from weightprint.evidence.nulls.exchange import log10_p_order


def test_groups_are_a_partition_of_rows_that_lie_near_each_other() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((203, 12)).astype(np.float32)
    groups = alike(x)
    assert sorted(np.concatenate(groups).tolist()) == list(range(203))
    assert all(8 <= g.size < 16 for g in groups)
    within = np.mean([np.mean(np.var(x[g], axis=0)) for g in groups])
    assert within < 0.9 * np.mean(np.var(x, axis=0))
    assert [g.tolist() for g in alike(x)] == [g.tolist() for g in groups]
    assert len(alike(x[:10])) == 1


@pytest.mark.parametrize("sizes", [(8,) * 6, (8, 9, 15, 12), (3,)])
def test_the_bound_holds_when_groups_are_dealt_out(sizes: tuple[int, ...]) -> None:
    """One column named by each row, as like the own one as can be: each row names its own before the deal."""
    rng = np.random.default_rng(1)
    hits = np.zeros(sum(sizes) + 1)
    draws = 20_000
    for _ in range(draws):
        hits[sum(int(np.count_nonzero(rng.permutation(n) == np.arange(n))) for n in sizes)] += 1
    tail = np.cumsum(hits[::-1])[::-1] / draws
    for k, p in enumerate(tail):
        if hits[k:].sum() >= 20:
            assert np.log10(p) <= log10_p_order(k, [(n, 1) for n in sizes]) + 1e-9
    assert log10_p_order(sum(sizes), [(n, 1) for n in sizes]) < -0.5 * sum(sizes) / 8


def test_effect_and_deviation_of_dealt_groups() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, 64)).astype(np.float32)
    groups = alike(rng.standard_normal((64, 5)).astype(np.float32))
    dealt = []
    for _ in range(2000):
        order = np.arange(64)
        for g in groups:
            order[g] = rng.permutation(g)
        dealt.append(excess(x[:, order], groups))
    assert abs(np.mean(dealt)) < 0.02
    assert np.std(dealt) == pytest.approx(excess_sd(x, groups), rel=0.1)
    assert excess(np.eye(64, dtype=np.float32), groups) == pytest.approx(1)
    assert copies(np.eye(64, dtype=np.float32), groups, 0)[0] == 64


def units(seed: int, n: int, shared: int | None, coupling: float = 0.0) -> Units:
    """Two vectors a unit. Strong parts of all seeds are alike; weak ones if `shared` is the same, or as far as they
    follow the strong ones."""
    common, own = np.random.default_rng(99), np.random.default_rng([seed, 1])
    weak = np.random.default_rng([shared, 2]) if shared is not None else own
    mix = np.random.default_rng(98).standard_normal((20, 12))
    strong, rest = [], []
    for _ in range(2):
        x = common.standard_normal((n, 20)) + 0.8 * own.standard_normal((n, 20))
        y = weak.standard_normal((n, 12)) + coupling * np.tanh(x @ mix / 4)
        strong.append(x.astype(np.float32))
        rest.append((y + 0.3 * own.standard_normal((n, 12))).astype(np.float32))
    return Units(tuple(strong), tuple(rest))


def test_inherited_weak_parts_are_found() -> None:
    a, b = units(0, 256, 7), units(1, 256, 7)
    found = weak_parts(a, b, paired(a, b)[1], 0)
    assert found is not None
    assert found.log10_p() < -40
    assert found.effect > 0.6


@pytest.mark.parametrize("coupling", [0.0, 0.25, 0.5])
def test_ranks_of_strangers_are_uniform_even_where_weak_parts_follow_the_strong(coupling: float) -> None:
    """Both models' weak parts are the same function of their strong ones, plus what is their own."""
    above = []
    for seed in range(40):
        a, b = units(2 * seed, 160, None, coupling), units(2 * seed + 1, 160, None, coupling)
        found = weak_parts(a, b, paired(a, b)[1], seed)
        assert found is not None
        assert found.effect < 0.15
        above.append(np.mean(found.hits[1:] >= found.hits[0]))
    assert np.mean(np.array(above) < 0.1) < 0.3
    assert 0.3 < np.mean(above) < 0.75
