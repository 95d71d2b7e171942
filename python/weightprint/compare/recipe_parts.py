"""The parts of a recipe, and how each is made of the Grams: weights, layers, roles, adapters, what is left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from weightprint.anatomy.adapters.adapters import read_adapter
from weightprint.compare.adapter_mixes import ranks
from weightprint.compare.gram import Gram, total
from weightprint.compare.merge_methods import Method, body, kept
from weightprint.compare.mixing import cosines, fit, interval, left, squares
from weightprint.compare.recipe_inputs import Lineup
from weightprint.util.arrays import F64
from weightprint.util.escape import escape

__all__ = [
    "AdapterFit",
    "Mix",
    "Search",
    "Weight",
    "adapter_fit",
    "layers",
    "named",
    "notes",
    "roles",
    "unexplained",
    "unknown_origin",
    "weights",
]

_UNLIKE = 0.3  # cosine below which an order of units is looked for
_FROM_ELSEWHERE = 0.05  # a smaller lack of weight is training's or rounding's
_IN_IT = 0.25  # of what changed where an adapter changes anything


@dataclass(frozen=True, slots=True)
class Weight:
    """A parent's weight in the mix (λ over a base for task arithmetic, TIES and DARE), with a 95 % interval over
    blocks; None where the method has none."""

    parent: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Mix:
    """The mix of one layer, or of one role in all layers.

    Attributes:
        where: ``"decoder.7"``, or a role.
        weights: of the parents, in their order; None for one that has nothing there.
        unexplained: share of the squared values (with a base: of the change from it) that this mix leaves.
        source: of a passthrough: the parent and its layer, as ``(name, "decoder.3")``.
        t: of a slerp.
    """

    where: str
    weights: tuple[float | None, ...]
    unexplained: float
    source: tuple[str, str] | None = None
    t: float | None = None


@dataclass(frozen=True, slots=True)
class AdapterFit:
    """Whether an adapter is folded into the child.

    Attributes:
        adapter: as it was named.
        present: it is.
        scale: times the scale that its config says; with a 95 % interval over blocks.
        low: of the interval.
        high: of the interval.
        explains: share of the child's change that it explains, in the tensors that it changes.
    """

    adapter: str
    present: bool
    scale: float
    low: float
    high: float
    explains: float


@dataclass(frozen=True, slots=True)
class Search:
    """How parents were found among candidates.

    Attributes:
        candidates: how many were compared.
        steps: those that were taken one by one: name, share of what was left that it explains on held-out blocks, log10
            p of that by an unrelated one, corrected for the number of candidates (None: taken for one block).
        near: relatives: they explain part of what a missing parent left.
        skipped: candidate → why it was not compared.
    """

    candidates: int
    steps: tuple[tuple[str, float, float | None], ...]
    near: tuple[str, ...]
    skipped: Mapping[str, str]


def weights(grams: Sequence[Gram], names: Sequence[str], method: Method | None, seed: int) -> tuple[Weight, ...]:
    """The parents' weights over all layers, with 95 % intervals over blocks."""
    parameters = {} if method is None else method.parameters
    if method is not None and method.name in ("copy", "passthrough"):
        return tuple(
            Weight(name, value, None, None)
            for name, value in zip(names, _taken(grams, method, len(names)), strict=True)
        )
    if method is not None and method.name not in ("linear", "task_arithmetic", "slerp"):
        scales = parameters["scales"]
        return tuple(Weight(names[int(i)], value, None, None) for i, value in scales.items())
    inside = body(grams)
    if not inside:
        return ()
    every = range(len(names))
    sum_to_one = parameters.get("sum") == 1.0 or "base" in parameters
    one = method is not None and not method.by_tensor

    def fitted(products: F64, signed: bool = True) -> F64:
        return fit(products, every, sum_to_one=one and sum_to_one, signed=signed)

    products, _ = total(inside)
    clusters = [total(some)[0] for some in _regions(inside).values()]
    value = fitted(products)
    low, high = interval(clusters, fitted, seed)
    if method is None and not np.any(high < 0) and value.min() < 0:
        value = fitted(products, False)
        low, high = interval(clusters, lambda x: fitted(x, False), seed)
    rows = zip(names, value.tolist(), low.tolist(), high.tolist(), strict=True)
    return tuple(Weight(*row) for row in rows)


