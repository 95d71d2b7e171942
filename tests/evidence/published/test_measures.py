"""What each published measure sees through, what it misses, and that no odd pair of models makes one fail."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from synthetic import child, decoder, hidden, models
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.published.crs import crs
from weightprint.evidence.published.ghostspec import ghostspec, scaled
from weightprint.evidence.published.ics import ics, terms
from weightprint.evidence.published.mdir import mdir
from weightprint.evidence.published.mother import mother
from weightprint.evidence.published.parts import blocks, embeddings, expanded
from weightprint.evidence.published.pcs import pcs
from weightprint.evidence.published.phi_match import phi_match
from weightprint.evidence.published.phi_u import phi_u
from weightprint.evidence.published.ucka import ucka
from weightprint.evidence.tests import PUBLISHED
from weightprint.results.saving import json_value

Arrays = dict[str, np.ndarray]
_WRITES = ("o_proj.weight", "down_proj.weight")


def reads(name: str) -> bool:
    return name.endswith(("embed_tokens.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight")) or (
        "gate_proj" in name or "up_proj" in name
    )


def moved(parent: Arrays, right: np.ndarray) -> Arrays:
    """The residual stream in another orthonormal basis, gains taken out first so that it is an exact copy."""
    out = {}
    for name, x in parent.items():
        if reads(name):
            out[name] = (x @ right).astype(np.float32)
        elif name.endswith(_WRITES):
            out[name] = (right.T @ x).astype(np.float32)
        else:
            out[name] = np.ones_like(x)
    return out


def plain(parent: Arrays) -> Arrays:
    return moved(parent, np.eye(parent["model.norm.weight"].size, dtype=np.float32))


def rotation(d: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0].astype(np.float32)


def signed_permutation(d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.eye(d) * rng.choice([-1, 1], d))[rng.permutation(d)].astype(np.float32)


def shuffled_units(parent: Arrays, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    out = dict(parent)
    for i in range(sum(name.endswith("up_proj.weight") for name in parent)):
        at = f"model.layers.{i}.mlp."
        order = rng.permutation(parent[f"{at}up_proj.weight"].shape[0])
        for part in ("up", "gate"):
            out[f"{at}{part}_proj.weight"] = parent[f"{at}{part}_proj.weight"][order]
        out[f"{at}down_proj.weight"] = parent[f"{at}down_proj.weight"][:, order]
    return out


PARENT = plain(decoder(0, h=96, layers=5))
STRANGER = plain(decoder(1, h=96, layers=5))


def score(test: Callable[..., Evidence], b: Arrays, a: Arrays = PARENT) -> float:
    found = test(models(a, b))
    assert found.applied, found.why_not
    return found.statistic or 0.0


# Every measure


def test_each_stands_in_its_own_file_under_its_own_name() -> None:
    for test in PUBLISHED:
        module = importlib.import_module(f"weightprint.evidence.published.{test.name}")
        assert getattr(module, test.name) is test
        assert test(models(PARENT, PARENT)).test == test.name
    assert len({test.name for test in PUBLISHED}) == len(PUBLISHED) == 13


@pytest.mark.slow
def test_a_copy_scores_at_least_as_high_as_anything_else() -> None:
    near, far = child(PARENT, 0.9), STRANGER
    for test in PUBLISHED:
        same, close, apart = (test(models(PARENT, b)) for b in (PARENT, near, far))
        if same.applied:
            assert (same.statistic or 0) >= (close.statistic or 0) - 1e-6, test.name
            assert (same.statistic or 0) > (apart.statistic or 0), test.name


def small(seed: int, *, d: int = 32, h: int = 48, layers: int = 4, vocabulary: int = 100) -> Arrays:
    return decoder(seed, d=d, h=h, layers=layers, vocabulary=vocabulary)


def odd_pairs() -> dict[str, tuple[Arrays, Arrays]]:
    a = small(0)
    no_embedding = {name: x for name, x in a.items() if "embed" not in name}
    broken = {name: np.where(np.arange(x.size).reshape(x.shape) % 97 == 0, np.nan, x) for name, x in a.items()}
    experts = {name: x for name, x in a.items() if "mlp" not in name}
    for i in range(4):
        for j in range(3):
            for part in ("gate", "up", "down"):
                source = a[f"model.layers.{i}.mlp.{part}_proj.weight"]
                experts[f"model.layers.{i}.mlp.experts.{j}.{part}_proj.weight"] = source
        experts[f"model.layers.{i}.mlp.gate.weight"] = np.ones((3, 32), np.float32)
    return {
        "itself": (a, a),
        "one layer": (small(0, layers=1), small(1, layers=1)),
        "another depth": (a, small(1, layers=5)),
        "another width": (a, small(1, d=24)),
        "another FFN": (a, small(1, h=40)),
        "another vocabulary": (a, small(1, vocabulary=80)),
        "few tokens": (a, small(1, vocabulary=20)),
        "names that say nothing": (a, hidden(small(1))),
        "both without names": (hidden(a), hidden(small(1), prefix="w")),
        "no embedding": (a, no_embedding),
        "mixture of experts": (a, experts),
        "zeros": (a, {name: np.zeros_like(x) for name, x in a.items()}),
        "NaN here and there": (a, {name: x.astype(np.float32) for name, x in broken.items()}),
        "one vector": ({"x": np.arange(9, dtype=np.float32)}, a),
        "integers": (a, {name: (50 * x).astype(np.int8) for name, x in a.items()}),
    }


@pytest.mark.slow_but_first
@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
@pytest.mark.parametrize("case", list(odd_pairs()))
def test_odd_pairs_are_answered_or_said_not_to_apply(case: str, effort: str) -> None:
    a, b = odd_pairs()[case]
    for pair in (models(a, b, effort=effort), models(b, a, effort=effort)):
        for test in PUBLISHED:
            found = test(pair)
            assert found.log10_p is None
            assert not found.found
            assert found.statistic_of
            assert found.blind_to
            if found.applied:
                assert found.statistic is not None, test.name
                assert np.isfinite(found.statistic), test.name
                assert found.says
                json.dumps(json_value(dict(found.details)), allow_nan=False)
            else:
                assert found.why_not


def test_a_seed_gives_the_same_numbers() -> None:
    pair = models(decoder(0), decoder(1), seed=3)
    for test in PUBLISHED:
        one, two = test(pair), test(pair)
        assert (one.statistic, one.effect, one.details) == (two.statistic, two.effect, two.details)


# What each sees through


def test_a_rotation_is_seen_through_by_spectra() -> None:
    turned = moved(PARENT, rotation(64))
    assert score(ghostspec, turned) == pytest.approx(0, abs=2e-4)
    assert score(ghostspec, turned) > score(ghostspec, STRANGER)


@pytest.mark.parametrize("test", [ghostspec, ucka])
def test_permuted_and_flipped_channels_are_seen_through(test: Callable[..., Evidence]) -> None:
    turned = moved(PARENT, signed_permutation(64))
    assert score(test, turned) == pytest.approx(score(test, PARENT), abs=2e-4)


def test_the_invariant_terms_of_attention_are_invariant_and_that_of_a_gated_ffn_is_not() -> None:
    order = np.eye(64, dtype=np.float32)[np.random.default_rng(5).permutation(64)]
    for turn, ffn in ((rotation(64), False), (signed_permutation(64), False), (order, True)):
        found = dict(ics(models(PARENT, moved(PARENT, turn))).details["terms"])
        assert found["q'k"] == pytest.approx(1, abs=1e-4)
        assert found["v'o'"] == pytest.approx(1, abs=1e-4)
        assert (found["u'd'"] > 0.999) is ffn


def test_mdir_finds_permuted_channels_by_their_assignment() -> None:
    order = np.eye(64, dtype=np.float32)[np.random.default_rng(5).permutation(64)]
    found = mdir(models(PARENT, moved(PARENT, order)))
    assert abs(found.details["trace_share"]) < 0.2
    assert found.details["trace_share_permuted"] == pytest.approx(1, abs=1e-3)
    assert found.details["claimed_log10_p"] < -100
    assert mdir(models(PARENT, STRANGER)).details["claimed_log10_p"] > -3


@pytest.mark.parametrize("test", [pcs, crs])
def test_a_rotation_is_a_miss_of_what_stays_in_the_stored_basis(test: Callable[..., Evidence]) -> None:
    bare = {name: x for name, x in PARENT.items() if "norm" not in name}
    turned = {name: x for name, x in moved(PARENT, rotation(64)).items() if "norm" not in name}
    assert score(test, turned, bare) < 0.2 < 0.9 < score(test, bare, bare)


def test_units_that_moved_are_missed_by_phi_u_and_found_by_phi_match() -> None:
    copy = shuffled_units(PARENT)
    assert score(phi_u, PARENT) == pytest.approx(1)
    assert abs(score(phi_u, copy)) < 0.2
    assert score(phi_match, copy) == pytest.approx(1)
    assert score(crs, copy) == pytest.approx(1, abs=1e-4)  # the product does not see them


def test_dropped_layers_are_matched_in_order() -> None:
    kept = [0, 1, 3, 4]
    dropped = {n: x for n, x in PARENT.items() if ".layers." not in n}
    for new, old in enumerate(kept):
        for name, x in PARENT.items():
            if f".layers.{old}." in name:
                dropped[name.replace(f".layers.{old}.", f".layers.{new}.")] = x
    spectra = ghostspec(models(PARENT, dropped))
    assert spectra.effect == pytest.approx(0, abs=1e-6)
    assert spectra.details["layers"] == [[old, new] for new, old in enumerate(kept)]
    match = phi_match(models(PARENT, dropped))
    assert match.statistic == pytest.approx(1)
    assert match.details["blocks"] == [[old, new] for new, old in enumerate(kept)]
    assert ucka(models(PARENT, dropped)).statistic == pytest.approx(1, abs=1e-4)
    assert "depths differ" in (crs(models(PARENT, dropped)).why_not or "")
    assert "depths differ" in (phi_u(models(PARENT, dropped)).why_not or "")


def test_a_narrower_copy_is_matched_by_ucka() -> None:
    kept = np.sort(np.random.default_rng(6).permutation(64)[:48])
    narrow = {name: x[:, kept] if reads(name) else x[kept] for name, x in PARENT.items()}
    for a, b in ((PARENT, narrow), (narrow, PARENT)):
        found = ucka(models(a, b))
        assert found.details["channels_matched"] == 48
        assert found.statistic == pytest.approx(1, abs=1e-4)


def test_mother_places_strangers_at_the_root_of_two() -> None:
    bare = {n: x for n, x in PARENT.items() if x.ndim == 2}
    rng = np.random.default_rng(7)
    noise = {n: rng.standard_normal(x.shape).astype(np.float32) * x.std() for n, x in bare.items()}
    flat = {n: rng.standard_normal(x.shape).astype(np.float32) * x.std() for n, x in bare.items()}
    far, near = mother(models(noise, flat)), mother(models(bare, {n: x + 0.1 * noise[n] for n, x in bare.items()}))
    assert far.effect == pytest.approx(np.sqrt(2), abs=0.02)
    assert near.effect == pytest.approx(0.1, abs=0.02)
    assert near.details["earlier"] == "a"  # noise lowers the kurtosis of heavy tails


# Grouped heads


GROUPED = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}


def grouped_decoder(seed: int) -> Arrays:
    out = decoder(seed, layers=3)
    for i in range(3):
        for part in "kv":
            name = f"model.layers.{i}.self_attn.{part}_proj.weight"
            out[name] = out[name][:16]
    return out


def test_grouped_heads_are_expanded_head_by_head() -> None:
    a = grouped_decoder(0)
    pair = models(a, grouped_decoder(1), config=GROUPED)
    block = {
        role: tensor
        for found in (blocks(pair.a, (r,)) for r in ("q", "k", "v", "o"))
        for role, tensor in found[0].items()
    }
    x = np.random.default_rng(8).standard_normal((10, 64)).astype(np.float32)
    made = terms(pair, pair.a, block, x)
    at = "model.layers.0.self_attn."
    qk, vo = np.zeros((10, 10)), np.zeros((10, 10))
    for head in range(8):
        rows, group = slice(8 * head, 8 * head + 8), slice(8 * (head // 4), 8 * (head // 4) + 8)
        qk += (x @ a[f"{at}q_proj.weight"][rows].T) @ (x @ a[f"{at}k_proj.weight"][group].T).T
        vo += (x @ a[f"{at}v_proj.weight"][group].T) @ (x @ a[f"{at}o_proj.weight"][:, rows]).T
    assert made["q'k"] == pytest.approx(qk, rel=1e-3, abs=1e-3)
    assert made["v'o'"] == pytest.approx(vo, rel=1e-3, abs=1e-3)


def test_grouped_heads_without_a_config_leave_the_products_out() -> None:
    a = grouped_decoder(0)
    known, unknown = models(a, a, config=GROUPED), models(a, a)
    assert set(crs(known).details["branches"]) == {"down·up", "o·v", "q'·k"}
    assert set(crs(unknown).details["branches"]) == {"down·up"}
    assert ghostspec(known).statistic == 0
    assert "grouped" in (ghostspec(unknown).why_not or "")
    assert ucka(unknown).statistic == pytest.approx(1)  # it never multiplies q with k


def test_expanded_repeats_whole_heads() -> None:
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert expanded(x, 8, 2)[:, 0].tolist() == [0, 2, 0, 2, 4, 6, 4, 6]
    assert expanded(x, 4, 2) is x


# Details


def test_a_table_that_was_not_learned_is_no_embedding() -> None:
    a = decoder(0)
    one_hot = a | {"model.embed_tokens.weight": np.eye(200, 64, dtype=np.float32)}
    assert embeddings(models(a, a).a) is not None
    assert embeddings(models(one_hot, a).a) is None
    assert not mdir(models(one_hot, one_hot)).applied


def test_scaled_spectra() -> None:
    assert scaled(np.array([3.0, 9.0, 5.0])).tolist() == pytest.approx([1, 1 / 3, 0])
    assert scaled(np.array([2.0, 2.0])).tolist() == [0, 0]


def test_ics_is_the_cosine_of_the_standardised_terms() -> None:
    found = ics(models(PARENT, child(PARENT, 0.9)))
    per_term = [value for _, value in found.details["terms"]]
    assert len(per_term) == 6
    assert found.statistic == pytest.approx(np.mean(per_term), abs=1e-5)  # all have one length


@pytest.mark.slow
def test_claimed_p_values_of_strangers_are_not_small() -> None:
    """Independent normal rows: what phi_U and phi_MATCH claim is uniform there (a benchmark judges the rest)."""
    rng = np.random.default_rng(9)
    claims: dict[str, list[float]] = {"phi_u": [], "phi_match": []}
    for _ in range(40):
        a, b = (
            {
                f"model.layers.{i}.mlp.{part}_proj.weight": rng.standard_normal(
                    (40, 24) if part != "down" else (24, 40), dtype=np.float32
                )
                for i in range(2)
                for part in ("gate", "up", "down")
            }
            for _ in range(2)
        )
        pair = models(a, b)
        for test in (phi_u, phi_match):
            claims[test.name].append(test(pair).details["claimed_log10_p"])
    for values in claims.values():
        p = np.sort(10.0 ** np.array(values))
        gap = np.max(np.abs(p - (np.arange(p.size) + 0.5) / p.size))
        assert gap < 1.63 / np.sqrt(p.size)  # Kolmogorov–Smirnov at 1 %


@pytest.mark.slow_but_first
@pytest.mark.parametrize("test", PUBLISHED, ids=lambda test: test.name)
@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_whose_products_leave_float32_make_none_fail(test: Callable[..., Evidence], scale: float) -> None:
    far = {name: (x * scale).astype(np.float32) for name, x in PARENT.items()}
    found = test(models(far, STRANGER))
    json.dumps(json_value(found.to_dict()), allow_nan=False)


def test_scaled_spectra_of_far_away_weights_are_the_same() -> None:
    far = {name: (x * 1e30).astype(np.float32) if x.ndim == 2 else x for name, x in PARENT.items()}
    assert score(ghostspec, far) == pytest.approx(0, abs=1e-4)
