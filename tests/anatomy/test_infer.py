"""Inference finds blocks and roles where no row of the table fits, and says how sure it is.

Trained models in disguise (Llama dense and MoE, GPT-2, SmolLM2 where its file is at hand) and made-up families.
"""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import pytest
from disguise import Builder, Case, Truth, gpt2, llama, made, rename, respell, sort, untrained
from hypothesis import given, settings
from hypothesis import strategies as st
from weightprint.anatomy.infer.infer import infer
from weightprint.anatomy.place import Assignment

Found = dict[str, list[Assignment]]


def run(case: Case, known: list[Assignment] | None = None) -> Found:
    """Infer everything of a case; checks what must hold of every result."""
    shapes = case.shapes
    taken = {a.view.weight for a in known or ()}
    result = infer(shapes, [n for n in shapes if n not in taken], known or [], case.read)
    places = [a.place for a in result]
    assert len(set(places)) == len(places), "a place given twice"
    out: Found = defaultdict(list)
    for a in result:
        assert a.source == "inferred"
        assert 0 < a.confidence < 1
        assert a.because
        assert a.view.weight in shapes
        assert a.view.weight not in taken
        assert cut(case, a).shape == a.view.shape
        out[a.view.weight].append(a)
    for parts in out.values():
        stacked = {a.view.index for a in parts} != {None}
        rows = [set(a.view.rows.indices().tolist()) if a.view.rows else None for a in parts]
        fused = all(r is not None for r in rows) and not set.intersection(*(r or set() for r in rows))
        assert len(parts) == 1 or stacked or fused, "one weight in two places"
    return out


def cut(case: Case, a: Assignment) -> np.ndarray:
    """A view's canonical tensor, by plain numpy."""
    value = case.tensors[a.view.weight]
    value = value if a.view.index is None else value[a.view.index]
    value = value.T if a.view.transposed else value
    return value if a.view.rows is None else value[a.view.rows.indices()]


def said(found: Found, name: str) -> Truth | None:
    """What was found out about a weight, in the form of a truth."""
    parts = found.get(name)
    if not parts:
        return None
    role = "+".join(dict.fromkeys(a.place.role for a in parts))
    expert = parts[0].place.expert
    return parts[0].place.block, role, expert if isinstance(expert, int) and len(parts) == 1 else None


def wrong(case: Case, found: Found) -> dict[str, tuple[Truth, Truth | None]]:
    """Weights whose truth was not found, with both."""
    return {n: (t, s) for n, t in case.truth.items() if (s := said(found, n)) != t}


def roles_right(case: Case, found: Found, role: str) -> float:
    """Share of a role's weights that were given it."""
    names = [n for n, t in case.truth.items() if t[1] == role]
    return float(np.mean([(s := said(found, n)) is not None and s[1] == role for n in names]))


def blocks_right(case: Case, found: Found, role: str) -> float:
    """Share of a role's weights that were given their block."""
    names = [n for n, t in case.truth.items() if t[1] == role]
    return float(np.mean([(s := said(found, n)) is not None and s[0] == case.truth[n][0] for n in names]))


