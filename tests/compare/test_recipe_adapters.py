"""Adapters as parents: folded into a model or not, at which scale; and adapters against adapters, however factored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from merges import CONFIG, Model, root, tuned
from weightprint.anatomy.adapters.adapters import read_adapter
from weightprint.cli import cli
from weightprint.compare.adapter_mixes import canonical, ranks

RANK, ALPHA = 4, 8
S = ALPHA / RANK
MODULES = [f"model.layers.{n}.self_attn.{r}_proj" for n in range(6) for r in "qv"]

Factors = dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def drawn(seed: int, size: float = 0.05) -> Factors:
    """Module → (B, A)."""
    rng = np.random.default_rng([seed, 3])
    return {m: (size * rng.standard_normal((32, RANK)), rng.standard_normal((RANK, 32)) * 0.2) for m in MODULES}


def merged(model: Model, factors: Factors, scale: float = 1.0) -> Model:
    made = dict(model)
    for module, (b, a) in factors.items():
        made[module + ".weight"] = (model[module + ".weight"] + scale * S * (b @ a)).astype(np.float32)
    return made


@pytest.fixture
def write(save: Any) -> Any:
    def write(name: str, model: Model | None = None, factors: Factors | None = None, dtype: Any = np.float32) -> Path:
        tensors, file, config = {}, "model", dict(CONFIG)
        if factors is not None:
            file, config = (
                "adapter_model",
                {"peft_type": "LORA", "r": len(next(iter(factors.values()))[1]), "lora_alpha": ALPHA},
            )
            for module, (b, a) in factors.items():
                tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
                tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b, np.float32)
        path: Path = save(
            f"{name}/{file}.safetensors", tensors or {n: x.astype(dtype) for n, x in (model or {}).items()}
        )
        path.with_name("adapter_config.json" if factors else "config.json").write_text(json.dumps(config))
        return path.parent

    return write


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.4, -1.0])
def test_a_merged_adapter_with_its_scale(write: Any, dtype: Any, scale: float) -> None:
    base = {n: x.astype(dtype).astype(np.float32) for n, x in root(0).items()}
    folders = write("base", base, dtype=dtype), write("lora", factors=drawn(1))
    found = weightprint.recipe(write("child", merged(base, drawn(1), scale), dtype=dtype), folders)
    assert (found.explained, found.answer) == (True, True)
    (told,) = found.adapters
    assert told.present
    assert told.scale == pytest.approx(scale, abs=0.02)
    assert told.low - 0.02 <= scale <= told.high + 0.02
    assert told.explains > 0.95
    assert f"lora is folded into it at scale {told.scale:.3f}" in " ".join(str(found).split())


def test_another_adapter_is_not_in_it(write: Any) -> None:
    base = root(0)
    child, one = write("child", merged(base, drawn(1))), write("base", base)
    for other in (drawn(2), {m: (drawn(2)[m][0], a) for m, (_, a) in drawn(1).items()}):  # the second has A in common
        (told,) = weightprint.recipe(child, [one, write("other", factors=other)]).adapters
        assert not told.present
    both = weightprint.recipe(child, [one, write("lora", factors=drawn(1)), write("other", factors=drawn(2))])
    assert [fit.present for fit in both.adapters] == [True, False]
    assert not both.answer
    (told,) = weightprint.recipe(one, [one, write("lora", factors=drawn(1))]).adapters
    assert (told.present, round(told.scale, 6)) == (False, 0)


def test_merged_and_then_trained_on(write: Any) -> None:
    base = root(0)
    child = tuned(merged(base, drawn(1)), 5, 0.05)
    found = weightprint.recipe(write("child", child), [write("base", base), write("lora", factors=drawn(1))])
    (told,) = found.adapters
    assert (found.explained, told.present, found.answer) == (False, True, True)
    assert told.scale == pytest.approx(1, abs=0.1)


def test_an_adapter_needs_its_base(write: Any) -> None:
    base = write("base", root(0))
    with pytest.raises(weightprint.UsageError, match="name its base too"):
        weightprint.recipe(base, [write("lora", factors=drawn(1))])
    with pytest.raises(weightprint.UsageError, match="give adapters alone as parents"):
        weightprint.recipe(write("lora", factors=drawn(1)), [base])


def turned(factors: Factors, seed: int, scale: float) -> Factors:
    """The same updates times a scale, factored otherwise."""
    rng = np.random.default_rng(seed)
    made = {}
    for module, (b, a) in factors.items():
        m = rng.standard_normal((RANK, RANK))
        made[module] = (scale * b @ np.linalg.inv(m), m @ a)
    return made


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_same_adapter_factored_otherwise(write: Any, scale: float) -> None:
    one = write("one", factors=drawn(1))
    found = weightprint.recipe(write("two", factors=turned(drawn(1), 4, scale)), [one])
    assert found.method == ("copy" if scale == 1 else "linear")
    assert found.weights[0].value == pytest.approx(scale, abs=1e-4)
    assert all("rank 4 as stored, 4 in effect" in note for note in found.notes)
    other = {m: (drawn(9)[m][0], a) for m, (_, a) in drawn(1).items()}
    assert not weightprint.recipe(write("other", factors=other), [one]).explained


def test_a_mix_of_adapters(write: Any) -> None:
    """PEFT's "cat": factors beside each other, the weights in B."""
    first, second = drawn(1), drawn(2)
    made = {
        m: (np.hstack([0.7 * first[m][0], 0.3 * second[m][0]]) * 2, np.vstack([first[m][1], second[m][1]]))
        for m in MODULES  # alpha / r is half of theirs
    }
    parents = [write("one", factors=first), write("two", factors=second)]
    found = weightprint.recipe(write("cat", factors=made), parents)
    assert found.method == "linear"
    assert [w.value for w in found.weights] == pytest.approx([0.7, 0.3], abs=1e-4)
    assert not weightprint.recipe(write("cat", factors=made), parents[:1]).explained


