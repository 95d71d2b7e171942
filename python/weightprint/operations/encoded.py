"""Names, types and codes: what was stored differently, read off exact equality or off the grid that values lie on.

A tensor is renamed if it does the same under another name; one that does something else (another block, another expert)
was moved, which the maps tell. Types and codes come from tensors that hold A's values (`same_values`), from the scheme
that B is stored in, and from grids: B in floating point, on few evenly spaced points per group of inputs, each the
nearest to A's value (:mod:`weightprint.operations.difference`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weightprint.evidence.exact_sharing import ExactSharing
from weightprint.evidence.rounding.grids import Grid, grid
from weightprint.evidence.same_values import SameValues
from weightprint.fingerprint.model import ModelView, Tensor, scheme_of
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes, pooled
from weightprint.util.ranges import evenly
from weightprint.verdict.facts import Facts

__all__ = ["encoded"]

#: Kinds of changes behind which a grid may lie.
_ON_GRIDS = ("low rank", "grid", "scaling", "changed, then grid")
#: Element types of quantised tensors → (what it is called, bits).
_LOOKS, _ROWS = 8, 64  # matrices, and rows of each, that a grid is looked for in alone
_CODES = {"F8_E4M3": ("fp8", 8), "F8_E5M2": ("fp8", 8), "I8": ("int8", 8), "U8": ("int8", 8)}


def encoded(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Renamed, cast, quantised and transposed tensors."""
    yield from _renamed(facts)
    same = facts.told(SameValues)
    how = same.how if same else {}
    yield from _cast(facts, changes, how)
    if (quantised := _quantised(facts, changes, how)) is not None:
        yield quantised
    turned = {pair.b.name: how.get(pair.b.name, "the same values, transposed") for pair in facts.turned}
    if turned:
        yield Operation("transpose", {"how": sorted(set(turned.values()))}, f"{len(turned)} tensors")


def _renamed(facts: Facts) -> Iterable[Operation]:
    """Tensors with A's values that do the same under another name."""
    exact = facts.told(ExactSharing)
    a, b = facts.models.a.tensors, facts.models.b.tensors
    names = {f.b: f.a for f in facts.copies if f.kind != "parameter"}
    names |= dict(exact.renamed) if exact else {}
    pairs = [(b[new], a[old]) for new, old in names.items()]
    stay = [x.place is None or y.place is None or x.place == y.place for x, y in pairs]
    # A name that A has as well is no new name: the tensor's equal is a tied copy, or the block was moved.
    stored = {name.partition("[")[0] for name in a}
    renamed = sum(here and x.name.partition("[")[0] not in stored for here, (x, _) in zip(stay, pairs, strict=True))
    if renamed > stay.count(False):
        yield Operation("rename", {"tensors": renamed}, "the same values under other names")


def _cast(facts: Facts, changes: Changes, how: Mapping[str, str]) -> Iterable[Operation]:
    """Another floating-point type: exactly A's values rounded, or both roundings of one original."""
    a, b = facts.models.a.tensors, facts.models.b.tensors
    cast = {n for n, h in how.items() if (" cast" in h or "nothing lost" in h) and not b[n].coded}
    types = Counter((a[f.a].dtype, b[f.b].dtype) for f in facts.re_encoded if f.b in cast)
    told = facts.told(SameValues)
    narrowed = {n: (b[n].dtype, dtype) for n, dtype in told.narrowed.items()} if told and told.later == "b" else {}
    types.update(narrowed.values())
    cast |= {*narrowed}
    rounded = [c for c in changes.untouched if c.b.name not in how and c.n and c.a.dtype != c.b.dtype]
    types.update((c.a.dtype, c.b.dtype) for c in rounded)
    near = [f for f in facts.rounded if not a[f.a].coded and not b[f.b].coded]
    types.update((a[f.a].dtype, b[f.b].dtype) for f in near)
    types = Counter({pair: n for pair, n in types.items() if pair[0] != pair[1] and scheme_of(pair[0]) is None})
    if not types or 2 * types.total() < sum(t.dtype != a[n].dtype for n, t in b.items() if n in a):
        return
    (before, after), _ = types.most_common(1)[0]
    parameters: Row = {"dtype": after, "from": before}
    if how:
        parameters["how"] = sorted({how[name] for name in cast if name in how})
    if near:
        where = f"{len(near)} tensors hold the neighbours of A's values, not always the nearest: rounded at random, or "
        yield Operation("re_dtype", parameters, where + "changed by less than rounding does", 0.7)
        return
    yield Operation("re_dtype", parameters, f"{types.total()} tensors hold the same values in another type")


def _quantised(facts: Facts, changes: Changes, how: Mapping[str, str]) -> Operation | None:
    """The first of the ways in which it shows."""
    same = facts.told(SameValues)
    if same is not None and same.later == "a":
        return None  # A was made by it, as the direction says
    codes, others = (same.codes, same.other_codes) if same else ({}, {})
    return (
        _scaled(facts, how)
        or _in_codes(facts, changes, codes)
        or _in_other_codes(changes, others)
        or _on_grids(changes)
        or _by_itself(facts)
    )


def _scaled(facts: Facts, how: Mapping[str, str]) -> Operation | None:
    """Bare codes of one type that one scale per tensor, row or column explains."""
    b = facts.models.b.tensors
    scaled = {name: h for name, h in how.items() if "scale" in h and not b[name].coded}
    if not scaled:
        return None
    method, bits = Counter(_CODES.get(b[n].dtype, (b[n].dtype, 0)) for n in scaled).most_common(1)[0][0]
    parameters: Row = {"method": method, "bits": bits, "how": sorted(set(scaled.values()))}
    return Operation("quantise", parameters, f"{len(scaled)} tensors")