RESIDUAL = ("attn_norm_bias", "ffn_norm_bias", "o_bias", "down_bias", "final_norm_bias")
TRAINED = {
    "parent": lambda: llama("parent"),
    "stranger": lambda: llama("stranger"),
    "moe": lambda: llama("moe"),
    "gpt2": gpt2,
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("order", ["modules", "alphabet"])
def test_random_names_in_kept_order_are_undone_completely(name: str, order: str) -> None:
    case = TRAINED[name]()
    case = rename(sort(case) if order == "alphabet" else case, "kept")
    assert wrong(case, run(case)) == {}


@pytest.mark.parametrize("name", TRAINED)
def test_a_family_of_made_up_words_is_read_from_its_numbers(name: str) -> None:
    case = respell(TRAINED[name]())
    assert wrong(case, run(case)) == {}


@pytest.mark.parametrize("name", ["parent", "stranger", "finetune"])
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize("seed", range(5))
def test_a_llama_without_names_or_order_keeps_its_roles(name: str, order: str, seed: int) -> None:
    case = rename(llama(name), order, seed)
    found = run(case)
    for role in ("q", "k", "v", "o", "gate", "up", "down", "attn_norm", "ffn_norm", "embedding", "head", "final_norm"):
        assert roles_right(case, found, role) == 1, role
    for role in ("gate", "up", "down", "o", "ffn_norm"):
        assert blocks_right(case, found, role) == 1, role
    assert all("block" in a.because for n, t in case.truth.items() if t[0] is not None for a in found[n])
    assert all(a.confidence > 0.5 for n, t in case.truth.items() if t[1] == "final_norm" for a in found[n])


@pytest.mark.parametrize("blocks", [3, 4])
def test_two_tables_of_one_size_dont_halve_the_number_of_blocks(blocks: int) -> None:
    """Of 8 gates, 4 downs and 2 tables all are whole multiples of 2; still there are 4 blocks."""
    whole = llama("parent")
    kept = {n for n, t in whole.truth.items() if t[0] is None or t[0] < blocks}
    case = rename(Case({n: whole.tensors[n] for n in kept}, {n: whole.truth[n] for n in kept}), "shuffled")
    found = run(case)
    assert {n: t for n, t in case.truth.items() if (s := said(found, n)) is None or s[1] != t[1]} == {}
    assert {a.place.block for parts in found.values() for a in parts} == {None, *range(blocks)}


def test_a_gain_with_negative_elements_is_a_gain_among_gains() -> None:
    """SmolLM2's first norm is negative in half of its channels; 2 L + 1 vectors alone are gains all the same."""
    case = llama("parent")
    sign = np.where(np.arange(48) % 2, -1, 1)
    first = "model.layers.0.input_layernorm.weight"
    transposed = {first: case.tensors[first].astype(np.float32) * sign}
    case = rename(Case({**case.tensors, **transposed}, case.truth), "shuffled")
    found = run(case)
    for role in ("attn_norm", "ffn_norm", "final_norm"):
        assert roles_right(case, found, role) == 1, role


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize("seed", range(3))
def test_a_gpt2_without_names_or_order_keeps_its_roles(order: str, seed: int) -> None:
    case = rename(gpt2(), order, seed)
    found = run(case)
    assert {
        n: (t, said(found, n)) for n, t in case.truth.items() if (s := said(found, n)) is None or s[1] != t[1]
    } == {}
    for role in ("up", "down", "q_bias+k_bias+v_bias", "up_bias"):
        assert blocks_right(case, found, role) == 1, role
    # Offsets and biases of the hidden size: where the ways of looking agree is said, and where they don't.
    stated = {n: found[n][0] for n, t in case.truth.items() if t[1] in RESIDUAL}
    assert all("; role " in a.because for a in stated.values())
    agreed = {n for n, a in stated.items() if "role 0.96" in a.because}
    assert 10 <= len(agreed) < len(stated)
    assert all(stated[n].confidence < 0.75 for n in stated.keys() - agreed)
    assert not agreed & wrong(case, found).keys()


@pytest.mark.parametrize("seed", range(2))
def test_a_gpt2_with_queries_and_up_of_one_shape_keeps_its_roles(seed: int) -> None:
    """An FFN of 3 d is as large as q|k|v, so 2 L matrices have one shape, and 2 L biases one length."""
    case = rename(gpt2("gpt2-ffn3"), "sorted", seed)
    found = run(case)
    off = {n: (t, s) for n, t in case.truth.items() if (s := said(found, n)) is None or s[1] != t[1]}
    assert {t for t, _ in off.values() if t[1] not in RESIDUAL} == set()
    assert len(off) <= 2
    assert all(found[n][0].confidence < 0.6 for n in off if n in found)


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_gpt2_is_not_misread_with_confidence(seed: int) -> None:
    """Noise of a fifth of each tensor's spread makes the search err: not where it is sure of the place."""
    rng = np.random.default_rng(seed)
    case = gpt2()
    plain = {n: v.astype(np.float32) for n, v in case.tensors.items()}
    noisy = {n: (v + 0.2 * v.std() * rng.normal(size=v.shape)).astype(np.float32) for n, v in plain.items()}
    case = rename(Case(noisy, case.truth), "shuffled", seed)
    found = run(case)
    off = [n for n in wrong(case, found) if n in found and case.truth[n][1] in RESIDUAL]
    assert all(a.confidence < 0.75 for n in off for a in found[n])


def test_untrained_offsets_are_left_out() -> None:
    case = gpt2()
    rng = np.random.default_rng(1)
    noise = {n: rng.normal(0, 0.1, 48).astype(np.float32) for n, t in case.truth.items() if t[1] in RESIDUAL}
    case = rename(Case({**case.tensors, **noise}, case.truth), "shuffled")
    found = run(case)
    assert all(said(found, n) is None for n, t in case.truth.items() if t[1] in RESIDUAL)


@pytest.mark.parametrize("others", [(), ("embedding",)])
def test_positions_that_drift_are_no_embedding(others: tuple[str, ...]) -> None:
    """As in an encoder of sound, whose only table is of sines; longer than the vocabulary beside it."""
    case = gpt2()
    angle = np.arange(400)[:, None] / 1000 ** (np.arange(24) / 24)
    position = next(n for n, t in case.truth.items() if t[1] == "position")
    kept = {n: v for n, v in case.tensors.items() if case.truth[n][1] != "embedding" or "embedding" in others}
    sines = {position: np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)}
    case = rename(Case({**kept, **sines}, {n: case.truth[n] for n in kept}), "shuffled")
    found = run(case)
    for role in ("position", *others):
        assert roles_right(case, found, role) == 1, role
    assert ("embedding" in {a.place.role for parts in found.values() for a in parts}) == bool(others)


