"""What was done to a vocabulary, read off the rows; and two strangers over one tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import Array, Arrays, child, decoder, models
from weightprint.evidence.embeddings import Embeddings, embeddings
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import Basis

PARENT = decoder(1)
NAME = "model.embed_tokens.weight"
V, D = PARENT[NAME].shape
RNG = np.random.default_rng(0)
NEW = (RNG.standard_normal((60, D)) * PARENT[NAME].std()).astype(np.float32)


def ask(rows: Array, **how: Any) -> Evidence:
    return embeddings(models(PARENT, {**decoder(9), NAME: rows}, **how))


def noisy(x: Array, size: float = 0.2) -> Array:
    return np.asarray(x + size * x.std() * np.random.default_rng(5).standard_normal(x.shape), np.float32)


def at(rows: Array | list[int]) -> Array:
    return PARENT[NAME][rows]


ORDER = RNG.permutation(V)
CASES: dict[str, tuple[Array, str, int]] = {
    "kept": (at(np.arange(V)), "same rows", V),
    "extended": (np.concatenate([at(np.arange(V)), NEW[:20]]), "extended", V),
    "first rows": (at(np.arange(120)), "first rows", 120),
    "pruned": (at(np.arange(0, V, 2)), "pruned", V // 2),
    "renumbered": (at(ORDER), "renumbered", V),
    "stitched": (np.concatenate([NEW, at(np.arange(40, 130))]), "pruned, joined with other rows", 90),
    "partly replaced": (np.concatenate([at(np.arange(V - 60)), NEW]), "same rows, some replaced", V - 60),
    "replaced": (np.concatenate([NEW, NEW + 1, NEW - 1]), "none", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_rows_tell_what_was_done(case: str) -> None:
    rows, kind, n = CASES[case]
    found = ask(rows)
    assert found.told(Embeddings).row_map_kind == kind
    assert found.told(Embeddings).rows_equal == n
    assert sum(s.numel for s in found.found) == (0 if case == "kept" else n * D)
    table = found.told(Embeddings).tables["embedding"]
    assert sum(run[2] for run in table["runs"]) == n or len(table["runs"]) == 20


@pytest.mark.parametrize("case", CASES)
def test_near_rows_tell_it_after_training(case: str) -> None:
    rows, kind, n = CASES[case]
    found = ask(noisy(rows))
    assert found.told(Embeddings).rows_equal == 0
    assert found.told(Embeddings).row_map_kind == kind
    assert found.told(Embeddings).rows_near == pytest.approx(n, abs=0.1 * V)
    assert found.effect == pytest.approx(n / len(rows), abs=0.1)


def test_equal_rows_through_permuted_channels() -> None:
    order, signs = RNG.permutation(D), RNG.choice([-1.0, 1.0], D).astype(np.float32)
    moved = np.empty_like(PARENT[NAME])
    moved[:, order] = PARENT[NAME] * signs
    basis = Basis("signed_permutation", channels=order, signs=signs, fitted=frozenset({"embedding"}), semantic=True)
    pair = models(PARENT, {**decoder(9), NAME: moved})
    assert embeddings(pair).told(Embeddings).rows_equal == 0
    found = embeddings(replace(pair, basis=basis))
    assert found.told(Embeddings).rows_equal == V
    assert found.log10_p is None


def test_nearness_in_a_basis_fitted_on_the_table_is_no_finding() -> None:
    matrix = np.asarray(np.linalg.qr(RNG.standard_normal((D, D)))[0], np.float32)
    pair = models(PARENT, {**decoder(9), NAME: noisy(PARENT[NAME] @ matrix.T)})
    for fitted, expected in ((frozenset({"embedding"}), 0.0), (frozenset({"decoder.0"}), 0.9)):
        found = embeddings(replace(pair, basis=Basis("rotation", matrix=matrix, fitted=fitted)))
        assert found.told(Embeddings).rows_near > 0.9 * V
        assert (found.effect or 0.0) >= expected
        assert found.told(Embeddings).row_map_kind == ("same rows" if expected else "none")


def test_rows_that_are_trivial_or_repeated_never_count() -> None:
    rows = NEW.copy()
    a = {**PARENT, NAME: np.concatenate([np.zeros((20, D), np.float32), np.repeat(at([3]), 10, 0), at(np.arange(100))])}
    b = {**decoder(9), NAME: np.concatenate([np.zeros((20, D), np.float32), np.repeat(at([3]), 10, 0), rows])}
    found = embeddings(models(a, b))
    assert found.told(Embeddings).rows_equal == 0


@pytest.mark.slow
def test_strangers_with_a_common_geometry_of_tokens() -> None:
    """Both tables are one geometry in two random bases: as alike as data can make strangers."""
    meaning = RNG.standard_normal((V, D)) * np.geomspace(3, 0.1, D)
    p = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        made: list[Arrays] = []
        for _ in range(2):
            turned = meaning @ np.linalg.qr(rng.standard_normal((D, D)))[0]
            made.append({**decoder(9), NAME: turned.astype(np.float32)})
        found = embeddings(models(*made))
        p.append(found.log10_p or 0.0)
        assert found.effect is not None
        assert found.effect < 0.05
    assert np.mean([x <= np.log10(0.05) for x in p]) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 30)


def test_channels_of_a_descendant_find_themselves() -> None:
    found = embeddings(models(PARENT, child(PARENT, 0.8)))
    assert found.log10_p is not None
    assert found.log10_p < -20
