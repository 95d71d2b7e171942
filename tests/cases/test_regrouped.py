"""Rows of several tensors, fused, cut or stacked another way: named with their order by both verbs, in either order of
the arguments, with nothing lost of the share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from makers import BF16, Array, Arrays, folder, llama

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
        assert {o.name for way in ways.values() for o in way} == {"reordered"}
    orders = [
        {way: {o.parameters["order"] for o in t.history.operations_if[way]} for way in ("a_first", "b_first")}
        for t in told
    ]
    assert words in orders[0]["a_first"]
    assert orders[0] == {"a_first": orders[1]["b_first"], "b_first": orders[1]["a_first"]}
    for said, order in zip(diffs, orders, strict=True):  # tensors that only A has tell theirs too
        assert order["a_first"] <= said - {None} <= order["a_first"] | order["b_first"]


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
