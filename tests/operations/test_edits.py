"""Edits that rewrite matrices by a rule come back with their parameters, and with nothing beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from changed_models import matrices, parent, stored
from synthetic import Arrays, models
from weightprint.operations.base import Operation
from weightprint.operations.changes import measured
from weightprint.operations.table import operations
from weightprint.verdict.direction.lost_rank import lost_rank
from weightprint.verdict.direction.samples import Seen
from weightprint.verdict.facts import Facts

EDITS = {"directional_ablation", "low_rank_factorised", "orthogonal_multipliers"}


def told(a: Arrays, b: Arrays, dtype: str = "F32") -> dict[str, Operation]:
    """Name → operation, by all readers, of a pair stored in one type."""
    facts = Facts(models(stored(a, dtype), stored(b, dtype)), ())
    return {o.name: o for o in operations(facts, measured(facts))}


def of(a: Arrays, *roles: str) -> list[str]:
    return [n for n in matrices(a) if n.split(".")[-2].removesuffix("_proj") in roles]


# Directional ablation


def unit(d: int, seed: int = 0) -> np.ndarray[Any, Any]:
    r = np.random.default_rng([seed, 5]).standard_normal(d)
    return r / np.linalg.norm(r)


def ablated(a: Arrays, strength: float, rescaled: str = "", seed: int = 0, layers: str = "0123") -> Arrays:
    """r taken out of what writes, by hand."""
    r, out = unit(96, seed), dict(a)
    for name in of(a, "o", "down"):
        if name.split(".")[2] in layers:
            x = a[name].astype(np.float64)
            norms = np.linalg.norm(x, axis=1, keepdims=True)
            y = x / norms if rescaled == "directions" else x
            y = (np.eye(96) - strength * np.outer(r, r)) @ y
            if rescaled:
                y *= norms / np.linalg.norm(y, axis=1, keepdims=True)
            out[name] = y.astype(np.float32)
    return out


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("rescaled", ["", "rows", "directions"])
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.3])
def test_one_direction_taken_out(strength: float, rescaled: str, dtype: str) -> None:
    a = parent()
    found = told(a, ablated(a, strength, rescaled), dtype)
    assert found.keys() == {"directional_ablation"}
    p = found["directional_ablation"].parameters
    assert p["strength"] == pytest.approx(strength, abs=0.03)
    assert (p["roles"], p["layers"], p["matrices"], p["of"]) == (["o", "down"], [0, 1, 2, 3], 8, 8)
    assert (p["sharing"], p["rescaled"]) == (8, bool(rescaled))
    assert "strengths" not in p


@pytest.mark.parametrize("coded", ["a", "b", "ab"])
def test_codes_of_a_scheme_have_no_rounding_of_their_own(coded: str) -> None:
    """Where either side is stored in codes the readers of edits stay silent, whichever side that is."""
    a = parent()
    pair = models(a, ablated(a, 1.0))
    views = {
        label: {n: replace(t, dtype="F8_E4M3 fp8_tensor") if label in coded else t for n, t in view.tensors.items()}
        for label, view in (("a", pair.a), ("b", pair.b))
    }
    pairs = [replace(x, a=views["a"][x.a.name], b=views["b"][x.b.name]) for x in pair.pairs]
    pair = replace(pair, a=replace(pair.a, tensors=views["a"]), b=replace(pair.b, tensors=views["b"]), pairs=pairs)
    facts = Facts(pair, ())
    assert EDITS.isdisjoint(o.name for o in operations(facts, measured(facts)))


def test_strengths_and_directions_may_differ_by_layer() -> None:
    a = parent()
    b = ablated(ablated(a, 0.9, layers="1"), 0.4, layers="2", seed=1)
    p = told(a, b)["directional_ablation"].parameters
    assert p["layers"] == [1, 2]
    assert (p["matrices"], p["sharing"]) == (4, 2)
    assert p["strengths"] == [[1, pytest.approx(0.9, abs=0.01)], [2, pytest.approx(0.4, abs=0.01)]]


def test_an_adapter_in_other_matrices_is_told_beside_it() -> None:
    a = parent()
    b, rng = ablated(a, 0.5), np.random.default_rng(2)
    for name in of(a, "q", "v"):
        b[name] = (a[name] + 0.01 * rng.standard_normal((96, 4)) @ rng.standard_normal((4, 96))).astype(np.float32)
    found = told(a, b)
    assert found.keys() == {"directional_ablation", "lora_merge"}
    assert found["lora_merge"].parameters["roles"] == ["q", "v"]


@pytest.mark.parametrize("shared", [True, False])
def test_an_adapter_of_rank_one_is_no_ablation(shared: bool) -> None:
    """Even if all its matrices write one direction."""
    a, b, rng = parent(), parent(), np.random.default_rng(3)
    for i, name in enumerate(of(a, "o", "down")):
        v = rng.standard_normal(a[name].shape[1])
        b[name] = (a[name] + 0.1 * np.outer(unit(96, 0 if shared else i), v)).astype(np.float32)
    assert told(a, b).keys() == {"lora_merge"}


def test_what_was_trained_afterwards_hides_it() -> None:
    a = parent()
    b, rng = ablated(a, 0.5), np.random.default_rng(4)
    for name in of(a, "o", "down"):
        b[name] = (b[name] + 0.1 * a[name].std() * rng.standard_normal(a[name].shape)).astype(np.float32)
    assert "directional_ablation" not in told(a, b)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_way_back_is_no_ablation(strength: float) -> None:
    a = parent()
    assert "directional_ablation" not in told(ablated(a, strength), a)


# Low rank


def cut(a: Arrays, keep: float, side: str = "", roles: tuple[str, ...] = ("up", "down")) -> Arrays:
    """Singular values beyond a share of them left out; inputs or outputs weighted as activations would."""
    out, rng = dict(a), np.random.default_rng(11)
    for name in of(a, *roles):
        x = a[name].astype(np.float64)
        left, right = (
            np.exp(rng.standard_normal(n) * (side == s)) for n, s in zip(x.shape, ("out", "in"), strict=True)
        )
        u, s, v = np.linalg.svd(left[:, None] * x * right, full_matrices=False)
        k = round(keep * s.size)
        out[name] = ((u[:, :k] * s[:k]) @ v[:k] / left[:, None] / right).astype(np.float32)
    return out


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_singular_values_cut_off(keep: float, dtype: str) -> None:
    a = parent()
    b = cut(a, keep)
    found = told(a, b, dtype)
    assert found.keys() == {"low_rank_factorised"}
    p = found["low_rank_factorised"].parameters
    assert p["ranks"] == {"up": round(96 * keep), "down": round(96 * keep)}
    assert p["method"] == "svd"
    for role in ("up", "down"):
        kept = np.mean([np.sum(b[n] ** 2.0) / np.sum(a[n] ** 2.0) for n in of(a, role)])
        assert p["energy"][role] == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize(("side", "method"), [("in", "weighted_inputs"), ("out", "weighted_outputs")])
def test_what_counted_in_the_cut(side: str, method: str) -> None:
    a = parent()
    found = told(a, cut(a, 0.5, side))
    assert found.keys() == {"low_rank_factorised"}
    assert found["low_rank_factorised"].parameters["method"] == method


def test_a_matrix_of_low_rank_that_is_not_cut_from_the_other_has_no_such_name() -> None:
    a = cut(parent(), 0.5)
    b, rng = dict(a), np.random.default_rng(12)
    for name in of(a, "up", "down"):  # as low, in another span: factors trained on
        u, s, v = np.linalg.svd(a[name].astype(np.float64), full_matrices=False)
        u, v = (
            u[:, :48] + 0.03 * rng.standard_normal((len(u), 48)),
            v[:48] + 0.03 * rng.standard_normal((48, v.shape[1])),
        )
        b[name] = ((u * s[:48]) @ v).astype(np.float32)
    assert "low_rank_factorised" not in told(a, b)
    assert "low_rank_factorised" not in told(parent(), b)
    assert "low_rank_factorised" not in told(a, parent())


# Orthogonal multipliers


def drawn(rng: np.random.Generator, block: int, angle: float) -> np.ndarray[Any, Any]:
    """A Cayley transform (I + S)(I - S)^-1, whose angles are 2 atan of the skew S's."""
    skew = rng.standard_normal((block, block))
    skew -= skew.T
    skew *= np.tan(angle / 2) / np.sqrt(np.mean(np.abs(np.linalg.eigvals(skew)) ** 2))
    return np.asarray((np.eye(block) + skew) @ np.linalg.inv(np.eye(block) - skew))


