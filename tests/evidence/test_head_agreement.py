"""Heads named alike by both products: exact maps under everything a copy may do to its heads, silence on strangers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models, side
from weightprint.evidence.head_agreement import HeadAgreement, head_agreement, log10_p_counts
from weightprint.evidence.lookup.heads import Sketch, factors, overlaps
from weightprint.evidence.nulls.exchange import log10_p_order
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.attentions import attentions

D, HEADS, GROUPS, SIZE, LAYERS = 64, 8, 4, 8, 4
CONFIG = {"model_type": "llama", "hidden_size": D, "num_attention_heads": HEADS, "head_dim": SIZE}
AT = "model.layers.{}.self_attn.{}_proj.weight"


def grouped(seed: int, layers: int = LAYERS) -> Arrays:
    """A decoder with grouped-query attention."""
    x = decoder(seed, d=D, h=24, layers=layers, vocabulary=40)
    for name in list(x):
        if ".k_proj" in name or ".v_proj" in name:
            x[name] = x[name][: GROUPS * SIZE].copy()
    return x


def pair(a: Arrays, b: Arrays, effort: str = "standard") -> ModelPair:
    return models(a, b, config=CONFIG, effort=effort)


def head_map(m: ModelPair) -> list[list[tuple[str, int] | None]]:
    return [[h and (h[0], h[1]) for h in row["heads"]] for row in head_agreement(m).told(HeadAgreement).head_map]


def in_place(order: list[int] | None = None) -> list[list[tuple[str, int]]]:
    return [[(f"decoder.{i}", h) for h in (order or range(HEADS))] for i in range(LAYERS)]


def reordered(x: Arrays, order: list[int], groups: list[int]) -> Arrays:
    """Heads in another order; `groups` is the order of the key-value heads that goes with it."""
    out = dict(x)
    for i in range(LAYERS):
        for role in "qkv":
            w = x[AT.format(i, role)].reshape(-1, SIZE, D)
            out[AT.format(i, role)] = w[order if role == "q" else groups].reshape(-1, D)
        o = x[AT.format(i, "o")].reshape(D, HEADS, SIZE)
        out[AT.format(i, "o")] = o[:, order].reshape(D, -1)
    return out


def regauged(x: Arrays, seed: int, spread: float = 1.0) -> Arrays:
    """Any map inside v and o, scales and rotations of rotary pairs inside q and k: the function stays what it was."""
    rng = np.random.default_rng(seed)
    out = {name: value.astype(np.float64) for name, value in x.items()}
    half = SIZE // 2
    for i in range(LAYERS):
        q, k, v, o = (out[AT.format(i, role)] for role in "qkvo")
        for g in range(GROUPS):
            inner = rng.standard_normal((SIZE, SIZE)) + 2 * np.eye(SIZE)
            angle, scale = rng.uniform(0, 6, half), math.exp(spread * rng.standard_normal())
            turn = np.block(
                [[np.diag(np.cos(angle)), -np.diag(np.sin(angle))], [np.diag(np.sin(angle)), np.diag(np.cos(angle))]]
            )
            rows = slice(g * SIZE, (g + 1) * SIZE)
            k[rows], v[rows] = turn @ k[rows] * scale, inner @ v[rows]
            for h in range(g * HEADS // GROUPS, (g + 1) * HEADS // GROUPS):
                cut = slice(h * SIZE, (h + 1) * SIZE)
                q[cut], o[:, cut] = turn @ q[cut] / scale, o[:, cut] @ np.linalg.inv(inner)
    return {name: value.astype(np.float32) for name, value in out.items()}


def brute_vectors(x: Arrays, block: int) -> np.ndarray:
    """The definition, with d x d products: scale, centre, take out the identity, length one. float64."""
    gain = x[f"model.layers.{block}.input_layernorm.weight"].astype(np.float64)
    q, k = (x[AT.format(block, r)].astype(np.float64) * gain for r in "qk")
    products = []
    for h in range(HEADS):
        g = h * GROUPS // HEADS
        p = q[h * SIZE : (h + 1) * SIZE].T @ k[g * SIZE : (g + 1) * SIZE]
        products.append(p / np.linalg.norm(p))
    p = np.stack(products)
    p = p / np.sqrt((p**2).sum(axis=(0, 2)))[None, :, None] / np.sqrt((p**2).sum(axis=(0, 1)))[None, None, :]
    centre = np.eye(D) - 1 / D
    p = centre @ p @ centre
    p -= np.trace(p, axis1=1, axis2=2)[:, None, None] / (D - 1) * centre
    flat = p.reshape(HEADS, -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_vectors_are_the_products() -> None:
    x = grouped(3)
    m = pair(x, x)
    found = factors(m, m.a, attentions(m.a, m.b)[1], np.arange(D))["qk"]
    exact = brute_vectors(x, 1)
    assert Sketch(D, D, 0)(found)[0] == pytest.approx(exact, abs=2e-4)
    small = Sketch(D, 32, 0)(found)[0]
    assert np.abs(small @ small.T - exact @ exact.T).max() < 6 / 32
    order = np.random.default_rng(0).permutation(D)
    sketch = Sketch(D, D, 0, [order])
    as_it_is, turned = sketch(found).reshape(2, HEADS, D, D)
    assert as_it_is == pytest.approx(exact.reshape(HEADS, D, D), abs=2e-4)
    assert turned[:, order][:, :, order] == pytest.approx(as_it_is, abs=2e-4)
    assert np.array_equal(sketch(found, copies=False)[0], as_it_is.reshape(HEADS, -1))


def test_overlap_of_known_spaces() -> None:
    e = np.eye(6, dtype=np.float32)
    tilted = np.stack([e[0], (e[1] + e[4]) / np.sqrt(2)])
    other = np.stack([3 * e[:2], e[2:4], tilted, [e[0], e[0]]])
    assert overlaps(np.stack([e[:2]] * 4), other) == pytest.approx([1, 0, (1 + 0.5) / 2, 0.5], abs=1e-8)
    assert overlaps(np.zeros((1, 2, 6), np.float32), e[None, :2]) == pytest.approx([0])
    # Far from orthogonal rows: against an orthonormal basis of both.
    x, y = np.random.default_rng(0).standard_normal((2, 1, 5, 40)).astype(np.float32) @ np.diag(np.logspace(-2, 2, 40))
    q_x, q_y = (np.linalg.qr(m[0].T)[0] for m in (x, y))
    want = float(np.square(q_x.T @ q_y).sum()) / 5
    assert overlaps(x.astype(np.float32), y.astype(np.float32)) == pytest.approx([want], rel=1e-4)


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_maps_inside_heads_change_nothing(spread: float) -> None:
    x = grouped(1)
    plain, other = head_agreement(pair(x, x)), head_agreement(pair(x, regauged(x, 5, spread)))
    assert head_map(pair(x, regauged(x, 5, spread))) == in_place()
    assert (other.log10_p or 0) == pytest.approx(plain.log10_p or 0, rel=0.1)
    assert min(h[2] for row in other.told(HeadAgreement).head_map for h in row["heads"]) > 0.99
    assert min(other.told(HeadAgreement).inside.values()) > 0.99


def test_gains_folded_into_the_matrices_change_nothing() -> None:
    x = grouped(2)
    folded = dict(x)
    for i in range(LAYERS):
        name = f"model.layers.{i}.input_layernorm.weight"
        for role in "qkv":
            folded[AT.format(i, role)] = x[AT.format(i, role)] * x[name]
        folded[name] = np.ones_like(x[name])
    found = head_agreement(pair(x, folded))
    assert found.effect == pytest.approx(head_agreement(pair(x, x)).effect or 0, abs=0.1)
    assert min(h[2] for row in found.told(HeadAgreement).head_map for h in row["heads"]) > 0.999


def test_permuted_heads_are_mapped_and_order_is_silent() -> None:
    x = grouped(4)
    groups = [2, 0, 3, 1]
    order = [2 * g + j for g in groups for j in (1, 0)]
    found = head_agreement(pair(x, reordered(child(x, 0.9), order, groups)))
    assert [[h and (h[0], h[1]) for h in row["heads"]] for row in found.told(HeadAgreement).head_map] == in_place(order)
    assert found.told(HeadAgreement).log10_p_agreement < -12
    assert found.told(HeadAgreement).log10_p_order > -1
    assert found.matches[0].units is not None
    assert dict(found.matches[0].units.tolist()) == dict(enumerate(order))


def test_descendants_keep_their_heads() -> None:
    x = grouped(5)
    found = head_agreement(pair(x, child(x, 0.7)))
    assert (found.effect or 0) > 0.9
    assert (found.log10_p or 0) < -8


def test_layers_dropped_and_repeated() -> None:
    x, layers = grouped(6), [0, 2, 3, 2]
    y = {n: v for n, v in x.items() if ".layers." not in n}
    for new, old in enumerate(layers):
        y |= {
            n.replace(f".layers.{old}.", f".layers.{new}."): v
            for n, v in child(x, 0.9).items()
            if f".layers.{old}." in n
        }
    assert head_map(pair(x, y)) == [[(f"decoder.{old}", h) for h in range(HEADS)] for old in layers]


def test_heads_pruned_or_given_to_groups() -> None:
    x = grouped(7)
    kept = [0, 1, 4, 5]
    pruned, shared = dict(x), dict(x)
    for i in range(LAYERS):
        cut = np.concatenate([np.arange(h * SIZE, (h + 1) * SIZE) for h in kept])
        pairs = np.concatenate([np.arange(g * SIZE, (g + 1) * SIZE) for g in (0, 2)])
        pruned[AT.format(i, "q")], pruned[AT.format(i, "o")] = x[AT.format(i, "q")][cut], x[AT.format(i, "o")][:, cut]
        for role in "kv":
            pruned[AT.format(i, role)] = x[AT.format(i, role)][pairs]
            w = x[AT.format(i, role)].reshape(GROUPS // 2, 2, SIZE, D)
            shared[AT.format(i, role)] = w.mean(axis=1).reshape(-1, D)
    half = replace(pair(x, pruned), b=side("b", pruned, CONFIG | {"num_attention_heads": HEADS // 2}))
    assert head_map(half) == [[(f"decoder.{i}", h) for h in kept] for i in range(LAYERS)]
    found = head_agreement(pair(x, shared))
    assert (found.effect or 0) > 0.7
    assert all(
        h is None or (h[0], h[1]) == (row["b"], j)
        for row in found.told(HeadAgreement).head_map
        for j, h in enumerate(row["heads"])
    )


def turned(x: Arrays, matrix: np.ndarray) -> Arrays:
    """The residual stream in another basis, gains folded first: y = matrix' x."""
    out = dict(x)
    for i in range(LAYERS):
        name = f"model.layers.{i}.input_layernorm.weight"
        for role in "qkv":
            out[AT.format(i, role)] = (x[AT.format(i, role)] * x[name]) @ matrix
        out[AT.format(i, "o")] = matrix.T @ x[AT.format(i, "o")]
        out[name] = np.ones_like(x[name])
    return {name: value.astype(np.float32) for name, value in out.items()}


