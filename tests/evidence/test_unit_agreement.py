"""Unit agreement: against a count made by hand, under every symmetry that a copy may hide behind, and on strangers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint.evidence.lookup.nearest_units import standardised
from weightprint.evidence.nulls.counts import chance, dispersion, log10_beta_tail
from weightprint.evidence.pair import Basis
from weightprint.evidence.unit_agreement import UnitAgreement, unit_agreement


def by_layer(arrays: Arrays, change: Callable[[str, np.ndarray, int], np.ndarray]) -> Arrays:
    """`change(last part of the name, values, layer)` applied to every tensor of a block."""
    out = {}
    for name, x in arrays.items():
        words = name.split(".")
        out[name] = change(words[-2], x, int(words[2])) if words[1] == "layers" else x
    return out


def units_permuted(arrays: Arrays) -> Arrays:
    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        order = np.random.default_rng(layer).permutation(160)
        return x[order] if part in ("gate_proj", "up_proj") else x[:, order] if part == "down_proj" else x

    return by_layer(arrays, change)


def signs_and_scales(arrays: Arrays) -> Arrays:
    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        rng = np.random.default_rng(layer)
        s = (rng.choice([-1, 1], 160) * rng.uniform(0.1, 10, 160)).astype(np.float32)
        return x * s[:, None] if part == "up_proj" else x / s if part == "down_proj" else x

    return by_layer(arrays, change)


def gains_folded(arrays: Arrays) -> Arrays:
    """Norm gains become one; the matrices that they feed carry them."""
    gains = {n: x for n, x in arrays.items() if "layernorm" in n}

    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        at = f"model.layers.{layer}."
        if part in ("gate_proj", "up_proj"):
            return x * gains[f"{at}post_attention_layernorm.weight"]
        if part in ("q_proj", "k_proj", "v_proj"):
            return x * gains[f"{at}input_layernorm.weight"]
        return np.ones_like(x) if "layernorm" in part else x

    return by_layer(arrays, change)


def layers_reversed(arrays: Arrays) -> Arrays:
    return {
        ".".join([*w[:2], str(3 - int(w[2])), *w[3:]]) if (w := n.split("."))[1] == "layers" else n: x
        for n, x in arrays.items()
    }


def narrowed(arrays: Arrays) -> Arrays:
    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        keep = np.random.default_rng(layer).permutation(160)[:60]
        return x[keep] if part in ("gate_proj", "up_proj") else x[:, keep] if part == "down_proj" else x

    return by_layer(arrays, change)


@pytest.mark.parametrize(
    "hide", [units_permuted, signs_and_scales, gains_folded, layers_reversed, narrowed], ids=lambda f: f.__name__
)
def test_a_hidden_child_is_found(hide: Callable[[Arrays], Arrays]) -> None:
    a = decoder(0)
    evidence = unit_agreement(models(a, hide(child(a, 0.9))))
    assert evidence.log10_p is not None
    assert evidence.log10_p < -100
    assert evidence.effect is not None
    assert evidence.effect > 0.95
    for match in evidence.matches:
        assert match.a[1] == (3 - match.b[1] if hide is layers_reversed else match.b[1])


def test_the_units_named_are_the_true_ones() -> None:
    a = decoder(0)
    evidence = unit_agreement(models(a, units_permuted(child(a, 0.95))))
    for match in evidence.matches:
        order = np.random.default_rng(match.b[1]).permutation(160)
        assert match.units is not None
        assert match.units.shape == (match.agreed, 2)
        assert match.agreed > 150
        assert np.mean(order[match.units[:, 0]] == match.units[:, 1]) > 0.98


def test_counts_are_those_of_a_plain_loop() -> None:
    """The same definition, unit by unit, with no shortcut: how many of B's units does A name twice?"""
    a = decoder(0, layers=1)
    b = child(a, 0.6)

    def rows(arrays: Arrays, part: str) -> np.ndarray:
        x = arrays[f"model.layers.0.mlp.{part}_proj.weight"].astype(np.float64)
        x = x.T if part == "down" else x * arrays["model.layers.0.post_attention_layernorm.weight"]
        x = x - x.mean(0) if part == "gate" else x
        for _ in range(2):
            x = x - np.average(x, axis=1, weights=1 / (x**2).mean(0))[:, None]
        x = x / np.sqrt((x**2).mean(0))
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    ours, theirs = ({p: rows(m, p) for p in ("gate", "up", "down")} for m in (a, b))
    named = set()
    for u in range(160):
        reads = ours["gate"] @ theirs["gate"][u] + abs(ours["up"] @ theirs["up"][u])
        writes = abs(ours["down"] @ theirs["down"][u])
        if reads.argmax() == writes.argmax():
            named.add(int(reads.argmax()))
    assert 10 < len(named) < 150
    assert unit_agreement(models(a, b)).matches[0].agreed == len(named)


