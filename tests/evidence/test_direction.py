"""Signs of direction: each one names the side that was made later, whichever side that is; symmetric changes none.

And what was lost says nothing once something was trained: a child of a quantised, sparse or padded parent looks like
the one that its parent was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models, relayered
from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.evidence.same_values import same_values
from weightprint.evidence.training_shared import training_shared
from weightprint.verdict.direction import cues as module
from weightprint.verdict.direction.cues import SIGNS, Sign, gather
from weightprint.verdict.direction.direction import direction
from weightprint.verdict.direction.samples import Seen
from weightprint.verdict.values import Cue, Direction

BLANK = Evidence("unit_agreement", "?", "", "", "")
Change = Callable[[Arrays], Arrays]


def in_blocks(x: Arrays, change: Callable[[np.ndarray], np.ndarray], role: str = "_proj") -> Arrays:
    return {n: change(v) if ".layers." in n and role in n else v for n, v in x.items()}


def both_ways(a: Arrays, b: Arrays, *tests: Any) -> tuple[Direction, Direction]:
    out = []
    for x, y in ((a, b), (b, a)):
        m = models(x, y)
        out.append(direction(gather(m, {e.test: e for e in (test(m) for test in tests)})))
    return out[0], out[1]


def names_the_later(a: Arrays, b: Arrays, word: str, *tests: Any) -> None:
    """B is later: said so, and of A when the two are swapped, for the same reason."""
    one, other = both_ways(a, b, *tests)
    assert (one.later, other.later) == ("b", "a")
    assert one.confidence == other.confidence
    assert 0.5 < one.confidence < 1
    assert word in one.because


def says_nothing(a: Arrays, b: Arrays, *tests: Any) -> None:
    for found in both_ways(a, b, same_values, *tests):
        assert found.later is None
        assert found.confidence is None
        assert "nothing" in found.because


def never_the_other_way(a: Arrays, b: Arrays, *tests: Any) -> None:
    """B came from what A holds: nothing is said, or that."""
    one, other = both_ways(a, b, same_values, *tests)
    assert (one.later, other.later) in ((None, None), ("b", "a"))


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
    names_the_later(a, {n: v.astype(ml_dtypes.bfloat16) for n, v in b.items()}, "zero", same_values)
    again = {n: np.where(b[n] == 0, 0, v).astype(np.float32) for n, v in child(a, 0.9).items()}
    never_the_other_way(a, again)  # pruned and trained


def nearest(bits: int, group: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rounding to nearest, one scale per group of inputs."""

    def change(x: np.ndarray) -> np.ndarray:
        groups = x.reshape(-1, group)
        step = np.abs(groups).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        return (np.rint(groups / step) * step).reshape(x.shape).astype(x.dtype)

    return change