@pytest.mark.parametrize("seed", range(3))
def test_experts_without_names_or_order_keep_their_roles(seed: int) -> None:
    case = rename(llama("moe"), "shuffled", seed)
    found = run(case)
    assert {n: t for n, t in case.truth.items() if (s := said(found, n)) is None or s[1] != t[1]} == {}
    for name in (n for n, t in case.truth.items() if t[1] == "gate"):
        assert "arbitrary" in found[name][0].because
        assert found[name][0].confidence < 0.1


def test_gpt2s_storage_is_seen() -> None:
    case = rename(gpt2(), "kept")
    for parts in run(case).values():
        for a in parts:
            transposed = a.place.role in ("q", "k", "v", "o", "up", "down")
            assert a.view.transposed == transposed
            if a.place.role == "up":
                assert a.view.shape == (192, 48)


def test_untrained_weights_are_read_by_order_alone() -> None:
    case = rename(untrained(llama("parent")), "kept")
    assert wrong(case, run(case)) == {}


def test_untrained_weights_without_order_get_chance_and_the_word_arbitrary() -> None:
    case = rename(untrained(llama("parent")), "shuffled")
    found = run(case)
    for role in ("down", "up", "gate", "q", "k", "v", "o"):
        for name in (n for n, t in case.truth.items() if t[1] == role):
            (a,) = found[name]
            assert a.confidence < 0.45
    assert all(a.confidence < 0.45 for parts in found.values() for a in parts if a.place.role.endswith("_norm"))
    downs = [a for parts in found.values() for a in parts if a.place.role == "down"]
    assert len(downs) == 5