def test_duplicated_units_do_not_inflate_a_count() -> None:
    """B repeats one unit 160 times; whatever A's units make of it, it counts once."""
    a, b = decoder(0), decoder(1)
    b |= {n: x for n, x in child(a, 0.99).items() if "layers.2.mlp" in n}

    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        one = np.zeros(160, int)
        rng = np.random.default_rng(layer)
        if part in ("gate_proj", "up_proj"):
            return x[one] + 1e-3 * rng.standard_normal(x.shape).astype(np.float32)
        return x[:, one] + 1e-3 * rng.standard_normal(x.shape).astype(np.float32) if part == "down_proj" else x

    evidence = unit_agreement(models(a, by_layer(b, change)))
    assert (evidence.log10_p or 0.0) > -3


def test_one_shared_block_among_strangers_is_found_and_only_that() -> None:
    a, b = decoder(0, layers=6), decoder(1, layers=6)
    b |= {n.replace("layers.4", "layers.1"): x for n, x in child(a, 0.8).items() if "layers.4" in n}
    evidence = unit_agreement(models(a, b))
    assert (evidence.log10_p or 0.0) < -50
    assert evidence.told(UnitAgreement).found == 1
    assert next(m.a[1] for m in evidence.matches if m.b[1] == 1) == 4


def test_it_says_when_it_does_not_apply() -> None:
    assert "down" in (unit_agreement(models(decoder(0), decoder(1), effort="quick")).why_not or "")
    assert "width" in (unit_agreement(models(decoder(0), decoder(1, d=48))).why_not or "")


def test_the_tail_is_that_of_the_conditional_binomial_test() -> None:
    """I_q(k, S + 1) = P(Binomial(k + S, q) >= k), summed here term by term."""
    for permuted, k, q in ((7, 3, 0.25), (0, 40, 0.5), (29, 1, 0.01), (180, 20, 0.1), (5, 60, 0.9)):
        n = k + permuted
        exact = sum(math.comb(n, j) * q**j * (1 - q) ** (n - j) for j in range(k, n + 1))
        assert log10_beta_tail(k, permuted + 1, q) == pytest.approx(math.log10(exact), abs=1e-9)
    assert log10_beta_tail(0, 5, 0.5) == 0.0
    assert log10_beta_tail(300, 1, 0.1) == pytest.approx(-300)


@pytest.mark.parametrize("permutations", [2, 32])
def test_poisson_counts_with_uneven_rates_get_honest_p_values(permutations: int) -> None:
    """Pairs whose chance rates differ by a factor of e on average: no level is reached too often."""
    rng = np.random.default_rng(permutations)
    p = []
    for _ in range(200):
        rates = rng.gamma(2.0, 0.5, (6, 6))
        counts = rng.poisson(rates, (1 + permutations, 6, 6))
        by_chance = chance(counts[1:], np.ones((6, 6)))
        one_by_one = [by_chance.log10_p(int(counts[0, i, j]), (i, j)) for i in range(6) for j in range(6)]
        np.testing.assert_allclose(by_chance.log10_each(counts[0]).ravel(), one_by_one, rtol=1e-12)
        p += one_by_one
    for alpha in (0.5, 0.1, 0.01, 0.001):
        assert np.mean(np.array(p) <= np.log10(alpha)) <= alpha + 4 * np.sqrt(alpha / len(p))


def test_dispersion_sees_clusters_and_lets_poisson_counts_be() -> None:
    rng = np.random.default_rng(0)
    assert dispersion(rng.poisson(1.0, (64, 25))) == 1.0
    assert dispersion(4 * rng.poisson(0.5, (64, 25))) == pytest.approx(4, rel=0.2)


# Other bases


def turned(arrays: Arrays, turn: np.ndarray) -> Arrays:
    """The model with its residual stream x written as x @ turn: norms made one first, so that it computes the same."""
    plain = gains_folded(arrays)

    def change(part: str, x: np.ndarray, layer: int) -> np.ndarray:
        if part in ("gate_proj", "up_proj", "q_proj", "k_proj", "v_proj"):
            return (x @ turn).astype(np.float32)
        return (turn.T @ x).astype(np.float32) if part in ("down_proj", "o_proj") else x

    return by_layer(plain, change)