def turned(a: Arrays, block: int, angle: float, side: str = "inputs", same: bool = False) -> Arrays:
    out, rng = dict(a), np.random.default_rng(13)
    for name in of(a, "q", "v", "up"):
        x = a[name].astype(np.float64) if side == "inputs" else a[name].astype(np.float64).T
        rng = np.random.default_rng(13) if same else rng
        whole = np.zeros((x.shape[1], x.shape[1]))
        for at in range(0, x.shape[1], block):
            whole[at : at + block, at : at + block] = drawn(rng, block, angle)
        out[name] = (x @ whole if side == "inputs" else (x @ whole).T).astype(np.float32)
    return out


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(("block", "angle"), [(4, 0.1), (8, 0.3), (32, 0.2)])
def test_blocks_turned_by_angles(block: int, angle: float, side: str, dtype: str) -> None:
    a = parent()
    found = told(a, turned(a, block, angle, side), dtype)
    assert found.keys() == {"orthogonal_multipliers"}
    p = found["orthogonal_multipliers"].parameters
    assert (p["block"], p["side"], p["roles"], p["matrices"], p["of"]) == (block, side, ["q", "v", "up"], 12, 12)
    assert p["angle"] == pytest.approx(angle, rel=0.1)
    back = told(turned(a, block, angle, side), a, dtype)["orthogonal_multipliers"].parameters
    assert (back["block"], back["angle"]) == (block, pytest.approx(angle, rel=0.1))


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_turns_show_beside_strong_channels(side: str) -> None:
    strong = np.where(np.arange(96) % 31 == 5, 4, 1).astype(np.float32)
    a = {n: x * strong if n in of(parent(), "q", "v", "up") else x for n, x in parent().items()}
    found = told(a, turned(a, 8, 0.3, side), "BF16")["orthogonal_multipliers"].parameters
    assert (found["block"], found["side"], found["matrices"], found["of"]) == (8, side, 12, 12)


