"""In place first: which blocks need be looked for nowhere else, and that what is then said is what all pairs say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models, relayered
from weightprint.compare import pipeline
from weightprint.compare.pipeline import gather
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.lookup import nearest_units
from weightprint.evidence.lookup.nearest_units import _best, _confirmed, _nearest
from weightprint.evidence.lookup.settled import NOT_NEEDED, all_settled, asked
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.unit_agreement import found_in_place, unit_agreement
from weightprint.evidence.unit_geometry import unit_geometry
from weightprint.util.linear_algebra import unit_rows

PARENT = decoder(0)
BLOCKS = [("decoder", i) for i in range(4)]


def permuted(arrays: Arrays) -> Arrays:
    """The hidden units of every block in another order."""
    out = dict(arrays)
    for name, x in arrays.items():
        if "mlp." in name:
            order = np.random.default_rng(int(name.split(".")[2])).permutation(160)
            out[name] = x[:, order] if "down" in name else x[order]
    return out


def settled(pair: ModelPair) -> ModelPair:
    return replace(pair, settled=found_in_place(pair))


@pytest.mark.parametrize(
    ("b", "there"),
    [
        (child(PARENT, 0.95), {0, 1, 2, 3}),
        (permuted(child(PARENT, 0.95)), {0, 1, 2, 3}),
        (child(PARENT, 0.5), set()),  # others might be nearer
        (relayered(child(PARENT, 0.95), [0, 1, 3, 2]), {0, 1}),
        (decoder(1), set()),
    ],
    ids=["tuned", "units permuted", "far", "layers exchanged", "stranger"],
)
def test_blocks_that_are_where_they_were_are_settled(b: Arrays, there: set[int]) -> None:
    pair = settled(models(PARENT, b))
    assert {block for _, block in pair.settled or ()} == there
    assert all_settled(pair) == (there == {0, 1, 2, 3})


def test_a_pair_is_asked_in_place_and_where_one_of_its_blocks_is_open() -> None:
    pair = models(PARENT, PARENT)
    own = np.eye(4, dtype=bool)
    assert np.array_equal(asked(replace(pair, settled=None), BLOCKS, BLOCKS), own)
    assert asked(pair, BLOCKS, BLOCKS).all()
    wanted = asked(replace(pair, settled=frozenset(BLOCKS[:3])), BLOCKS, BLOCKS)
    assert np.array_equal(wanted[:3, :3], own[:3, :3])
    assert wanted[3].all()
    assert wanted[:, 3].all()


@pytest.mark.parametrize("test", [unit_agreement, aligned_units], ids=lambda test: test.name)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 1, 3, 2], [0, 1, 2]], ids=str)
def test_the_map_is_that_of_all_pairs_and_the_p_value_pays_for_them(test: object, order: list[int]) -> None:
    assert callable(test)
    pair = settled(models(PARENT, relayered(child(PARENT, 0.95), order)))
    some, every = test(pair), test(replace(pair, settled=frozenset(), collectors=[]))
    assert [(m.b, m.a, m.agreed) for m in some.matches] == [(m.b, m.a, m.agreed) for m in every.matches]
    assert some.pairs_tried == every.pairs_tried == 4 * len(order)
    assert some.log10_p == pytest.approx(every.log10_p, rel=0.2)


def test_strangers_are_looked_at_in_all_pairs() -> None:
    pair = models(PARENT, decoder(1))
    for test in (unit_agreement, aligned_units):
        found = test(settled(pair))
        everywhere = test(pair)
        assert (
            replace(found, seconds=0, gemm_seconds=0).to_dict()
            == replace(everywhere, seconds=0, gemm_seconds=0).to_dict()
        )


def test_what_is_not_needed_is_told_and_full_effort_runs_it() -> None:
    pair = models(PARENT, permuted(child(PARENT, 0.95)))
    (skipped,) = [e for e in gather(pair) if e.test == "unit_geometry"]
    assert (skipped.applied, skipped.why_not) == (False, NOT_NEEDED)
    assert unit_geometry(replace(pair, effort="full")).applied
    (open_one,) = [e for e in gather(models(PARENT, decoder(1))) if e.test == "unit_geometry"]
    assert open_one.applied


def test_what_the_tests_together_do_not_find_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look in place may be kept out of the verdict, by a common mask say: then everything is asked."""
    monkeypatch.setattr(pipeline, "found_in_place", lambda pair: frozenset(BLOCKS))
    pair = models(PARENT, decoder(1))
    evidence = {e.test: e for e in gather(pair) if e.basis == "identity"}
    assert evidence["unit_geometry"].applied
    expected = replace(unit_agreement(replace(pair, collectors=[])), seconds=0, gemm_seconds=0)
    assert replace(evidence["unit_agreement"], seconds=0, gemm_seconds=0).to_dict() == expected.to_dict()


def test_looking_at_a_few_targets_first_names_the_same_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_units, "_FEW", 16)
    rng = np.random.default_rng(0)
    targets = [unit_rows(rng.standard_normal((400, 24)).astype(np.float32)) for _ in range(3)]
    probes = [unit_rows(rng.standard_normal((90, 24)).astype(np.float32)) for _ in range(3)]
    for x, y in zip(probes, targets, strict=True):
        x[:30] = y[100:130]  # real ones, and one target of the few among them
    orders = [rng.permutation(24) for _ in range(2)]
    reads = [(probes[0], targets[0], False), (probes[1], targets[1], True)]
    named, _ = _nearest([(probes[2], targets[2], False)], orders, 2)
    every, tops = _nearest(reads, orders, 2)
    found, best = _confirmed(reads, named, orders)
    agree = (named == every) & (named >= 0)
    assert np.array_equal((found == named) & (found >= 0), agree)
    assert np.array_equal(agree[0].nonzero()[0][:30], np.arange(30))
    np.testing.assert_array_equal(best[agree[0]], tops[agree[0]])
    assert _best(reads, np.arange(0), None)[1].size == 0