def test_bases_are_used() -> None:
    x, rng = grouped(8), np.random.default_rng(8)
    rotation = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
    channels, signs = rng.permutation(D), rng.choice([-1, 1], D).astype(np.float32)
    permutation = np.zeros((D, D), np.float32)  # A's channel j is B's channel channels[j], times its sign
    permutation[np.arange(D), channels] = signs
    for matrix, basis in (
        (rotation, Basis("rotation", matrix=rotation.T, candidates=3)),
        (permutation, Basis("signed_permutation", channels=channels, signs=signs)),
    ):
        m = pair(x, turned(child(x, 0.9), matrix))
        assert (head_agreement(m).log10_p or 0) > -3
        found = head_agreement(replace(m, basis=basis))
        assert [[h and (h[0], h[1]) for h in row["heads"]] for row in found.told(HeadAgreement).head_map] == in_place()
        through_tokens = head_agreement(replace(m, basis=replace(basis, semantic=True)))
        assert through_tokens.log10_p == through_tokens.told(HeadAgreement).log10_p_order
        assert through_tokens.told(HeadAgreement).order_only
        fitted = replace(m, basis=replace(basis, fitted=frozenset(f"decoder.{i}" for i in range(LAYERS))))
        assert not head_agreement(fitted).applied


@pytest.mark.slow
def test_strangers_are_silent() -> None:
    p = np.array([head_agreement(pair(grouped(s), grouped(s + 500))).log10_p for s in range(40)], float)
    for alpha in (0.2, 0.05):
        assert np.mean(p <= np.log10(alpha)) <= alpha + 3 * np.sqrt(alpha / 40)
    assert p.min() > -4