def test_a_turn_that_is_the_same_everywhere_orders_and_signs_are_no_multipliers() -> None:
    a = parent()
    assert "orthogonal_multipliers" not in told(a, turned(a, 8, 0.3, same=True))
    order, signs = np.arange(96) ^ 1, np.where(np.arange(96) % 8 == 0, -1, 1)
    for other in (
        {n: x[:, order] if n in of(a, "q", "v", "up") else x for n, x in a.items()},
        {n: (x * signs).astype(np.float32) if n in of(a, "q", "v", "up") else x for n, x in a.items()},
    ):
        assert "orthogonal_multipliers" not in told(a, other)


# None of them where something else was done


def noised(a: Arrays) -> Arrays:
    rng = np.random.default_rng(6)
    return {n: (x + 0.1 * x.std() * rng.standard_normal(x.shape)).astype(np.float32) for n, x in a.items()}


def zeroed(a: Arrays) -> Arrays:
    return {n: np.where(np.abs(x) < np.quantile(np.abs(x), 0.5), 0, x).astype(np.float32) for n, x in a.items()}


def rounded(a: Arrays) -> Arrays:
    return {n: x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) for n, x in a.items()}


def scaled(a: Arrays) -> Arrays:
    rng = np.random.default_rng(7)
    return {n: (x * rng.lognormal(0, 0.2, (len(x), 1))).astype(np.float32) if x.ndim == 2 else x for n, x in a.items()}


def adapted(a: Arrays) -> Arrays:
    rng, b = np.random.default_rng(8), dict(a)
    for n in matrices(a):
        u, v = rng.standard_normal((len(a[n]), 4)), rng.standard_normal((4, a[n].shape[1]))
        b[n] = (a[n] + 0.005 * u @ v).astype(np.float32)
    return b


def tuned(a: Arrays) -> Arrays:
    rng, b = np.random.default_rng(9), dict(a)
    for n in matrices(a):
        strength = 1 / np.arange(1, 1 + min(a[n].shape)) ** 0.7
        u = rng.standard_normal((len(a[n]), strength.size)) * strength * rng.lognormal(0, 0.5, (len(a[n]), 1))
        d = u @ rng.standard_normal((strength.size, a[n].shape[1]))
        b[n] = (a[n] + 0.1 * np.linalg.norm(a[n]) / np.linalg.norm(d) * d).astype(np.float32)
    return b


def merged(a: Arrays) -> Arrays:
    return {n: ((x + y) / 2).astype(np.float32) for (n, x), y in zip(tuned(a).items(), noised(a).values(), strict=True)}


def stranger(a: Arrays) -> Arrays:
    return parent(1)


@pytest.mark.parametrize("change", [noised, zeroed, rounded, scaled, adapted, tuned, merged, stranger])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_none_of_them_is_named_where_something_else_was_done(change: Any, dtype: str) -> None:
    a = parent()
    assert not told(a, change(a), dtype).keys() & EDITS
    assert not told(change(a), a, dtype).keys() & EDITS


# Who came first


@pytest.mark.parametrize(
    ("change", "dtype"),
    [
        (lambda a: cut(a, 0.5), "F32"),
        (lambda a: cut(a, 0.5), "BF16"),
        (lambda a: cut(a, 0.25, "in"), "BF16"),
        (lambda a: ablated(a, 1.0), "F32"),  # rounding to bfloat16 fills one direction again
    ],
)
def test_what_lacks_directions_is_the_later_one(change: Any, dtype: str) -> None:
    a, b = stored(parent(), dtype), stored(change(parent()), dtype)
    ways = (lost_rank(Seen(models(a, b), {})), lost_rank(Seen(models(b, a), {})))
    assert [cue.later if cue else None for cue in ways] == ["b", "a"]


@pytest.mark.parametrize("change", [noised, zeroed, rounded, scaled, adapted, tuned, merged, stranger])
def test_of_other_changes_nothing_is_lost(change: Any) -> None:
    assert lost_rank(Seen(models(parent(), change(parent())), {})) is None