def _in_codes(facts: Facts, changes: Changes, codes: Mapping[str, Any]) -> Operation | None:
    """Most tensors in codes hold A's values, or near ones."""
    b = facts.models.b.tensors
    made = [b[f.b].dtype for f in (*facts.re_encoded, *facts.rounded) if b[f.b].coded]
    if len(made) <= sum(c.b.coded for c in changes.changed):
        return None
    where, confidence = _rounded(facts, codes, len(made))
    return Operation("quantise", _stored(made) | _group(codes) | _error(codes.get("error", 0.0)), where, confidence)


def _in_other_codes(changes: Changes, codes: Mapping[str, Any]) -> Operation | None:
    """Most matrices are stored so, with values that something else changed as well. The error is what rounding them to
    nearest leaves."""
    coded = [c for c in changes.changed if c.b.coded and not c.a.coded]
    if 2 * len(coded) <= len(changes.matrices):
        return None
    ratio = codes.get("of_rounding")
    error = _error(codes["error"] / ratio**0.5) if ratio else {}
    where = f"{len(coded)} matrices are stored so"
    return Operation("quantise", _stored([c.b.dtype for c in coded]) | _group(codes) | error, where, 0.95)


def _on_grids(changes: Changes) -> Operation | None:
    """Stored decoded."""
    seen = changes.seen
    grids = [(c, s.grid) for c, s in seen if s.grid is not None and c.kind in _ON_GRIDS]
    if len(grids) < 2 or len(grids) <= 0.3 * len(seen):
        return None
    (bits, group, kind), _ = Counter((g.bits, g.group, g.kind) for _, g in grids).most_common(1)[0]
    parameters: Row = {"method": f"int{bits}", "bits": bits, "grid": kind} | ({"group": group} if group else {})
    where = f"{len(grids)} matrices looked at lie on a grid of {bits} bits per {group or 'row'}"
    nearest = [c for c, g in grids if g.nearest]
    if 2 * len(nearest) > len(grids) and (whole := pooled(nearest)) is not None:
        return Operation("quantise", parameters | _error(whole.relative), where, 0.95)
    rounding = sorted(g.rounding for _, g in grids)[len(grids) // 2]
    return Operation("quantise", parameters | _error(rounding), f"{where}, not the nearest to A's values", 0.9)


def _by_itself(facts: Facts) -> Operation | None:
    """In another basis no value stands where A's does: B's matrices are codes, or lie on a grid, and A's do not."""
    if facts.weights is None or facts.weights.basis == "identity" or not facts.models.budget.whole:
        return None
    ours, theirs = (
        [t for t in side.tensors.values() if t.rank2 and t.layer is not None and not t.undecoded]
        for side in (facts.models.a, facts.models.b)
    )
    if any(t.coded for t in ours):
        return None
    codes = [t.dtype for t in theirs if t.coded]
    if 2 * len(codes) > len(theirs):
        return Operation("quantise", _stored(codes), f"{len(codes)} matrices are stored so", 0.95)
    if _grids(facts.models.a, ours) or not (grids := _grids(facts.models.b, theirs)):
        return None
    (bits, group, kind), n = Counter((g.bits, g.group, g.kind) for g in grids).most_common(1)[0]
    parameters: Row = {"method": f"int{bits}", "bits": bits, "grid": kind} | ({"group": group} if group else {})
    error = sorted(g.rounding for g in grids)[len(grids) // 2]
    where = f"{n} matrices looked at lie on a grid of {bits} bits per {group or 'row'}"
    return Operation("quantise", parameters | _error(error), where, 0.9)


def _grids(side: ModelView, tensors: Sequence[Tensor]) -> list[Grid]:
    """The grids of some of these matrices, if most of them lie on one."""
    some = evenly([t for t in tensors if not t.coded], _LOOKS)
    grids = [on for t in some if (on := grid(x := side.rows(t, 0, _ROWS), x)) is not None]
    return grids if 2 * len(grids) > len(some) else []


def _group(codes: Mapping[str, Any]) -> Row:
    return {"group": codes["run"]} if codes.get("run") else {}


def _error(relative: float) -> Row:
    return {"error": float(f"{relative:.3g}")}


def _rounded(facts: Facts, codes: Mapping[str, Any], n: int) -> tuple[str, float]:
    """What is known of the rounding of n tensors in codes, and how surely B was made by it."""
    if facts.rounded:
        ratio = codes["of_rounding"]
        size = (
            f"{ratio:.2g} times the mean square of rounding to the nearest" if ratio else "no more than so few bits do"
        )
        why = "rounded in another way, or changed a little before"
        return f"{n} tensors in such codes are off A's values by {size}: {why}", 0.7
    if codes:
        return f"{n} tensors hold A's values in such codes, each rounded to the nearest", 1.0
    a, b = facts.models.a.tensors, facts.models.b.tensors
    if all(a[f.a].coded for f in facts.re_encoded if b[f.b].coded):
        return f"{n} tensors hold the values of A's codes in such codes, and nothing was lost", 0.5
    return f"{n} tensors hold A's values in such codes and nothing was lost, so A may as well be B decoded", 0.5


def _stored(dtypes: Sequence[str]) -> Row:
    """The commonest codes: what they are called, the scheme, and bits."""
    stored, _, scheme = Counter(dtypes).most_common(1)[0][0].partition(" ")
    method, bits = _CODES.get(stored, (stored, _digits(stored)))
    return {"method": method, "scheme": scheme} | ({"bits": bits} if bits else {})


def _digits(words: str) -> int:
    found = re.search(r"\d+", words)
    return int(found[0]) if found else 0