def test_what_shapes_cannot_tell_is_said() -> None:
    names = [("emb", (500, 64), (None, "embedding", None))]
    for b in range(4):
        # sorted by words that mean nothing: neither order nor words help, and the values are noise
        names += [
            (f"x.{b}.a", (160, 64), (b, "gate", None)),
            (f"x.{b}.b", (160, 64), (b, "up", None)),
            (f"x.{b}.c", (64, 160), (b, "down", None)),
        ]
    found = run(made(names))
    gate = found["x.0.a"][0]
    assert {gate.place.role, found["x.0.b"][0].place.role} == {"gate", "up"}
    assert gate.confidence < 0.6
    assert "can't be told apart" in gate.because
    assert found["x.0.c"][0].place.role == "down"
    assert found["x.0.c"][0].confidence > 0.7


def decoder(block: str, b: int, d: int, h: int, kv: int) -> list[tuple[str, tuple[int, ...], Truth]]:
    return [
        (f"{block}.mixer.query_w", (d, d), (b, "q", None)),
        (f"{block}.mixer.key_w", (kv, d), (b, "k", None)),
        (f"{block}.mixer.value_w", (kv, d), (b, "v", None)),
        (f"{block}.mixer.out_proj", (d, d), (b, "o", None)),
        (f"{block}.norm1.g", (d,), (b, "attn_norm", None)),
        (f"{block}.norm2.g", (d,), (b, "ffn_norm", None)),
        (f"{block}.ff.w_gate", (h, d), (b, "gate", None)),
        (f"{block}.ff.w_up", (h, d), (b, "up", None)),
        (f"{block}.ff.w_down", (d, h), (b, "down", None)),
    ]


def test_an_unseen_family_with_grouped_queries() -> None:
    entries = [("lookup.table", (1000, 96), (None, "embedding", None))]
    for b in range(12):
        entries += decoder(f"tower.unit{b}", b, 96, 256, 32)
    entries += [("closing_norm.g", (96,), (None, "final_norm", None))]
    case = made(entries)
    found = run(case)
    assert wrong(case, found) == {}
    assert min(a.confidence for parts in found.values() for a in parts) > 0.75
    assert all(a.place.stack == "decoder" for parts in found.values() for a in parts)


@pytest.mark.parametrize("fused", [False, True])
def test_experts_by_number_and_along_an_axis(fused: bool) -> None:
    d, h, e = 64, 48, 6
    entries: list[tuple[str, tuple[int, ...], Truth]] = []
    for b in range(3):
        entries += [x for x in decoder(f"net.{b}", b, d, 160, 16) if ".ff." not in x[0]]
        entries.append((f"net.{b}.picker", (e, d), (b, "router", None)))
        if fused:
            entries.append((f"net.{b}.bank.wide", (e, 2 * h, d), (b, "gate+up", None)))
            entries.append((f"net.{b}.bank.narrow", (e, d, h), (b, "down", None)))
        else:
            for i in range(e):
                roles = (("w1", (h, d), "gate"), ("w3", (h, d), "up"), ("w2", (d, h), "down"))
                entries += [(f"net.{b}.bank.{i}.{w}", shape, (b, role, i)) for w, shape, role in roles]
    case = made(entries)
    found = run(case)
    assert wrong(case, found) == {}
    if fused:
        wide = found["net.1.bank.wide"]
        assert {(a.place.expert, a.place.role) for a in wide} == {(i, r) for i in range(e) for r in ("gate", "up")}
        assert all(a.view.shape == (h, d) for a in wide)


def test_encoder_and_decoder_are_two_stacks() -> None:
    d, h = 64, 256
    entries: list[tuple[str, tuple[int, ...], Truth]] = [("common.emb", (900, d), (None, "embedding", None))]
    for side, crosses in (("enc", False), ("dec", True)):
        for b in range(3):
            at = f"{side}.tiers.{b}"
            entries += [(f"{at}.self_att.{r}.weight", (d, d), (b, r, None)) for r in "qkvo"]
            if crosses:
                entries += [(f"{at}.cross_att.{r}.weight", (d, d), (b, f"cross_{r}", None)) for r in "qkvo"]
            entries += [
                (f"{at}.ff.wi.weight", (h, d), (b, "up", None)),
                (f"{at}.ff.wo.weight", (d, h), (b, "down", None)),
            ]
    case = made(entries)
    found = run(case)
    assert wrong(case, found) == {}
    assert found["enc.tiers.1.self_att.q.weight"][0].place.stack == "encoder"
    assert found["dec.tiers.1.cross_att.q.weight"][0].place.stack == "decoder"