def test_a_basis_that_undoes_a_rotation_is_used() -> None:
    a = decoder(0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0]
    m = models(a, turned(child(a, 0.95), turn))
    assert (unit_agreement(m).log10_p or 0.0) > -3
    basis = Basis("rotation", "known", matrix=turn.T.astype(np.float32), candidates=1000)
    evidence = unit_agreement(replace(m, basis=basis))
    assert evidence.log10_p is None  # permuted channels are no null of a basis that was fitted
    assert evidence.told(UnitAgreement).log10_p_of_permuted_channels < -100
    cheaper = unit_agreement(replace(m, basis=replace(basis, candidates=1)))
    prices = [e.told(UnitAgreement).log10_p_of_permuted_channels for e in (evidence, cheaper)]
    assert prices[0] == pytest.approx(prices[1] + 3)


def test_a_basis_that_undoes_a_signed_permutation_of_some_channels_is_used() -> None:
    """B has lost 16 of A's channels; the others stand in another order with other signs."""
    a = decoder(0)
    rng = np.random.default_rng(0)
    order, signs = rng.permutation(64)[:48], rng.choice(np.float32([-1, 1]), 48)
    turn = np.zeros((64, 48), np.float32)
    turn[order, np.arange(48)] = signs
    b = turned(child(a, 0.95), turn)
    m = models(a, {n: x[:48] if x.ndim == 1 else x[:, :48] if "embed" in n else x for n, x in b.items()})
    assert not unit_agreement(m).applied
    channels, back = np.full(64, -1), np.zeros(64, np.float32)
    channels[order], back[order] = np.arange(48), signs
    evidence = unit_agreement(replace(m, basis=Basis("signed_permutation", "known", channels=channels, signs=back)))
    assert evidence.told(UnitAgreement).log10_p_of_permuted_channels < -100
    assert evidence.effect is not None
    assert evidence.effect > 0.95


def test_what_the_basis_was_fitted_on_stays_out_of_p() -> None:
    a, b = decoder(0), decoder(1)
    b |= {n: x for n, x in child(a, 0.9).items() if "layers.2." in n}
    m = models(a, b)
    fitted = unit_agreement(replace(m, basis=Basis(fitted=frozenset({"decoder.2"}))))
    assert (unit_agreement(m).log10_p or 0.0) < -50
    assert (fitted.log10_p or 0.0) > -3
    assert fitted.told(UnitAgreement).found == 1
    assert unit_agreement(replace(m, basis=Basis(fitted=frozenset({"down"})))).log10_p is None


def step_by_step(x: np.ndarray, *, signed: bool) -> np.ndarray:
    """What `standardised` promises, in float64 and over all rows."""
    x = x.astype(np.float64)
    x = x - x.mean(axis=0) if signed else x.copy()
    for _ in range(2):
        power = np.square(x).mean(axis=0)
        weights = np.divide(1, power, out=np.zeros_like(power), where=power > 0)
        x -= (x @ weights / weights.sum())[:, None]
        x[:, power == 0] = 0
    rms = np.sqrt(np.square(x).mean(axis=0))
    x /= np.where(rms > 0, rms, 1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rows", [60, 1024, 3000])
def test_standardised_rows_against_each_step_by_itself(rows: int, signed: bool) -> None:
    rng = np.random.default_rng(rows)
    # Columns with means and scales of their own, an outlier, rows with a mean, a column that says nothing.
    x = rng.standard_normal((rows, 40)) * rng.lognormal(0, 1, 40) + rng.standard_normal((rows, 1))
    x += 3 * rng.standard_normal(40)
    x[:, 5] *= 100
    x[:, 7] = 0
    x = x.astype(np.float32)
    # What it is given may be overwritten.
    found, want = standardised(x.copy(), signed=signed), step_by_step(x, signed=signed)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert not found[:, 7].any()
    if rows <= 1024:
        assert found == pytest.approx(want, abs=2e-5)
    else:  # some rows stand for all
        assert np.einsum("ij,ij->i", found, want).min() > 0.98
    # A transposed view is taken as it lies.
    assert standardised(np.ascontiguousarray(x.T).T, signed=signed) == pytest.approx(found, abs=2e-5)


def test_standardised_values_stay_finite() -> None:
    x = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    x[3, 4], x[5, 6], x[7, 8] = np.nan, np.inf, -np.inf
    for scale in (1, 1e-30, 1e30):
        found = standardised(x * np.float32(scale), signed=True)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert not standardised(np.zeros((5, 4), np.float32), signed=True).any()
