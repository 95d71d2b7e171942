"""Same values in another precision, orientation or quantisation: a strict test, element by element.

What is asked of one pair is in :mod:`._encodings`. First the plain casts: rounded to nearest even (or cut off), element
for element, or (bfloat16 and float16) both rounded from one original: no element further apart than both roundings.
Then, where one side is bare codes (8-bit integers, floats of 8 bits and less), the scaled ones. Every such format is a
set of levels, and rounding sends each level's *cell* to it: for int8 the cell of code q is [q - 1/2, q + 1/2], for a
float format it reaches half-way to the two neighbours. B is A in codes when one scale u > 0 per group puts u * a into
the cell of b for **every** element:

    lo(b_i) <= u * a_i <= hi(b_i)      for all i of a group.

For each group that is an intersection of intervals for u, exact and in one pass. Tried at once: one u per tensor, per
row, per column; for 8-bit integers also a zero point z per tensor (|z| <= 255) with u per tensor. A hypothesis dies
at its first contradicted element, and a tensor is given up when all are dead: strangers cost one slice. The tolerance
is 1e-3 of a cell, for scales that were themselves rounded.

A scale counts only where the file stores it: a tensor beside the codes with one value per group, all of them inside the
intervals found, is that scale (one of B is counted as explained by A: "parameter"); a zero point must be there too.
Codes whose scale nobody stores, and a tensor in any type that is another's times one factor, compute something else:
that is found and named ("scaled"), and is never called the same.

A tensor that is stored in codes of a scheme of quantisation (GGUF, NF4, FP8 in blocks, …) is read decoded, and its
scales are known: there the cells come from the levels of each group (:mod:`._block_codes`). Of two tensors in codes the
one of fewer bits is held to the other's decoded values.

It can't be passed by chance: a scale serves at least 32 values. A tensor is evidence only with 64 distinct values on
the finer side and 16 on the coarser; simpler ones are counted as agreeing, not as showing anything.

Values that are the same in another order within their tensor (rows or columns permuted or regrouped, a square matrix
transposed: :mod:`.rounding.orders`), cut and joined another way (:mod:`.rounding.regrouped`) or read as what they are
not (:mod:`.rounding.misread`) are found and named ("reordered"), and never called the same either.

Rounding loses bits, so where values were really rounded the coarser side is the later one. Where the finer side holds
only values of the coarser format (an upcast) nothing was lost and the direction stays open.

Blind to: copies that were also trained; scales per block where the values are stored decoded; quantisers that don't
round to nearest (GPTQ), scale channels first (AWQ) or rotate, and codes for several values at once (IQ2). Where the
difference is of the size that the codes make, that is said (``rounded``), and nothing is called the same.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from weightprint.evidence.evidence import Details, Evidence, Shared, not_applied
from weightprint.evidence.exact_sharing import is_fixed
from weightprint.evidence.pair import ModelPair, Pair
from weightprint.evidence.rounding.block_codes import Coded
from weightprint.evidence.rounding.encodings import Outcome, bits, checked, stored_otherwise, stored_scales, times
from weightprint.evidence.rounding.misread import misread
from weightprint.evidence.rounding.orders import Order, may_be, order
from weightprint.evidence.rounding.regrouped import Regrouped, may_be_regrouped, regrouped
from weightprint.evidence.test import Test
from weightprint.fingerprint.model import Tensor
from weightprint.util import parallel

_LISTED = 200
_NEAR = 0.9  # cosine of rows that were trained, not exchanged

_QUESTION = Evidence(
    test="same_values",
    asked="Is B what A becomes when it is stored in another precision, orientation or quantisation?",
    null="none: every element is checked against the cell that rounding allows",
    assumes="tensors were brought together by name, digest or a corner of their values; the check itself does not "
    "depend on how",
    blind_to="quantisers that don't round to nearest, rotation or scaling before quantisation, and copies that were "
    "also trained",
    statistic_of="tensors of B that are a re-encoding of A's, element by element",
    effect_of="their share of B's parameters",
)


@dataclass(frozen=True)
class SameValues(Details):
    """Numbers of pairs by outcome, and the first of B's tensors of each.

    ``how``: in which encoding; ``scaled``: the factor (None: of codes) and how; ``reordered``: fields of
    :class:`.rounding.orders.Order`; ``regrouped``: B's tensors made of rows of several of A's, and ``regrouped_of_a``
    A's of B's, in words; ``narrowed``: of tensors of one type, the narrower one that the values of one side were
    rounded to; ``scales``: B's own scales → A's tensor; ``codes`` and ``other_codes``: of tensors in codes, near A's
    values and not, see :func:`_codes`; ``later``: the side whose values are the other's, rounded.
    """

    n_same: int
    n_simple: int
    n_differ: int
    n_rounded: int
    n_skipped: int
    how: Mapping[str, str]
    differ: Sequence[str]
    skipped: Sequence[str]
    scaled: Mapping[str, tuple[float | None, str]]
    reordered: Mapping[str, Mapping[str, Any]]
    scales: Mapping[str, str]
    scales_of_a: Sequence[str]
    codes: Mapping[str, Any]
    other_codes: Mapping[str, Any]
    later: Literal["a", "b"] | None
    regrouped: Mapping[str, str] = field(default_factory=dict)
    regrouped_of_a: Mapping[str, str] = field(default_factory=dict)
    narrowed: Mapping[str, str] = field(default_factory=dict)


def _mirrored(told: SameValues, names: Mapping[str, str], models: ModelPair) -> SameValues:
    later: Mapping[str | None, Literal["a", "b"]] = {"a": "b", "b": "a"}
    how = {names[n]: how for n, how in told.how.items() if n in names}
    turned = {
        names[n]: {**found, "order": found["back"], "back": found["order"]}
        for n, found in told.reordered.items()
        if n in names
    }
    scaled = {names.get(n, n): (f and 1 / f, words) for n, (f, words) in told.scaled.items()}
    return replace(
        told,
        how=how,
        later=later.get(told.later),
        reordered=turned,
        scaled=scaled,
        regrouped=told.regrouped_of_a,
        regrouped_of_a=told.regrouped,
        narrowed={names[n]: dtype for n, dtype in told.narrowed.items() if n in names},
    )


@partial(Test, details=SameValues, mirrored=_mirrored, cost="alone", exact_values=True, needs="every value")
def same_values(models: ModelPair) -> Evidence:
    """Test every pair whose bytes differ but whose values may be the same, or the same times a factor."""
    a, b = models.a, models.b
    if not models.budget.whole:
        return not_applied(_QUESTION, "quick effort reads samples, and this test reads every value")
    one_by_one = threading.Lock()  # what is turned is held whole

    def stored(pair: Pair) -> Outcome | None:
        if not stored_otherwise(pair):
            return times(a, b, pair)
        with one_by_one if pair.transposed else nullcontext():
            return checked(a, b, pair)

    def check(pair: Pair) -> tuple[Outcome | None, Order | None]:
        outcome = stored(pair)
        other = outcome is None or outcome.kind() is None
        if not other or is_fixed(b, pair.b):
            return outcome, None
        read = misread(a, b, pair)
        return outcome, read if read or not may_be(pair.a.std, pair.b.std, pair) else order(a, b, pair)

    todo = [p for p in models.pairs if stored_otherwise(p) or p.a.digest != p.b.digest]
    outcomes = list(zip(todo, parallel.each(check, todo, ahead=len(todo)), strict=True))
    # Vectors follow the rows or columns of matrices; where none of those moved whole, no order is evidence of anything.
    moved = any(found is not None and found.whole for _, (_, found) in outcomes)
    outcomes = [
        (p, (out, found if found and moved and (found.whole or not p.b.rank2) else None))
        for p, (out, found) in outcomes
    ]
    orders = [(pair, found) for pair, (_, found) in outcomes if found is not None]
    # Of one type and other bytes, only a factor or an order is a finding.
    kept = [
        (pair, out)
        for pair, (out, found) in outcomes
        if stored_otherwise(pair) or (out is not None and out.words) or found is not None
    ]
    others = regrouped(a, b, *_left(models, outcomes))
    if not kept and not others[0]:
        return not_applied(_QUESTION, "no pair of tensors differs in dtype or orientation only")
    return _said(models, kept, orders, *others)


def _left(
    models: ModelPair, outcomes: Sequence[tuple[Pair, tuple[Outcome | None, Order | None]]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of either side that have no equal, whatever it was told of them, on the other."""
    told = [p for p, (out, found) in outcomes if found is not None or (out is not None and out.kind() is not None)]
    asked = [p for p, _ in outcomes if may_be_regrouped(p.a) or may_be_regrouped(p.b)]  # others are not looked at
    told += [p for p in asked if _stayed(models, p)]
    known = {p.a.name for p in told}, {p.b.name for p in told}
    digests = [{t.digest for t in side.tensors.values()} for side in (models.b, models.a)]
    ours, theirs = (
        [t for t in side.tensors.values() if t.name not in names and t.digest not in equal]
        for side, names, equal in zip((models.a, models.b), known, digests, strict=True)
    )
    return ours, theirs