def test_counts_are_binomial() -> None:
    k, chance = 4, [0, 1, 2, 0]
    n, q = k + 3, Fraction(1, 5)
    exact = sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k, n + 1))
    assert log10_p_counts(k, chance) == pytest.approx(math.log10(exact))
    assert log10_p_counts(0, chance) == 0
    assert log10_p_counts(400, [0] * 20) == pytest.approx(-400 * math.log10(21))


@pytest.mark.parametrize("shape", [(4, 1), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_bound_on_order_holds_for_all_orders(shape: tuple[int, int], blocks: int) -> None:
    """All orders of groups and within groups, listed: the identity as the best match is the worst case."""
    groups, members = shape
    counts: dict[int, int] = {}
    for outer in itertools.permutations(range(groups)):
        for inner in itertools.product(itertools.permutations(range(members)), repeat=groups):
            order = [outer[g] * members + inner[g][j] for g in range(groups) for j in range(members)]
            hits = sum(i == j for i, j in enumerate(order))
            counts[hits] = counts.get(hits, 0) + 1
    one = np.zeros(groups * members + 1)
    for hits, count in counts.items():
        one[hits] = count / sum(counts.values())
    total = one
    for _ in range(blocks - 1):
        total = np.convolve(total, one)
    for k in range(total.size):
        assert total[k:].sum() <= 10 ** log10_p_order(k, [shape] * blocks) + 1e-12
    assert 10 ** log10_p_order(total.size - 1, [shape] * blocks) < 1.2 * total[-1]


def test_latent_attention_is_multiplied_out() -> None:
    """MLA with q of low rank: the products are those of the plain attention that it stands for."""
    rng, heads, nope, rope, value, rq, rkv = np.random.default_rng(9), 4, 6, 2, 5, 20, 16
    config = {
        "model_type": "deepseek_v2", "hidden_size": D, "num_attention_heads": heads, "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope, "v_head_dim": value, "q_lora_rank": rq, "kv_lora_rank": rkv,
    }  # fmt: skip
    shapes = {
        "q_a_proj.weight": (rq, D), "q_a_layernorm.weight": (rq,), "q_b_proj.weight": (heads * (nope + rope), rq),
        "kv_a_proj_with_mqa.weight": (rkv + rope, D), "kv_a_layernorm.weight": (rkv,),
        "kv_b_proj.weight": (heads * (nope + value), rkv), "o_proj.weight": (D, heads * value),
    }  # fmt: skip
    x: Arrays = {"model.embed_tokens.weight": rng.standard_normal((40, D)).astype(np.float32)}
    for i in range(2):
        x |= {f"model.layers.{i}.self_attn.{n}": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        for n in ("input_layernorm", "post_attention_layernorm"):
            x[f"model.layers.{i}.{n}.weight"] = rng.uniform(0.5, 1.5, D).astype(np.float32)
        for n, s in (("gate", (48, D)), ("up", (48, D)), ("down", (D, 48))):
            x[f"model.layers.{i}.mlp.{n}_proj.weight"] = rng.standard_normal(s).astype(np.float32)
    m = models(x, x, config=config)
    attention = attentions(m.a, m.b)[0]
    assert attention.latent == (nope, rope)
    p = {n: x[f"model.layers.0.self_attn.{n}"].astype(np.float64) for n in shapes}
    gain = x["model.layers.0.input_layernorm.weight"].astype(np.float64)
    kv_a = p["kv_a_proj_with_mqa.weight"] * gain
    q = (p["q_b_proj.weight"] * p["q_a_layernorm.weight"]) @ (p["q_a_proj.weight"] * gain)
    kv = ((p["kv_b_proj.weight"] * p["kv_a_layernorm.weight"]) @ kv_a[:rkv]).reshape(heads, nope + value, D)
    q = q.reshape(heads, nope + rope, D)
    plain = np.stack([q[h].T @ np.concatenate([kv[h, :nope], kv_a[rkv:]]) for h in range(heads)])
    plain /= np.linalg.norm(plain, axis=(1, 2), keepdims=True)
    rows, columns = np.sqrt((plain**2).sum(axis=(0, 2))), np.sqrt((plain**2).sum(axis=(0, 1)))
    centre = np.eye(D) - 1 / D
    want = centre @ (plain / rows[None, :, None] / columns[None, None, :]) @ centre
    found = factors(m, m.a, attention, np.arange(D))["qk"]
    got = found.left.transpose(0, 2, 1) @ found.right[found.of]
    for g, w in zip(got.reshape(heads, -1), want.reshape(heads, -1), strict=True):
        assert float(g @ w / np.linalg.norm(g) / np.linalg.norm(w)) > 1 - 1e-5
    assert head_agreement(m).told(HeadAgreement).agreed == 2 * heads


def test_why_not() -> None:
    x = grouped(0)
    assert "told apart" in (head_agreement(models(x, x)).why_not or "")
    one_knows = replace(models(x, x), a=pair(x, x).a)
    assert head_agreement(one_knows).told(HeadAgreement).agreed == LAYERS * HEADS
    wide = decoder(0, d=96, h=24, layers=2, vocabulary=40)
    assert "width" in (head_agreement(models(x, wide, config=CONFIG)).why_not or "")
    dead = {n: np.zeros_like(v) if ".layers.1.self_attn.q" in n else v for n, v in x.items()}
    assert head_agreement(pair(x, dead)).n == (LAYERS - 1) * HEADS
