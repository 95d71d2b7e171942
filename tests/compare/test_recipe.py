"""Recipes: known merges of small models, their methods and parameters, and what is said where a parent is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from merges import D, Model, combined, config_of, dare, linear, root, shapes, slerp, stacked, ties, tuned
from weightprint.compare.recipe import Recipe

TYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}


@pytest.fixture
def write(save: Any) -> Any:
    def write(name: str, model: Model, dtype: str = "F32") -> Path:
        path: Path = save(f"{name}/model.safetensors", {n: x.astype(TYPES[dtype]) for n, x in model.items()})
        path.with_name("config.json").write_text(json.dumps(config_of(model)))
        return path.parent

    return write


def stored(model: Model, dtype: str) -> Model:
    """As it comes back from a file."""
    return {n: x.astype(TYPES[dtype]).astype(np.float32) for n, x in model.items()}


def weights(recipe: Recipe) -> dict[str, float]:
    return {Path(w.parent).name: w.value for w in recipe.weights}


def scales(recipe: Recipe, key: str = "scales") -> dict[str, float]:
    return {Path(name).name: value for name, value in recipe.parameters[key].items()}


@pytest.fixture(params=["F32", "BF16"])
def family(request: Any, write: Any) -> Any:
    """A root, two that were trained on from it, a stranger, as stored in one type; and how to make a child of them."""
    dtype = request.param
    base = stored(root(0), dtype)
    models = {"base": base, "a": stored(tuned(base, 1), dtype), "b": stored(tuned(base, 2), dtype)}
    models["s"] = stored(root(9), dtype)
    paths = {name: write(name, model, dtype) for name, model in models.items()}

    def child(made: Model) -> Path:
        return write("child", made, dtype)  # type: ignore[no-any-return]

    return models, paths, child


@pytest.mark.parametrize("w", [(0.5, 0.5), (0.7, 0.3), (0.95, 0.05)])
@pytest.mark.parametrize("second", ["b", "s"])
def test_linear_merges_of_siblings_and_of_strangers(family: Any, w: tuple[float, float], second: str) -> None:
    models, paths, child = family
    found = weightprint.recipe(child(linear([models["a"], models[second]], w)), [paths["a"], paths[second]])
    assert (found.method, found.explained, found.sum_to_one) == ("linear", True, True)
    assert weights(found) == pytest.approx({"a": w[0], second: w[1]}, abs=0.005)
    assert found.unknown_origin == 0
    for one, true in zip(found.weights, w, strict=True):
        assert one.low is not None
        assert one.high is not None
        assert one.low - 0.003 <= true <= one.high + 0.003


def test_weights_that_sum_to_more_than_one_are_fitted_free(family: Any) -> None:
    models, paths, child = family
    found = weightprint.recipe(child(linear([models["a"], models["s"]], (0.7, 0.5))), [paths["a"], paths["s"]])
    assert (found.method, found.sum_to_one) == ("linear", False)
    assert weights(found) == pytest.approx({"a": 0.7, "s": 0.5}, abs=0.005)


def test_a_gradient_of_weights_is_told_layer_by_layer(family: Any) -> None:
    models, paths, child = family
    course = np.linspace(0.1, 0.9, 6)

    def combine(name: str, xs: Any) -> Any:
        n = int(name.split(".")[2]) if "layers" in name else None
        w = 0.5 if n is None else course[n]
        return (1 - w) * xs[0] + w * xs[1]

    found = weightprint.recipe(child(combined([models["a"], models["b"]], combine)), [paths["a"], paths["b"]])
    assert found.method == "linear"
    assert [mix.weights[1] for mix in found.layers] == pytest.approx(course.tolist(), abs=0.01)
    lists = re.findall(r"weight: (\[.*\])", str(found.mergekit()))
    assert json.loads(lists[1]) == pytest.approx(course.tolist(), abs=0.01)


@pytest.mark.parametrize(("first", "last"), [(0.5, 0.5), (0.2, 0.8)])
@pytest.mark.parametrize("second", ["b", "s"])
def test_slerp_is_told_from_linear_by_the_norm(family: Any, first: float, last: float, second: str) -> None:
    models, paths, child = family
    course = np.linspace(first, last, 6)
    made = slerp(models["a"], models[second], lambda n: float(course.mean() if n is None else course[n]))
    found = weightprint.recipe(child(made), [paths["a"], paths[second]])
    assert found.method == "slerp"
    assert [t for *_, t in found.parameters["t_by_layer"]] == pytest.approx(course.tolist(), abs=0.01)
    assert found.parameters["slope"] == pytest.approx((last - first) / 5, abs=0.003)
    assert (found.parameters["t"] is None) == (first != last)
    assert [mix.t for mix in found.layers] == [row[2] for row in found.parameters["t_by_layer"]]


@pytest.mark.parametrize("lambdas", [(0.8, 0.6), (1.0, 1.0), (0.3, 0.3)])
def test_task_arithmetic_over_a_base(family: Any, lambdas: tuple[float, float]) -> None:
    models, paths, child = family
    made = linear([models["base"], models["a"], models["b"]], (1 - sum(lambdas), *lambdas))
    found = weightprint.recipe(child(made), [paths["a"], paths["b"]], base=paths["base"])
    assert found.method == "task_arithmetic"
    assert scales(found) == pytest.approx({"a": lambdas[0], "b": lambdas[1]}, abs=0.01)
    told = str(found.mergekit())
    assert f'base_model: "{paths["base"]}"' in told
    if sum(lambdas) > 1:  # the one below zero is the base, told or not
        assert weightprint.recipe(child(made), [paths["base"], paths["a"], paths["b"]]).base == str(paths["base"])


@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.5, 0.6)])
def test_ties_with_its_density_and_scale(family: Any, density: float, scale: float) -> None:
    models, paths, child = family
    made = ties(models["base"], [models["a"], models["b"]], density, scale)
    found = weightprint.recipe(child(made), [paths["base"], paths["a"], paths["b"]])
    assert (found.method, found.base, found.parameters["normalize"]) == ("ties", str(paths["base"]), True)
    assert scales(found, "density") == pytest.approx({"a": density, "b": density}, abs=0.02)
    assert scales(found) == pytest.approx({"a": scale, "b": scale}, abs=0.02)


@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize(("drop", "w"), [(0.5, (0.5, 0.5)), (0.9, (0.7, 0.4))])
def test_dare_with_its_density_and_factors(family: Any, drop: float, w: tuple[float, float], elect: bool) -> None:
    models, paths, child = family
    made = dare(models["base"], [models["a"], models["b"]], drop, w, elect)
    found = weightprint.recipe(child(made), [paths["a"], paths["b"]], base=paths["base"])
    assert found.method == ("dare_ties" if elect else "dare_linear")
    assert list(scales(found, "factors").values()) == pytest.approx([x / (1 - drop) for x in w], rel=0.01)
    if not elect:  # an election takes entries that were kept
        assert list(scales(found, "density").values()) == pytest.approx([1 - drop] * 2, abs=0.02)


def test_dare_of_one_model(family: Any) -> None:
    models, paths, child = family
    found = weightprint.recipe(child(dare(models["base"], [models["a"]], 0.8, [1.0])), [paths["a"]], base=paths["base"])
    assert found.method == "dare_linear"
    assert scales(found, "density") == pytest.approx({"a": 0.2}, abs=0.02)


def test_passthrough_with_repeats_of_strangers(family: Any) -> None:
    models, paths, child = family
    made = stacked([(models["a"], [0, 1, 2, 3]), (models["s"], [2, 3, 4]), (models["a"], [3, 4, 5])])
    found = weightprint.recipe(child(made), [paths["a"], paths["s"]])
    assert found.method == "passthrough"
    told = [(Path(m.source[0]).name, int(m.source[1].split(".")[1])) for m in found.layers if m.source]
    assert told == [*(("a", n) for n in (0, 1, 2, 3)), *(("s", n) for n in (2, 3, 4)), *(("a", n) for n in (3, 4, 5))]
    assert weights(found) == pytest.approx({"a": 0.7, "s": 0.3})
    assert str(found.mergekit()).count("layer_range") == 3


def test_layers_of_a_stranger_that_is_not_given_are_of_unknown_origin(family: Any) -> None:
    models, paths, child = family
    found = weightprint.recipe(child(stacked([(models["a"], [0, 1, 2, 3]), (models["s"], [2, 3])])), [paths["a"]])
    assert not found.explained
    assert found.unknown_origin == pytest.approx(1 / 3, abs=0.02)
    assert "33 % of the weights are of unknown origin" in " ".join(str(found).split())


def test_what_no_parent_has_a_place_for_is_said_and_is_no_other_origin(family: Any) -> None:
    """Attention of the parent, its FFNs made experts: the attention is the parent's all the same."""
    models, paths, child = family
    made = {n: x for n, x in models["a"].items() if ".mlp." not in n}
    for name, x in models["a"].items():
        if ".mlp." in name:
            made |= {name.replace(".mlp.", f".mlp.experts.{e}."): x for e in range(2)}
            made[f"{name.partition('.mlp.')[0]}.mlp.gate.weight"] = np.ones((2, D), np.float32)
    found = weightprint.recipe(child(made), [paths["a"]])
    assert found.unknown_origin == 0
    assert [mix.weights[0] for mix in found.layers] == pytest.approx([1.0] * len(found.layers))
    assert any("no parent has a tensor in the place of" in note for note in found.notes)


