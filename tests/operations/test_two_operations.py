"""Two operations one after the other: both are told, mirrored as the arguments are, and nothing beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from every_operation import parent

from benches.lineage.zoo import model_folder
from benches.lineage.zoo.model_folder import ZooModel
from benches.lineage.zoo.operations.table import OPERATIONS

Step = tuple[str, Mapping[str, Any]] | Callable[[ZooModel], ZooModel]


def trained(size: float) -> Callable[[ZooModel], ZooModel]:
    """Every matrix moved a little along a few directions and a little everywhere, larger in some rows."""

    def step(model: ZooModel) -> ZooModel:
        rng = np.random.default_rng(11)
        tensors = dict(model.tensors)
        for name, x in tensors.items():
            d = rng.standard_normal(x.shape) * np.exp(rng.standard_normal((len(x), *[1] * (x.ndim - 1))))
            tensors[name] = (x + size * x.std() * d / d.std()).astype(np.float32)
        return ZooModel(tensors, model.config, model.truth)

    return step


def times(part: str, factor: float) -> Callable[[ZooModel], ZooModel]:
    def step(model: ZooModel) -> ZooModel:
        tensors = {n: x * np.float32(factor) if part in n else x for n, x in model.tensors.items()}
        return ZooModel(tensors, model.config, model.truth)

    return step


INT8, INT4, FP8 = (("quantise", m) for m in ({"method": "int8"}, {"method": "int4"}, {"method": "fp8", "block": 32}))

CHAINS: dict[str, tuple[tuple[Step, ...], set[str]]] = {
    "a factor, then int8": ((times("1.mlp.down", 1.7), INT8), {"quantise", "scaled"}),
    "a factor, then int4": ((times("1.mlp.down", 1.7), INT4), {"quantise", "scaled"}),
    "layers repeated, then FP8": ((("depth_upscaling", {}), FP8), {"depth_upscaling", "quantise"}),
    "pruned, then int4": ((("unstructured_pruning", {"fraction": 0.5}), INT4), {"unstructured_pruning", "quantise"}),
    "an adapter, then int8": ((("lora_merge", {"rank": 4}), INT8), {"lora_merge", "quantise"}),
    "a direction taken out, then int4": (
        (("directional_ablation", {"strength": 0.5, "embedding": False}), INT4), {"directional_ablation", "quantise"},
    ),
    "signs flipped, then int8": ((("sign_flips", {"share": 0.5}), INT8), {"sign_flips", "quantise"}),
    "turned, then int8": ((("rotation", {}), INT8), {"rotation", "quantise"}),
    "tokens left out, then trained": (
        (("vocabulary_pruning", {"keep": 0.7}), trained(0.03)), {"vocabulary_pruning", "fine_tune"},
    ),
}  # fmt: skip


def told(a: Path, b: Path) -> tuple[str, Any, set[str], set[str]]:
    """The verdict, the later side, operations as A, or B, was first."""
    found = weightprint.compare(a, b)
    past = found.history
    ways = past.operations_if or {f"{past.told_from}_first": past.operations}
    names = ({o.name for o in ways.get(f"{first}_first", ())} - {"re_dtype"} for first in ("a", "b"))
    return found.verdict, found.result.direction.later, *names


@pytest.mark.slow_but_first
@pytest.mark.parametrize("chain", CHAINS)
def test_both_are_told_in_either_order(tmp_path: Path, chain: str) -> None:
    steps, expected = CHAINS[chain]
    first = parent("llama")
    made = first
    for step in steps:
        made = step(made) if callable(step) else OPERATIONS[step[0]]([made], 5, **step[1])
    a, b = (model_folder.save(tmp_path / name, model) for name, model in (("a", first), ("b", made)))
    verdict, later, if_a, if_b = told(a, b)
    other, earlier, turned_a, turned_b = told(b, a)
    assert (verdict, if_a, if_b) == (other, turned_b, turned_a)
    assert later == {"a": "b", "b": "a", None: None}[earlier]
    assert verdict == "shared_origin"
    assert if_a == expected
