"""The error rates that reports print are the benchmark's."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
from weightprint.verdict.error_rates import counted, error_rate
from weightprint.verdict.values import Name

from benches.lineage.commands import score

RESULTS = json.loads((score.RESULTS / "results.json").read_text())


def test_equal_the_results_of_the_benchmark() -> None:
    assert counted() == score.error_rates(RESULTS)
    assert counted()["unrelated"]["claimed"]["n"] == len(RESULTS["false_claims"])
    assert counted()["related"]["claimed"]["n"] + len(RESULTS["misses"]) == RESULTS["pairs"]["all"]["related"]


@pytest.mark.parametrize("verdict", get_args(Name))
def test_of_every_verdict(verdict: str) -> None:
    rate = error_rate(verdict)
    if verdict in ("identical", "re_encoded", "inconclusive"):
        assert rate is None
        return
    of = "related" if verdict == "no_evidence" else "unrelated"
    assert rate is not None
    assert (rate.of, rate.pairs) == (of, RESULTS["pairs"]["all"][of])
    assert f"{rate.wrong:,} of {rate.pairs:,} {of} pairs" in rate.sentence
    # By roots, not by pairs: with none wrong among n, 95 % of such runs have a rate below 1 - 0.05 ** (1 / n).
    if not rate.wrong:
        assert rate.at_most == pytest.approx(1 - 0.05 ** (1 / rate.roots), abs=1e-4)
    with pytest.raises(FrozenInstanceError):
        rate.wrong = 1  # type: ignore[misc]
