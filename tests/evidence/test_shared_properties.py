"""Strangers that share a property and no weights: a mask, a direction, an embedding, an order, a sorting.

The pairs are made by benches.lineage.populations.properties, where each kind is said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import weightprint
from weightprint.compare.compare import Comparison
from weightprint.evidence.nulls.fitted import against_order, best_turn, stands
from weightprint.evidence.tests import DECIDING
from weightprint.util.assignment import assign

from benches.lineage.populations import properties
from benches.lineage.populations.properties import INITIALISED, KIN, SHAPES, STRANGERS, Shape

RELATED = {"identical", "re_encoded", "shared_origin", "partly_shared", "shared_initialisation"}
SMALL = {
    "llama": Shape("llama", 64, 160, 3, 3),
    "bert": Shape("bert", 96, 256, 2, 4),
}
Compare = Callable[..., Comparison]


@pytest.fixture
def compared(tmp_path: Path) -> Compare:
    def run(table: dict[str, properties.Maker], kind: str, shape: Shape, seed: int = 0) -> Comparison:
        a, b = properties.pair(table[kind], shape, seed)
        return weightprint.compare(
            *(properties.write(tmp_path / label, model, shape) for label, model in (("a", a), ("b", b)))
        )

    return run


def p_of(found: Comparison, test: str) -> float | None:
    return next(e.log10_p for e in found.evidence if e.test == test and e.basis == "identity")


def withheld(found: Comparison, test: str) -> str | None:
    return next(e.withheld for e in found.evidence if e.test == test and e.basis == "identity")


def in_turn(kinds: Iterable[str]) -> list[tuple[str, str]]:
    """Every kind in one form, the forms in turn."""
    return list(zip(kinds, cycle(SMALL), strict=False))


@pytest.mark.slow_but_first
@pytest.mark.parametrize(("kind", "form"), in_turn(k for k in STRANGERS if "embedding" not in k))
def test_no_property_makes_kin_of_strangers(compared: Compare, kind: str, form: str) -> None:
    found = compared(STRANGERS, kind, SMALL[form], 5)
    # What is found in a basis that was fitted is the business of the tests of bases.
    stored = [e for e in found.evidence if e.basis == "identity" and e.test in DECIDING]
    assert all(e.log10_p is None or e.log10_p > -6 for e in stored if e.applied), found.verdict
    assert found.verdict not in RELATED


@pytest.mark.parametrize("seed", range(2))
def test_one_block_and_a_stream_put_onto_another_s_in_turns(compared: Compare, seed: int) -> None:
    """With one block no others say what a fitted order reaches: the weak parts of its units must say it."""
    found = compared(STRANGERS, "framed_turned_units", SHAPES["one-block"], seed)
    assert found.verdict not in RELATED


@pytest.mark.slow_but_first
@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize("kind", ["frozen_embedding", "tuned_embedding"])
def test_of_one_embedding_in_both_only_the_embedding_is_claimed(compared: Compare, kind: str, form: str) -> None:
    found = compared(STRANGERS, kind, SMALL[form], 1)
    table = SMALL[form].vocabulary * SMALL[form].width
    assert found.verdict in ("partly_shared", "inconclusive")
    share = found.result.share.value or 0.0
    assert share <= table / found.b.n_parameters + 0.001
    assert all(row[1] is None for row in found.result.layer_map)


@pytest.mark.slow_but_first
@pytest.mark.parametrize("kind", INITIALISED)
def test_a_structured_initialisation_is_no_more_than_that(compared: Compare, kind: str) -> None:
    assert compared(INITIALISED, kind, SMALL["llama"]).verdict in (
        "shared_initialisation",
        "inconclusive",
        "no_evidence",
    )


@pytest.mark.slow_but_first
@pytest.mark.parametrize(("kind", "form"), in_turn(KIN))
def test_kin_that_have_the_property_too_are_found(compared: Compare, kind: str, form: str) -> None:
    found = compared(KIN, kind, SMALL[form])
    assert found.verdict == "shared_origin"
    assert (found.log10_p or 0) < -20


def test_a_mask_is_said_and_its_tests_are_withheld(compared: Compare) -> None:
    kin = compared(KIN, "mask_90", SMALL["llama"])
    assert all(p_of(kin, test) is None for test in ("aligned_units", "unit_agreement", "unit_geometry"))
    assert "zeros at the same places" in (withheld(kin, "aligned_units") or "")
    assert (p_of(kin, "common_zeros") or 0) < -20
    plain = compared(KIN, "pruned_80", SMALL["llama"])
    assert not next(e for e in plain.evidence if e.test == "common_zeros").applied  # the parent is dense


@pytest.mark.slow
def test_a_fitted_order_is_named_as_the_reason(compared: Compare) -> None:
    found = compared(STRANGERS, "framed_units", SHAPES["bert"])
    assert "an order fitted to A would give as much" in (withheld(found, "aligned_units") or "")
    assert any("an order fitted to A would give as much" in line for line in found.result.against)


def test_zeros_in_strangers_under_masks_of_their_own_are_none_of_a_mask(tmp_path: Path) -> None:
    shape = SMALL["llama"]
    rng = np.random.default_rng(3)
    models = [properties.masked(properties.body(rng, shape), shape, seed, "0.9") for seed in (1, 2)]
    found = weightprint.compare(*(properties.write(tmp_path / n, m, shape) for n, m in zip("ab", models, strict=True)))
    assert not next(e for e in found.evidence if e.test == "common_zeros").applied
    assert found.verdict not in RELATED


def signs(rng: np.random.Generator, rho: float, n: int = 200, d: int = 64) -> np.ndarray:
    """Cosines of the rows of two matrices that correlate by rho."""
    x = rng.standard_normal((n, d))
    y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, d))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return np.asarray(x @ y.T, np.float32)


@pytest.mark.parametrize("n", [64, 200, 512])
@pytest.mark.parametrize("seed", range(3))
def test_an_order_that_was_fitted_does_not_beat_its_floor(n: int, seed: int) -> None:
    similarity = signs(np.random.default_rng(seed), 0.0, n)
    order = assign(-similarity.astype(np.float64)).columns
    reached, floor = against_order(similarity[:, order])
    assert 0.7 < reached / floor < 1.2
    assert not stands(reached, floor)


def test_a_sample_of_a_fitted_order_does_not_beat_its_floor() -> None:
    """The fit chose among all rows; the test sees some."""
    similarity = signs(np.random.default_rng(0), 0.0, 1000)
    order = assign(-similarity.astype(np.float64)).columns
    framed = similarity[:, order]
    for n in (32, 64, 256):
        assert not stands(*against_order(framed[:n, :n], 1000))


@pytest.mark.parametrize("rho", [0.7, 0.95])
def test_what_descends_beats_any_order(rho: float) -> None:
    assert stands(*against_order(signs(np.random.default_rng(1), rho)))


def test_so_does_a_part_of_the_units() -> None:
    rng = np.random.default_rng(2)
    kept, new = signs(rng, 0.9), signs(rng, 0.0)
    similarity = np.where(np.arange(200)[:, None] < 60, kept, new)
    assert stands(*against_order(similarity))


def test_no_turn_beats_the_best_turn() -> None:
    rng = np.random.default_rng(4)
    c = rng.standard_normal((24, 24))
    best = best_turn(c.astype(np.float32))
    for _ in range(20):
        assert np.trace(c @ np.linalg.qr(rng.standard_normal((24, 24)))[0]) <= best + 1e-6
    u, _, v = np.linalg.svd(c)
    assert np.trace(c @ (u @ v).T) == pytest.approx(best, rel=1e-5)
