"""The small zoo: three roots of three or four layers and nine models made from them, in minutes, for CI."""

from __future__ import annotations

from collections.abc import Iterator

from .forms import shape
from .forms_train import Recipe
from .plans import Plan, Plans

STEPS = 250
_LLAMA = shape("llama", hidden=48, layers=4, ffn=96)
_GPT2 = shape("gpt2", hidden=48, layers=3, ffn=96)


def roots() -> Iterator[Plan]:
    """Two strangers of one architecture and recipe, and one of another."""
    for name, s, seed, split in (("a", _LLAMA, 1, "fit"), ("b", _LLAMA, 2, "fit"), ("c", _GPT2, 3, "fit")):
        yield Plan(name, "root", split, seed, s, recipe=Recipe("modules", STEPS, 100 + seed, 5e-3))


def descendants(plans: Plans) -> Iterator[Plan]:
    """One model of each kind that a regression would show in."""
    a = plans["a"]
    docs, packages = Recipe("docs", 30, 200, 1e-3), Recipe("packages", STEPS // 2, 201, 3e-3)

    def child(name: str, parents: tuple[str, ...], operation: str = "", step: str = "", **more: object) -> Plan:
        recipe = more.pop("recipe", None)
        assert recipe is None or isinstance(recipe, Recipe)
        return Plan(name, "descendant", "fit", 300, None, parents, operation, more, recipe, step)

    yield Plan("a-same-init", "shared_init", "fit", a.seed, a.shape, init_of="a",
               recipe=Recipe("packages", STEPS, 202, 5e-3))  # fmt: skip
    taught = Recipe("modules", STEPS // 2, 203, 5e-3)
    yield Plan("b-student", "distilled", "fit", 9, a.shape, recipe=taught, teacher="b")
    yield child("a-tuned", ("a",), step="fine_tune", recipe=docs)
    yield child("c-continued", ("c",), step="continued_pretraining", recipe=packages)
    yield child("a-upcycled", ("a",), "moe_upcycling", "further_training", recipe=docs, fresh=0.25)
    yield child("c-dropped", ("c",), "depth_drop", layers=[1])
    yield child("a-permuted", ("a",), "unit_permutation", share=1.0)
    yield child("b-rotated", ("b",), "rotation")
    yield child("a-merged", ("a", "a-tuned"), "linear_merge", weights=[0.6, 0.4])
