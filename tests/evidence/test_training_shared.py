"""Common initialisation against descent, on models whose initialisation and training are known because made here."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from synthetic import Arrays, decoder, models
from weightprint.compare.compare import judge
from weightprint.evidence.pair import Basis
from weightprint.evidence.tests import AS_STORED
from weightprint.evidence.training_shared import TrainingShared, read, strong_over_weak, training_shared

D, H, LAYERS = 64, 160, 4


def initial(seed: int) -> Arrays:
    """Matrices of normal noise, gains of one."""
    rng = np.random.default_rng([seed, 1])
    shapes = {n: x.shape for n, x in decoder(0, d=D, h=H, layers=LAYERS, vocabulary=80).items()}
    return {n: (np.ones(s) if len(s) == 1 else rng.normal(0, D**-0.5, s)).astype(np.float32) for n, s in shapes.items()}


def trained(start: Arrays, seed: int, amount: float = 1.0) -> Arrays:
    """What training adds: a few strong directions per matrix, some noise, and gains that move."""
    rng = np.random.default_rng([seed, 2])
    out = {}
    for name, x in start.items():
        if x.ndim == 1:
            move = 0.2 * amount * rng.standard_normal(x.shape)
        else:
            m, n = x.shape
            move = (rng.standard_normal((m, 4)) @ rng.standard_normal((4, n))) * 0.5 * D**-0.5 / 2
            move = amount * (move + 0.4 * D**-0.5 * rng.standard_normal(x.shape))
        out[name] = (x + move).astype(np.float32)
    return out


def reading(a: Arrays, b: Arrays) -> str:
    return training_shared(models(a, b)).told(TrainingShared).reads_as


def test_slopes_of_known_matrices() -> None:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((24, 24)))[0] for _ in range(2))
    s = np.arange(24, 0, -1.0)

    def made(slopes: np.ndarray) -> np.ndarray:
        return (u * (s * slopes)) @ v.T

    x = made(np.ones(24))
    assert strong_over_weak(x, x) == pytest.approx(1)
    assert strong_over_weak(x, 3 * x) == pytest.approx(1)
    kept = np.r_[0.2, 0.6, np.full(10, 9.0), np.full(12, 0.5)]  # 24 // 12 = 2 leading directions, 12 weak ones
    leading = (24**2 * 0.2 + 23**2 * 0.6) / (24**2 + 23**2)
    assert strong_over_weak(x, made(kept)) == pytest.approx(leading / 0.5)
    assert strong_over_weak(x, made(np.r_[np.ones(12), np.zeros(12) - 0.1])) == 4


def test_common_initialisation_trained_apart() -> None:
    start = initial(0)
    a, b = trained(start, 1), trained(start, 2)
    found = training_shared(models(a, b))
    told = found.told(TrainingShared)
    assert told.reads_as == "shared_initialisation"
    assert max(told.r_a, told.r_b) < 0.8
    assert abs(told.gains) < 0.2
    assert told.cosine > 0.4
    assert found.log10_p is None


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_descent(amount: float) -> None:
    parent = trained(initial(1), 3)
    child = trained(parent, 4, amount)
    found = training_shared(models(parent, child))
    told = found.told(TrainingShared)
    assert told.r_a > 0.96
    assert told.r_b < told.r_a
    assert told.reads_as == ("descent" if told.gains >= 0.65 else "either")
    back = training_shared(models(child, parent))
    assert (back.told(TrainingShared).r_b, back.told(TrainingShared).r_a) == pytest.approx((told.r_a, told.r_b))


def test_what_disagrees_is_either() -> None:
    """Gains of a stranger on a descendant, and a descendant's gains on a model of the same initialisation."""
    start = initial(2)
    parent, other = trained(start, 5), trained(start, 6)
    child = trained(parent, 7, 0.3)
    gains = {n: x for n, x in trained(start, 8).items() if x.ndim == 1}
    assert reading(parent, child) == "descent"
    assert reading(parent, child | gains) == "either"
    assert reading(parent, other) == "shared_initialisation"
    assert reading(parent, other | {n: x for n, x in parent.items() if x.ndim == 1}) == "either"


def test_gains_folded_into_the_matrices_leave_the_directions() -> None:
    parent = trained(initial(3), 9)
    child = trained(parent, 10, 0.3)
    folded = dict(child)
    for i in range(LAYERS):
        for norm, roles in (("input_layernorm", "qkv"), ("post_attention_layernorm", ("gate", "up"))):
            name = f"model.layers.{i}.{norm}.weight"
            for role in roles:
                at = f"model.layers.{i}.{'self_attn' if norm[0] == 'i' else 'mlp'}.{role}_proj.weight"
                folded[at] = child[at] * child[name]
            folded[name] = np.ones_like(child[name])
    folded["model.norm.weight"] = np.ones(D, np.float32)
    plain, told = (training_shared(models(parent, b)).told(TrainingShared) for b in (child, folded))
    assert told.r_a == pytest.approx(plain.r_a, abs=0.02)
    assert told.gains is None
    assert told.reads_as == "descent"
    assert told.confidence <= 0.7


