"""Rows of several tensors, fused, cut or stacked another way: named with their order by both verbs, in either order of
the arguments, with nothing lost of the share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from makers import BF16, Array, Arrays, folder, llama, matrix

from tests.conftest import encode

LAYERS = 2


def save(at: Path, tensors: Arrays) -> Path:
    return folder(at, encode, {n: x.astype(BF16) for n, x in tensors.items()})


def fused(w: Arrays, names: tuple[str, ...], to: str, how: Callable[..., Array]) -> Arrays:
    """These tensors of every block in one."""
    out = dict(w)
    for i in range(LAYERS):
        out[f"model.layers.{i}.{to}.weight"] = how(*(out.pop(f"model.layers.{i}.{n}.weight") for n in names))
    return out


def per_group(*parts: Array) -> Array:
    """Of each of two groups its queries, its key, its value."""
    cut = [x.reshape(2, -1, x.shape[1]) for x in parts]
    return np.concatenate([x[g] for g in range(2) for x in cut])


def stacked(w: Arrays) -> Arrays:
    out = {n: x for n, x in w.items() if ".layers." not in n}
    roles = dict.fromkeys(n.split(".", 3)[3] for n in w if ".layers." in n)
    return out | {f"model.layers.{r}": np.stack([w[f"model.layers.{i}.{r}"] for i in range(LAYERS)]) for r in roles}


def interleaved(gate: Array, up: Array) -> Array:
    return np.stack([gate, up], 1).reshape(-1, gate.shape[1])


def ranks(n: int) -> Callable[[Array, Array], Array]:
    return lambda *parts: np.concatenate([x.reshape(n, -1, x.shape[1]) for x in parts], 1).reshape(
        -1, parts[0].shape[1]
    )


def turned(w: Arrays) -> Arrays:
    """Stacked as (layer, in, out)."""
    return {n: np.ascontiguousarray(x.swapaxes(1, 2)) if x.ndim == 3 else x for n, x in stacked(w).items()}


def inside(w: Arrays) -> Arrays:
    """Stacked as (in, layer, out), under names of other software."""
    return {
        n.replace("model.", "params.decoder.").replace(".weight", ".kernel"): np.ascontiguousarray(x.swapaxes(0, 1))
        if x.ndim == 3
        else x
        for n, x in turned(w).items()
    }


QKV, GATED = tuple(f"self_attn.{r}_proj" for r in "qkv"), ("mlp.gate_proj", "mlp.up_proj")
LAYOUTS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "one after the other": (
        lambda w: fused(w, QKV, "self_attn.qkv_proj", lambda *x: np.concatenate(x)),
        "rows of self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, one after the other",
    ),
    "per group": (
        lambda w: fused(w, QKV, "self_attn.qkv_proj", per_group),
        "rows of self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, in runs of 32",
    ),
    "gate and up in turn": (
        lambda w: fused(w, GATED, "mlp.gate_up_proj", interleaved),
        "rows of mlp.gate_proj, mlp.up_proj, row by row in turn",
    ),
    "gate and up of four ranks": (
        lambda w: fused(w, GATED, "mlp.gate_up_proj", ranks(4)),
        "rows of mlp.gate_proj, mlp.up_proj, in runs of 64",
    ),
    "layers stacked": (stacked, "rows of mlp.down_proj of 2 blocks, one after the other"),
    "layers stacked, transposed": (turned, "rows of mlp.down_proj of 2 blocks, transposed, one after the other"),
    "layers inside": (inside, "rows of mlp.down_proj of 2 blocks, transposed, one after the other"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_cut_and_joined_another_way_are_named(tmp_path: Path, layout: str) -> None:
    build, words = LAYOUTS[layout]
    w = llama(21)
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", build(w))
    diffs, told = [], []
    for pair in ((a, b), (b, a)):
        diffs.append({row["order"] for row in weightprint.diff(*pair).table.to_records()})
        found = weightprint.compare(*pair)
        told.append(found)
        assert found.verdict == "shared_origin"
        assert (found.result.share.low, found.result.share.high) == (1.0, 1.0)
        ways = found.history.operations_if
        assert {o.name for way in ways.values() for o in way} - {"rename"} == {"reordered"}
        assert not any("ot looked at" in line for line in found.result.against)
    orders = [
        {
            way: {o.parameters["order"] for o in t.history.operations_if[way] if o.name == "reordered"}
            for way in ("a_first", "b_first")
        }
        for t in told
    ]
    assert words in orders[0]["a_first"]
    assert orders[0] == {"a_first": orders[1]["b_first"], "b_first": orders[1]["a_first"]}
    for said, order in zip(diffs, orders, strict=True):  # tensors that only A has tell theirs too
        assert order["a_first"] <= said - {None} <= order["a_first"] | order["b_first"]


@pytest.mark.parametrize("kind", [np.float32, np.float16, BF16])
def test_both_stacked_and_one_transposed(tmp_path: Path, kind: Any) -> None:
    """A square one among them too, of which no shape tells; the other model in another type."""
    w = llama(26)
    a = save(tmp_path / "a", stacked(w))
    b = folder(tmp_path / "b", encode, {n: x.astype(kind) for n, x in turned(w).items()})
    for pair in ((a, b), (b, a)):
        found, rows = weightprint.compare(*pair), weightprint.diff(*pair).table.to_records()
        named = {row["name"]: row["order"] for row in rows if row["order"]}
        if kind is np.float16:  # other roundings
            assert "mlp.gate_proj" not in str(named)
            continue
        assert found.verdict == "shared_origin"
        assert len(named) == 7
        assert all("transposed" in order for order in named.values())
        assert found.result.share.low == 1.0


@pytest.mark.parametrize("layers_too", [False, True])
def test_experts_stacked_and_transposed(tmp_path: Path, layers_too: bool) -> None:
    w, rng = llama(27), np.random.default_rng(4)
    w = {n: x for n, x in w.items() if ".mlp." not in n}
    experts = {}
    for i in range(LAYERS):
        w[f"model.layers.{i}.mlp.gate.weight"] = matrix(rng, 4, 128)
        for role, shape in (("gate", (64, 128)), ("up", (64, 128)), ("down", (128, 64))):
            each = [matrix(rng, *shape) for _ in range(4)]
            w |= {f"model.layers.{i}.mlp.experts.{e}.{role}_proj.weight": x for e, x in enumerate(each)}
            stack = np.stack(each).swapaxes(1, 2)
            experts[f"model.layers.{i}.mlp.experts.{role}_proj"] = np.ascontiguousarray(stack)
    other = {n: x for n, x in w.items() if ".experts." not in n} | experts
    other = stacked(other) if layers_too else other
    config = {"model_type": "qwen3_moe", "num_experts": 4}
    a, b = (folder(tmp_path / n, encode, {k: x.astype(BF16) for k, x in m.items()}, **config)
            for n, m in (("a", w), ("b", other)))  # fmt: skip
    for pair in ((a, b), (b, a)):
        found = weightprint.compare(*pair)
        assert found.verdict == "shared_origin"
        assert found.result.share.low == 1.0
        assert "transposed" in str([o.parameters for way in found.history.operations_if.values() for o in way])
        assert any("transposed" in (row["order"] or "") for row in weightprint.diff(*pair).table.to_records())


def test_a_stranger_stacked_and_transposed_shares_nothing(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a", llama(28)), save(tmp_path / "b", turned(llama(29)))
    for pair in ((a, b), (b, a)):
        assert not any(row["order"] for row in weightprint.diff(*pair).table.to_records())
        assert weightprint.compare(*pair).verdict in ("no_evidence", "inconclusive")


def test_trained_rows_are_not_regrouped(tmp_path: Path) -> None:
    w, rng = llama(22), np.random.default_rng(0)
    other = LAYOUTS["gate and up in turn"][0](w)
    other = {n: (x + 0.02 * x.std() * rng.standard_normal(x.shape)).astype(np.float32) for n, x in other.items()}
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", other)
    assert not any(row["order"] for row in weightprint.diff(a, b).table.to_records())
    assert not any(
        o.name == "reordered" for way in weightprint.compare(a, b).history.operations_if.values() for o in way
    )


def test_gate_and_up_that_changed_places_moved_no_layer(tmp_path: Path) -> None:
    w = llama(23)
    other = dict(w)
    for i in range(LAYERS):
        gate, up = (f"model.layers.{i}.mlp.{r}_proj.weight" for r in ("gate", "up"))
        other[gate], other[up] = w[up], w[gate]
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", other)
    for pair in ((a, b), (b, a)):
        found = weightprint.compare(*pair)
        assert found.verdict == "shared_origin"
        assert found.result.sentence.endswith("gate is A's up; up is A's gate.")
        for way in found.history.operations_if.values():
            assert {(o.name, o.parameters["order"]) for o in way} == {
                ("reordered", "gate is A's up"), ("reordered", "up is A's gate"),
            }  # fmt: skip


def test_transposed_queries_permuted_no_heads(tmp_path: Path) -> None:
    w = llama(24)
    square = [f"model.layers.{i}.self_attn.{r}_proj.weight" for i in range(LAYERS) for r in "qo"]
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", w | {n: np.ascontiguousarray(w[n].T) for n in square})
    for pair in ((a, b), (b, a)):
        ways: Any = weightprint.compare(*pair).history.operations_if
        assert {o.name for way in ways.values() for o in way} == {"reordered"}


def test_channels_permuted_beside_new_rows_of_the_vocabulary_are_no_order_of_tensors(tmp_path: Path) -> None:
    w, rng = llama(25), np.random.default_rng(3)
    order = rng.permutation(128)
    other = {
        n: x[order] if x.ndim == 1 or n.endswith(("o_proj.weight", "down_proj.weight")) else x[:, order]
        for n, x in w.items()
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        x = other[name]
        new = (x.mean(axis=0) + 0.02 * x.std() * rng.standard_normal((64, 128))).astype(np.float32)
        other[name] = np.concatenate([x, new])
    a, b = save(tmp_path / "a", w), save(tmp_path / "b", other)
    for pair in ((a, b), (b, a)):
        ways: Any = weightprint.compare(*pair).history.operations_if
        assert all("reordered" not in {o.name for o in way} for way in ways.values())
