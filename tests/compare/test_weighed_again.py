"""A saved comparison is enough: read from JSON it is the same comparison, and weighs to the same verdict.

No model is at hand then, and reading a value of one raises, so these tests also show that weighing reads none.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from synthetic import child, decoder, hidden, mixture, models, relayered
from weightprint.compare.compare import Comparison, Judgement, judge
from weightprint.demo import demo_models
from weightprint.errors import UsageError
from weightprint.evidence.tests import AS_STORED, TURNED
from weightprint.results.saving import json_value
from weightprint.verdict.facts import Facts
from weightprint.verdict.saved import facts_from, saved
from weightprint.verdict.thresholds import Limits
from weightprint.verdict.verdict import Verdict, decide

DEMO = ("parent", "finetune", "moe", "stranger")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_models.write(tmp_path_factory.mktemp("demo") / "models")


@pytest.mark.slow_but_first
@pytest.mark.parametrize("effort", ["quick", "standard"])
@pytest.mark.parametrize(("a", "b"), [*itertools.combinations(DEMO, 2), *zip(DEMO, DEMO, strict=True)])
def test_every_demo_pair_weighs_again_to_the_same(demo: Path, a: str, b: str, effort: Any) -> None:
    first = weightprint.compare(demo / a, demo / b, effort=effort)
    text = first.to_json()
    again = Comparison.from_dict(json.loads(text))
    assert again.to_json() == text
    assert again.result == first.result
    assert again.history == first.history or again.to_dict()["operations"] == first.to_dict()["operations"]
    assert first.weighed() == again.weighed() == first.result
    assert str(again) == str(first)


def test_stricter_limits_take_a_verdict_back(demo: Path) -> None:
    """At the p-value that was reached it stands; beyond it, or beyond the effect, it falls."""
    told = Comparison.from_dict(json.loads(weightprint.compare(demo / "parent", demo / "finetune").to_json()))
    p = told.log10_p
    assert told.verdict == "shared_origin"
    assert p is not None
    stands, falls = told.weighed(Limits(log10_p=p)), told.weighed(Limits(log10_p=p - 1e-6))
    assert (stands.name, stands.log10_p) == ("shared_origin", p)
    assert f"log10 p <= {p:g}" in stands.rule
    assert falls.name == "inconclusive"
    assert any(f"log10 p <= {p - 1e-6:g}" in line for line in falls.against)
    assert told.weighed(Limits(effect=1.01)).name == "inconclusive"


def again(judged: Judgement) -> tuple[Facts, Verdict]:
    """Through JSON and back."""
    models = judged.facts.models
    parameters = {"effort": models.effort, "seed": models.seed, "log10_pairings": models.log10_pairings}
    told = json.dumps([saved(judged.facts, judged.cues), [json_value(e.to_dict()) for e in judged.facts.evidence]])
    facts, cues = facts_from(*json.loads(told), parameters)
    return facts, decide(facts, cues)


def of_type(arrays: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    return {n: x.astype(dtype) for n, x in arrays.items()}


A = decoder(0, d=96, h=256)
WHOLE = list(range(256))
PAIRS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "renamed": (A, hidden(A), "identical"),
    "layers moved": (A, relayered(A, [1, 0, 2, 3]), "shared_origin"),
    "cast": (A, of_type(A, ml_dtypes.bfloat16), "re_encoded"),
    "factors": (A, {n: x * np.float32(3) if "up_proj" in n else x for n, x in A.items()}, "shared_origin"),
    "more": (A, {**A, "extra.weight": decoder(1)["model.embed_tokens.weight"], "ones": np.ones(9)}, "shared_origin"),
    "experts": (mixture(A, [WHOLE[:128], WHOLE[128:]]), A, "shared_origin"),
    "some layers": (relayered(A, [0, 1, -1, -2], decoder(3, d=96, h=256)), child(A, 0.8), "partly_shared"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_of_every_kind_weigh_again_to_the_same(case: str) -> None:
    a, b, expected = PAIRS[case]
    m = models(a, b)
    judged = judge(m, [test(m) for test in (*AS_STORED, *TURNED)])
    facts, verdict = again(judged)
    assert verdict == judged.verdict
    assert verdict.name == expected
    assert again(Judgement(facts, judged.cues, verdict, judged.history))[1] == verdict  # and once more
    with pytest.raises(UsageError, match="no values"):
        facts.models.a.rows(next(iter(facts.models.a.tensors.values())))


def test_a_large_model_is_outlined_in_few_bytes() -> None:
    """Two models of 100,000 tensors each stay well below 100 MB."""
    a = {f"model.layers.{i}.self_attn.{part}_proj.weight": np.ones((2, 2)) for i in range(250) for part in "qkvo"}
    m = models(a, a)
    told = json.dumps(saved(Facts(m, ()), None))
    assert len(told) / 2000 * 200_000 < 2e7


def test_what_was_saved_without_its_facts_is_refused(demo: Path) -> None:
    out = weightprint.compare(demo / "parent", demo / "parent", effort="quick").to_dict()
    del out["weighed_from"]
    with pytest.raises(UsageError) as error:
        Comparison.from_dict(out)
    assert error.value.code == "not_weighable"
