"""Are the operations that weightprint names the ones that were done, with the right parameters?

Asked only where B descends from A and B is the later one: an operation is told from A to B, and the way back has
another name. A chain counts each of its steps. A parameter is right if it is equal, or within 1 % for a number that is
not whole.

Some steps leave one trace and differ in what somebody meant by them: :data:`KIN`. Where not the step but another of its
group was named, it counts as ``named_kin``, in a column of its own, and the name that was told counts as told elsewhere
only if none of its group was done.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .pairs import RELATED

__all__ = ["operations_table", "same_parameter"]

_CLOSE = 0.01

#: Names that values alone can't tell apart: training of any length and purpose; a merge with a model that is not there
#: looks like training as well, and names that say nothing are names that were changed.
KIN: tuple[frozenset[str], ...] = (
    frozenset(
        {"fine_tune", "continued_pretraining", "further_training", "wash", "linear_merge", "slerp_merge",
         "task_arithmetic", "ties_merge", "dare_merge"}
    ),
    frozenset({"rename", "random_names"}),
)  # fmt: skip


def operations_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per operation: pairs it was done in, in how many of these it was named, how often it was named where it was not
    done, and parameters right of those that both state."""
    done: dict[str, int] = defaultdict(int)
    named: dict[str, int] = defaultdict(int)
    named_kin: dict[str, int] = defaultdict(int)
    extra: dict[str, int] = defaultdict(int)
    right: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    roots: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["relation"] != RELATED or row["later"] != "b" or "truth" not in row.get("weightprint", {}):
            continue
        truth = {o["name"]: o["parameters"] for o in row["weightprint"]["truth"]}
        told = {o["name"]: o["parameters"] for o in row["weightprint"]["operations"]}
        for name, parameters in truth.items():
            done[name] += 1
            roots[name] |= set(row["clusters"])
            named[name] += name in told
            named_kin[name] += name not in told and bool(_kin(name) & told.keys())
            for key in parameters.keys() & told.get(name, {}).keys():
                right[name][1] += 1
                right[name][0] += same_parameter(parameters[key], told[name][key])
        for name in told.keys() - truth.keys():
            extra[name] += not _kin(name) & truth.keys()
    return [
        {
            "name": name,
            "pairs": done[name],
            "roots": len(roots[name]),
            "named": named[name],
            "named_kin": named_kin[name],
            "named_elsewhere": extra[name],
            "parameters_right": right[name][0],
            "parameters_told": right[name][1],
        }
        for name in sorted({*done, *extra})
    ]


def _kin(name: str) -> frozenset[str]:
    return next((group for group in KIN if name in group), frozenset())


def same_parameter(truth: Any, told: Any) -> bool:
    """Equal; or, for numbers that are not whole, within one percent."""
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (truth, told))
    if numbers and not (isinstance(truth, int) and isinstance(told, int)):
        return math.isclose(truth, told, rel_tol=_CLOSE)
    return bool(truth == told)