def test_torch_encoder_layers_with_other_words_before_them() -> None:
    d, h = 64, 256
    entries: list[tuple[str, tuple[int, ...], Truth]] = []
    for b in range(3):
        at = f"_stack._inner.layers.{b}"
        fused = "q+k+v"
        entries += [
            (f"{at}.self_attn.in_proj_weight", (3 * d, d), (b, fused, None)),
            (f"{at}.self_attn.in_proj_bias", (3 * d,), (b, "q_bias+k_bias+v_bias", None)),
            (f"{at}.self_attn.out_proj.weight", (d, d), (b, "o", None)),
            (f"{at}.self_attn.out_proj.bias", (d,), (b, "o_bias", None)),
            (f"{at}.linear1.weight", (h, d), (b, "up", None)),
            (f"{at}.linear1.bias", (h,), (b, "up_bias", None)),
            (f"{at}.linear2.weight", (d, h), (b, "down", None)),
            (f"{at}.linear2.bias", (d,), (b, "down_bias", None)),
        ]
    case = made(entries)
    assert wrong(case, run(case)) == {}


def test_known_places_are_not_given_again() -> None:
    case = llama("parent")
    everything = [a for parts in run(case).values() for a in parts]
    head = next(n for n, t in case.truth.items() if t[1] == "head")
    known = [a for a in everything if a.view.weight != head]
    again = infer(case.shapes, [head], known, case.read)
    assert not {a.place for a in again} & {a.place for a in known}


def test_what_the_table_left_of_a_stack_it_knows_needs_a_word() -> None:
    case = llama("parent")
    known = [a for parts in run(case).values() for a in parts]
    extra = {f"model.layers.{b}.{rest}": np.ones(n, np.float32) for b in range(5) for rest, n in EXTRA}
    both = Case({**case.tensors, **extra}, {})
    found = run(both, known)
    assert {n.split(".", 3)[3] for n in found} == {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}
    assert all(a.place.stack == "decoder" for parts in found.values() for a in parts)
    assert all(a.confidence <= 0.5 and "only the words" in a.because for parts in found.values() for a in parts)


EXTRA = (("self_attn.q_norm.weight", 12), ("self_attn.k_norm.weight", 12), ("thing.weight", 48))


def test_a_heap_of_unrelated_tensors_is_left_unmapped() -> None:
    rng = np.random.default_rng(0)
    shapes = [tuple(int(x) for x in rng.integers(3, 90, rng.integers(1, 4))) for _ in range(60)]
    case = Case({f"t{chr(97 + i % 26)}{'z' * (i // 26)}": np.ones(s, np.float32) for i, s in enumerate(shapes)}, {})
    assert len(run(case)) <= 2


def test_unreadable_values_cost_cues_and_nothing_else() -> None:
    case = llama("parent")
    broken = Case({n: np.full(v.shape, np.nan, np.float32) for n, v in case.tensors.items()}, case.truth)
    found = run(broken)
    assert all(said(found, n) == t for n, t in case.truth.items() if "norm" not in t[1])


@pytest.mark.parametrize("build", [lambda: llama("parent"), gpt2])
def test_without_reading_at_all(build: Builder) -> None:
    """Order and shapes are enough, where the order is a known one."""
    case = rename(build(), "kept")
    result = infer(case.shapes, list(case.shapes), [], None)
    found = {n: [a for a in result if a.view.weight == n] for n in case.tensors}
    assert {n for n in wrong(case, found) if case.truth[n][0] is not None} == set()


