"""Signs of direction: each one names the side that was made later, whichever side that is; symmetric changes none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint import direction as module
from weightprint.direction import SIGNS, Found, Seen, Sign, direction
from weightprint.evidence._base import Evidence, UnitMatch
from weightprint.evidence.same_values import same_values

BLANK = Evidence("unit_agreement", "?", True, "", "", "")
Change = Callable[[Arrays], Arrays]


def in_blocks(x: Arrays, change: Callable[[np.ndarray], np.ndarray], role: str = "_proj") -> Arrays:
    return {n: change(v) if ".layers." in n and role in n else v for n, v in x.items()}


def both_ways(a: Arrays, b: Arrays, *tests: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    out = []
    for x, y in ((a, b), (b, a)):
        m = models(x, y)
        out.append(direction(m, {e.test: e for e in (test(m) for test in tests)}))
    return out[0], out[1]


def names_the_later(a: Arrays, b: Arrays, word: str, *tests: Any) -> None:
    """B is later: said so, and of A when the two are swapped, for the same reason."""
    one, other = both_ways(a, b, *tests)
    assert (one["later"], other["later"]) == ("b", "a")
    assert one["confidence"] == other["confidence"]
    assert 0.5 < one["confidence"] < 1
    assert word in one["because"]


def says_nothing(a: Arrays, b: Arrays) -> None:
    for found in both_ways(a, b, same_values):
        assert found["later"] is None
        assert found["confidence"] is None
        assert "nothing" in found["because"]


def half_pruned(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) > np.quantile(np.abs(x), 0.3), x, 0).astype(x.dtype)


def two_of_four(x: np.ndarray) -> np.ndarray:
    fours = x.reshape(-1, 4)
    rank = np.abs(fours).argsort(axis=1).argsort(axis=1)
    return np.where(rank >= 2, fours, 0).reshape(x.shape).astype(x.dtype)


def int4(x: np.ndarray) -> np.ndarray:
    """Groups of 32 with a smallest and a largest value, not rounded to nearest: as error-correcting quantisers do."""
    groups = x.reshape(-1, 32)
    low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    step = (high - low) / 15
    jitter = np.random.default_rng(0).uniform(-0.4, 0.4, groups.shape)
    return (low + step * np.clip(np.round((groups - low) / step + jitter), 0, 15)).reshape(x.shape).astype(x.dtype)


def int8(x: np.ndarray) -> np.ndarray:
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    jitter = np.random.default_rng(0).uniform(-0.4, 0.4, x.shape)
    return (step * np.clip(np.round(x / step + jitter), -127, 127)).astype(x.dtype)


@pytest.mark.parametrize("change", [half_pruned, two_of_four])
def test_zeros(change: Callable[[np.ndarray], np.ndarray]) -> None:
    a = decoder(0)
    b = in_blocks(a, change)
    names_the_later(a, b, "two in every four" if change is two_of_four else "zero in 30%")
    again = {n: np.where(b[n] == 0, 0, v).astype(np.float32) for n, v in child(a, 0.9).items()}
    names_the_later(a, again, "zero")


@pytest.mark.parametrize("change", [int4, int8])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_grids(change: Callable[[np.ndarray], np.ndarray], dtype: Any) -> None:
    a = {n: v.astype(dtype) for n, v in decoder(1).items()}
    b = in_blocks(a, lambda x: change(x.astype(np.float32)).astype(dtype))
    names_the_later(a, b, "coarse grid")
    trained_on = {n: v.astype(dtype) for n, v in child({n: v.astype(np.float32) for n, v in a.items()}, 0.9).items()}
    names_the_later(trained_on, b, "coarse grid")


def test_rounded() -> None:
    a = decoder(2)
    names_the_later(a, {n: v.astype(ml_dtypes.bfloat16) for n, v in a.items()}, "rounded", same_values)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_low_rank(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    a = {n: v.astype(dtype) for n, v in decoder(3, layers=6).items()}

    def merged(x: np.ndarray) -> np.ndarray:
        y = x.astype(np.float64)
        low = rng.standard_normal((y.shape[0], 3)) @ rng.standard_normal((3, y.shape[1]))
        return (y + 0.3 * y.std() / low.std() * low).astype(dtype)

    names_the_later(a, in_blocks(a, merged, "q_proj"), "rank 3 to 3 in 6 matrices")
    says_nothing(
        a, in_blocks(a, lambda x: (x + rng.standard_normal(x.shape) * 0.1 * x.astype(np.float32).std()).astype(dtype))
    )


def vocabulary(x: Arrays, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {n: change(v).astype(v.dtype) if "embed" in n else v for n, v in x.items()}


def test_rows_added_or_chosen() -> None:
    a, rng = decoder(4), np.random.default_rng(4)
    table = a["model.embed_tokens.weight"]
    names_the_later(
        a, vocabulary(a, lambda t: np.concatenate([t, rng.standard_normal((20, t.shape[1])) * t.std()])), "20 follow"
    )
    mean = vocabulary(a, lambda t: np.concatenate([t, np.repeat(t.mean(0, keepdims=True), 20, axis=0)]))
    names_the_later(a, mean, "never trained")
    kept = np.sort(rng.choice(len(table), 120, replace=False))
    names_the_later(a, vocabulary(a, lambda t: t[kept]), "choice")
    says_nothing(a, vocabulary(a, lambda t: rng.standard_normal((150, t.shape[1]))))


def test_units_that_do_nothing() -> None:
    a, rng = decoder(5), np.random.default_rng(5)

    def widened(copied: bool) -> Arrays:
        out = dict(a)
        for n, v in a.items():
            if ".mlp." not in n:
                continue
            axis = 1 if "down" in n else 0
            extra = np.take(v, np.arange(40), axis=axis)
            if copied and "down" in n:
                v = np.concatenate([v[:, :40] / 2, v[:, 40:]], axis=1)
                extra = extra / 2
            elif not copied:
                extra = np.zeros_like(extra) if "down" in n else rng.standard_normal(extra.shape) * v.std()
            out[n] = np.concatenate([v, extra], axis=axis).astype(np.float32)
        return out

    names_the_later(a, widened(copied=True), "widened")
    names_the_later(a, widened(copied=False), "widened")
    pruned = {n: np.take(v, np.arange(100), axis=1 if "down" in n else 0) if ".mlp." in n else v for n, v in a.items()}
    says_nothing(a, pruned)


def matched(*rows: tuple[Any, Any, Iterable[int]]) -> Evidence:
    """Unit agreement as the test would report it: (block and expert of B, of A, units of A)."""
    out = []
    for b, a, units in rows:
        pairs = np.array([[u, u] for u in units], np.int64)
        out.append(UnitMatch(("decoder", *b), ("decoder", *a), 100, len(pairs), 0.5, -50.0, pairs))
    return replace(BLANK, matches=tuple(out))


def swapped(e: Evidence) -> Evidence:
    return replace(e, matches=tuple(replace(m, a=m.b, b=m.a, units=m.units[:, ::-1]) for m in e.matches))


def with_experts(dense: Arrays, experts: list[Arrays]) -> Arrays:
    """One MoE block per dense block, in the spelling of DeepSeek."""
    out = {n: v for n, v in dense.items() if ".mlp." not in n}
    for n in dense:
        if ".mlp." in n:
            for e, expert in enumerate(experts):
                out[n.replace(".mlp.", f".mlp.experts.{e}.")] = expert[n]
    for i in range(4):
        out[f"model.layers.{i}.mlp.gate.weight"] = (
            np.random.default_rng(i).standard_normal((len(experts), 64)).astype(np.float32)
        )
    return out


def test_experts_made_from_a_dense_ffn_and_the_reverse() -> None:
    dense = decoder(6)
    experts = [child(dense, 0.8, seed) for seed in range(4)]
    moe = with_experts(dense, experts)
    rows = [((i, e), (i, None), range(60)) for i in range(4) for e in range(4)]
    evidence = matched(*rows)
    mean = {n: np.mean([e[n] for e in experts], axis=0).astype(np.float32) for n in dense}

    def ask(a: Arrays, b: Arrays, e: Evidence) -> dict[str, Any]:
        return direction(models(a, b), {"unit_agreement": e})

    assert ask(dense, moe, evidence)["later"] == "b"
    assert ask(moe, dense, swapped(evidence))["later"] == "a"
    assert ask(moe, mean, swapped(evidence))["later"] == "b"
    assert ask(mean, moe, evidence)["later"] == "a"
    assert ask(experts[2], moe, evidence)["later"] == "a"
    split = matched(*[((i, e), (i, None), range(25 * e, 25 * e + 40 - 15)) for i in range(4) for e in range(4)])
    assert ask(dense, moe, replace(split, matches=tuple(replace(m, tested=26) for m in split.matches)))["later"] is None


def test_repeated_blocks() -> None:
    a = decoder(7, layers=4)
    deep = {n: v for n, v in a.items() if ".layers." not in n}
    order = [0, 1, 2, 1, 2, 3]
    for new, old in enumerate(order):
        deep |= {n.replace(f".layers.{old}.", f".layers.{new}."): v for n, v in a.items() if f".layers.{old}." in n}
    evidence = matched(*[((new, None), (old, None), range(80)) for new, old in enumerate(order)])
    found = direction(models(a, deep), {"unit_agreement": evidence})
    assert found["later"] == "b"
    assert "2 blocks of B repeat" in found["because"]
    assert direction(models(deep, a), {"unit_agreement": swapped(evidence)})["later"] == "a"
    dropped = matched(((0, None), (0, None), range(80)), ((1, None), (3, None), range(80)))
    assert direction(models(a, a), {"unit_agreement": dropped})["later"] is None


def test_symmetric_changes_and_strangers_have_none() -> None:
    a = decoder(8)
    for rho in (0.5, 0.9, 0.999):
        says_nothing(a, child(a, rho))
    says_nothing(a, a)
    says_nothing(a, decoder(9))
    rng = np.random.default_rng(8)
    sparse = in_blocks(a, lambda x: np.where(rng.random(x.shape) < 0.1, x + 0.2 * x.std(), x).astype(np.float32))
    says_nothing(a, sparse)


def test_signs_that_contradict_claim_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a = decoder(10)
    pruned = in_blocks(a, half_pruned)
    swap = vocabulary(a, lambda t: np.concatenate([t, np.zeros((20, t.shape[1]))]))
    found = direction(models(swap, pruned), {})
    assert found["later"] is None
    assert "contradict" in found["because"]
    assert "zero in" in found["because"]
    both = in_blocks(swap, half_pruned)
    assert direction(models(a, both), {})["confidence"] == 0.97
    monkeypatch.setattr(module, "SIGNS", (*SIGNS, Sign("none", lambda seen: Found("a", 0.6, f"{len(seen.evidence)}"))))
    assert direction(models(a, both), {})["later"] is None


def test_related_matrices_only() -> None:
    a, b = decoder(11), in_blocks(decoder(12), half_pruned)
    assert not Seen(models(a, b), {}).samples
    says_nothing(a, b)
