"""Fingerprints where a verb takes a model: the checkpoint's verdict or a weaker true one; what needs the weights."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import weightprint
from llama import CONFIG, LAYERS, D, H, draw, noised, of_units, permuted, write
from weightprint.compare.stored import gather_kept, pair_of
from weightprint.demo.demo_models import write as write_demo
from weightprint.errors import UsageError
from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.evidence.test import NEEDS
from weightprint.evidence.tests import TESTS
from weightprint.fingerprint.parts import codes, values
from weightprint.fingerprint.stored import VIEWS, view

BASE = draw(1)
#: From the strongest to the weakest.
SOME = ("identical", "re_encoded", "shared_origin", "partly_shared", "shared_initialisation")
NOTHING = ("no_evidence", "inconclusive")
ORDER = (*SOME, *NOTHING)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo") / "models")


@pytest.fixture
def kept(save):
    """Weights → their fingerprint; of equal arguments the same."""

    def made(weights, name="model", seed=0):
        return weightprint.fingerprint(write(name, weights, save), seed=seed)

    return made


def cut(evidence):
    return {e.test: e for e in evidence}


@pytest.mark.parametrize("other", ["parent", "finetune", "moe", "stranger"])
def test_the_demo_models_get_the_checkpoints_verdict_or_a_weaker_one(demo, other, tmp_path):
    live = weightprint.compare(demo / "parent", demo / other)
    weightprint.fingerprint(demo / "parent").save(tmp_path / "parent.fp")
    weightprint.fingerprint(demo / other).save(tmp_path / "other.fp")
    stored = weightprint.compare(tmp_path / "parent.fp", tmp_path / "other.fp")
    assert ORDER.index(stored.verdict) >= ORDER.index(live.verdict)
    assert (stored.verdict in NOTHING) == (live.verdict in NOTHING)
    if other != "stranger":
        assert stored.verdict == live.verdict
        assert [row[:2] for row in stored.result.layer_map] == [row[:2] for row in live.result.layer_map]
    half = weightprint.compare(tmp_path / "parent.fp", demo / other)
    assert half.verdict == stored.verdict
    assert half.log10_p == stored.log10_p


def test_what_only_weights_can_tell_is_said(kept):
    comparison = weightprint.compare(kept(BASE), kept(noised(BASE, 0.1), "other"))
    unasked = [e for e in comparison.evidence if (e.why_not or "").startswith(NEEDS)]
    assert {e.test for e in unasked} == {test.name for test in TESTS if test.unasked and test.kept is None}
    assert all(e.test in comparison.result.against[-1] for e in unasked)
    assert "need the weights" in str(comparison)
    assert comparison.bytes_read > 0
    told = json.loads(comparison.to_json())
    assert told["tool"]["parameters"]["compared"] == "fingerprints"
    assert weightprint.compare(kept(BASE), kept(noised(BASE, 0.1), "other")).weighed() == comparison.result
    assert type(comparison).from_dict(told).verdict == comparison.verdict


def test_silence_is_never_evidence(kept):
    comparison = weightprint.compare(kept(BASE), kept(draw(2), "stranger"))
    assert comparison.verdict == "inconclusive"
    assert all((e.log10_p or 0) > -4 for e in comparison.evidence)


def test_strangers_p_values_are_p_values(save):
    """Small models of one shape drawn apart: p below 1 in 100 in few, in none below 1 in 10,000."""
    prints = [weightprint.fingerprint(write(f"m{i}", draw(100 + i), save)) for i in range(8)]
    found = [
        e.log10_p
        for i, a in enumerate(prints)
        for b in prints[:i]
        for e in gather_kept(a, b, [t for t in TESTS if t.name in ("unit_agreement", "aligned_units", "unit_geometry")])
        if e.log10_p is not None
    ]
    assert len(found) >= 56
    assert sum(p <= -2 for p in found) <= 5
    assert min(found) > -4


@pytest.mark.parametrize("hidden", ["permuted", "rotated", "signs", "noise", "half"])
def test_hidden_copies_are_found(kept, hidden):
    rng = np.random.default_rng(9)
    other = noised(BASE, 0.1)
    if hidden == "permuted":
        other, _ = permuted(other)
    elif hidden == "signs":
        signs = rng.choice([-1, 1], (H, 1))
        other = of_units(other, lambda i, gate, up, down: (gate, up * signs, down * signs))
    elif hidden == "rotated":
        turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
        other = {n: _turned(n, x, other, turn) for n, x in other.items()}
    elif hidden == "noise":
        other = noised(BASE, 0.8)
    elif hidden == "half":
        other = {n: x.astype(ml_dtypes.bfloat16).astype(np.float32) for n, x in other.items()}
    comparison = weightprint.compare(kept(BASE), kept(other, "other"))
    assert comparison.verdict in ("shared_origin", "partly_shared")
    assert comparison.log10_p < -20


def _turned(name, x, weights, turn):
    """The stream rotated; gains folded into what they feed."""
    if "norm" in name:
        return np.ones_like(x)
    if "o_proj" in name or "down_proj" in name:
        return (turn.T @ x).astype(np.float32)
    block = name.rpartition(".mlp." if "mlp" in name else ".self_attn.")[0]
    norm = {"m": "post_attention_layernorm", "s": "input_layernorm"}.get(name.removeprefix(f"{block}.")[:1])
    gain = weights["model.norm.weight"] if "lm_head" in name else weights.get(f"{block}.{norm}.weight", np.ones(D))
    return ((x if "embed" in name else x * gain) @ turn).astype(np.float32)


def test_a_common_mask_is_no_common_origin(kept):
    """Zeros stay zeros in what is kept, so that two strangers pruned to one pattern are told apart from kin."""
    rng = np.random.default_rng(4)
    mask = {n: rng.random(x.shape) < 0.5 for n, x in BASE.items()}
    a, b = (
        {n: np.where(mask[n], 0, x).astype(np.float32) if "proj" in n else x for n, x in weights.items()}
        for weights in (BASE, draw(2))
    )
    comparison = weightprint.compare(kept(a), kept(b, "other"))
    assert comparison.verdict == "inconclusive"
    assert cut(comparison.evidence)["common_zeros"].applied


def test_matched_units_have_the_numbers_of_the_model(kept):
    other, orders = permuted(BASE)
    found = cut(gather_kept(kept(BASE), kept(other, "other")))["unit_agreement"]
    for match in found.matches:
        assert match.b[:2] == match.a[:2]
        assert len(match.units) > 30
        b, a = match.units.T
        assert np.mean(orders[match.b[1]][b] == a) > 0.9


def test_views_are_of_one_model_alone(kept):
    a, b = kept(BASE), kept(draw(2), "other")
    for kind in VIEWS:
        alone, beside = view(a, kind, "a"), pair_of(a, b, kind).a
        assert alone.tensors == beside.tensors
        name = next(iter(alone.tensors))
        size = alone.tensors[name].numel
        assert np.array_equal(alone.reader(name, 0, size), beside.reader(name, 0, size))
    with pytest.raises(UsageError) as error:
        view(a, "identity", "a").reader("model.embed_tokens.weight", 0, 4)
    assert error.value.code == "needs_weights"


def test_codes_keep_zeros_and_are_near():
    x = np.random.default_rng(3).standard_normal((50, 60)).astype(np.float32)
    x[:, :5] = 0
    x[3, 30] = 1e-9
    code, scale = codes(x)
    assert np.array_equal(code == 0, x == 0)
    assert np.all(np.abs(values(code, scale) - x) <= 1.001 * scale[:, None])


def test_diff_by_digests(kept, save):
    other = dict(BASE, **{"model.norm.weight": BASE["model.norm.weight"] * 2})
    name = "model.layers.1.mlp.up_proj.weight"
    step = 0.2 * BASE[name].std() * np.random.default_rng(1).standard_normal((H, D))
    other[name] = (BASE[name] + step).astype(np.float32)
    path = write("other", other, save)
    diff = weightprint.diff(kept(BASE), path)
    assert diff.counts == {"changed": 2, "same": len(BASE) - 2}
    rows = {row["name"]: row for row in diff.table.rows()}
    assert rows[name]["relative"] == pytest.approx(0.2, rel=0.25)
    assert diff.bytes_read == 0
    assert weightprint.diff(kept(BASE), kept(BASE, "again")).same
    assert weightprint.diff(kept(BASE), path, include="*norm*").counts == {"changed": 1, "same": 2 * LAYERS}


def test_adapters_merged_and_open_models_are_taken(demo):
    with weightprint.open(demo / "parent") as model:
        one = weightprint.fingerprint(model)
        other = weightprint.fingerprint(weightprint.anatomy(model))
    assert one.summary["digest"] == other.summary["digest"] == weightprint.scan(demo / "parent", digest=True).digest
    assert weightprint.compare(one, other).verdict == "identical"


@pytest.mark.parametrize("q_rank", [20, None])
def test_heads_of_latent_attention_are_kept_multiplied_out(save, q_rank):
    """MLA: heads put in another order and the latent turned inside still name themselves from fingerprints alone."""
    rng, heads, nope, rope, value, rank = np.random.default_rng(9), 8, 12, 4, 10, 16
    config = {**CONFIG, "model_type": "deepseek_v2", "qk_nope_head_dim": nope, "qk_rope_head_dim": rope}
    config |= {"v_head_dim": value, "q_lora_rank": q_rank, "kv_lora_rank": rank}
    config = {key: v for key, v in config.items() if key not in ("head_dim", "num_key_value_heads", "architectures")}

    def drawn(seed):
        weights, rng = draw(seed), np.random.default_rng(seed)
        for name in [name for name in weights if "self_attn" in name]:
            del weights[name]
        shapes = {
            "kv_a_proj_with_mqa": (rank + rope, D),
            "kv_b_proj": (heads * (nope + value), rank),
            "o_proj": (D, heads * value),
        }
        q = {"q_a_proj": (q_rank, D), "q_b_proj": (heads * (nope + rope), q_rank)} if q_rank else {}
        shapes |= q or {"q_proj": (heads * (nope + rope), D)}
        norms = {"kv_a_layernorm": rank} | ({"q_a_layernorm": q_rank} if q_rank else {})
        for i in range(LAYERS):
            at = f"model.layers.{i}.self_attn."
            weights |= {f"{at}{n}.weight": rng.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}
            weights |= {f"{at}{n}.weight": rng.uniform(0.5, 1.5, s).astype(np.float32) for n, s in norms.items()}
        return weights

    base = drawn(1)
    hidden = noised(base, 0.02)
    for i in range(LAYERS):
        at, order = f"model.layers.{i}.self_attn.", rng.permutation(heads)
        for name in ("q_b_proj" if q_rank else "q_proj", "kv_b_proj"):
            x = hidden[f"{at}{name}.weight"]
            hidden[f"{at}{name}.weight"] = x.reshape(heads, -1, x.shape[1])[order].reshape(x.shape)
        o = hidden[f"{at}o_proj.weight"]
        hidden[f"{at}o_proj.weight"] = o.reshape(D, heads, value)[:, order].reshape(o.shape)
    prints = [
        weightprint.fingerprint(write(name, weights, save, config=config))
        for name, weights in (("base", base), ("hidden", hidden), ("stranger", drawn(2)))
    ]
    related, stranger = (
        next(e for e in weightprint.compare(prints[0], of).evidence if e.test == "head_agreement").told(HeadAgreement)
        for of in prints[1:]
    )
    assert related.agreed == LAYERS * heads
    assert related.log10_p_agreement < -10
    assert stranger.agreed < 8
    assert stranger.log10_p_agreement > -4