def test_canonical_form_is_the_decomposition_of_the_product(write: Any) -> None:
    adapter = read_adapter(write("one", factors=drawn(1)))
    for update in adapter.updates.values():
        u, sigma, vt = canonical(update, adapter)
        b, a = (np.float32(x).astype(np.float64) for x in drawn(1)[update.module])
        assert u.shape == (32, RANK)
        np.testing.assert_allclose(u @ np.diag(sigma) @ vt, S * b @ a, atol=1e-12)
        np.testing.assert_allclose(sigma, np.linalg.svd(S * b @ a)[1][:RANK], atol=1e-12)
    thin = {m: (np.hstack([b[:, :2], b[:, :2]]), a) for m, (b, a) in drawn(1).items()}
    assert ranks(read_adapter(write("thin", factors=thin))) == (4, 2)


def test_exit_codes(write: Any) -> None:
    base = root(0)
    child, one, lora = write("child", merged(base, drawn(1))), write("base", base), write("lora", factors=drawn(1))
    other = write("other", factors=drawn(2))

    def code(*models: Path) -> int:
        return CliRunner().invoke(cli, ["recipe", *map(str, models)]).exit_code

    assert [code(child, one, lora), code(child, one, other), code(child, lora)] == [0, 1, 2]


def test_compare_sees_through_factors(write: Any) -> None:
    one, other = write("one", factors=drawn(1)), write("other", factors=turned(drawn(1), 4, 0.5))
    found = weightprint.compare(one, other)
    assert found.mix is not None
    assert (found.mix.method, round(found.mix.weights[0].value, 4)) == ("linear", 0.5)
    assert weightprint.compare(one, one).verdict == "identical"


def test_equal_first_factors_are_one_random_start_and_no_more(write: Any) -> None:
    """One seed draws A alike, and LoRA-FA never trains it."""
    one = write("one", factors=drawn(1))
    same_start = {m: (drawn(2)[m][0], a) for m, (_, a) in drawn(1).items()}
    found = weightprint.compare(one, write("other", factors=same_start))
    assert found.verdict == "shared_initialisation"
    assert found.mix is not None
    assert not found.mix.explained
    shared_b = {m: (b, drawn(2)[m][1]) for m, (b, _) in drawn(1).items()}
    assert weightprint.compare(one, write("trained", factors=shared_b)).verdict == "partly_shared"
