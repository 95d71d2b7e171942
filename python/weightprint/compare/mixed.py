"""What a mix proves of direction: a mean of several models came after each of them."""

from __future__ import annotations

from dataclasses import replace

from weightprint.compare.recipe import Recipe
from weightprint.operations.table import History
from weightprint.verdict.values import Direction
from weightprint.verdict.verdict import Verdict

__all__ = ["after_mixing", "told_after"]

_SURE = 0.97  # that no other order leaves every value where the mix rounds to
_LEAST = 0.02  # weight of a parent that is one


def after_mixing(verdict: Verdict, mix: Recipe | None) -> Verdict:
    """The verdict with the later model that a mix of A and others proves, where it reproduces B up to rounding.

    A parent is a mix of its child and the others as well, but with weights below zero, and not up to its rounding.
    """
    if mix is None or not mix.explained or mix.adapters or not verdict.related:
        return verdict
    used = [weight.parent for weight in mix.weights if weight.value >= _LEAST]
    if len(used) < 2 or mix.parents[0] not in used:
        return verdict
    others = len(used) - 1
    because = f"B is A mixed with {others} of the further models, value by value, up to rounding"
    return replace(verdict, direction=Direction("b", _SURE, because, "descent", None, verdict.direction.measured))


def told_after(history: History, verdict: Verdict) -> History:
    """What was done, told from A where it is the earlier one."""
    if verdict.direction.later != "b" or history.told_from is not None:
        return history
    return History("a", history.operations_if.get("a_first", history.operations))
