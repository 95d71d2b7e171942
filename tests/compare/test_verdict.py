"""The table of rules: each line once, and the near misses."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from synthetic import Arrays, child, decoder, hidden, models
from weightprint.compare.compare import Judgement, judge
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.evidence import Evidence, Region
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test
from weightprint.evidence.tests import AS_STORED, DECIDING, TESTS, TURNED
from weightprint.evidence.thresholds import EFFECT, LOG10_P
from weightprint.verdict.facts import may_decide
from weightprint.verdict.rules import RULES
from weightprint.verdict.thresholds import ABSENT
from weightprint.verdict.verdict import Verdict

BF16 = ml_dtypes.bfloat16


def judgement(a: Arrays, b: Arrays) -> Judgement:
    m = models(a, b)
    return judge(m, [test(m) for test in (*AS_STORED, *TURNED)])


def judged(a: Arrays, b: Arrays) -> Verdict:
    return judgement(a, b).verdict


def done(a: Arrays, b: Arrays) -> list[str]:
    return [o.name for o in judgement(a, b).history.operations]


def wide(seed: int) -> Arrays:
    """Wide enough that the absence of a block can be seen."""
    return decoder(seed, d=128, h=512, layers=6, vocabulary=512)


def cast(a: Arrays) -> Arrays:
    return {n: x.astype(BF16) for n, x in a.items()}


def test_identical_under_other_names() -> None:
    a = decoder(0)
    verdict = judged(a, {f"t{i}": x for i, x in enumerate(a.values())})
    assert (verdict.name, verdict.share.low, verdict.complete) == ("identical", 1.0, True)
    assert done(a, {f"t{i}": x for i, x in enumerate(a.values())}) == ["rename"]


def test_identical_needs_both_ways() -> None:
    a = decoder(0)
    more = {**a, "extra.weight": decoder(1)["model.embed_tokens.weight"]}
    wholly, partly = judged(more, a), judged(a, more)
    assert wholly.name == partly.name == "shared_origin"
    assert "A has 1 more tensor" in wholly.sentence
    assert partly.share.low < 1


def test_re_encoded_says_which_is_later() -> None:
    a = decoder(0)
    found = judgement(a, cast(a))
    verdict = found.verdict
    assert (verdict.name, verdict.share.low, verdict.direction.later) == ("re_encoded", 1.0, "b")
    assert [o.name for o in found.history.operations] == ["re_dtype"]
    assert judged(cast(a), a).direction.later == "a"
    assert judged(cast(a), {n: x.astype(np.float32) for n, x in cast(a).items()}).direction.later is None


def test_re_encoded_without_a_head_is_re_encoded_but_not_complete() -> None:
    a = {**decoder(0), "lm_head.weight": decoder(5)["model.embed_tokens.weight"]}
    b = cast(decoder(0))
    verdict = judged(a, b)
    assert (verdict.name, verdict.complete) == ("re_encoded", False)
    assert any("lm_head.weight" in line for line in verdict.against)


def test_re_encoded_without_a_block_is_not_re_encoded() -> None:
    a = decoder(0)
    b = {n: x for n, x in cast(a).items() if ".layers.3." not in n}
    assert judged(a, b).name == "shared_origin"


def test_a_child_shares_the_origin() -> None:
    a = decoder(0)
    verdict = judged(a, child(a, 0.7))
    assert verdict.name == "shared_origin"
    assert (verdict.log10_p or 0) < -40
    assert any("initialisation" in line for line in verdict.against)
    assert [row[:2] for row in verdict.layer_map] == [(i, i) for i in range(4)]


def test_frozen_norm_gains_rule_out_a_shared_seed() -> None:
    a = decoder(0)
    b = {n: (a[n] if "norm" in n else x) for n, x in child(a, 0.7).items()}
    verdict = judged(a, b)
    assert verdict.name == "shared_origin"
    assert any("ruled out" in line for line in verdict.against)


def test_half_of_the_blocks_is_partly_shared() -> None:
    a, b = wide(0), wide(1)
    b |= {n: x for n, x in child(a, 0.9).items() if any(f".layers.{i}." in n for i in (0, 1, 2))}
    verdict = judged(a, b)
    assert verdict.name == "partly_shared"
    assert [row[:2] for row in verdict.layer_map] == [(0, 0), (1, 1), (2, 2), (3, None), (4, None), (5, None)]
    truth = sum(x.size for n, x in b.items() if any(f".layers.{i}." in n for i in (0, 1, 2)))
    truth /= sum(x.size for x in b.values())
    assert verdict.share.low <= truth <= verdict.share.high
    assert any("decoder.4" in line for line in verdict.against)


def test_an_equal_embedding_alone_is_partly_shared() -> None:
    a, b = decoder(0), decoder(1)
    b["model.embed_tokens.weight"] = a["model.embed_tokens.weight"]
    verdict = judged(a, b)
    assert verdict.name == "partly_shared"
    assert verdict.share.low == pytest.approx(a["model.embed_tokens.weight"].size / sum(x.size for x in b.values()))


@pytest.mark.slow
def test_rows_of_an_embedding_are_a_part() -> None:
    """A vocabulary that was taken over in part: no tensor is equal, and 80 rows are."""
    a, b = wide(0), wide(1)
    name = "model.embed_tokens.weight"
    b[name] = np.concatenate([a[name][100:180], b[name][80:]])
    verdict = judged(a, b)
    assert verdict.name == "partly_shared"
    assert verdict.share.low == pytest.approx(80 * 128 / sum(x.size for x in b.values()), rel=0.01)
    assert any("80 of 512 rows" in line for line in verdict.in_favour)


def test_strangers_that_are_too_small_to_tell_are_inconclusive_and_the_report_says_why() -> None:
    verdict = judged(decoder(0, d=24, h=40), decoder(1, d=24, h=40))
    assert verdict.name == "inconclusive"
    assert (verdict.share.value, verdict.share.low, verdict.share.high) == (None, 0.0, 1.0)
    assert any("Why this is not 'no evidence'" in line for line in verdict.against)
    assert any("would have been seen" in line for line in verdict.against)
    assert not verdict.in_favour


@pytest.mark.slow
def test_strangers_with_power_to_see_a_descendant_show_no_evidence() -> None:
    verdict = judged(wide(0), wide(1))
    assert verdict.name == "no_evidence"
    assert (verdict.share.value, verdict.layer_map) == (None, tuple((i, None, c) for i, _, c in verdict.layer_map))
    assert all("would have been seen" in line for line in verdict.in_favour if "aligned_weights" in line)
    assert any("Distillation" in line for line in verdict.against)


def without(a: Arrays, part: str) -> Arrays:
    return {n: x for n, x in a.items() if part not in n}


def test_no_evidence_needs_known_roles() -> None:
    """The same strangers with names that say nothing, in an order that says nothing."""
    assert judged(hidden(wide(0)), hidden(wide(1), seed=1)).name == "inconclusive"


def test_no_evidence_needs_feed_forward_blocks() -> None:
    assert judged(without(wide(0), ".mlp."), without(wide(1), ".mlp.")).name == "inconclusive"


def test_equal_trivial_tensors_show_nothing() -> None:
    a, b = decoder(0), decoder(1)
    for model in (a, b):
        model["model.layers.0.bias"] = np.zeros(4096, np.float32)
        model["model.rotary_emb.inv_freq"] = np.geomspace(1, 1e-4, 128).astype(np.float32)
    assert judged(a, b).name == "no_evidence"


def test_equal_tensors_that_may_be_formulas_are_inconclusive() -> None:
    a, b = decoder(0), decoder(1)
    rng = np.random.default_rng(0)
    for model in (a, b):
        model["frontend.spectrogram.window"] = np.hanning(400).astype(np.float32)
        model["frontend.mel_scale.fb"] = np.abs(rng.standard_normal((1, 201, 80))).astype(np.float32)
        rng = np.random.default_rng(0)
    verdict = judged(a, b)
    assert verdict.name == "inconclusive"
    assert any("frontend.mel_scale.fb" in line for line in verdict.against)


def test_equal_tensors_without_a_role_count_when_they_are_most_of_the_model() -> None:
    a = hidden(decoder(0))
    b = {**a, "t99": decoder(1)["model.embed_tokens.weight"]}
    del b["t3"]
    assert judged(a, b).name == "partly_shared"


def test_other_widths_are_inconclusive() -> None:
    assert judged(decoder(0), decoder(1, d=96)).name == "inconclusive"


def faked(log10_p: float, effect: float) -> tuple[ModelPair, Evidence]:
    m = models(decoder(0), decoder(1))
    real = aligned_weights(m)
    region = Region(
        "model.layers.0", 0, 100_000, effect, 0.0, 0.001, 30, 64, ("model.layers.0.self_attn.q_proj.weight",)
    )
    return m, replace(real, log10_p=log10_p, effect=effect, regions=(region,))


@pytest.mark.parametrize(
    ("log10_p", "effect", "name"),
    [
        (LOG10_P, EFFECT, "shared_origin"),
        (LOG10_P + 0.01, 0.9, "inconclusive"),
        (-300.0, EFFECT - 0.001, "inconclusive"),
        (-300.0, 0.9, "shared_origin"),
    ],
)
def test_a_finding_needs_p_and_effect(log10_p: float, effect: float, name: str) -> None:
    m, evidence = faked(log10_p, effect)
    assert judge(m, [evidence]).verdict.name == name


def test_the_p_value_pays_for_the_number_of_tests() -> None:
    a = decoder(0)
    m = models(a, child(a, 0.7))
    evidence = [test(m) for test in AS_STORED]
    single = min(e.log10_p for e in evidence if e.test in DECIDING and e.log10_p is not None)
    collectors = sum(e.test in DECIDING and e.log10_p is not None for e in evidence)
    assert judge(m, evidence).verdict.log10_p == pytest.approx(single + np.log10(collectors))
    assert collectors >= 4


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_a_p_value_decides_where_its_null_holds(test: Test) -> None:
    """As stored, or in a basis that was fitted; and there only with an effect that fitting does not make."""
    told = replace(faked(-30.0, 1.0)[1], test=test.name)
    fitted = replace(told, basis="rotation")
    assert may_decide(told) == (test.decides != "never")
    assert may_decide(fitted) == (test.decides == "any basis")
    assert not may_decide(replace(fitted, effect=0.0))
    assert not may_decide(replace(told, log10_p=None))


def test_descriptive_tests_never_decide() -> None:
    a = decoder(0)
    m = models(a, child(a, 0.9))
    evidence = [e for test in AS_STORED if (e := test(m)).test not in DECIDING]
    assert judge(m, evidence).verdict.name == "inconclusive"


def test_every_rule_reads_tests_that_exist() -> None:
    m = models(decoder(0), decoder(1))
    names = {test(m).test for test in TESTS}
    assert names == {test.name for test in TESTS}
    assert {name for rule in RULES for name in rule.reads} <= names
    assert 0 < ABSENT < EFFECT < 1