def test_a_stranger_averaged_in_is_named_or_missed(family: Any) -> None:
    models, paths, child = family
    made = child(linear([models["a"], models["s"]], (0.7, 0.3)))
    found = weightprint.recipe(made, [paths["a"]])
    assert not found.explained
    assert found.unknown_origin == pytest.approx(0.3, abs=0.02)
    # A stranger that is not in it gets no weight.
    assert weights(weightprint.recipe(made, [paths["a"], paths["s"]])) == pytest.approx({"a": 0.7, "s": 0.3}, abs=0.01)


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic", "ties", "dare"])
def test_a_missing_parent_is_said(family: Any, method: str) -> None:
    models, paths, child = family
    base, a, b = (models[name] for name in ("base", "a", "b"))
    made = {
        "linear": lambda: linear([a, b], (0.7, 0.3)),
        "slerp": lambda: slerp(a, b, lambda _: 0.4),
        "task_arithmetic": lambda: linear([base, a, b], (-0.4, 0.8, 0.6)),
        "ties": lambda: ties(base, [a, b], 0.3, 1.0),
        "dare": lambda: dare(base, [a, b], 0.8, (0.5, 0.5)),
    }[method]()
    found = weightprint.recipe(child(made), [paths["a"]], base=paths["base"])
    assert (found.explained, found.mergekit()) == (False, None)
    assert found.unexplained > 0.02
    assert "A parent is missing" in str(found)


