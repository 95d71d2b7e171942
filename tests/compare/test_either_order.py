"""One story in either order: `compare A B` and `compare B A` say the same of the same two models.

The same verdict and the mirrored direction; where the direction is known the same operations, else the same two
readings. And the reading from the parent to the child tells what was done, whichever of them was called A.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from synthetic import Arrays, child, decoder, models
from weightprint.compare.compare import Judgement, judge
from weightprint.compare.pipeline import examine, gather
from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import AS_STORED
from weightprint.operations.mirrored import mirrored
from weightprint.verdict.facts import Facts

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS.parent), str(_TESTS / "operations")]
pytest.importorskip("jax")
made = import_module("benches.lineage.zoo.model_folder")
from every_operation import CASES, ENCODED, parent  # noqa: E402  (after the skip)

del sys.path[:2]

from benches.lineage.zoo.operations.table import OPERATIONS  # noqa: E402

Row = Mapping[str, Any]

#: Operations on values, each with what is to be told of it; the name None where one pair can't tell.
ON_VALUES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "re_dtype": ("llama", {}, ("dtype",)),
    "quantise, int8": ("llama", {"method": "int8"}, ("method",)),
    "quantise, int4": ("llama", {"method": "int4"}, ()),
    "quantise, fp8": ("llama", {"method": "fp8"}, ()),
    "unstructured_pruning": ("llama", {}, ()),
    "semi_structured_pruning": ("llama", {}, ()),
    "lora_merge": ("llama", {}, ("rank",)),
    "gaussian_noise": ("llama", {}, ()),
}
EVERY = {**CASES, **ON_VALUES}
#: Told of the child alone: what is left of units that only the parent has can't be seen from there.
CHILD_ALONE = {("rotation", "gain_spread")}


def judged(first: Any, second: Any, folder: Path) -> tuple[Judgement, Judgement]:
    """Both orders."""
    for name, model in (("a", first), ("b", second)):
        made.save(folder / name, model)
    out = []
    for x, y in (("a", "b"), ("b", "a")):
        with weightprint.open(folder / x) as one, weightprint.open(folder / y) as other:
            m = examine(one, other)[2]
            out.append(judge(m, gather(m)))
    return out[0], out[1]


def reading(told: Judgement, way: str) -> dict[str, Row]:
    """Operations told this way; of a known direction there is only one way."""
    past = told.history
    rows = past.operations if past.told_from == way[0] else past.operations_if.get(way, ())
    return {o.name: o.parameters for o in rows}


def mirror(side: str | None) -> str | None:
    return {"a": "b", "b": "a", None: None}[side]


def tell_one_story(one: Judgement, other: Judgement) -> None:
    assert one.verdict.name == other.verdict.name
    assert one.verdict.direction.later == mirror(other.verdict.direction.later)
    assert one.history.told_from == mirror(other.history.told_from) == mirror(one.verdict.direction.later)
    for way, back in (("a_first", "b_first"), ("b_first", "a_first")):
        assert reading(one, way).keys() == reading(other, back).keys()
    assert (one.verdict.log10_p is None) == (other.verdict.log10_p is None)
    if one.verdict.log10_p is not None and other.verdict.log10_p is not None:
        assert (one.verdict.log10_p <= -6) == (other.verdict.log10_p <= -6)


@pytest.mark.slow_but_first
@pytest.mark.parametrize("case", EVERY)
def test_what_was_done_is_told_from_the_parent_to_the_child_in_either_order(case: str, tmp_path: Path) -> None:
    form, parameters, checked = EVERY[case]
    name = case.partition(",")[0]
    a = parent(form)
    b = OPERATIONS[name]([a], 3, **parameters)
    one, other = judged(a, b, tmp_path)
    tell_one_story(one, other)
    assert one.verdict.direction.later in (None, "b")
    truth = b.truth.operations[0]["parameters"]
    for told in (reading(one, "a_first"), reading(other, "b_first")):
        assert name in told
        if case in CASES:
            assert told.keys() - ENCODED == {name}
        for key in checked:
            expected = truth[key]
            near = not isinstance(expected, (bool, str)) and np.asarray(expected).dtype.kind == "f"
            assert told[name][key] == (pytest.approx(expected, rel=0.03, abs=1e-6) if near else expected), key


def restacked(a: Arrays, order: Sequence[int | None]) -> Arrays:
    """Layers of `a` in this order; None is a new one."""
    new = decoder(9, d=96, h=256, layers=1)
    out = {n: x for n, x in a.items() if ".layers." not in n}
    for to, at in enumerate(order):
        source, start = (new, "model.layers.0.") if at is None else (a, f"model.layers.{at}.")
        out |= {f"model.layers.{to}.{n[len(start) :]}": x for n, x in source.items() if n.startswith(start)}
    return out


def in_memory(a: Arrays, b: Arrays) -> tuple[Judgement, Judgement]:
    pairs = models(a, b), models(b, a)
    one, other = (judge(m, [test(m) for test in AS_STORED]) for m in pairs)
    return one, other


@pytest.mark.slow_but_first
@pytest.mark.parametrize(
    ("order", "verdict"),
    [
        ([0, 1, 4, 5], "shared_origin"),
        ([0, 1, 2, 1, 2, 3, 4, 5], "shared_origin"),
        ([0, 1, None, 2, 3, None, 4, 5], "shared_origin"),
        ([0, 1, None, 3, None, 5], "partly_shared"),
        ([0, None, 2, None], "partly_shared"),
    ],
)
def test_layers_and_training(order: list[int | None], verdict: str) -> None:
    """Layers dropped, repeated, inserted: the deeper model has more than the other, in either order. Layers put in
    another one's place are not."""
    a = decoder(0, d=96, h=256, layers=6)
    one, other = in_memory(a, child(restacked(a, order), 0.9))
    tell_one_story(one, other)
    assert one.verdict.name == verdict