def test_a_permuted_stream_through_its_basis() -> None:
    parent = trained(initial(4), 11)
    child = trained(parent, 12, 0.3)
    rng = np.random.default_rng(4)
    order = rng.permutation(D)
    hidden = {}
    for n, x in child.items():
        axis = x.ndim - 1 if x.ndim == 1 or ("o_proj" not in n and "down" not in n) else 0
        hidden[n] = np.take(x, order, axis=axis)
    m = models(parent, hidden)
    assert "in place" in (training_shared(m).why_not or "")
    told = training_shared(replace(m, basis=Basis("signed_permutation", channels=np.argsort(order)))).told(
        TrainingShared
    )
    plain = training_shared(models(parent, child)).told(TrainingShared)
    for key in ("r_a", "r_b", "gains", "cosine"):
        assert getattr(told, key) == pytest.approx(getattr(plain, key), rel=1e-5)


def reordered(model: Arrays, seed: int) -> Arrays:
    """Hidden units and rows of attention in new orders."""
    rng, out = np.random.default_rng(seed), dict(model)
    for name in [n for n in model if n.endswith("up_proj.weight")]:
        at, order = name.removesuffix("up_proj.weight"), rng.permutation(H)
        for part in ("gate_proj", "up_proj"):
            out[f"{at}{part}.weight"] = model[f"{at}{part}.weight"][order]
        out[f"{at}down_proj.weight"] = model[f"{at}down_proj.weight"][:, order]
    return out | {n: x[rng.permutation(len(x))] for n, x in model.items() if any(f"{r}_proj" in n for r in "qkv")}


def test_units_in_another_order_are_asked_as_those_in_place() -> None:
    start = initial(8)
    parent = trained(start, 20)
    for other, name in ((trained(start, 21), "shared_initialisation"), (trained(parent, 22, 0.3), "descent")):
        plain, found = training_shared(models(parent, other)), training_shared(models(parent, reordered(other, 1)))
        assert plain.told(TrainingShared).reads_as == found.told(TrainingShared).reads_as == name
        assert found.n == 2 * LAYERS
        in_place = [r for n, (_, r, _) in plain.told(TrainingShared).matrices.items() if "gate" in n or "up_proj" in n]
        assert found.told(TrainingShared).r_a == pytest.approx(float(np.median(in_place)), abs=0.1)
    assert not training_shared(models(parent, reordered(trained(initial(9), 23), 1))).applied


@pytest.mark.parametrize("amount", [1.0, 2.0])
def test_one_initialisation_in_another_order_is_told_alike_both_ways(amount: float) -> None:
    """However far both were trained: where the blocks no longer agree, channels in place still do."""
    start = initial(0)
    a = trained(start, 11, amount)
    b = reordered(trained(start, 21, amount), 0) | {
        n: x for n, x in trained(start, 21, amount).items() if "self_attn" in n
    }
    for first, second in ((a, b), (b, a)):
        m = models(first, second)
        verdict = judge(m, [test(m) for test in AS_STORED]).verdict
        assert (verdict.name, verdict.readings) == ("shared_initialisation", ("shared_initialisation",))


def test_what_descent_long_ago_would_leave_is_named_beside() -> None:
    """Two models trained on from one: little of what they share is training."""
    root = trained(initial(10), 24)
    m = models(trained(root, 25), trained(root, 26))
    verdict = judge(m, [test(m) for test in AS_STORED]).verdict
    assert "shared_origin" in verdict.readings
    assert "descend from one" in verdict.sentence


def test_strangers_are_not_asked() -> None:
    assert not training_shared(models(trained(initial(5), 13), trained(initial(6), 14))).applied
    assert "hidden size" in (training_shared(models({"x": np.ones(4, np.float32)}, {})).why_not or "")


def test_the_table_of_readings() -> None:
    for r in (0.3, 0.92, 0.94, 0.975, 1.1):
        for gains in (None, -0.1, 0.58, 0.6, 0.65, 0.99):
            name, confidence, why = read(r, gains)
            descends, shares = r >= 0.975 and (gains or 1) >= 0.65, r <= 0.92 and (gains or 0) <= 0.58
            assert name == ("descent" if descends else "shared_initialisation" if shares else "either")
            assert (confidence is None) == (name == "either")
            assert confidence is None or 0.5 <= confidence < 1
            assert f"{r:.0%}" in why


def test_confidence_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["weightprint.evidence.training_shared"],
        "MEASURED",
        {"descent": (8, 7, 1, 0), "shared_initialisation": (18, 15, 1, 2)},
    )
    assert read(1.0, 0.9)[1] == pytest.approx(1 - 3 / 20)
    assert read(0.7, 0.2)[1] == pytest.approx(1 - 1 / 10)