def test_a_copy_and_a_rounded_copy(family: Any, write: Any) -> None:
    models, paths, _ = family
    for dtype in TYPES:
        found = weightprint.recipe(write("copy", models["a"], dtype), [paths["base"], paths["a"]])
        assert (found.method, found.parameters["parent"]) == ("copy", str(paths["a"]))


def test_a_float32_file_of_bfloat16_values_is_rounded_as_these(write: Any) -> None:
    """mergekit computes in bfloat16 and may save in float32."""
    a, b = (stored(root(seed), "BF16") for seed in (1, 2))
    made = stored(linear([a, b], (0.6, 0.4)), "BF16")
    found = weightprint.recipe(write("child", made), [write("a", a), write("b", b)])
    assert found.method == "linear"


def test_merged_then_trained_on_keeps_its_weights_and_is_not_called_explained(family: Any) -> None:
    models, paths, child = family
    found = weightprint.recipe(
        child(tuned(linear([models["a"], models["s"]], (0.6, 0.4)), 7, 0.1)), [paths["a"], paths["s"]]
    )
    assert found.method is None
    assert weights(found) == pytest.approx({"a": 0.6, "s": 0.4}, abs=0.02)


def test_reordered_units_are_not_aligned_and_said(write: Any) -> None:
    a = root(1)
    order = np.random.default_rng(0).permutation(64)
    moved = {n: x[order] if ".gate" in n or ".up" in n else x[:, order] if ".down" in n else x for n, x in a.items()}
    moved |= {n: x for n, x in root(2).items() if "self_attn" in n}
    found = weightprint.recipe(write("child", moved), [write("a", a)])
    assert any(note.startswith("not aligned: the hidden units of") for note in found.notes)


def test_other_shapes_are_an_error_that_names_a_tensor(write: Any) -> None:
    child, wide = write("child", root(0)), write("wide", root(1, d=2 * D))
    with pytest.raises(
        weightprint.UsageError, match=r"embed_tokens\.weight is \[80, 32\] in the child and \[80, 64\]"
    ) as e:
        weightprint.recipe(child, [wide])
    assert (e.value.code, e.value.tensor) == ("no_common_tensors", "model.embed_tokens.weight")
    with pytest.raises(weightprint.UsageError, match="at least one parent"):
        weightprint.recipe(child)