def _taken(grams: Sequence[Gram], method: Method, k: int) -> list[float]:
    """Share of the values of blocks that each parent gave."""
    sizes = np.zeros(k)
    for g in grams:
        if g.block is not None and g.block in method.sources:
            sizes[method.sources[g.block][0]] += g.n
    if not sizes.any():
        sizes[method.parameters.get("parent", 0)] = 1
    return [float(x) for x in sizes / sizes.sum()]


def layers(grams: Sequence[Gram], names: Sequence[str], method: Method | None, base: int | None) -> tuple[Mix, ...]:
    """The mix of every layer: of its matrices, or of what it has."""
    found = []
    t_of = {(stack, n): t for stack, n, t in method.parameters.get("t_by_layer", ())} if method is not None else {}
    for block, inside in _regions([g for g in grams if g.block is not None]).items():
        where = f"{block[0]}.{block[1]}" if block is not None else ""
        source = None if method is None or block is None else method.sources.get(block)
        there = None if source is None else (names[source[0]], f"{source[1][0]}.{source[1][1]}")
        mix = _mix([g for g in inside if g.matrix] or inside, where, base, None if source is None else source[0])
        found.append(Mix(mix.where, mix.weights, mix.unexplained, there, t_of.get(block)))  # type: ignore[arg-type]
    return tuple(found)


def roles(grams: Sequence[Gram], base: int | None) -> tuple[Mix, ...]:
    """The mix of every role in all layers, those outside the layers included."""
    by_role: dict[str, list[Gram]] = defaultdict(list)
    for g in grams:
        by_role[g.place.role if g.place is not None else "other"].append(g)
    return tuple(_mix(inside, role, base, None) for role, inside in by_role.items())


def _mix(inside: Sequence[Gram], where: str, base: int | None, only: int | None) -> Mix:
    """The free fit of some tensors, or one parent alone; weights are of the tensors that most parents have."""
    k = len(inside[0].present)
    rest = whole = 0.0
    best: tuple[int, tuple[float | None, ...]] = (-1, (None,) * k)
    for some in _alike(inside):
        there = kept(some[0])
        products, _ = total(some)
        fitted = fit(products, there) if only is None else np.eye(k)[only]
        rest += left(products, fitted)
        whole += _whole(products, base if base in there else None)
        best = max(
            best, (len(there), tuple(float(fitted[i]) if i in there else None for i in range(k))), key=itemgetter(0)
        )
    return Mix(where, best[1], min(1.0, rest / whole if whole > 0 else 0.0))


def _alike(grams: Sequence[Gram]) -> list[list[Gram]]:
    """Tensors that the same parents have, together: new experts, say, apart from what was kept."""
    groups: dict[tuple[bool, ...], list[Gram]] = defaultdict(list)
    for g in grams:
        groups[g.present].append(g)
    return list(groups.values())


def _by_block(grams: Sequence[Gram]) -> Iterator[list[Gram]]:
    """The tensors of each block that the same parents have."""
    for inside in _regions(grams).values():
        yield from _alike(inside)


def _whole(products: F64, base: int | None) -> float:
    """‖c - base‖², or ‖c‖² without a base: what there is to explain."""
    if base is None:
        return squares(products)[0]
    return left(products, np.eye(len(products) - 1)[base])


def unexplained(grams: Sequence[Gram], base: int | None, method: Method | None) -> float:
    """Share of what there is to explain that the method leaves, or, without one, the best mix of each block."""
    rest = whole = 0.0
    for inside in _by_block(grams):
        there = kept(inside[0])
        products, _ = total(inside)
        rest += left(products, fit(products, there))
        whole += _whole(products, base if base in there else None)
    if method is not None:
        rest, whole = method.left, method.of or whole
    return min(1.0, rest / whole) if whole > 0 else float(rest > 0)


