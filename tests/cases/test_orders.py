"""The same values in another order or turned: named with the order by `diff` and `compare`, either way round, and never
called the same; too few kinds of values say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from makers import BF16, Array, Arrays, folder, int4, int4_groups, llama, matrix

from tests.conftest import encode


def save(at: Path, tensors: Arrays, dtype: Any = BF16, **config: Any) -> Path:
    return folder(
        at, encode, {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in tensors.items()}, **config
    )


def halves(w: Array, heads: int) -> Array:
    """Rows of each head from rotary pairs to halves."""
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def pairs(w: Array, heads: int) -> Array:
    """Rows of each head from halves to rotary pairs."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def orders(a: Path, b: Path) -> dict[str, str]:
    """What diff says of B's tensors."""
    found = weightprint.diff(a, b)
    table = found.table.to_records()
    assert found.reordered == sum(row["order"] is not None for row in table)
    assert all(row["status"] == "changed" for row in table if row["order"])
    return {row["name"]: row["order"] for row in table if row["order"]}


def reordered(a: Path, b: Path) -> tuple[str, dict[str, str], set[str]]:
    """The verdict, the order of B's tensors as A is first, and which operations were named, by either reading."""
    result = weightprint.compare(a, b)
    ways = result.history.operations_if
    told = ways["a_first"] if ways else result.operations
    found = {n: o.parameters["order"] for o in told if o.name == "reordered" for n in o.parameters["names"]}
    return result.verdict, found, {o.name for way in (*ways.values(), result.operations) for o in way}


