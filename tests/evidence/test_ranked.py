"""Ranks among permuted copies: uniform for strangers, last in line for kin."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.head_agreement import head_agreement
from weightprint.evidence.norm_gains import norm_gains
from weightprint.evidence.nulls.exchange import choices, hits
from weightprint.evidence.nulls.ranked import COPIES, hits_of_copies, joint_orders, rank_p
from weightprint.evidence.pair import Basis
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.evidence.unit_geometry import unit_geometry

from benches.lineage.score.p_value_levels import ks_two_sided

from . import synthetic

CONFIG = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32}
RANKED = (
    aligned_units,
    aligned_weights,
    embeddings,
    head_agreement,
    norm_gains,
    unit_agreement,
    unit_geometry,
)


def test_hits_of_copies_are_hits_of_permuted_columns() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.standard_normal((30, 30)).astype(np.float32)
    similarity[3, :2] = 9.0  # a tie: a miss in every copy
    orders = joint_orders(30, seed=5)
    found = hits_of_copies(choices(similarity), orders)
    for order, k in zip(orders, found, strict=True):
        moved = np.empty_like(similarity)
        moved[:, order] = similarity
        assert hits(moved) == k


def test_ranks_are_uniform_for_any_statistic() -> None:
    rng = np.random.default_rng(1)
    found = [rank_p(rng.poisson(0.4, COPIES + 1), rng.poisson(2.0, COPIES + 1), salt=i) for i in range(4000)]
    assert ks_two_sided(np.array(found))[1] > 1e-3
    shifted = [rank_p(np.append(rng.poisson(0.8), rng.poisson(0.4, COPIES)), salt=i) for i in range(4000)]
    assert ks_two_sided(np.array(shifted))[1] < 1e-6


def test_ks_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    found = np.array([ks_two_sided(rng.random(50))[1] for _ in range(3000)])
    for alpha in (0.5, 0.2, 0.05, 0.01):
        assert np.mean(found <= alpha) == pytest.approx(alpha, abs=4 * np.sqrt(alpha / 3000) + 0.02 * alpha)
    assert ks_two_sided(rng.random(500) ** 1.3)[1] < 1e-3
    assert ks_two_sided(rng.random(500) ** 0.7)[1] < 1e-3


@pytest.fixture(scope="module")
def strangers() -> list[synthetic.Arrays]:
    return [synthetic.decoder(100 + i, d=32, h=64, layers=3, vocabulary=96) for i in range(16)]


@pytest.mark.slow
def test_ranks_of_strangers_are_uniform(strangers: list[synthetic.Arrays]) -> None:
    """METHODS 6.6: uniform by Kolmogorov-Smirnov, for every test that claims a p-value."""
    found = defaultdict(list)
    for a, b in combinations(strangers, 2):
        models = synthetic.models(a, b, config=CONFIG)
        for test in RANKED:
            told = test(models)
            assert told.applied, (test.name, told.why_not)
            assert told.rank_p is not None
            found[test.name].append(told.rank_p)
    for name, ranks in found.items():
        assert ks_two_sided(np.array(ranks))[1] > 1e-3, name


def test_kin_rank_first(strangers: list[synthetic.Arrays]) -> None:
    models = synthetic.models(strangers[0], synthetic.child(strangers[0], 0.9), config=CONFIG)
    for test in RANKED:
        told = test(models)
        assert told.rank_p is not None
        assert told.rank_p <= 1 / 9, test.name  # of unit_agreement's 8 copies
        assert told.log10_p is not None
        assert told.log10_p < -2, test.name


def test_no_rank_where_a_basis_has_seen_b(strangers: list[synthetic.Arrays]) -> None:
    models = synthetic.models(strangers[0], strangers[1], config=CONFIG)
    order = np.random.default_rng(3).permutation(32)
    basis = Basis("signed_permutation", "tokens", order, np.ones(32, np.float32), candidates=3)
    for test in (aligned_units, head_agreement, unit_agreement):
        assert test(models).rank_p is not None
        assert test(replace(models, basis=basis)).rank_p is None