def unknown_origin(grams: Sequence[Gram]) -> float:
    """Share of the weights that no parent gave: in each block 1 - Σ w, where what is left is as large as that says.

    What was averaged in with weight v by a model that has nothing to do with the parents leaves v² of the squares at
    least; a mere scaling leaves none.
    """
    inside = [g for g in grams if g.matrix and g.block is not None] or list(grams)
    lost = n = 0.0
    for some in _by_block(inside):
        if not (there := kept(some[0])):
            continue  # `notes` says how much that is
        products, _ = total(some)
        fitted = fit(products, there, signed=False)
        v = min(1.0, max(0.0, 1 - float(fitted.sum())))
        size = sum(g.n for g in some)
        n += size
        if v >= _FROM_ELSEWHERE and left(products, fitted) >= 0.5 * v * v * squares(products)[0]:
            lost += v * size
    return lost / n if n else 0.0


def adapter_fit(grams: Sequence[Gram], models: Lineup, number: int, method: Method | None, seed: int) -> AdapterFit:
    """The adapter's scale in the child, over the tensors that it changes."""
    base = next(i for i in range(len(models.names)) if i not in models.adapters)
    pair = [base, number]
    from_base = np.zeros(len(models.names))
    from_base[base], with_it = 1.0, np.eye(len(models.names))[number]
    touched = [g for g in grams if all(g.present[i] for i in pair) and _apart(g.products, base, number) > 0]
    if not touched:
        return AdapterFit(models.names[number], False, 0.0, 0.0, 0.0, 0.0)

    def scale(products: F64) -> F64:
        return fit(products, range(len(models.names)), sum_to_one=True)[[number]]

    products, _ = total(touched)
    clusters = [total(some)[0] for some in _regions(touched).values()]
    low, high = interval(clusters, scale, seed)
    s = float(scale(products)[0])
    change = left(products, from_base)
    mixed = from_base + s * (with_it - from_base)
    explains = max(0.0, 1 - left(products, mixed) / change) if change > 0 else 0.0
    clear = bool(low[0] > 0 or high[0] < 0)
    present = clear and abs(s) > 0.02 and (method is not None or explains >= _IN_IT)
    return AdapterFit(models.names[number], present, s, float(low[0]), float(high[0]), explains)


def _apart(products: F64, i: int, j: int) -> float:
    """‖p_j - p_i‖²."""
    turn = np.zeros(len(products))
    for k, sign in ((i, -1.0), (j, 1.0)):
        if k > 0:
            turn[k + 1] += sign
    return float(turn @ products @ turn)


def notes(grams: Sequence[Gram], models: Lineup) -> tuple[str, ...]:
    """What was left out, what could not be aligned, what adapters are like."""
    found = []
    if models.of_adapters:
        for adapter in (models.child, *models.parents):
            stored, effective = ranks(read_adapter(adapter.checkpoint))
            found.append(f"{escape(adapter.source)}: rank {stored} as stored, {effective} in effect")
        return tuple(found)
    unfit: dict[int, list[str]] = defaultdict(list)
    for number, ours, theirs in models.matched[1]:
        unfit[number].append(f"{escape(ours.name)} is {list(ours.shape)} in the child and {list(theirs.shape)} there")
    for number, which in unfit.items():
        more = f", and {len(which) - 1} more" if len(which) > 1 else ""
        found.append(f"left out of {escape(models.names[number])}, for its shape: {which[0]}{more}")
    if alone := [g for g in grams if not any(g.present)]:
        share = sum(g.n for g in alone) / sum(g.n for g in grams)
        where = f"{len(alone):,} tensors ({share:.0%} of the values), as {escape(alone[0].name)}"
        found.append(f"no parent has a tensor in the place of {where}: compare says where they come from")
    if grams and (near := body(grams)):
        for number, cosine in enumerate(cosines(total(near)[0])):
            if cosine < _UNLIKE and models.reordered(number):
                found.append(f"not aligned: the hidden units of {escape(models.names[number])} stand in another order")
    return tuple(found)


def named(value: Any, names: Sequence[str], key: str = "") -> Any:
    """Parameters with the parents' names for their numbers."""
    if key in ("base", "parent"):
        return names[value]
    if key == "of":
        return [names[i] for i in value]
    if isinstance(value, Mapping):
        return {names[int(k)] if k.isdigit() else k: named(v, names, k) for k, v in value.items()}
    return value


def _regions(grams: Sequence[Gram]) -> dict[tuple[str, int] | None, list[Gram]]:
    """Block → its tensors, in the order of the child."""
    found: dict[tuple[str, int] | None, list[Gram]] = defaultdict(list)
    for g in grams:
        found[g.block].append(g)
    return found