def test_pruned_units_and_training() -> None:
    """FFNs of half the width, trained on, with decay: told as that from either side, and no sign was flipped."""
    a = decoder(1, d=96, h=256)
    kept = np.sort(np.random.default_rng(1).permutation(256)[:128])
    b = {n: x.take(kept, 1 if "down" in n else 0) if ".mlp." in n else x for n, x in a.items()}
    one, other = in_memory(a, child(b, 0.95))
    tell_one_story(one, other)
    assert one.verdict.direction.later == "b"
    assert {o.name for o in one.history.operations} == {"ffn_pruning", "continued_pretraining"}


def test_strangers_have_no_operations_in_either_order() -> None:
    one, other = in_memory(decoder(2), decoder(3))
    tell_one_story(one, other)
    assert not one.history.operations
    assert not one.history.operations_if
    assert one.history.told_from is None


def test_mirrored_twice_is_the_same() -> None:
    """What is turned keeps which block is whose: matches, copies and names come back."""
    units = np.array([[0, 5], [1, 3], [2, 4]], np.int64)
    match = UnitMatch(("decoder", 1, None), ("decoder", 2, None), 3, 3, 0.1, -9.0, units, 3)
    a, b = decoder(4), child(decoder(4), 0.9)
    m: ModelPair = models(a, b)
    units_found = Evidence("unit_agreement", "?", "", "", "", matches=(match,), log10_p=-9.0)
    once = mirrored(Facts(m, (units_found,)))
    assert once.models.a.label == "a"
    assert once.models.a.tensors == m.b.tensors
    (turned,) = once.evidence[0].matches
    assert (turned.b, turned.a) == (match.a, match.b)
    assert turned.units is not None
    assert turned.units.tolist() == [[3, 1], [4, 2], [5, 0]]
    (back,) = mirrored(once).evidence[0].matches
    assert back == match
    assert back.units is not None
    assert back.units.tolist() == units.tolist()


def test_the_report_says_which_way_it_is_told(tmp_path: Path) -> None:
    a = parent("llama")
    grown = OPERATIONS["depth_upscaling"]([a], 3)
    one, other = (
        made.ZooModel(
            {n: (x + 0.07 * x.std() * np.random.default_rng([seed, len(n)]).standard_t(4, x.shape)).astype(np.float32)
             for n, x in a.tensors.items()}, a.config, a.truth,
        )
        for seed in (5, 6)
    )  # fmt: skip
    dropped = OPERATIONS["depth_drop"]([one], 3, count=1)
    for name, model in (("a", a), ("grown", grown), ("dropped", dropped), ("other", other)):
        made.save(tmp_path / name, model)
    found = weightprint.compare(tmp_path / "grown", tmp_path / "a")
    text = str(found)
    assert "From B to A" in text
    assert "A is the later one" in text
    out = found.to_dict()
    assert out["told_from"] == "b"
    assert out["operations_if"] is None
    assert [o["name"] for o in out["operations"]] == ["depth_upscaling"]
    found = weightprint.compare(tmp_path / "dropped", tmp_path / "other")
    text, out = str(found), found.to_dict()
    assert "If A is first" in text
    assert "If B is first" in text
    assert "not known" in text
    assert out["told_from"] is None
    assert next(o["name"] for o in out["operations_if"]["b_first"]) == "depth_drop"
    assert out["operations"] == out["operations_if"]["a_first"]
