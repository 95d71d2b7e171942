"""Work grows with the number of tensors and no faster: calls of every function are counted at n and at 4 n tensors.

No time is measured. A loop over all tensors inside a loop over all tensors makes 16 times as many calls; what is done
once per tensor makes 4 times as many, and a few more where a table outgrows a bound.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint.anatomy.infer.blocks import periodic
from weightprint.anatomy.infer.infer import infer
from weightprint.anatomy.infer.name_hints import WORDS, _hint, hint, hint_among
from weightprint.evidence.lookup.channel_sums import _sample_experts
from weightprint.evidence.pairing import pair_tensors
from weightprint.evidence.rounding.encodings import _unlike, rounded
from weightprint.fingerprint.build import outlined
from weightprint.quant.weights import Weights
from weightprint.report.inspect import inspect_dict, lines
from weightprint.util.beginnings import Beginnings

Tensors = Iterator[tuple[str, tuple[int, ...]]]

_N = 80
_FASTER = 7  # times as many calls for 4 times the tensors
_FEW = 10  # calls per tensor: fewer are of no weight


def _experts(n: int) -> Tensors:
    for layer in range(2):
        for expert in range(n // 6):
            for module in ("gate_proj", "up_proj", "down_proj"):
                yield f"model.layers.{layer}.mlp.experts.{expert}.{module}.weight", (4, 4)


def _flat(n: int) -> Tensors:
    yield from ((f"t{k:06d}", (4, 5)) for k in range(n))


def _prefixes(n: int) -> Tensors:
    yield from ((f"p{7 * k}x{k % 13}.block{k % 7}.weight{k % 3}", (4, 5)) for k in range(n))


def _models(n: int) -> Tensors:
    """Many models that the table knows, each under its own prefix."""
    for model in range(n // 16):
        for block in range(2):
            for module in (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.up_proj",
            ):
                yield f"m{model}.model.layers.{block}.{module}.weight", (8, 8)
            yield f"m{model}.model.layers.{block}.mlp.gate_proj.weight", (8, 8)
            yield f"m{model}.model.layers.{block}.mlp.down_proj.weight", (8, 8)
        yield f"m{model}.model.norm.weight", (8,)
        yield f"m{model}.model.embed_tokens.weight", (40, 8)


def _stacks(n: int) -> Tensors:
    """Many stacks of blocks that no row of the table knows."""
    for stack in range(n // 12):
        for block in range(2):
            for word, shape in (("wa", (8, 8)), ("wb", (24, 8)), ("wc", (8, 24)), ("ln", (8,)), ("lm", (8,))):
                yield f"net{stack}_.blk.{block}.{word}.weight", shape
        yield f"net{stack}_.embed.weight", (40, 8)
        yield f"net{stack}_.fin.weight", (8,)


SHAPES = (_experts, _flat, _prefixes, _models, _stacks)
Make = Callable[[int, int], Path]


def _values(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if kind == "equal":
        return np.ones(shape, np.float32)
    values = rng.standard_normal(shape, np.float32)
    return values.astype(ml_dtypes.float8_e4m3fn) if kind == "fp8" else values


@pytest.fixture
def make(save: Any) -> Callable[[Callable[[int], Tensors], str], Make]:
    def of(names: Callable[[int], Tensors], kind: str) -> Make:
        def model(n: int, seed: int) -> Path:
            rng = np.random.default_rng(seed)
            tensors = {name: _values(kind, rng, shape) for name, shape in names(n)}
            if kind == "fp8":
                tensors |= {
                    f"{name}_scale_inv": np.ones((1, 1), np.float32) for name, x in tensors.items() if x.ndim == 2
                }
            return Path(save(f"{names.__name__}-{kind}-{n}-{seed}.safetensors", tensors))

        return model

    return of


def _inspect(make: Make, n: int) -> None:
    model = weightprint.anatomy(make(n, 0))
    list(lines(model.checkpoint, model))
    list(lines(model.checkpoint, model, tensors=True))
    inspect_dict(model.checkpoint, model)


def _stats(make: Make, n: int) -> None:
    model = weightprint.anatomy(make(n, 0))
    weightprint.scan(model).to_dict()
    weightprint.scan(model, of="canonical")


def _check(make: Make, n: int) -> None:
    str(weightprint.check(make(n, 0)))


def _in_pairs(model: Path) -> bool:
    """The blocks grow with the tensors: each of one model is looked for in each of the other, up to the budget."""
    return "_models" in model.name or "_stacks" in model.name


def _fingerprint(make: Make, n: int) -> None:
    a, b = (weightprint.fingerprint(make(n, seed)) for seed in (0, 1))
    weightprint.diff(a, b)
    if not _in_pairs(Path(a.source)):
        weightprint.compare(a, b)


def _same(make: Make, n: int) -> None:
    a = make(n, 0)
    weightprint.diff(a, a).to_json()
    if not _in_pairs(a):
        weightprint.compare(a, a).to_json()


def _strangers(make: Make, n: int) -> None:
    a, b = make(n, 0), make(n, 1)
    weightprint.diff(a, b).to_json()
    if not _in_pairs(a):
        weightprint.compare(a, b).to_json()


def _calls(run: Callable[[], None]) -> dict[tuple[str, int, str], int]:
    _hint.cache_clear()  # names that were seen at n would be free at 4 n
    profile = cProfile.Profile()
    profile.runcall(run)
    return {function: told[1] for function, told in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]


def _growing(run: Callable[[Make, int], None], make: Make) -> list[str]:
    """The functions that are called more than `_FASTER` times as often for 4 times the tensors."""
    run(make, _N)  # so that what is made once is made
    few, many = (_calls(lambda n=n: run(make, n)) for n in (_N, 4 * _N))  # type: ignore[misc]
    found = [(f, few.get(f, 0), n) for f, n in many.items() if n > 4 * _N * _FEW]
    return [f"{f[0]}:{f[1]} {f[2]}: {was} → {n}" for f, was, n in found if n > _FASTER * max(was, _N)]


@pytest.mark.parametrize("run", [_inspect, _stats, _check, _fingerprint, _same, _strangers])
@pytest.mark.parametrize("names", SHAPES)
def test_calls_grow_with_the_tensors(make: Any, names: Any, run: Any) -> None:
    assert _growing(run, make(names, "normal")) == []


@pytest.mark.parametrize("run", [_inspect, _check, _same, _strangers])
@pytest.mark.parametrize("kind", ["equal", "fp8"])
def test_calls_grow_with_the_tensors_of_other_kinds(make: Any, kind: str, run: Any) -> None:
    assert _growing(run, make(_experts if kind == "fp8" else _flat, kind)) == []


def test_the_count_sees_a_loop_inside_a_loop(make: Any) -> None:
    def square(model: Make, n: int) -> None:
        names = [name for name, _ in _flat(n)]
        for name in names:
            for other in names:
                name.startswith(other)

    assert any("startswith" in line for line in _growing(square, make(_flat, "normal")))


def test_a_plain_tensor_is_looked_up_once(make: Any) -> None:
    path = make(_experts, "normal")(_N, 0)
    with weightprint.open(path) as model:
        calls = _calls(lambda: Weights(model))  # type: ignore[arg-type,return-value]
        assert sum(n for (_, _, name), n in calls.items() if name == "_info") == len(model)
        assert sum(n for (_, _, name), n in calls.items() if name == "_group") == 0


def test_a_name_that_words_alone_place_is_found_among_many() -> None:
    names = [f"odd{k}" for k in range(50)] + ["token_embedding.weight"]
    shapes = {name: (40, 8) if name == names[-1] else (3, 5, 7) for name in names}
    assert [(a.view.weight, a.place.role) for a in infer(shapes, names, [])] == [(names[-1], "embedding")]


def test_beginnings_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(3)
    strings = ["".join(rng.choice(list("ab."), rng.integers(0, 6))) for _ in range(200)]
    found = Beginnings(strings)
    for text in {*strings, "a.b.a.b", "zz", ""}:
        assert sorted(found.of(text)) == [k for k, s in enumerate(strings) if s.startswith(text)]
        common = [
            next((i for i, (x, y) in enumerate(zip(s, text, strict=False)) if x != y), min(len(s), len(text)))
            for s in strings
        ]
        assert found.nearest(text) == common.index(max(common))


def test_words_of_some_roles_are_those_of_all() -> None:
    """A glance at the words of a few roles says what the whole table says, for every role and its bias."""
    names = ["x.rope_freqs", "token_embedding.weight", "norm.weight", "pooler.bias", "tensor_1000", "running_mean"]
    names += [f"head.{word}.bias" for word, _ in WORDS] + [f"a{k}.weight" for k in range(20)]
    some = frozenset({"fixed", "statistics", "embedding", "head", "pooler", "final_norm"})
    for name in names:
        word = hint(name)
        wanted = word if word is not None and word.removesuffix("_bias") in some else None
        assert hint_among(name, some) == wanted, name


def _period_by_search(ids: list[int]) -> tuple[int, int, int] | None:
    """The longest exactly repeating run, every period and start looked at."""
    best, n = None, len(ids)
    for p in range(2, n // 2 + 1):
        runs = [next((k for k in range(n - p - i) if ids[i + k] != ids[i + k + p]), n - p - i) for i in range(n - p)]
        i = max(range(n - p), key=lambda i: runs[i])
        length = runs[i] + p if runs[i] else 0
        if (
            length >= 2 * p
            and len(set(ids[i : i + p])) >= 3
            and (best is None or length // p * p > best[2] // best[1] * best[1])
        ):
            best = i, p, length
    return best if best is not None and best[2] // best[1] * best[1] >= 0.6 * n else None


def test_periods_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(150):
        p, n, before, behind = rng.integers(2, 9), rng.integers(2, 7), rng.integers(0, 14), rng.integers(0, 14)
        unit = rng.integers(0, 4, p)
        ids = [*rng.integers(0, 4, before), *np.tile(unit, n), *rng.integers(0, 4, behind)]
        if rng.random() < 0.3:
            ids[rng.integers(0, len(ids))] = 9
        shapes = [(int(k), 1) for k in ids]
        if len(set(shapes)) < 3:
            continue
        wanted = _period_by_search([int(k) for k in ids])
        assert periodic(shapes) == wanted
        found += wanted is not None
    assert found > 30


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_what_a_factor_makes_is_never_unlike(dtype: str) -> None:
    rng = np.random.default_rng(6)
    for scale in (1e-3, 1.0, 1e3):
        x = np.asarray(scale * rng.standard_normal((4, 8)), np.float32)
        for factor in (-1.7, 0.3, 1.0, 2.0, 19.0):
            y = rounded(np.asarray(x * np.float32(factor)), dtype)
            assert y is not None
            assert not _unlike(x, y[0])
        assert _unlike(x, np.asarray(scale * rng.standard_normal((4, 8)), np.float32))
        x[0, 0] = np.nan
        assert not _unlike(x, -np.abs(x))


def test_experts_are_sampled_in_every_block(make: Any) -> None:
    """Of many matrices a few of every block and role speak, and what is no expert's always does."""
    a, b = (
        outlined(weightprint.open(make(_experts, "normal")(400, seed)), side).side
        for seed, side in ((0, "a"), (1, "b"))
    )
    pairs, _ = pair_tensors(a, b, values=False)
    usable = [(pair, 1) for pair in pairs if pair.a.rank2]
    left_out: dict[str, str] = {}
    kept = _sample_experts(usable, 60, left_out)
    assert _sample_experts(usable, len(usable), {}) == usable
    assert len(kept) <= max(60, len({(p.known.region, p.known.key[1]) for p, _ in usable}) + 60)
    assert {(p.known.region, p.known.key[1]) for p, _ in kept} == {(p.known.region, p.known.key[1]) for p, _ in usable}
    assert len(kept) + len(left_out) == len(usable)
    assert len(left_out) > 0
