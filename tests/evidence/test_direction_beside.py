"""Parts that one side alone holds, orders, and rounding: they name the side that was made later, whichever that is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from synthetic import Arrays, child, decoder, mixture, models, relayered
from weightprint.verdict.direction.cues import gather
from weightprint.verdict.direction.direction import direction
from weightprint.verdict.direction.last_rounded import last_rounded
from weightprint.verdict.direction.samples import Seen
from weightprint.verdict.values import Direction


def both_ways(a: Arrays, b: Arrays) -> tuple[Direction, Direction]:
    one, other = (direction(gather(models(x, y), {})) for x, y in ((a, b), (b, a)))
    return one, other


def names_the_later(a: Arrays, b: Arrays, word: str) -> None:
    one, other = both_ways(a, b)
    assert (one.later, other.later) == ("b", "a")
    assert word in one.because


def silent(a: Arrays, b: Arrays) -> None:
    assert [found.later for found in both_ways(a, b)] == [None, None]
    assert [found.relation for found in both_ways(a, b)] == [None, None]


def drawn(like: np.ndarray, rows: int, columns: int, seed: int = 5) -> np.ndarray:
    return (like.std() * np.random.default_rng(seed).standard_normal((rows, columns))).astype(np.float32)


def without_units(x: Arrays, kept: np.ndarray) -> Arrays:
    cut = {"gate_proj": np.s_[kept], "up_proj": np.s_[kept], "down_proj": np.s_[:, kept]}
    return {n: v[cut[part]] if (part := n.split(".")[-2]) in cut else v for n, v in x.items()}


def with_units(x: Arrays, more: int) -> Arrays:
    out = dict(x)
    for i, (n, v) in enumerate(x.items()):
        if n.split(".")[-2] in ("gate_proj", "up_proj"):
            out[n] = np.concatenate([v, drawn(v, more, v.shape[1], i)])
        elif "down_proj" in n:
            out[n] = np.concatenate([v, drawn(v, len(v), more, i)], axis=1)
    return out


def fresh_block(x: Arrays) -> Arrays:
    """The blocks of another model, all drawn."""
    return {n: drawn(v, *v.shape, i) if v.ndim == 2 else np.ones_like(v) for i, (n, v) in enumerate(x.items())}


def with_biases(x: Arrays) -> Arrays:
    rng = np.random.default_rng(3)
    added = {
        n.replace("weight", "bias"): rng.standard_normal(len(v)).astype(np.float32) * v.std()
        for n, v in x.items()
        if n.split(".")[-2] in ("q_proj", "k_proj", "v_proj")
    }
    return x | added


A = decoder(50, layers=6)
EVERY_OTHER = np.flatnonzero(np.arange(160) % 5 != 2)

LATER: dict[str, tuple[Arrays, Arrays, str]] = {
    "blocks dropped": (A, relayered(A, [0, 2, 3, 5]), "taken out"),
    "the last blocks dropped": (A, relayered(A, [0, 1, 2]), "taken out"),
    "blocks inserted": (A, relayered(A, [0, 1, -2, 2, 3, -3, 4, 5], fresh_block(A)), "drawn"),
    "units cut": (A, without_units(A, EVERY_OTHER), "units"),
    "units added": (A, with_units(A, 50), "drawn"),
    "biases dropped": (with_biases(A), A, "dropped"),
    "table drawn anew": (A, A | {"model.embed_tokens.weight": drawn(A["model.embed_tokens.weight"], 260, 64)}, "anew"),
    "another's table": (
        A,
        A | {"model.embed_tokens.weight": decoder(51)["model.embed_tokens.weight"]},
        "another model's",
    ),
    "router added": (A, mixture(A, [list(range(0, 160, 2)), list(range(1, 160, 2))]), "routers"),
}


@pytest.mark.parametrize("case", LATER)
def test_lone_parts_name_the_later(case: str) -> None:
    names_the_later(*LATER[case])


def test_after_training_lone_parts_say_nothing_of_their_own() -> None:
    """A deeper model that was trained on: either of the two may hold what is new."""
    on = child(relayered(A, [0, 2, 3, 5]), 0.99)
    for found in both_ways(A, on):
        assert "equals" not in found.because


def test_padding_says_nothing() -> None:
    silent(A, with_units(A, 32))  # 160 + 32: a multiple of 64


def test_experts_repeated_beyond_those_looked_at() -> None:
    """Twelve experts, and one of the last again."""
    a = mixture(A, [list(range(12 * e, 12 * e + 12)) for e in range(12)])
    b = a | {n.replace(".experts.11.", ".experts.12."): v for n, v in a.items() if ".experts.11." in n}
    b |= {n: np.concatenate([v, v[-1:]]) for n, v in a.items() if n.endswith("mlp.gate.weight")}
    names_the_later(a, b, "repeat")


def test_each_lost_something_means_siblings() -> None:
    for found in both_ways(relayered(A, [0, 2, 3, 5]), without_units(A, EVERY_OTHER)):
        assert (found.later, found.relation) == (None, "siblings")
        assert "taken out" in found.because


def stored(x: Arrays) -> Arrays:
    return {n: v.astype(ml_dtypes.bfloat16) for n, v in x.items()}


def rescaled(x: Arrays) -> Arrays:
    rng = np.random.default_rng(9)
    out = dict(x)
    for n in [n for n in x if "up_proj" in n]:
        factor = np.exp(0.3 * rng.standard_normal(len(x[n]))).astype(np.float32)
        down = n.replace("up_proj", "down_proj")
        out[n], out[down] = x[n] * factor[:, None], x[down] / factor
    return out


def test_who_was_rounded_last() -> None:
    a = stored(A)
    names_the_later(a, stored(rescaled({n: v.astype(np.float32) for n, v in a.items()})), "rounded to what")
    silent(stored(rescaled(A)), stored(A))  # both rounded from what neither is


def test_a_permuted_stream_was_not_rounded() -> None:
    a, order = stored(A), np.random.default_rng(9).permutation(64)
    writes = ("o_proj", "down_proj")
    b = {n: v[order] if v.ndim == 1 or any(w in n for w in writes) else v[:, order] for n, v in a.items()}
    assert last_rounded(Seen(models(a, b), {})) is None


def in_depth_order() -> Arrays:
    """Blocks that write along directions which turn slowly with depth."""
    rng = np.random.default_rng(60)
    a = decoder(60, layers=8)
    angles = rng.standard_normal((2, 64))
    for i in range(8):
        along = np.cos(i / 3) * angles[0] + np.sin(i / 3) * angles[1]
        for part in ("self_attn.o_proj", "mlp.down_proj"):
            n = f"model.layers.{i}.{part}.weight"
            a[n] = (a[n] + 0.3 * a[n].std() * along[:, None] * rng.standard_normal(a[n].shape[1])).astype(np.float32)
    return a


def test_the_order_of_blocks() -> None:
    a = in_depth_order()
    names_the_later(a, relayered(a, [4, 0, 6, 2, 7, 3, 1, 5]), "another order")
    silent(relayered(a, [4, 0, 6, 2, 7, 3, 1, 5]), relayered(a, [3, 7, 1, 5, 0, 6, 2, 4]))


def test_the_order_of_tokens() -> None:
    name = "model.embed_tokens.weight"
    falling = np.linspace(3, 1, 200, dtype=np.float32)[:, None]
    a = A | {name: A[name] / np.linalg.norm(A[name], axis=1, keepdims=True) * falling}
    order = np.random.default_rng(4).permutation(200)
    names_the_later(a, a | {name: a[name][order]}, "token rows in another order")
    silent(a | {name: a[name][order]}, a | {name: a[name][order][order]})
