"""The parts of inference against plain oracles: periods, assignment, paths, fused layouts, words."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weightprint.anatomy.infer import stream_order as chain
from weightprint.anatomy.infer.bias_offsets import _agreed
from weightprint.anatomy.infer.blocks import BlockTensor, periodic, repeats_by_name
from weightprint.anatomy.infer.key_value_split import Rotation, split
from weightprint.anatomy.infer.log_odds import fused_layout
from weightprint.anatomy.infer.name_hints import hint, stack_word
from weightprint.anatomy.infer.order import ORDERS
from weightprint.anatomy.infer.pairing import assign, path, settle
from weightprint.anatomy.infer.shapes import Reading, hidden_size, read_matrices
from weightprint.anatomy.infer.value_probes import Probe
from weightprint.anatomy.roles import ROLES
from weightprint.util.natural_order import natural_key


@given(st.lists(st.integers(0, 3), min_size=3, max_size=6), st.integers(2, 6), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_a_repeated_run_is_found(unit: list[int], times: int, before: int, after: int) -> None:
    sequence = [(90 + i,) for i in range(before)] + [(x,) for x in unit] * times + [(80 + i,) for i in range(after)]
    if len(set(unit)) < 3 or len(unit) * times < 0.6 * len(sequence):
        return
    found = periodic(sequence)
    assert found is not None
    start, period, length = found
    assert all(sequence[i] == sequence[i + period] for i in range(start, start + length - period))
    assert length // period * period >= len(unit) * times


def test_shuffled_shapes_have_no_period() -> None:
    rng = np.random.default_rng(1)
    shapes = [(48,), (48, 48), (24, 48), (128, 48), (48, 128)] * 12
    hits = sum(periodic([shapes[i] for i in rng.permutation(len(shapes))]) is not None for _ in range(50))
    assert hits == 0


@pytest.mark.parametrize("seed", range(20))
def test_assignment_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (5, 5) if seed % 2 else (4, 6)
    score = rng.normal(size=(rows, columns))
    total = score[np.arange(rows), assign(score)].sum()
    best = max(sum(score[i, j] for i, j in enumerate(way)) for way in permutations(range(columns), rows))
    assert len(set(assign(score).tolist())) == rows
    assert total == pytest.approx(best)


@pytest.mark.parametrize("seed", range(20))
def test_places_side_by_side_are_settled_together(seed: int) -> None:
    """A drift with weak scores: no worse than without neighbours, and the order once scores say its direction."""
    rng = np.random.default_rng(seed)
    n = 12
    steps = np.cumsum(rng.normal(size=(n, 300)), 0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    mix = rng.permutation(n)
    alike = steps[mix] @ steps[mix].T
    score = np.eye(n)[:, mix] * 0.6 + rng.normal(0, 0.25, (n, n))
    beside = (np.abs(np.subtract.outer(np.arange(n), np.arange(n))) == 1) * 1.0

    def total(p: np.ndarray) -> float:
        return float(score[np.arange(n), p].sum() + (beside * alike[np.ix_(p, p)]).sum())

    found, gain = settle(score, beside, alike)
    assert sorted(found.tolist()) == list(range(n))
    assert total(found) >= total(assign(score)) - 1e-9
    off = alike - np.diag(np.diag(alike))
    rows = np.arange(n)
    assert gain[rows, found].sum() == pytest.approx(total(found) + (beside * off[np.ix_(found, found)]).sum())
    alone, same = settle(score, None, alike)
    np.testing.assert_array_equal(alone, assign(score))
    np.testing.assert_array_equal(same, score)


def _stream(seed: int, n: int = 6, d: int = 300) -> chain.Scene:
    """A residual stream from outside: gradients drift along it, and each norm's offset is what they drift by.

    Position r * n + b holds vector r * n + b. The cues of matrices stand two sd out.
    """
    rng = np.random.default_rng(seed)
    drift = rng.normal(size=(2 * n, d))
    gradient = rng.normal(size=d) * 2 + drift[::-1].cumsum(0)[::-1]  # o of block 0, down of block 0, o of block 1, ...
    o, down = gradient[::2], gradient[1::2]
    ffn = o - down + rng.normal(size=(n, d)) * 0.7
    attn = np.concatenate([drift[:1], down[:-1] - o[1:]]) + rng.normal(size=(n, d)) * 0.7
    vectors = np.concatenate([attn, o, ffn, down])
    vectors -= vectors.mean(1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cues = rng.normal(size=(4 * n, n, 4))
    for r in range(4):
        cues[r * n + np.arange(n), np.arange(n), r] += 2
    return chain.Scene(cues, np.eye(4), np.zeros((0, 4 * n)), vectors @ vectors.T, 0.3)


def test_offsets_lie_along_what_the_biases_around_them_differ_by(monkeypatch: pytest.MonkeyPatch) -> None:
    right, without = 0, 0
    for seed in range(4):
        scene = _stream(seed)
        positions = np.arange(24)
        (found,) = chain.settle_all([scene], np.random.default_rng(0))
        assert sorted(found.tolist()) == positions.tolist()
        right += int((found == positions).sum())
        with monkeypatch.context() as patch:
            patch.setattr(chain, "_STEPS", 0.0)
            (found,) = chain.settle_all([scene], np.random.default_rng(0))
        without += int((found == positions).sum())
    assert right >= 0.95 * 96
    assert without < 0.9 * 96


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_what_their_formula_says(seed: int) -> None:
    """r(v, o - down) and the like, by plain correlations of every triple."""
    rng = np.random.default_rng(seed)
    n, vectors = 4, rng.normal(size=(17, 50))
    where = rng.permutation(17)
    unit = vectors - vectors.mean(1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = np.zeros((16, 17))

    def row(b: int, make: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        values = np.array([0.0 if np.allclose(x := make(v)[0], 0) else np.corrcoef(x, make(v)[1])[0, 1] for v in unit])
        return (values - values.mean()) / values.std()

    for offset, before, behind, gap in ((2, 1, 3, 0), (0, 3, 1, 1)):
        blocks = range(gap, n)
        triples = [(offset * n + b, before * n + b - gap, behind * n + b) for b in blocks]
        for part in range(3):
            rows = []
            for b, positions in zip(blocks, triples, strict=True):
                x, i, j = (unit[where[s]] for s in positions)
                ways = (lambda v: (i - j, v), lambda v: (v - j, x), lambda v: (i - v, x))  # noqa: B023
                rows.append(row(b, ways[part]))
            own = [z[where[positions[part]]] for z, positions in zip(rows, triples, strict=True)]
            for k, (z, positions) in enumerate(zip(rows, triples, strict=True)):
                expected[positions[part]] += (sum(own) - own[k]) / (len(own) + 1) * z
    np.testing.assert_allclose(chain._steps(where, unit @ unit.T, n), expected, atol=1e-9)


def test_more_agreement_is_never_less_sure() -> None:
    positions = np.arange(13)
    other = positions.copy()
    other[[0, 4]] = other[[4, 0]]  # a role and a block of two vectors exchanged
    before: dict[int, float] = {}
    for agree in range(4, 7):
        votes = _agreed([positions] * agree + [other] * (6 - agree), 3)
        assert sorted(v.vector for v in votes) == positions.tolist()
        sure = {v.vector: v.sure for v in votes}
        assert all(v.sure <= v.role_sure for v in votes)
        assert (sure[0] < 0.75) == (agree < 6)
        assert sure[1] > 0.9
        assert sure[0] >= before.get(0, 0.0)
        before = sure
        at = {v.vector: (v.role, v.block) for v in votes}
        assert at[0] == ("attn_norm_bias", 0)
        assert at[4] == ("o_bias", 1)
        assert at[12] == ("final_norm_bias", None)


def test_a_drift_is_put_in_order() -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.normal(size=(24, 400)), 0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    mix = rng.permutation(24)
    order = [int(mix[i]) for i in path(steps[mix] @ steps[mix].T)]
    assert order in (list(range(24)), list(range(24))[::-1])


def test_random_names_show_no_blocks() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdef0123456789"))
    shapes = {"".join(rng.choice(letters, 16)): (8, 16) for _ in range(400)}
    assert repeats_by_name(shapes, list(shapes)) == []


def test_the_outer_number_is_the_block_unless_it_is_a_stage() -> None:
    unit = {"n1.g": (32,), "n2.g": (32,), "q": (32, 32), "k": (32, 32), "v": (32, 32), "o": (32, 32), "up": (64, 32)}
    shapes = {f"stage{s}.cell{b}.{k}": v for s in range(2) for b in range(4) for k, v in unit.items()}
    repeats = repeats_by_name(shapes, list(shapes))
    assert [(repeat.prefix, repeat.blocks) for repeat in repeats] == [
        (f"stage{s}.cell", [0, 1, 2, 3]) for s in range(2)
    ]
    shapes = {f"cell{b}.{k}": v for b in range(4) for k, v in unit.items()}
    shapes |= {f"cell{b}.bank.{e}.{k}": (48, 32) for b in range(4) for e in range(9) for k in ("w1.x", "w3.x")}
    shapes |= {f"cell{b}.bank.{e}.w2.x": (32, 48) for b in range(4) for e in range(9)}
    (repeat,) = repeats_by_name(shapes, list(shapes))
    assert repeat.prefix == "cell"
    assert {tensor.experts for tensor in repeat.kinds[0]} == {0, 9}


def _layout(grouped: bool, head: int, heads: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    d = head * heads
    size = np.exp(rng.normal(0, 0.5, d))  # norm of every value unit, in v's rows and o's columns alike
    q, k, v = (rng.normal(size=(d, d)) * np.exp(rng.normal(0, 0.5, (d, 1))) for _ in range(3))
    v = rng.normal(size=(d, d)) * size[:, None]
    o = rng.normal(size=(d, d)) * size
    if not grouped:
        return np.concatenate([q, k, v]), o, [q, k, v]
    by_head = np.stack([m.reshape(heads, head, d) for m in (q, k, v)], 1)
    return by_head.reshape(3 * d, d), o, [q, k, v]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_layout_of_fused_attention_is_seen_in_norms(grouped: bool) -> None:
    fused, o, parts = _layout(grouped, 16, 8)
    tensors = {"qkv": fused.astype(np.float32), "o": o.astype(np.float32)}
    probe = Probe(lambda n, r, c: tensors[n][r, c], {n: t.shape for n, t in tensors.items()})
    pair = [BlockTensor("", i, tensors[n].shape, {(0, None): n}) for i, n in enumerate(tensors)]
    rows, confidence, because = fused_layout(pair[0], pair[1], False, Reading(128, kv=128), probe)
    for cut, part in zip(rows, parts, strict=True):
        np.testing.assert_array_equal(fused[cut.indices()], part)
    assert confidence > 0.75
    assert ("head by head" in because) == grouped


def test_readings_of_shapes() -> None:
    def read(*shapes: tuple[int, ...]) -> set[str]:
        tensors = [BlockTensor("", i, s) for i, s in enumerate(shapes)]
        d = hidden_size(tensors)
        assert d is not None
        reading = read_matrices(tensors, d)
        roles = {r for c in reading.claims for r in c.roles} | {r for c in reading.choices for r in c.options[0]}
        return roles

    d = 64
    llama = {"q", "k", "v", "o", "gate", "up", "down"}
    assert read((d, d), (16, d), (16, d), (d, d), (160, d), (160, d), (d, 160)) == llama
    assert read((128, d), (32, d), (32, d), (d, 128), (160, d), (160, d), (d, 160)) == llama
    assert read((96, d), (96, d), (96, d), (d, 96), (160, d), (160, d), (d, 160)) == llama
    assert read((d, 3 * d), (d, d), (d, 256), (256, d)) == {"q", "k", "v", "o", "up", "down"}
    assert read((d + 32, d), (d, d), (320, d), (d, 160)) == llama
    assert read((d, d), (d, d), (d, d), (d, d), (256, d), (d, 256)) == {"q", "k", "v", "o", "up", "down"}


@pytest.mark.parametrize("transposed", [False, True])
def test_an_ffn_three_times_as_wide_as_the_stream(transposed: bool) -> None:
    """q|k|v and up have one shape: the square matrix beside them says that they are not gate and up."""
    d = 64
    shapes = [(3 * d, d), (d, d), (3 * d, d), (d, 3 * d)]
    tensors = [BlockTensor("", i, s[::-1] if transposed else s) for i, s in enumerate(shapes)]
    reading = read_matrices(tensors, d)
    assert reading.rest == []
    assert reading.transposed == transposed
    assert {c.roles[0]: c.tensor.place for c in reading.claims} == {"o": 1, "down": 3}
    assert [(c.options, [s.place for s in c.tensors]) for c in reading.choices] == [
        ([("q+k+v", "up"), ("up", "q+k+v")], [0, 2])
    ]
    gated = read_matrices([s for s in tensors if s.place != 1], d)
    assert {c.options[0] for c in gated.choices} == {("gate", "up")}


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("head", [16, 32])
def test_rotation_tells_keys_from_values(halves: bool, head: int) -> None:
    """Keys turn in planes as queries do, values don't; what they are paired with shows it too weakly alone."""
    rng = np.random.default_rng(head)
    planes = np.arange(head) % (head // 2) if halves else np.arange(head) // 2
    profile = rng.normal(0, 0.3, head // 2)[planes]

    def units(heads: int, turn: bool) -> np.ndarray:
        return np.tile(profile if turn else 0.0 * profile, heads) + rng.normal(0, 0.3, heads * head)

    n = 6
    queries = np.array([units(8, True) for _ in range(n)])
    others = np.array([units(2, i >= n) for i in range(2 * n)])
    rotation = Rotation.of(queries, others.shape[1])
    assert rotation is not None
    found = rotation.profile(queries, others)
    assert found[n:].min() > found[:n].max()
    right = {True: 0, False: 0}
    for _ in range(20):
        pairs = rng.normal(0, 0.1, (2, n, 2 * n)) + 0.2 * np.stack([np.eye(n, 2 * n), np.eye(n, 2 * n, n)])
        for with_profile in right:
            values, sure = split(pairs[0], [pairs[1]], found if with_profile else None)
            assert ((sure >= 0.5) & (sure <= 0.95)).all()
            right[with_profile] += sorted(values.tolist()) == list(range(n))
    assert right[True] > right[False] + 3


def test_known_orders_name_known_roles() -> None:
    for name, text in ORDERS:
        roles = [part for role in text.split() for part in role.split("+")]
        assert set(roles) <= set(ROLES), name
        assert len(set(roles)) == len(roles), name


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        (".self_attn.q_proj.weight", "q"),
        (".attn.c_attn.bias", "qkv_bias"),
        (".attn.c_proj.weight", "o"),
        (".mlp.c_proj.weight", "down"),
        (".attention.output.dense.weight", "o"),
        (".attention.output.LayerNorm.weight", "attn_post_norm"),
        (".output.dense.weight", "down"),
        (".output.LayerNorm.bias", "ffn_post_norm_bias"),
        (".layer.0.SelfAttention.q.weight", "q"),
        (".layer.1.EncDecAttention.k.weight", "cross_k"),
        (".encoder_attn.v_proj.weight", "cross_v"),
        (".block_sparse_moe.gate.weight", "router"),
        (".feed_forward.w1.weight", "gate"),
        (".self_attn.q_norm.weight", "q_norm"),
        (".self_attn.rotary_emb.inv_freq", "fixed"),
        (".wqkv.weight", "qkv"),
        (".sequence.weight", None),
    ],
)
def test_words(rest: str, word: str | None) -> None:
    assert hint(rest) == word


def test_words_of_stacks_and_natural_order() -> None:
    assert stack_word("bert.encoder.layer.") == "encoder"
    assert stack_word("vision_tower.blocks.") == "vision"
    assert stack_word("model.layers.") is None
    assert sorted(["l.10", "l.9", "l.1"], key=natural_key) == ["l.1", "l.9", "l.10"]