def _stayed(models: ModelPair, pair: Pair) -> bool:
    """Two rows of B's, from its middle and its end, are still near A's: it was changed, not made of other rows."""
    if pair.transposed or pair.a.matrix != pair.b.matrix:
        return False
    n = pair.b.matrix[0]
    at = {n // 2, n - 1}
    rows = [(models.a.rows(pair.a, i, i + 1).ravel(), models.b.rows(pair.b, i, i + 1).ravel()) for i in at]
    return all(float(x @ y) > _NEAR * float(np.linalg.norm(x)) * float(np.linalg.norm(y)) for x, y in rows)


def _said(
    models: ModelPair,
    outcomes: Sequence[tuple[Pair, Outcome | None]],
    orders: Sequence[tuple[Pair, Order]],
    made_of_a: Mapping[str, Regrouped],
    made_of_b: Mapping[str, Regrouped],
) -> Evidence:
    a, b = models.a, models.b
    told = [(pair, out) for pair, out in outcomes if out is not None]
    met = [pair for pair in models.pairs if pair.by != "values"]
    of_a = stored_scales(a, told, {pair.a.name for pair in met})
    of_b = stored_scales(b, told, {pair.b.name for pair in met})
    kinds = [out.kind(stored=pair.a.name in of_a or pair.b.name in of_b) for pair, out in told]
    found = [
        Shared(pair.b.name, pair.a.name, kind, pair.b.numel)
        for (pair, _), kind in zip(told, kinds, strict=True)
        if kind is not None
    ]
    sources = {pair.b.name: pair.a.name for pair, _ in told}
    found += [Shared(pair.b.name, pair.a.name, "reordered", pair.b.numel) for pair, _ in orders]
    found += [
        Shared(name, source, "reordered", values)
        for name, made in made_of_a.items()
        for source, values in made.values.items()
    ]
    parameters = [(name, sources[codes]) for codes, names in of_b.items() for name in names]
    found += [Shared(name, source, "parameter", b.tensors[name].numel) for name, source in parameters]
    same = [pair_out for pair_out, kind in zip(told, kinds, strict=True) if kind == "re_encoded"]
    how = {pair.b.name: out.words for pair, out in same}
    coarse = {out.coarse for pair, out in same if out.lost and (out.narrowed or bits(pair.a) != bits(pair.b))}
    coded = [out.coded for _, out in told if out.coded is not None]
    scaled = [(pair, out) for (pair, out), kind in zip(told, kinds, strict=True) if kind == "scaled"]
    count: Counter[str | None] = Counter(kinds)
    count["reordered"] = len(orders) + len(made_of_a)
    differ = [pair.b.name for (pair, _), k in zip(told, kinds, strict=True) if k in (None, "rounded", "scaled")]
    known = {pair.b.name for pair, _ in orders} | {*made_of_a}
    skipped = [pair.b.name for pair, out in outcomes if out is None and pair.b.name not in known]
    return replace(
        _QUESTION,
        says=_says(count, len(outcomes), sorted(set(how.values()))),
        statistic=float(count["re_encoded"]),
        effect=sum(f.numel for f in found if f.kind not in ("rounded", "scaled", "reordered")) / max(b.numel, 1),
        n=len(outcomes),
        found=tuple(found),
        details=SameValues(
            n_same=count["re_encoded"],
            n_simple=count["trivial"],
            n_differ=len(differ),
            n_rounded=count["rounded"],
            n_skipped=len(skipped),
            how=dict(list(how.items())[:_LISTED]),
            differ=differ[:_LISTED],
            skipped=skipped[:_LISTED],
            scaled={pair.b.name: (out.factor, out.words) for pair, out in scaled},
            reordered={pair.b.name: asdict(found) for pair, found in orders},
            regrouped={name: made.order for name, made in made_of_a.items()},
            regrouped_of_a={name: made.order for name, made in made_of_b.items()},
            narrowed={pair.b.name: out.narrowed for pair, out in same if out.narrowed},
            scales=dict(parameters),
            scales_of_a=[name for names in of_a.values() for name in names],
            codes=_codes([c for c in coded if c.near]),
            other_codes=_codes([c for c in coded if not c.near]),
            later=coarse.pop() if len(coarse) == 1 else None,
        ),
    )


def _says(count: Counter[str | None], n: int, kinds: Sequence[str]) -> str:
    how = f" ({'; '.join(kinds[:4])}{'; …' if len(kinds) > 4 else ''})" if kinds else ""
    more = (
        ("trivial", "more do, but have too few distinct values to show anything"),
        ("rounded", "differ by as much as their codes make them differ"),
        ("scaled", "hold the same values times a factor that nothing stores"),
        ("reordered", "hold the same values in another order"),
    )
    first = f"{count['re_encoded']} of {n} pairs that differ in bytes hold the same values re-encoded{how}"
    return "; ".join([first, *(f"{count[kind]} {words}" for kind, words in more if count[kind])])


def _codes(found: list[Coded]) -> dict[str, float | int | None]:
    """Over several tensors in codes: how many, the inputs that share a scale in most of them, the relative difference,
    and its mean square over that of rounding to nearest (None where the levels are not known)."""
    if not found:
        return {}
    runs = sorted(c.run or 0 for c in found)
    difference, size, rounding = (sum(getattr(c, of) for c in found) for of in ("difference", "size", "rounding"))
    return {
        "tensors": len(found),
        "run": runs[len(runs) // 2] or None,
        "error": math.sqrt(difference / size) if size > 0 else 0.0,
        "of_rounding": difference / rounding if rounding > 0 else None,
    }