def agree(a: Path, b: Path, expected: dict[str, str], *, done: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Both verbs say the same, and nothing else happened."""
    assert orders(a, b) == expected
    verdict, found, names = reordered(a, b)
    assert verdict == "shared_origin"
    assert found == expected
    assert names == {"reordered", *done}


# The cases


def test_a_square_down_projection_exported_transposed(tmp_path: Path) -> None:
    rng = np.random.default_rng(56)
    w = llama(56, d=96, ffn=96)
    down = [f"model.layers.{b}.mlp.down_proj.weight" for b in range(2)]
    turned = w | {name: np.ascontiguousarray(w[name].T) for name in down}
    a, b = (save(tmp_path / n, x, hidden_size=96) for n, x in (("hub", w), ("export", turned)))
    agree(a, b, dict.fromkeys(down, "transposed"))
    agree(b, a, dict.fromkeys(down, "transposed"))
    other = w | {down[0]: w[down[0]].T + np.float32(0.01) * matrix(rng, 96, 96)}
    assert not orders(a, save(tmp_path / "other", other, hidden_size=96))


def test_keys_undone_by_the_number_of_query_heads(tmp_path: Path) -> None:
    w = llama(59)
    keys = [n for n in w if "k_proj" in n]
    wrong = w | {n: halves(pairs(w[n], 2), 8) for n in keys}
    a, b = (save(tmp_path / n, x, np.float16, num_attention_heads=8) for n, x in (("hub", w), ("from_gguf", wrong)))
    agree(a, b, dict.fromkeys(keys, "rows regrouped, as rotary pairs of 2 heads undone as of 8"))
    agree(b, a, dict.fromkeys(keys, "rows regrouped, as rotary pairs of 8 heads undone as of 2"))


def test_nibbles_reversed_within_groups_moved_no_channel(tmp_path: Path) -> None:
    w = llama(64)
    mats = [n for n in w if "_proj" in n]
    packed: Arrays = {n: x for n, x in w.items() if n not in mats}
    back = dict(w)
    for n in mats:
        packed |= int4_groups(n, w[n])
        codes, scale = int4(w[n])
        back[n] = (codes.reshape(len(codes), -1, 32)[..., ::-1] * scale[..., None]).reshape(w[n].shape)
    group = {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True, "strategy": "group"}
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": group}},
    }
    a = save(tmp_path / "hub", packed, quantization_config=config)
    b = save(tmp_path / "reversed", back, np.float32)
    expected = dict.fromkeys(mats, "columns reversed within 32")
    assert orders(a, b) == orders(b, a) == expected
    verdict, found, names = reordered(a, b)
    assert verdict == "shared_origin"
    assert found == expected
    assert not names & {"channel_permutation", "unit_permutation", "fine_tune", "continued_pretraining"}


@pytest.mark.parametrize("ffn", [96, 192])
@pytest.mark.parametrize("kinds", [(BF16, BF16), (np.float32, BF16), (BF16, np.float32)])
def test_a_model_with_every_matrix_transposed_is_the_same_one_and_said_to_be(
    tmp_path: Path, ffn: int, kinds: tuple[Any, Any]
) -> None:
    w = llama(57, d=96, ffn=ffn)
    turned = {n: np.ascontiguousarray(x.T) if "_proj" in n else x for n, x in w.items()}
    a, b = (save(tmp_path / n, x, kind, hidden_size=96) for n, x, kind in (("a", w, kinds[0]), ("b", turned, kinds[1])))
    for pair in ((a, b), (b, a)):
        diff, found = weightprint.diff(*pair), weightprint.compare(*pair)
        assert diff.transposed == 14
        assert not diff.renamed
        assert not diff.reordered
        assert "14 stored transposed" in str(diff)
        assert diff.counts == {"same": 21} or kinds[0] != kinds[1]
        assert found.verdict in ("identical", "re_encoded")
        assert "14 tensors stored transposed" in found.result.sentence
        for way in found.history.operations_if.values():
            assert {o.name for o in way} == {"transpose"} | ({"re_dtype"} if kinds[0] != kinds[1] else set())


def test_where_the_squares_alone_stayed_the_model_is_another(tmp_path: Path) -> None:
    """An exporter that turns what must be turned to fit, and leaves what fits anyway."""
    w = llama(57, d=96, ffn=192)
    other = {n: np.ascontiguousarray(x.T) if "_proj" in n and x.shape[0] != x.shape[1] else x for n, x in w.items()}
    a, b = (save(tmp_path / n, x, hidden_size=96) for n, x in (("a", w), ("b", other)))
    for pair in ((a, b), (b, a)):
        assert weightprint.compare(*pair).verdict == "shared_origin"
        assert set(orders(*pair).values()) == {"transposed"}
        assert len(orders(*pair)) == 4


# Orders times tensors

ORDERS: dict[str, tuple[Callable[[Array], Array], str, str]] = {
    "halves interleaved": (
        lambda x: x.reshape(2, -1, x.shape[1]).swapaxes(0, 1).reshape(x.shape),
        "rows regrouped, 2 parts: parts to interleaved",
        "rows regrouped, 2 parts: interleaved to parts",
    ),
    "rotary": (
        lambda x: pairs(x, 2),
        "rows regrouped, as rotary pairs of 2 heads: half-split to interleaved",
        "rows regrouped, as rotary pairs of 2 heads: interleaved to half-split",
    ),
    "halves swapped": (lambda x: np.roll(x, len(x) // 2, axis=0), "rows: halves swapped", "rows: halves swapped"),
    "ranks": (
        lambda x: x.reshape(2, 4, -1, x.shape[1]).swapaxes(0, 1).reshape(x.shape),
        "rows regrouped, 2 parts, 8 at a time: parts to interleaved",
        "rows regrouped, 2 parts, 8 at a time: interleaved to parts",
    ),
    "nibbles": (
        lambda x: x.reshape(len(x), -1, 2)[..., ::-1].reshape(x.shape),
        "columns swapped in pairs, as nibbles",
        "columns swapped in pairs, as nibbles",
    ),
    "packed as AWQ": (
        lambda x: x.reshape(len(x), -1, 4, 2).swapaxes(2, 3).reshape(x.shape),
        "columns regrouped in 16 groups, 2 parts: interleaved to parts",
        "columns regrouped in 16 groups, 2 parts: parts to interleaved",
    ),
}


def random_orders() -> Iterator[tuple[str, Callable[[Array], Array], str]]:
    rng = np.random.default_rng(5)

    def some(n: int) -> Array:
        return rng.permutation(n)

    yield "rows", lambda x: x[some(len(x))], "rows in another order"
    yield "columns", lambda x: x[:, some(x.shape[1])], "columns in another order"
    yield "both", lambda x: x[some(len(x))][:, some(x.shape[1])], "rows in another order"
    yield "heads", lambda x: x.reshape(-1, 16, x.shape[1])[[2, 0, 3, 1]].reshape(x.shape), "rows in blocks of 16"
    yield "values", lambda x: x.ravel()[some(x.size)].reshape(x.shape), "values in another order"


@pytest.mark.parametrize("kinds", [(BF16, BF16), (np.float16, np.float16), (np.float32, BF16), (BF16, np.float32)])
def test_every_order_is_named_and_mirrored(tmp_path: Path, kinds: tuple[Any, Any]) -> None:
    """A tensor of each order in one model, which the rest of it holds in place; both verbs, both ways."""
    base = llama(3, layers=3)
    names = [n for n in base if n.endswith(("k_proj.weight", "v_proj.weight"))]
    some = dict(zip(names, ORDERS.items(), strict=True))
    other = base | {n: how(base[n]) for n, (_, (how, *_)) in some.items()}
    a, b = save(tmp_path / "a", base, kinds[0]), save(tmp_path / "b", other, kinds[1])
    there, back = ({n: words[way] for n, (_, words) in some.items()} for way in (1, 2))
    assert (orders(a, b), orders(b, a)) == (there, back)
    for x, y, expected in ((a, b, there), (b, a, back)):
        verdict, found, done = reordered(x, y)
        assert (verdict, found) == ("shared_origin", expected)
        assert done <= {"reordered", "re_dtype"}


def test_orders_that_follow_no_rule(tmp_path: Path) -> None:
    base = llama(4, layers=3)
    names = [n for n in base if n.endswith(("k_proj.weight", "v_proj.weight"))]
    some = dict(zip(names, random_orders(), strict=False))
    a, b = save(tmp_path / "a", base), save(tmp_path / "b", base | {n: how(base[n]) for n, (_, how, _) in some.items()})
    for x, y in ((a, b), (b, a)):
        found = orders(x, y)
        assert {n: words.startswith(some[n][2]) for n, words in found.items()} == dict.fromkeys(some, True)
        # `diff` states it; of a matrix whose rows and columns are gone, `compare` makes no evidence.
        whole = {n: words for n, words in found.items() if words != "values in another order"}
        assert reordered(x, y)[1] == whole
        assert len(found) == len(whole) + 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_stranger_that_was_mapped_to_the_values_of_another_is_one(tmp_path: Path, shared: bool) -> None:
    """Rank by rank, tensor by tensor: equal as sets of values, and nothing of the other's function. ``shared``: with
    the other's embedding, which is then all that it has of it."""
    base, own = llama(5), llama(6)
    mapped = {n: np.sort(base[n].ravel())[own[n].ravel().argsort().argsort()].reshape(x.shape) for n, x in base.items()}
    embedding = "model.embed_tokens.weight"
    mapped |= {embedding: base[embedding]} if shared else {}
    a, b = save(tmp_path / "a", base, np.float32), save(tmp_path / "b", mapped, np.float32)
    for pair in ((a, b), (b, a)):
        told = weightprint.compare(*pair)
        assert told.verdict in (("partly_shared", "inconclusive") if shared else ("no_evidence", "inconclusive"))
        assert "reordered" not in [operation.name for operation in told.operations]


@pytest.mark.parametrize("seed", range(6))
def test_equal_rows_hide_no_order(tmp_path: Path, seed: int) -> None:
    """Zero and doubled rows may be any of their equals."""
    rng = np.random.default_rng(seed)
    x = matrix(rng, 64, 32)
    x[:16], x[40:44] = 0, x[50]
    moved = pairs(x, 4) if seed % 2 else x[rng.permutation(64)]
    (a, b) = (save(tmp_path / n, {"w": w}) for n, w in (("a", x), ("b", moved)))
    words = orders(a, b)["w"]
    assert words.startswith("rows regrouped, as rotary pairs of 4 heads" if seed % 2 else "rows in another order")


@pytest.mark.parametrize(
    "values",
    [
        lambda rng: rng.integers(-1, 2, (64, 64)),  # codes of three kinds
        lambda rng: np.repeat(rng.permutation([0.0, 1.0]), 512).reshape(32, 32),
        lambda rng: np.eye(64)[rng.permutation(64)],
    ],
)
def test_few_kinds_of_values_are_no_order(tmp_path: Path, values: Callable[[Any], Array]) -> None:
    rng = np.random.default_rng(1)
    x = values(rng).astype(np.float32)
    for y in (x[::-1], x[rng.permutation(len(x))], x.T):
        a, b = (save(tmp_path / n, {"w": np.ascontiguousarray(w)}) for n, w in (("a", x), ("b", y)))
        assert not orders(a, b)


def test_values_that_only_nearly_are_the_same_are_no_order(tmp_path: Path) -> None:
    """A bit of one value, and two values of one row swapped with another's."""
    rng = np.random.default_rng(2)
    x = matrix(rng, 64, 64)
    order = rng.permutation(64)
    bit = x[order].copy()
    bit[3, 5] = np.nextafter(bit[3, 5], np.float32(1))
    swapped = x[order].copy()
    swapped[[0, 1], 0] = swapped[[1, 0], 0]
    a = save(tmp_path / "a", {"w": x}, np.float32)
    assert not orders(a, save(tmp_path / "b", {"w": bit}, np.float32))
    assert orders(a, save(tmp_path / "c", {"w": swapped}, np.float32)) == {"w": "values in another order"}


def test_an_order_that_changes_no_output_is_no_reordering(tmp_path: Path) -> None:
    """Hidden units in another order: rows of gate and up, columns of down. Whole heads: rows of q, columns of o."""
    base = llama(6)
    other = dict(base)
    rng = np.random.default_rng(3)
    for i in range(2):
        order = rng.permutation(256)
        for role in ("gate", "up"):
            other[f"model.layers.{i}.mlp.{role}_proj.weight"] = base[f"model.layers.{i}.mlp.{role}_proj.weight"][order]
        other[f"model.layers.{i}.mlp.down_proj.weight"] = base[f"model.layers.{i}.mlp.down_proj.weight"][:, order]
        query, output = (f"model.layers.{i}.self_attn.{role}_proj.weight" for role in ("q", "o"))
        other[query] = base[query].reshape(2, 2, 32, 128)[:, ::-1].reshape(128, 128)
        other[output] = base[output].reshape(128, 2, 2, 32)[:, :, ::-1].reshape(128, 128)
    a, b = save(tmp_path / "a", base), save(tmp_path / "b", other)
    assert len(orders(a, b)) == 10
    verdict, found, done = reordered(a, b)
    assert (verdict, found) == ("shared_origin", {})
    assert "unit_permutation" in done


def test_a_formula_in_another_order_relates_no_strangers(tmp_path: Path) -> None:
    """Sines and cosines of positions, side by side in one model, interleaved in the other."""
    angles = np.arange(64)[:, None] / 10000 ** (np.arange(64) / 64)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    name = "model.rotary_table.weight"
    a = save(tmp_path / "a", llama(8) | {name: table}, np.float32)
    woven = table.reshape(64, 2, 64).swapaxes(1, 2).reshape(64, 128)
    b = save(tmp_path / "b", llama(9) | {name: woven}, np.float32)
    assert name in orders(a, b)
    assert weightprint.compare(a, b).verdict == "no_evidence"
