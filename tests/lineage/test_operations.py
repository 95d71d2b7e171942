"""Operations of the benchmark: disguises keep the function, maps say truly where weights came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
made_module = pytest.importorskip("benches.lineage.made")
sys.path.remove(str(ROOT))

from benches.lineage.made import Made, Truth  # noqa: E402  (after the skip)
from benches.lineage.operations import OPERATIONS, Operation, chain, composed, named  # noqa: E402

Array = np.ndarray[Any, Any]
TOKENS = np.random.default_rng(5).integers(0, 40, (2, 11))


def tiny(form: str, seed: int = 0, *, layers: int = 4, d: int = 16, kv: int = 2, name: str = "p") -> Made:
    """A random model of a form with nothing at its default: gains, offsets and biases are random too."""
    rng = np.random.default_rng([seed, 1])
    heads, h, vocabulary = 4, 24, 40

    def x(*shape: int) -> Array:
        return (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)

    def gain() -> Array:
        return (rng.normal(0 if form == "gemma" else 1, 0.3, d)).astype(np.float32)

    out: dict[str, Array] = {}
    if form == "gpt2":
        out |= {"wte.weight": x(vocabulary, d), "wpe.weight": x(32, d)}
        for i in range(layers):
            for part, shape in (
                ("attn.c_attn", (d, 3 * d)), ("attn.c_proj", (d, d)), ("mlp.c_fc", (d, h)), ("mlp.c_proj", (h, d)),
            ):  # fmt: skip
                out |= {f"h.{i}.{part}.weight": x(*shape), f"h.{i}.{part}.bias": x(shape[1])}
            for norm in ("ln_1", "ln_2"):
                out |= {f"h.{i}.{norm}.weight": gain(), f"h.{i}.{norm}.bias": x(d)}
        out |= {"ln_f.weight": gain(), "ln_f.bias": x(d)}
        config: dict[str, Any] = {"model_type": "gpt2", "n_embd": d, "n_layer": layers, "n_head": heads, "n_inner": h}
        return Made(out, config | {"vocab_size": vocabulary}, Truth(name, "root", form, (name,), total_tokens=7))
    head = d // heads
    out["model.embed_tokens.weight"] = x(vocabulary, d)
    for i in range(layers):
        at = f"model.layers.{i}"
        out[f"{at}.input_layernorm.weight"] = gain()
        for part, n in (("q", heads), ("k", kv), ("v", kv)):
            out[f"{at}.self_attn.{part}_proj.weight"] = x(n * head, d)
            if form == "qwen2":
                out[f"{at}.self_attn.{part}_proj.bias"] = x(n * head)
        out[f"{at}.self_attn.o_proj.weight"] = x(d, heads * head)
        out[f"{at}.post_attention_layernorm.weight"] = gain()
        if form == "moe":
            out[f"{at}.mlp.gate.weight"] = x(4, d)
        for mlp in [f"{at}.mlp.experts.{e}" for e in range(4)] if form == "moe" else [f"{at}.mlp"]:
            out |= {f"{mlp}.gate_proj.weight": x(h, d), f"{mlp}.up_proj.weight": x(h, d)}
            out[f"{mlp}.down_proj.weight"] = x(d, h)
    out["model.norm.weight"] = gain()
    if form != "gemma":
        out["lm_head.weight"] = x(vocabulary, d)
    config = {
        "model_type": {"moe": "deepseek"}.get(form, form), "hidden_size": d, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": h, "vocab_size": vocabulary,
        "tie_word_embeddings": form == "gemma", "rope_theta": 10000.0,
    }  # fmt: skip
    if form == "moe":
        config |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": h, "norm_topk_prob": True}
    return Made(out, config, Truth(name, "root", form, (name,), total_tokens=7))


def logits(model: Made, tokens: Array = TOKENS) -> Array:
    """A forward pass in float64, straight from the checkpoint's own names. Written without the code under test."""
    t = {name: np.asarray(v, np.float64) for name, v in model.tensors.items()}
    return _gpt2(t, model.config, tokens) if "wte.weight" in t else _llama(t, model.config, tokens)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _attend(q: Array, k: Array, v: Array) -> Array:
    """(batch, heads, time, width) each; k and v may have fewer heads."""
    k, v = (np.repeat(y, q.shape[1] // k.shape[1], axis=1) for y in (k, v))
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    time = q.shape[2]
    return _softmax(np.where(np.tril(np.ones((time, time), bool)), scores, -np.inf)) @ v


def _heads(y: Array, count: int) -> Array:
    return y.reshape(*y.shape[:2], count, -1).swapaxes(1, 2)


def _gpt2(t: Mapping[str, Array], config: Mapping[str, Any], tokens: Array) -> Array:
    def linear(name: str, x: Array) -> Array:
        return x @ t[f"{name}.weight"] + t.get(f"{name}.bias", 0)

    def norm(name: str, x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * t[f"{name}.weight"] + t[f"{name}.bias"]

    x = t["wte.weight"][tokens] + t["wpe.weight"][: tokens.shape[1]]
    for i in range(config["n_layer"]):
        q, k, v = (
            _heads(y, config["n_head"]) for y in np.split(linear(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", x)), 3, -1)
        )
        y = _attend(q, k, v).swapaxes(1, 2)
        x = x + linear(f"h.{i}.attn.c_proj", y.reshape(*y.shape[:2], -1))
        x = x + linear(f"h.{i}.mlp.c_proj", _gelu(linear(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", x))))
    return norm("ln_f", x) @ t.get("lm_head.weight", t["wte.weight"]).T


def _llama(t: Mapping[str, Array], config: Mapping[str, Any], tokens: Array) -> Array:
    gemma = config["model_type"] == "gemma"
    activation = _gelu if gemma else lambda x: x / (1 + np.exp(-x))

    def linear(name: str, x: Array) -> Array:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

    def norm(name: str, x: Array) -> Array:
        return (t[f"{name}.weight"] + gemma) * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    def ffn(name: str, x: Array) -> Array:
        return linear(f"{name}.down_proj", activation(linear(f"{name}.gate_proj", x)) * linear(f"{name}.up_proj", x))

    def rotate(x: Array) -> Array:
        half = x.shape[-1] // 2
        angle = np.arange(x.shape[2])[:, None] * config["rope_theta"] ** (-np.arange(half) / half)
        a, b, c, s = x[..., :half], x[..., half:], np.cos(angle), np.sin(angle)
        return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)

    def experts(name: str, x: Array) -> Array:
        p = _softmax(linear(f"{name}.gate", x))
        chosen = np.argsort(-p, axis=-1, kind="stable")[..., : config["num_experts_per_tok"]]
        weight = np.zeros_like(p)
        np.put_along_axis(weight, chosen, np.take_along_axis(p, chosen, -1), -1)
        weight /= weight.sum(-1, keepdims=True)
        return sum(weight[..., [e]] * ffn(f"{name}.experts.{e}", x) for e in range(config["n_routed_experts"]))

    x = t["model.embed_tokens.weight"][tokens]
    x = x * x.shape[-1] ** 0.5 if gemma else x
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        n = norm(f"{at}.input_layernorm", x)
        counts = config["num_attention_heads"], config["num_key_value_heads"], config["num_key_value_heads"]
        q, k, v = (_heads(linear(f"{at}.self_attn.{p}_proj", n), c) for p, c in zip("qkv", counts, strict=True))
        y = _attend(rotate(q), rotate(k), v).swapaxes(1, 2)
        x = x + linear(f"{at}.self_attn.o_proj", y.reshape(*y.shape[:2], -1))
        n = norm(f"{at}.post_attention_layernorm", x)
        x = x + (experts if f"{at}.mlp.gate.weight" in t else ffn)(f"{at}.mlp", n)
    return norm("model.norm", x) @ t.get("lm_head.weight", t["model.embed_tokens.weight"]).T


def parents_for(operation: Operation, form: str) -> list[Made]:
    return [tiny(form, seed, name=name) for seed, name in zip(range(operation.parents), "pqrs", strict=False)]


CASES = [
    pytest.param(operation, form, parameters, id=f"{operation.name}-{form}-{k}")
    for operation in OPERATIONS.values()
    for form in operation.forms
    for k, parameters in enumerate(operation.strengths)
]

#: strengths of preserving operations that do change the function, and what they change.
_CHANGES = {("moe_upcycling", "fresh"), ("expert_duplication", "noise"), ("re_dtype", "dtype")}


def keeps(operation: Operation, parameters: Mapping[str, Any]) -> bool:
    return operation.preserves and not any(parameters.get(key) for name, key in _CHANGES if name == operation.name)


PRESERVING = [case for case in CASES if keeps(case.values[0], case.values[2])]


def test_the_forward_pass_is_the_trainers() -> None:
    jax = pytest.importorskip("jax")
    from benches.lineage import gpt2, model

    for form, experts in (("llama", 0), ("moe", 4)):
        m = tiny(form)
        config = model.Config(hidden=16, layers=4, heads=4, kv_heads=2, ffn=24, vocabulary=40, experts=experts)
        ours = model.forward({k: jax.numpy.asarray(v) for k, v in m.tensors.items()}, config, TOKENS)[0]
        np.testing.assert_allclose(logits(m), ours, atol=2e-4)
    m = tiny("gpt2")
    config2 = gpt2.Config(hidden=16, layers=4, heads=4, ffn=24, vocabulary=40, positions=32)
    ours = gpt2.forward({k: jax.numpy.asarray(v) for k, v in m.tensors.items()}, config2, TOKENS)[0]
    np.testing.assert_allclose(logits(m), ours, atol=2e-4)


@pytest.mark.parametrize(("operation", "form", "parameters"), PRESERVING)
def test_a_disguise_computes_the_same(operation: Operation, form: str, parameters: Mapping[str, Any]) -> None:
    parents = parents_for(operation, form)
    child = operation(parents, 3, **parameters)
    changed = child.tensors.keys() != parents[0].tensors.keys() or any(
        not np.array_equal(child.tensors[n], x) for n, x in parents[0].tensors.items()
    )
    assert changed
    if operation.name in ("rename", "random_names"):
        names = child.truth.operations[0]["parameters"]["names"]
        back = {old: child.tensors[new] for new, old in names.items()}
        child = Made(back, parents[0].config, child.truth)
        if form == "gpt2":
            parents[0] = OPERATIONS["rename"](parents, 3, style="llama")
            assert {n: x.tolist() for n, x in back.items()} == {n: x.tolist() for n, x in parents[0].tensors.items()}
            return
    np.testing.assert_allclose(logits(child), logits(parents[0]), atol=1e-4)


@pytest.mark.parametrize(("operation", "form", "parameters"), CASES)
def test_a_child_is_whole_repeatable_and_tells_its_truth(
    operation: Operation, form: str, parameters: Mapping[str, Any], tmp_path: Path
) -> None:
    parents = parents_for(operation, form)
    before = [{n: x.copy() for n, x in p.tensors.items()} for p in parents]
    child, again = (operation(parents, 3, **parameters) for _ in range(2))
    for p, old in zip(parents, before, strict=True):  # parents are left as they were
        assert all(np.array_equal(p.tensors[n], x) for n, x in old.items())
    assert list(child.tensors) == list(again.tensors)
    assert all(x.tobytes() == again.tensors[n].tobytes() for n, x in child.tensors.items())
    truth = child.truth
    assert truth == again.truth
    assert truth.kind == "descendant"
    assert truth.roots == tuple(p.truth.name for p in parents)
    assert truth.parents == tuple(p.truth.name for p in parents)
    assert [o["name"] for o in truth.operations] == [operation.name]
    recorded = truth.operations[0]["parameters"]
    assert recorded["seed"] == 3
    assert {k: recorded[k] for k, v in parameters.items() if v is not None} == dict(parameters)
    made_module.save(tmp_path / "child", child)
    assert made_module.load(tmp_path / "child").truth == replace(
        truth, roots=list(truth.roots), parents=list(truth.parents), operations=list(truth.operations)
    )
    json.dumps(asdict(truth))
    if operation.name not in ("rename", "random_names", "quantise", "re_dtype"):
        shown = logits(child, TOKENS % child.config["vocab_size"])
        assert np.isfinite(shown).all()  # the child's config fits its tensors


def test_another_seed_is_another_child() -> None:
    parent = tiny("llama", layers=12)
    for name in ("unit_permutation", "rotation", "depth_drop", "moe_upcycling"):
        a, b = (OPERATIONS[name]([parent], seed) for seed in (1, 2))
        assert any(not np.array_equal(x, b.tensors.get(n)) for n, x in a.tensors.items()), name


@pytest.mark.parametrize("form", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["depth_drop", "depth_upscaling", "layer_insertion", "layer_shuffle"])
def test_layer_maps_point_to_equal_blocks(name: str, form: str) -> None:
    parent = tiny(form, layers=8)
    child = OPERATIONS[name]([parent], 1)
    block = (lambda i: f"h.{i}.") if form == "gpt2" else (lambda i: f"model.layers.{i}.")
    rows = child.truth.layer_map["p"]
    assert [row[0] for row in rows] == list(range(len(rows)))
    for here, there in rows:
        mine = {n.removeprefix(block(here)): x for n, x in child.tensors.items() if n.startswith(block(here))}
        assert mine
        if there is not None:
            theirs = {n.removeprefix(block(there)): x for n, x in parent.tensors.items() if n.startswith(block(there))}
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(x, theirs[n]) for n, x in mine.items())
    assert (
        len(rows)
        == max(int(n.split(".")[1 if form == "gpt2" else 2]) for n in child.tensors if "proj" in n or "c_" in n) + 1
    )


def test_stacked_ranges_are_the_ranges() -> None:
    child = OPERATIONS["depth_upscaling"]([tiny("llama", layers=8)], 1, ranges=[[0, 5], [2, 7]])
    assert [row[1] for row in child.truth.layer_map["p"]] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
    assert child.config["num_hidden_layers"] == 12


@pytest.mark.parametrize("name", ["unit_permutation", "ffn_pruning", "ffn_widening"])
@pytest.mark.parametrize("form", ["llama", "moe", "gpt2"])
def test_unit_maps_point_to_equal_units(name: str, form: str) -> None:
    parent = tiny(form)
    child = OPERATIONS[name]([parent], 2, **({"mixed": True} if name == "ffn_widening" else {}))
    if form == "moe":
        maps = {(row[0], row[1]): row[3] for row in child.truth.expert_map}
        assert all(row[2] == row[0] and row[4] == row[1] for row in child.truth.expert_map)
        ups = {(i, e): f"model.layers.{i}.mlp.experts.{e}.up_proj.weight" for i in range(4) for e in range(4)}
    else:
        maps = {(int(layer), None): units for layer, units in child.truth.unit_map.items()}
        up = "h.{}.mlp.c_fc.weight" if form == "gpt2" else "model.layers.{}.mlp.up_proj.weight"
        ups = {(i, None): up.format(i) for i in range(4)}
    assert maps.keys() == ups.keys()
    for place, up_name in ups.items():
        mine, theirs = child.tensors[up_name], parent.tensors[up_name]
        if form == "gpt2":
            mine, theirs = mine.T, theirs.T
        units = np.array(maps[place])
        assert len(units) == len(mine)
        np.testing.assert_array_equal(mine[units >= 0], theirs[units[units >= 0]])
        assert all(not (theirs == row).all(1).any() for row in mine[units < 0])


def test_expert_maps_point_to_equal_units() -> None:
    parent = tiny("llama")
    for name, parameters in (
        ("moe_upcycling", {"fresh": 0.25}),
        ("expert_split", {"parts": 4, "copies": 2, "used": 4}),
    ):
        child = OPERATIONS[name]([parent], 2, **parameters)
        assert len(child.truth.expert_map) == 4 * (4 if name == "moe_upcycling" else 8)
        for layer, expert, source, units, dense in child.truth.expert_map:
            assert dense is None
            mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"]
            theirs = parent.tensors[f"model.layers.{source}.mlp.gate_proj.weight"]
            index = np.array(units)
            np.testing.assert_array_equal(mine[index >= 0], theirs[index[index >= 0]])
    moe = named(OPERATIONS["moe_upcycling"]([parent], 2, fresh=0.5), "m")
    for name in ("expert_shuffle", "expert_duplication"):
        child = OPERATIONS[name]([moe], 2)
        for layer, expert, source, units, theirs_number in child.truth.expert_map:
            assert units is None
            mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"]
            np.testing.assert_array_equal(
                mine, moe.tensors[f"model.layers.{source}.mlp.experts.{theirs_number}.down_proj.weight"]
            )


def test_dense_from_experts() -> None:
    moe = tiny("moe")
    one, mean, all_ = (OPERATIONS["moe_to_dense"]([moe], 2, method=m) for m in ("one", "mean", "concatenation"))
    at = "model.layers.2.mlp"
    e = one.truth.operations[0]["parameters"]["experts"][0]
    np.testing.assert_array_equal(one.tensors[f"{at}.up_proj.weight"], moe.tensors[f"{at}.experts.{e}.up_proj.weight"])
    stack = np.stack([moe.tensors[f"{at}.experts.{k}.up_proj.weight"] for k in range(4)])
    np.testing.assert_allclose(mean.tensors[f"{at}.up_proj.weight"], stack.mean(0), atol=1e-6)
    np.testing.assert_array_equal(all_.tensors[f"{at}.up_proj.weight"], stack.reshape(-1, 16))
    uniform = {n: x * 0 if n.endswith("mlp.gate.weight") else x for n, x in moe.tensors.items()}
    everyone = Made(uniform, {**moe.config, "num_experts_per_tok": 4}, moe.truth)
    np.testing.assert_allclose(logits(all_), logits(everyone), atol=1e-4)  # all experts, evenly, are their stack
    assert {row[4] for row in all_.truth.expert_map} == {0, 1, 2, 3}


def test_quantised_values_lie_on_their_lattice() -> None:
    parent = tiny("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    x = parent.tensors[name]
    int8 = OPERATIONS["quantise"]([parent], 1, method="int8").tensors[name]
    steps = int8 / (np.abs(int8).max(1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert np.abs(int8 - x).max() <= np.abs(x).max() / 254 * 1.001
    int4 = OPERATIONS["quantise"]([parent], 1, method="int4", group=8).tensors[name].astype(np.float32)
    assert all(len(np.unique(int4[r, c : c + 8])) <= 16 for r in range(len(x)) for c in (0, 8))
    assert np.abs(int4 - x).max() < 0.1
    fp8 = OPERATIONS["quantise"]([parent], 1, method="fp8", block=8)
    scale = np.kron(fp8.tensors[f"{name}_scale_inv"], np.ones((8, 8)))
    np.testing.assert_allclose(fp8.tensors[name].astype(np.float32) * scale, x, rtol=0.07, atol=1e-3)


def test_the_wrong_form_is_refused() -> None:
    for name, form in (("sign_flips", "gpt2"), ("moe_upcycling", "moe"), ("moe_to_dense", "llama")):
        with pytest.raises(ValueError, match="not made for"):
            OPERATIONS[name]([tiny(form)], 0)
    fp8 = OPERATIONS["quantise"]([tiny("llama")], 0, method="fp8")
    with pytest.raises(ValueError, match="encode them last"):
        OPERATIONS["unit_permutation"]([fp8], 0)


def test_a_chain_tells_its_maps_from_the_first_parent() -> None:
    parent = tiny("llama", layers=8)
    steps: Sequence[tuple[Operation, Mapping[str, Any]]] = [
        (OPERATIONS["unit_permutation"], {}),
        (OPERATIONS["depth_drop"], {"layers": [2, 3]}),
        (OPERATIONS["ffn_pruning"], {"keep": 0.5}),
        (OPERATIONS["layer_insertion"], {"at": [1]}),
        (OPERATIONS["moe_upcycling"], {"fresh": 0.25}),
        (OPERATIONS["expert_shuffle"], {}),
    ]
    child = chain([parent], steps, 4, "child")
    truth = child.truth
    assert (truth.name, truth.parents, truth.roots) == ("child", ("p",), ("p",))
    assert [o["name"] for o in truth.operations] == [operation.name for operation, _ in steps]
    assert [row[1] for row in truth.layer_map["p"]] == [0, None, 1, 4, 5, 6, 7]
    seen = 0
    for layer, expert, source, units, _ in truth.expert_map:
        if source is None:
            continue
        mine = child.tensors[f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"]
        theirs = parent.tensors[f"model.layers.{source}.mlp.up_proj.weight"]
        index = np.array(units)
        assert (index >= 0).mean() == 0.75
        np.testing.assert_array_equal(mine[index >= 0], theirs[index[index >= 0]])
        seen += 1
    assert seen == 6 * 4


def test_dense_maps_through_layers_compose() -> None:
    parent = tiny("llama", layers=8)
    child = chain(
        [parent],
        [
            (OPERATIONS["ffn_pruning"], {"keep": 0.5}),
            (OPERATIONS["layer_shuffle"], {}),
            (OPERATIONS["unit_permutation"], {}),
        ],
        4,
        "child",
    )
    for here, there in child.truth.layer_map["p"]:
        units = child.truth.unit_map[str(here)]
        np.testing.assert_array_equal(
            child.tensors[f"model.layers.{here}.mlp.up_proj.weight"],
            parent.tensors[f"model.layers.{there}.mlp.up_proj.weight"][units],
        )


def test_only_a_child_can_be_composed() -> None:
    a, b = tiny("llama", name="a"), tiny("llama", name="b")
    child = OPERATIONS["depth_drop"]([a], 1)
    with pytest.raises(ValueError, match="was not made from"):
        composed(b.truth, child.truth)