def test_another_vocabulary_is_left_out_and_said(write: Any) -> None:
    a, b = root(1), root(2, vocabulary=96)
    inner = [n for n in shapes() if "embed" not in n and "head" not in n]
    made = {**a, **linear([{n: m[n] for n in inner} for m in (a, b)], (0.6, 0.4))}
    found = weightprint.recipe(write("child", made), [write("a", a), write("b", b)])
    assert weights(found) == pytest.approx({"a": 0.6, "b": 0.4}, abs=0.01)
    assert any("embed_tokens.weight is [80, 32] in the child and [96, 32] there" in note for note in found.notes)


def test_broken_values_are_survived(write: Any) -> None:
    a, b = root(1), root(2)
    made = linear([a, b], (0.6, 0.4))
    made["model.layers.1.mlp.up_proj.weight"][0, 0] = np.nan
    b["model.layers.2.mlp.up_proj.weight"][0, 0] = np.inf
    found = weightprint.recipe(write("child", made), [write("a", a), write("b", b)])
    assert weights(found) == pytest.approx({"a": 0.6, "b": 0.4}, abs=0.01)
    json.loads(found.to_json())


def test_a_recipe_comes_back_from_its_json(family: Any) -> None:
    models, paths, child = family
    made = [linear([models["a"], models["b"]], (0.7, 0.3)), stacked([(models["a"], [0, 2]), (models["b"], [1])])]
    for number, one in enumerate(made):
        found = weightprint.recipe(child(one), [paths["a"], paths["b"]], candidates=[paths["s"]] if number else ())
        out = json.loads(found.to_json())
        again = Recipe.from_dict(out)
        assert (json.loads(again.to_json()), str(again)) == (out, str(found))
        assert again == Recipe.from_dict(found.to_dict())
        assert "<table>" in found._repr_html_()


def test_compare_with_further_parents(family: Any) -> None:
    models, paths, child = family
    made = child(linear([models["a"], models["b"]], (0.7, 0.3)))
    found = weightprint.compare(paths["a"], made, others=[paths["b"]])
    assert found.mix is not None
    assert weights(found.mix) == pytest.approx({"a": 0.7, "b": 0.3}, abs=0.01)
    again = type(found).from_dict(json.loads(found.to_json()))
    assert again.mix is not None
    assert again.mix.to_dict() == found.mix.to_dict()
    assert "A linear mix: 0.700 a + 0.300 b" in " ".join(str(found).split())
    # A mean of two came after each of them, and stays so when it is weighed again; of a copy nothing is proved.
    assert (found.result.direction.later, found.result.direction.relation) == ("b", "descent")
    assert found.history.told_from == "a"
    assert found.weighed() == again.result == found.result
    assert weightprint.compare(paths["a"], paths["a"], others=[paths["b"]]).result.direction.later is None
    assert weightprint.compare(paths["a"], made).to_dict()["mix"] is None


def on_grid(x: np.ndarray[Any, Any], kind: str, group: int = 32) -> np.ndarray[Any, Any]:
    """Rounded to the codes of a scheme, one scale per group."""
    rows = x.reshape(-1, group)
    top = np.abs(rows).max(axis=1, keepdims=True)
    if kind.startswith("int"):
        step = top / (2 ** (int(kind[3:]) - 1) - 1)
        return (np.round(rows / step) * step).reshape(x.shape).astype(np.float32)
    half = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6]) if kind == "fp4" else np.array([])
    if kind == "fp4":
        levels = np.concatenate([-half[::-1], half])[None, None] * (top[..., None] / 6)
        return np.take_along_axis(
            np.broadcast_to(levels, (*rows.shape, 16)), np.abs(levels - rows[..., None]).argmin(-1)[..., None], -1
        ).reshape(x.shape)
    return x.astype(getattr(ml_dtypes, kind)).astype(np.float32)


@pytest.mark.parametrize("kind", ["int4", "int8", "fp4", "float8_e4m3fn", "float8_e5m2"])
def test_rounding_to_a_grid_that_nobody_describes_is_known_within_a_factor(kind: str) -> None:
    from weightprint.compare.gram import spacing
    from weightprint.compare.mixing import LEFT_BY_ROUNDING
    from weightprint.fingerprint.model import Tensor

    x = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    y = np.asarray(on_grid(x, kind), np.float32)
    told = float(np.mean(np.square(spacing(y, Tensor("w", "I8 some", x.shape, x.size, x.size)))) / 12)
    true = float(np.mean(np.square(y - x)))
    assert true <= LEFT_BY_ROUNDING * told  # a copy is called one
    assert told <= LEFT_BY_ROUNDING * true  # and little else
