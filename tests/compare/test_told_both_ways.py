"""What reports of broken conversions look like: the same verdict in either order, the right words, nothing invented."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import weightprint
from makers import Arrays, folder, llama, matrix

from tests.conftest import encode

BF16 = np.dtype(ml_dtypes.bfloat16)


def put(path: Path, w: Arrays) -> Path:
    path.write_bytes(encode(w))
    return path


def both(tmp_path: Path, a: Arrays, b: Arrays) -> tuple[weightprint.Comparison, weightprint.Comparison]:
    one, other = put(tmp_path / "a.safetensors", a), put(tmp_path / "b.safetensors", b)
    there, back = weightprint.compare(one, other), weightprint.compare(other, one)
    assert there.verdict == back.verdict
    return there, back


def as_type(w: Arrays, dtype: object) -> Arrays:
    return {name: x.astype(dtype) for name, x in w.items()}


def names(told: weightprint.Comparison) -> set[str]:
    ways = told.history.operations_if.values()
    return {o.name for o in told.operations} | {o.name for way in ways for o in way}


# One model holds the other, some tensors more than once


def first_block_everywhere(w: Arrays) -> Arrays:
    return {name: w[re.sub(r"layers\.\d+", "layers.0", name)] for name in w}


def head_for_embedding(w: Arrays) -> Arrays:
    return {**w, "model.embed_tokens.weight": w["lm_head.weight"]}


def embedding_for_head(w: Arrays) -> Arrays:
    return {**w, "lm_head.weight": w["model.embed_tokens.weight"]}


@pytest.mark.parametrize("change", [first_block_everywhere, head_for_embedding, embedding_for_head])
def test_what_repeats_is_not_too_simple(tmp_path: Path, change: Callable[[Arrays], Arrays]) -> None:
    w = as_type(llama(1), BF16)
    there, back = both(tmp_path, w, change(w))
    assert there.verdict == "shared_origin"
    for told, side in ((there, "B"), (back, "A")):
        assert f"Everything in {side} is in" in told.result.sentence
        assert "more often than there" in told.result.sentence
        assert "too simple" not in told.result.sentence


def test_states_of_an_optimiser_are_no_head_that_is_lacking(tmp_path: Path) -> None:
    w = llama(1)
    moments = {f"optimizer.state.{k}.exp_avg": x * np.float32(0.01) ** 2 for k, x in enumerate(w.values())}
    there, back = both(tmp_path, as_type(w, BF16), w | moments)
    assert there.verdict == "shared_origin"
    assert "Everything in A is in B, in another encoding; B has" in there.result.sentence
    assert "Everything in B is in A, in another encoding; A has" in back.result.sentence


# Values that a reader takes for others


def other_type(x: np.ndarray) -> np.ndarray:
    return x.astype(BF16).view(np.float16)


def bytes_turned(x: np.ndarray) -> np.ndarray:
    return x.astype(BF16).view(np.uint16).byteswap().view(BF16)


@pytest.mark.parametrize(
    ("read", "words"), [(other_type, "the same bits read as F16"), (bytes_turned, "the bytes of each value")]
)
def test_bits_read_as_what_they_are_not(tmp_path: Path, read: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    w = llama(1)
    there, back = both(tmp_path, as_type(w, BF16), {name: read(x) for name, x in w.items()})
    assert there.verdict == "shared_origin"
    assert words in there.result.sentence
    for told in (there, back):  # nobody trained anything, and nothing is the same values in another type
        assert names(told) == {"read_otherwise"}
    orders = weightprint.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").table["order"]
    assert all(words in (order or "") for order in orders)


@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_gains_stored_less_one(tmp_path: Path, dtype: object) -> None:
    w = llama(1)
    off = {name: x - 1 if x.ndim == 1 else x for name, x in w.items()}
    there, back = both(tmp_path, as_type(w, dtype), as_type(off, np.float32 if dtype == np.float32 else BF16))
    assert "the same values less 1" in there.result.sentence
    assert "the same values plus 1" in back.result.sentence
    assert names(there) == {"read_otherwise"}


def test_other_gains_are_no_constant_apart(tmp_path: Path) -> None:
    w = llama(1)
    rng = np.random.default_rng(5)
    noise = {name: np.float32(0.01) * rng.standard_normal(x.shape, np.float32) for name, x in w.items()}
    off = {name: x - 1 + noise[name] if x.ndim == 1 else x for name, x in w.items()}
    there, _ = both(tmp_path, w, off)
    assert "read_otherwise" not in names(there)


def test_a_stranger_of_the_same_numbers_is_none(tmp_path: Path) -> None:
    there, _ = both(tmp_path, as_type(llama(1), BF16), {n: other_type(x) for n, x in llama(2).items()})
    assert there.verdict in ("no_evidence", "inconclusive")


def test_models_of_nan_are_inconclusive_in_either_order(tmp_path: Path) -> None:
    w = llama(2)
    turned = {name: x.byteswap() for name, x in w.items()}  # of float32: NaN in most matrices
    there, _ = both(tmp_path, llama(1), turned)
    assert there.verdict == "inconclusive"


# What stands elsewhere


def swapped(w: Arrays, one: str, other: str) -> Arrays:
    def name_of(name: str) -> str:
        return name.replace(one, other) if one in name else name.replace(other, one)

    return {name: w[name_of(name)] for name in w}


def test_diff_names_the_tensor_whose_values_these_are(tmp_path: Path) -> None:
    w = llama(1)
    one = put(tmp_path / "a.safetensors", w)
    other = put(tmp_path / "b.safetensors", embedding_for_head(swapped(w, "gate_proj", "up_proj")))
    told = weightprint.diff(one, other).table
    orders = dict(zip(told["name"], told["order"], strict=True))
    assert orders["model.layers.1.mlp.gate_proj.weight"] == "the values of model.layers.1.mlp.up_proj.weight"
    assert orders["lm_head.weight"] == "the values of model.embed_tokens.weight"
    assert sum(order is not None for order in orders.values()) == 5


@pytest.mark.parametrize("order", ["one after the other", "all of them in turn"])
def test_keys_and_values_repeated(tmp_path: Path, order: str) -> None:
    w = llama(1)
    more = dict(w)
    for name, x in w.items():
        if "k_proj" in name or "v_proj" in name:
            heads = x.reshape(2, 32, 128)
            repeated = np.repeat(heads, 2, axis=0) if order == "one after the other" else np.tile(heads, (2, 1, 1))
            more[name] = repeated.reshape(128, 128)
    a, b = folder(tmp_path / "a", encode, w), folder(tmp_path / "b", encode, more, num_key_value_heads=4)
    for told in (weightprint.compare(a, b), weightprint.compare(b, a)):
        assert told.verdict == "shared_origin"
        (repeated,) = (o for o in told.operations if o.name == "kv_heads_repeated")
        assert repeated.parameters == {"kv_heads": 4, "order": order}


def moe(n: int = 12) -> Arrays:
    w = llama(1)
    rng = np.random.default_rng(9)
    out = {name: x for name, x in w.items() if ".mlp." not in name}
    for b in range(2):
        out[f"model.layers.{b}.mlp.gate.weight"] = matrix(rng, n, 128)
        for e in range(n):
            for role, shape in (("gate", (64, 128)), ("up", (64, 128)), ("down", (128, 64))):
                out[f"model.layers.{b}.mlp.experts.{e}.{role}_proj.weight"] = matrix(rng, *shape)
    return out


def test_experts_sorted_as_words_without_their_router(tmp_path: Path) -> None:
    w, order = moe(), sorted(range(12), key=str)
    moved = {re.sub(r"experts\.(\d+)", lambda m: f"experts.{order.index(int(m[1]))}", n): x for n, x in w.items()}
    there, back = both(tmp_path, w, {name: moved[name] for name in w})
    for told in (there, back):
        assert "experts stand under other numbers, and the routers as they stood: not the same" in told.result.sentence


def test_experts_dropped_in_either_order(tmp_path: Path) -> None:
    w = moe()
    fewer = {n: x[:8] if "mlp.gate." in n else x for n, x in w.items() if not re.search(r"experts\.(8|9|1\d)\.", n)}
    there, _ = both(tmp_path, w, fewer)
    assert there.verdict == "shared_origin"
