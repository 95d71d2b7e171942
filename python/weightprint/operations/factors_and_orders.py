"""Factors and orders: tensors that are A's times one number which no file stores, or codes of A's without their scale;
and values of A in another order within their tensor, where no other tensor stands in the same order.

Told by :mod:`weightprint.evidence.same_values`. An order that changes no output is left to
:mod:`.reparameterisation`: hidden units (rows of gate and up, columns of down), channels of the residual stream (those
of the embedding), and whole heads (rows of q, columns of o; keys and values with them or not at all).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weightprint.anatomy.roles import TOKEN_TABLES, matrix_of
from weightprint.evidence.rounding.scaled_cells import factors_per_line
from weightprint.evidence.same_values import SameValues
from weightprint.fingerprint.model import Tensor
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Change, Changes
from weightprint.operations.difference import Difference
from weightprint.util.arrays import F64
from weightprint.verdict.facts import Facts

__all__ = ["other_orders", "reordering", "scaled_lines", "scaling"]

_MOST = 1 << 26  # values of a matrix that is held whole
_ALIKE = 0.01  # factors that differ by no more are one
_NEAR_ONE = 0.02  # what rounding to a grid may make of a factor of one
_NEAREST = 1.5  # times the mean square of rounding to the nearest point

_Order = Mapping[str, Any]
#: Stack, layer, expert.
_Part = tuple[str, Any, Any]


def scaling(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"factor", "tensors", "names"}``, ``"from"`` and ``"to"`` where factors differ; of codes ``{"how", …}``."""
    same = facts.told(SameValues)
    scaled = same.scaled if same else {}
    known = sorted((factor, name) for name, (factor, _) in scaled.items() if factor is not None)
    if known:
        low, middle, high = known[0][0], known[len(known) // 2][0], known[-1][0]
        one = low * high > 0 and abs(math.log(high / low)) <= _ALIKE
        parameters: Row = {"factor": float(f"{middle:.6g}"), "tensors": len(known)}
        parameters |= {} if one else {"from": float(f"{low:.6g}"), "to": float(f"{high:.6g}")}
        some = "" if one else ", each by its own factor"
        yield Operation(
            "scaled",
            parameters | {"names": [n for _, n in known]},
            f"every value of these {len(known)} tensors is A's times that, and nothing stores it{some}",
        )
    codes = {name: how for name, (factor, how) in scaled.items() if factor is None}
    if codes:
        parameters = {"tensors": len(codes), "how": sorted(set(codes.values())), "names": list(codes)}
        yield Operation("scaled", parameters, f"{len(codes)} tensors are codes whose scale is stored nowhere")


def scaled_lines(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"tensors", "per", "from", "to", "names"}``: rows or columns of matrices times a factor of their own, where
    nothing undoes it (:mod:`.reparameterisation` tells what does); and what was multiplied before it was quantised."""
    before = {c.b.name: factor for c, s in changes.seen if (factor := _multiplied(c, s)) is not None}
    if before:
        low, *_, high = sorted([*before.values(), *before.values()])
        parameters: Row = {"factor": float(f"{low:.4g}"), "tensors": len(before), "names": [*before]}
        parameters |= {"from": float(f"{low:.4g}"), "to": float(f"{high:.4g}")} if high - low > _ALIKE * high else {}
        yield Operation("scaled", parameters, f"{len(before)} tensors are A's times that, rounded to a grid", 0.95)
    by_axis: dict[str, dict[str, F64]] = defaultdict(dict)
    for change in (c for c, _ in changes.seen if c.kind == "scaling" and c.b.numel <= _MOST):
        x, y = facts.models.a.rows(change.a), facts.models.b.rows(change.b)
        for axis, one, other in (("row", x, y), ("column", x.T, y.T)):
            found = factors_per_line(one, other, (change.a.dtype, change.b.dtype))
            if found is not None:
                by_axis[axis][change.b.name] = found
                break
    for axis, named in by_axis.items():
        every = np.concatenate([*named.values()])
        parameters = {"tensors": len(named), "per": axis, "names": [*named]}
        parameters |= {"from": float(f"{every.min():.4g}"), "to": float(f"{every.max():.4g}")}
        where = f"every {axis} of these {len(named)} tensors is A's times a factor of its own, and nothing stores it"
        yield Operation("scaled", parameters, where, explains=frozenset(named))


def _multiplied(change: Change, seen: Difference) -> float | None:
    """B's values over A's, where one side lies on a grid and is as far from the other's times one factor as rounding
    makes it; None elsewhere."""
    on = seen.grid or seen.grid_of_a
    if on is None or not change.xy:
        return None
    size, other = (change.xx, change.yy) if seen.grid else (change.yy, change.xx)
    factor = change.xy / size
    left = other - factor * change.xy
    if abs(factor - 1) <= _NEAR_ONE or left > _NEAREST * on.rounding**2 * other:
        return None
    return factor if seen.grid else 1 / factor


def reordering(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"tensors", "role", "order", "names"}`` for each order; role: a list of them."""
    same = facts.told(SameValues)
    tensors = facts.models.b.tensors
    read = {n for n, o in same.reordered.items() if o.get("read")} if same else set()
    by_order: dict[str, list[str]] = defaultdict(list)
    for found in (other_orders(facts), same.regrouped if same else {}, facts.exchanged_roles):
        for name, words in found.items():
            by_order[words].append(name)
    for words, names in sorted(by_order.items(), key=lambda item: -len(item[1])):
        roles = Counter(place.role for n in names if (place := tensors[n].place) is not None)
        parameters = {"tensors": len(names), "role": [role for role, _ in roles.most_common()], "order": words}
        kind, what = (
            ("read_otherwise", "A's tensor") if read.issuperset(names) else ("reordered", "the same values as in A")
        )
        where = f"{what}, {words}: {len(names)} tensor{'' if len(names) == 1 else 's'}"
        yield Operation(kind, parameters | {"names": names}, where)


def other_orders(facts: Facts) -> dict[str, str]:
    """B's tensors in an order that changes what the model computes → that order, in words."""
    same, tensors = facts.told(SameValues), facts.models.b.tensors
    found = {n: order for n, order in same.reordered.items() if n in tensors} if same else {}
    kept = _kept(facts, {name: (tensors[name], order) for name, order in found.items()})
    return {name: order["order"] for name, order in found.items() if name not in kept}


def _kept(facts: Facts, found: Mapping[str, tuple[Tensor, _Order]]) -> set[str]:
    """Tensors whose orders all change no output, or only which token is which."""
    parts: dict[_Part, dict[str, _Order]] = defaultdict(dict)
    for tensor, order in found.values():
        if tensor.place is not None:
            parts[tensor.stack, tensor.layer, tensor.place.expert][tensor.place.role] = order
    everywhere = _stream(facts, [*parts.values()]) | _tokens(facts, found)
    step = {part: everywhere | _units(at) | _heads(facts, part[0], at) for part, at in parts.items()}
    experts = _shuffled(facts)
    kept = {
        t.name for t, _ in found.values() if t.place and matrix_of(t.place.role) == "router" and t.region in experts
    }
    for name, (tensor, order) in found.items():
        here = step.get((tensor.stack, tensor.layer, tensor.place.expert), set()) if tensor.place else set()
        # Equal values of a vector may be matched in any order.
        if here and (len(tensor.shape) < 2 or {order["rows"], order["columns"]} - {None} <= here):
            kept.add(name)
    return kept


def _stream(facts: Facts, parts: Sequence[Mapping[str, _Order]]) -> set[Any]:
    """The order of the embedding's channels, if most matrices of the blocks have it too; theirs where it has other
    rows."""
    blocks = sum(t.rank2 and t.layer is not None for t in facts.models.b.tensors.values())
    same = Counter(order for at in parts for o in at.values() for order in {o["rows"], o["columns"]})
    orders = {at["embedding"]["columns"] for at in parts if "embedding" in at} - {None}
    tables = [t for t in facts.models.b.tensors.values() if t.place is not None and t.place.role == "embedding"]
    paired = {pair.b.name for pair in facts.models.pairs}
    if tables and not any(t.name in paired for t in tables):
        orders |= {*same} - {None}
    return {order for order in orders if 2 * same[order] > blocks}


def _tokens(facts: Facts, found: Mapping[str, tuple[Tensor, _Order]]) -> set[Any]:
    """The order of all token tables' rows, which a tokenizer may have: :mod:`.vocabulary` says it."""
    tables = [t.name for t in facts.models.b.tensors.values() if t.place is not None and t.place.role in TOKEN_TABLES]
    orders = {found[name][1]["rows"] if name in found else None for name in tables}
    return orders if len(orders) == 1 and None not in orders else set()


def _shuffled(facts: Facts) -> set[str]:
    """Blocks whose experts stand under other numbers: so do the rows of the router."""
    tensors = (facts.models.b.tensors[name] for name in facts.moved)
    return {t.region for t in tensors if t.place is not None and t.place.expert is not None}


def _units(at: Mapping[str, _Order]) -> set[Any]:
    """The order of hidden units, if what reads and what writes them has it."""
    reads = [at[role]["rows"] for role in ("gate", "up") if role in at]
    writes = [at["down"]["columns"]] if "down" in at else []
    return {*writes} if reads and writes and _alike(reads + writes) else set()


def _heads(facts: Facts, stack: str, at: Mapping[str, _Order]) -> set[Any]:
    """The orders of whole heads, if queries and outputs have one, and keys and values one or none."""
    geometry = facts.models.b.geometry.get(stack)
    size = geometry.head_dim if geometry is not None else None
    there = {role: at[role] for role in ("q", "k", "v", "o") if role in at}
    axis = {role: "columns" if role == "o" else "rows" for role in there}
    order = {role: o[axis[role]] for role, o in there.items()}
    whole = bool(size) and all(o["blocks"][axis[role] == "columns"] % size == 0 for role, o in there.items())
    if whole and order.get("k") == order.get("v") and _alike([order[r] for r in ("q", "o") if r in order]):
        return {*order.values()} - {None}
    return set()


def _alike(orders: list[int | None]) -> bool:
    """One order, of several axes."""
    return len(orders) > 1 and orders[0] is not None and len({*orders}) == 1
