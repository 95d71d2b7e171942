"""What was done, read off the maps: one case per row of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint.compare.compare import judge
from weightprint.evidence.tests import AS_STORED
from weightprint.operations.table import History
from weightprint.verdict.verdict import Verdict

LAYERS = 6


def judged(a: Arrays, b: Arrays) -> tuple[Verdict, History]:
    m = models(a, b)
    found = judge(m, [test(m) for test in AS_STORED])
    return found.verdict, found.history


def parent(seed: int = 0) -> Arrays:
    return decoder(seed, d=96, h=256, layers=LAYERS)


def restacked(a: Arrays, order: list[int | None], seed: int = 9) -> Arrays:
    """Layers of `a` in this order; None is a new one."""
    new = decoder(seed, d=96, h=256, layers=LAYERS)
    out = {n: x for n, x in a.items() if ".layers." not in n}
    for to, at in enumerate(order):
        source, layer = (new, 0) if at is None else (a, at)
        start = f"model.layers.{layer}."
        out |= {f"model.layers.{to}.{n[len(start) :]}": x for n, x in source.items() if n.startswith(start)}
    return out


def done(past: History) -> dict[str, Any]:
    return {o.name: o.parameters for o in past.operations}


@pytest.mark.slow_but_first
@pytest.mark.parametrize(
    ("order", "name", "parameters"),
    [
        ([0, 1, 4, 5], "depth_drop", {"layers": [2, 3], "count": 2}),
        ([0, 1, 2, 3, 2, 3, 4, 5], "depth_upscaling", {"ranges": [[0, 3], [2, 5]]}),
        ([3, 1, 5, 0, 2, 4], "layer_shuffle", {"order": [3, 1, 5, 0, 2, 4]}),
        ([0, 1, None, 2, 3, None, 4, 5], "layer_insertion", {"at": [2, 5], "count": 2, "zero_output": False}),
    ],
)
def test_layers_that_moved(order: list[int | None], name: str, parameters: dict[str, Any]) -> None:
    a = parent()
    verdict, past = judged(a, child(restacked(a, order), 0.8))
    assert [row[:2] for row in verdict.layer_map] == list(enumerate(order))
    assert done(past)[name] == parameters
    assert verdict.name == "shared_origin"


def test_the_same_layers_in_another_order_are_not_identical() -> None:
    a = parent()
    verdict, past = judged(a, restacked(a, [3, 1, 5, 0, 2, 4]))
    assert verdict.name == "shared_origin"
    assert "another place" in verdict.sentence
    assert done(past)["layer_shuffle"] == {"order": [3, 1, 5, 0, 2, 4]}


def test_repeated_layers_are_not_identical() -> None:
    a = parent()
    verdict, past = judged(a, restacked(a, [0, 1, 2, 3, 4, 5, 4, 5]))
    assert verdict.name == "shared_origin"
    assert "depth_upscaling" in done(past)


def test_permuted_units_are_undone_and_named() -> None:
    a = parent()
    rng = np.random.default_rng(0)
    b = child(a, 0.8)
    for i in range(LAYERS):
        order = rng.permutation(256)
        for role in ("gate", "up"):
            b[f"model.layers.{i}.mlp.{role}_proj.weight"] = b[f"model.layers.{i}.mlp.{role}_proj.weight"][order]
        b[f"model.layers.{i}.mlp.down_proj.weight"] = b[f"model.layers.{i}.mlp.down_proj.weight"][:, order]
    verdict, past = judged(a, b)
    assert verdict.name == "shared_origin"
    assert "unit_permutation" in done(past)
    assert [row[:2] for row in verdict.layer_map] == [(i, i) for i in range(LAYERS)]
    assert verdict.share.low > 0.9


@pytest.mark.slow_but_first
@pytest.mark.parametrize(("kept", "name"), [(160, "ffn_pruning"), (400, "ffn_widening")])
def test_another_width_of_the_feed_forward_blocks(kept: int, name: str) -> None:
    a = parent()
    more = decoder(7, d=96, h=400, layers=LAYERS)
    rng = np.random.default_rng(0)
    b = child(a, 0.9)
    for i in range(LAYERS):
        units = np.sort(rng.permutation(256)[:kept])
        for role, axis in (("gate", 0), ("up", 0), ("down", 1)):
            key = f"model.layers.{i}.mlp.{role}_proj.weight"
            b[key] = b[key].take(units, axis)
            if kept > 256:
                b[key] = np.concatenate([b[key], more[key].take(range(kept - 256), axis)], axis)
    verdict, past = judged(a, b)
    assert verdict.name == "shared_origin"
    told = done(past)[name]
    assert (told["units"], told["units_of_a"]) == (kept, 256)
    assert told.get("keep", told.get("factor")) == pytest.approx(kept / 256, rel=0.005)
    assert told.get("new", "random") == "random"


def test_continued_training_has_nothing_done_to_its_structure() -> None:
    a = parent()
    assert done(judged(a, child(a, 0.9))[1]).keys() == {"continued_pretraining"}