def test_a_failing_disk_costs_cues_and_nothing_else() -> None:
    case = llama("parent")

    def read(name: str, rows: slice | None, columns: slice | None) -> np.ndarray:
        raise OSError(5, "Input/output error", name)

    assert len(infer(case.shapes, list(case.shapes), [], read)) == len(case.shapes)


def test_ten_thousand_tensors_and_bounded_reading() -> None:
    entries: list[tuple[str, tuple[int, ...], Truth]] = []
    for b in range(20):
        entries += [x for x in decoder(f"net.{b}", b, 32, 96, 16) if ".ff." not in x[0]]
        entries.append((f"net.{b}.picker", (180, 32), (b, "router", None)))
        for i in range(180):
            roles = (("w1", (24, 32), "gate"), ("w3", (24, 32), "up"), ("w2", (32, 24), "down"))
            entries += [(f"net.{b}.bank.{i}.{w}", shape, (b, role, i)) for w, shape, role in roles]
    case = made(entries)
    assert len(case.tensors) > 10_000
    touched: set[str] = set()

    def read(name: str, rows: slice | None, columns: slice | None) -> np.ndarray:
        touched.add(name)
        return case.read(name, rows, columns)

    began = time.process_time()
    result = infer(case.shapes, list(case.shapes), [], read)
    print(f"{len(result)} of {len(case.tensors)} in {time.process_time() - began:.1f} s, {len(touched)} read")
    assert {a.view.weight: (a.place.block, a.place.role, a.place.expert) for a in result} == dict(case.truth)
    assert len(touched) < 200  # a few blocks and experts stand for all


SIDES = st.sampled_from([8, 12, 16, 24, 32, 48])


@st.composite
def strange(draw: st.DrawFn) -> Case:
    """Any tensors under any names: numbered, nested, random."""
    tensors = {}
    for _ in range(draw(st.integers(0, 40))):
        parts = draw(
            st.lists(
                st.sampled_from(["a", "layers", "q", "norm", "experts", "0", "1", "2", "w1", "bias"]),
                min_size=1,
                max_size=5,
            )
        )
        shape = tuple(draw(st.lists(SIDES, min_size=0, max_size=3)))
        tensors[".".join(parts)] = np.full(shape, draw(st.sampled_from([0.0, 1.0, -2.0])), np.float32)
    return Case(tensors, {})


@given(strange())
@settings(max_examples=150, deadline=None)
def test_every_name_is_assigned_once_or_left(case: Case) -> None:
    found = run(case)  # run() asserts it
    for name, parts in found.items():
        assert sum(int(np.prod(a.view.shape)) for a in parts) <= max(1, case.tensors[name].size)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["kept", "sorted"])
def test_smollm2_in_disguise(order: str) -> None:
    import zoo
    from disguise import load

    words = {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "attn_output": "o"}
    words |= {f"attn_{r}": r for r in "qkv"} | {f"ffn_{r}": r for r in ("gate", "up", "down")}
    outer = {"token_embd": "embedding", "output_norm": "final_norm"}
    tensors = load(zoo.smollm2_bf16())
    truth: dict[str, Truth] = {}
    for name in tensors:
        parts = name.split(".")
        truth[name] = (int(parts[1]), words[parts[2]], None) if parts[0] == "blk" else (None, outer[parts[0]], None)
    case = rename(Case(tensors, truth), order)
    found = run(case)
    if order == "kept":
        assert wrong(case, found) == {}
        return
    for role in ("gate", "up", "down", "q", "k", "v", "o", "embedding"):
        assert roles_right(case, found, role) == 1, role
    off = {n for n, t in case.truth.items() if (s := said(found, n)) is None or s[1] != t[1]}
    assert len(off) <= 4
    assert all(found[n][0].confidence < 0.6 for n in off)
    assert min(blocks_right(case, found, r) for r in ("gate", "up", "down")) > 0.9
    assert blocks_right(case, found, "o") > 0.7