@pytest.mark.parametrize("change", [int4, int8, nearest(4, 32), nearest(8, 32)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_grids(change: Callable[[np.ndarray], np.ndarray], dtype: Any) -> None:
    a = {n: v.astype(dtype) for n, v in decoder(1).items()}
    b = in_blocks(a, lambda x: change(x.astype(np.float32)).astype(dtype))
    names_the_later(a, b, "coarse grid")
    other = {n: v.astype(dtype) for n, v in child({n: v.astype(np.float32) for n, v in a.items()}, 0.9).items()}
    never_the_other_way(b, other)  # b holds what the other was trained on from


def test_rounded() -> None:
    a = decoder(2)
    names_the_later(a, {n: v.astype(ml_dtypes.bfloat16) for n, v in a.items()}, "rounded", same_values)


def trained(x: Arrays, size: float, frozen: tuple[str, ...] = (), dtype: Any = np.float32, seed: int = 3) -> Arrays:
    """Training as it looks from outside: heavy-tailed changes of a relative size, stored in a type."""
    rng = np.random.default_rng(seed)
    out = {}
    for n, v in x.items():
        wide = v.astype(np.float32)
        change = rng.standard_t(5, wide.shape) * size * wide.std() / np.sqrt(5 / 3)
        out[n] = (wide if any(word in n for word in frozen) else wide + change).astype(dtype)
    return out


def fp8(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max() / 448
    return ((x / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale).astype(x.dtype)


def bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(x.dtype)


RELEASED = {
    "int4": nearest(4, 32), "int4, pushed": int4, "int8": nearest(8, 32), "fp8": fp8, "half sparse": half_pruned,
    "2:4": two_of_four, "bf16": bf16,
}  # fmt: skip
FROZEN = {"nothing": (), "norms and tables": ("norm", "embed"), "half": ("layers.0",)}
BF16 = ml_dtypes.bfloat16


@pytest.mark.slow_but_first
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("released", RELEASED)
def test_children_of_lossy_parents_are_not_their_parents_originals(released: str, frozen: tuple[str, ...]) -> None:
    """A parent in few bits, or sparse, and a child that was trained on from it, whatever was frozen meanwhile: it is
    called the child, or nothing is said."""
    lossy = in_blocks(decoder(20, layers=2, h=96, vocabulary=96), RELEASED[released])
    for stored, size, dtype in (
        (np.float32, 0.0003, np.float32), (BF16, 0.003, np.float32), (BF16, 0.02, BF16), (np.float32, 0.1, BF16),
        (BF16, 0.4, np.float32),
    ):  # fmt: skip
        never_the_other_way({n: v.astype(stored) for n, v in lossy.items()}, trained(lossy, size, frozen, dtype))


def test_a_child_whose_changes_are_all_of_one_size() -> None:
    """A few steps of an optimiser that looks at signs only."""
    rng = np.random.default_rng(21)
    lossy = in_blocks(decoder(21, layers=2), nearest(8, 32))
    for step in (1e-5, 1e-4, 1e-3):
        b = {n: (v + step * rng.choice([-1, 1], v.shape) * rng.uniform(0.7, 1, v.shape)).astype(np.float32)
             for n, v in lossy.items()}  # fmt: skip
        never_the_other_way(lossy, b)


@pytest.mark.parametrize("change", [nearest(8, 32), nearest(8, 128), nearest(4, 32)])
def test_a_direction_taken_out_before_rounding_is_no_training_backwards(change: Callable[[Any], Any]) -> None:
    """A - B is orthogonal to B, as if A had been trained on from B; but most matrices of B are A's on a grid."""
    a = decoder(23, layers=6, d=128, h=384, vocabulary=400)
    v = np.random.default_rng(23).standard_normal(128)
    v /= np.linalg.norm(v)

    def ablated(x: np.ndarray) -> np.ndarray:
        return np.asarray(x - np.outer(v, v @ x), np.float32)

    b = {n: ablated(x) if "o_proj" in n or "down_proj" in n else x for n, x in a.items()}
    never_the_other_way(a, in_blocks(b, change))


@pytest.mark.slow
def test_parents_in_codes_and_their_children() -> None:
    """Stored as bare FP8 codes beside norms in bfloat16."""
    root = decoder(22, layers=2)
    scale = {n: np.float32(np.abs(v).max() / 448) for n, v in root.items()}
    lossy: Arrays = {
        n: (v / scale[n]).astype(ml_dtypes.float8_e4m3fn) if "_proj" in n else v.astype(ml_dtypes.bfloat16)
        for n, v in root.items()
    }
    names_the_later(root, lossy, "rounded", same_values)
    decoded = {n: v.astype(np.float32) * (scale[n] if "_proj" in n else 1) for n, v in lossy.items()}
    for size in (0.0003, 0.003, 0.05):
        for frozen in FROZEN.values():
            never_the_other_way(lossy, trained(decoded, size, frozen))


@pytest.mark.parametrize("added", [12, 56])
def test_padded_vocabularies(added: int) -> None:
    """A parent whose table was rounded up to a multiple, and a child without the padding, trained on or not."""
    rng, a = np.random.default_rng(23), decoder(23, vocabulary=200 if added == 56 else 244)
    for fill in (0.0, 1e-3):
        padded = vocabulary(
            a, lambda t, fill=fill: np.concatenate([t, fill * t.std() * rng.standard_normal((added, t.shape[1]))])
        )
        says_nothing(padded, a)
        for size in (0.001, 0.05):
            never_the_other_way(padded, trained(a, size))
            never_the_other_way(padded, trained(a, size, ("embed",)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_low_rank(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    a = {n: v.astype(dtype) for n, v in decoder(3, layers=6).items()}

    def merged(x: np.ndarray) -> np.ndarray:
        y = x.astype(np.float64)
        low = rng.standard_normal((y.shape[0], 3)) @ rng.standard_normal((3, y.shape[1]))
        return (y + 0.3 * y.std() / low.std() * low).astype(dtype)

    names_the_later(a, in_blocks(a, merged, "q_proj"), "rank 3 to 3 in 6 matrices")
    never_the_other_way(
        a, in_blocks(a, lambda x: (x + rng.standard_normal(x.shape) * 0.1 * x.astype(np.float32).std()).astype(dtype))
    )


def vocabulary(x: Arrays, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {n: change(v).astype(v.dtype) if "embed" in n else v for n, v in x.items()}


def untrained(x: Arrays) -> Arrays:
    """Independent draws in place of every matrix."""
    rng = np.random.default_rng(40)
    return {n: (0.02 * rng.standard_normal(v.shape)).astype(v.dtype) if v.ndim == 2 else v for n, v in x.items()}


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
    # The old table loads on the directions that the blocks read; in blocks of white noise none does.
    names_the_later(a, vocabulary(a, lambda t: rng.standard_normal((150, t.shape[1]))), "drawn anew")
    blank = untrained(a)
    says_nothing(blank, vocabulary(blank, lambda t: rng.standard_normal((150, t.shape[1]))))


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

    def pruned(x: Arrays) -> Arrays:
        return {n: np.take(v, np.arange(100), int("down" in n)) if ".mlp." in n else v for n, v in x.items()}

    names_the_later(a, pruned(a), "taken out")  # they load on the directions of the others
    says_nothing(untrained(a), pruned(untrained(a)))


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
        return direction(gather(models(a, b), {"unit_agreement": e}))

    assert ask(dense, moe, evidence).later == "b"
    assert ask(moe, dense, swapped(evidence)).later == "a"
    assert ask(moe, mean, swapped(evidence)).later == "b"
    assert ask(mean, moe, evidence).later == "a"
    assert ask(experts[2], moe, evidence).later == "a"
    split = matched(*[((i, e), (i, None), range(25 * e, 25 * e + 40 - 15)) for i in range(4) for e in range(4)])
    assert ask(dense, moe, replace(split, matches=tuple(replace(m, tested=26) for m in split.matches))).later is None


def test_repeated_blocks() -> None:
    a = decoder(7, layers=4)
    deep = {n: v for n, v in a.items() if ".layers." not in n}
    order = [0, 1, 2, 1, 2, 3]
    for new, old in enumerate(order):
        deep |= {n.replace(f".layers.{old}.", f".layers.{new}."): v for n, v in a.items() if f".layers.{old}." in n}
    evidence = matched(*[((new, None), (old, None), range(80)) for new, old in enumerate(order)])
    found = direction(gather(models(a, deep), {"unit_agreement": evidence}))
    assert found.later == "b"
    assert "2 blocks of B repeat" in found.because
    assert direction(gather(models(deep, a), {"unit_agreement": swapped(evidence)})).later == "a"
    assert "taken out" not in found.because
    dropped = matched(((0, None), (0, None), range(80)), ((1, None), (3, None), range(80)))
    assert direction(gather(models(a, a), {"unit_agreement": dropped})).later is None


def test_repeats_far_from_what_they_repeat() -> None:
    """Few of many blocks are looked at; repeats are known by all of their values, without evidence from units."""
    a = decoder(8, layers=12)
    deep = relayered(a, [*range(12), 1, 2])
    names_the_later(a, deep, "repeat")


def test_neighbours_that_resemble_each_other_repeat_nothing() -> None:
    """Blocks 1 and 2 of the deeper model are both found in block 1 of the other, and are not each other's copies."""
    deep, shallow = decoder(7, layers=4), decoder(7, layers=3)
    evidence = matched(*[((b, None), (a, None), range(80)) for b, a in ((0, 0), (1, 1), (2, 1), (3, 2))])
    assert direction(gather(models(shallow, deep), {"unit_agreement": evidence})).later is None
    assert direction(gather(models(deep, shallow), {"unit_agreement": swapped(evidence)})).later is None


def test_own_directions_claim_nothing() -> None:
    """The mean of a child and its parent looks like what the child was trained on from: a hint, no claim."""
    rng, a = np.random.default_rng(24), decoder(24)
    b = {}
    for n, v in a.items():
        shape = (len(v), 3), (3, v.shape[-1])
        change = rng.standard_normal(shape[0]) @ rng.standard_normal(shape[1]) if v.ndim == 2 else np.float64(0)
        b[n] = (v + v.std() * (change + 0.02 * rng.standard_normal(v.shape) * (v.ndim == 2))).astype(np.float32)
    mean = {n: ((a[n] + b[n]) / 2).astype(np.float32) for n in a}
    for found in both_ways(mean, b, same_values, training_shared):
        assert found.later is None
        assert "mean of" in found.because
    for found in both_ways(a, b, same_values, training_shared):
        assert found.later is None


def test_symmetric_changes_and_strangers_have_none() -> None:
    a = decoder(8)
    for rho in (0.5, 0.9, 0.999):
        never_the_other_way(a, child(a, rho))
    says_nothing(a, a)
    says_nothing(a, decoder(9))
    rng = np.random.default_rng(8)
    sparse = in_blocks(a, lambda x: np.where(rng.random(x.shape) < 0.1, x + 0.2 * x.std(), x).astype(np.float32))
    never_the_other_way(a, sparse)


def test_signs_that_contradict_mean_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    a = decoder(10)
    pruned = in_blocks(a, half_pruned)
    swap = vocabulary(a, lambda t: np.concatenate([t, np.zeros((20, t.shape[1]))]))
    found = direction(gather(models(swap, pruned), {}))
    assert (found.later, found.relation) == (None, "siblings")
    assert "zero in" in found.because
    both = in_blocks(swap, half_pruned)
    assert direction(gather(models(a, both), {})).confidence == 0.97
    monkeypatch.setattr(module, "SIGNS", (*SIGNS, Sign("none", lambda seen: Cue("a", 0.6, f"{len(seen.evidence)}"))))
    assert direction(gather(models(a, both), {})).later is None


def test_related_matrices_only() -> None:
    a, b = decoder(11), in_blocks(decoder(12), half_pruned)
    assert not Seen(models(a, b), {}).samples
    says_nothing(a, b)
