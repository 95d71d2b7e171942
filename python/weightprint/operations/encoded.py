"""Names, types and codes: what was stored differently, read off exact equality or off the grid that values lie on.

A tensor is renamed if it does the same under another name; one that does something else (another block, another expert)
was moved, which the maps tell. Types and codes come from tensors that hold A's values (`same_values`), from the scheme
that B is stored in, and from grids: B in floating point, on few evenly spaced points per group of inputs, each the
nearest to A's value (:mod:`weightprint._looks`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from weightprint.changes import pooled
from weightprint.facts import Facts
from weightprint.operations._base import Row, row

__all__ = ["encoded"]

#: Element types of quantised tensors → (what it is called, bits).
_CODES = {"F8_E4M3": ("fp8", 8), "F8_E5M2": ("fp8", 8), "I8": ("int8", 8), "U8": ("int8", 8)}


def encoded(facts: Facts) -> Iterable[Row]:
    """Renamed, cast, quantised and transposed tensors."""
    yield from _renamed(facts)
    same = facts.applied("same_values")
    how: Mapping[str, str] = same.details["how"] if same else {}
    yield from _cast(facts, how)
    yield from _quantised(facts, how)
    turned = [h for h in how.values() if "transposed" in h]
    if turned:
        yield row("transpose", {"how": sorted(set(turned))}, f"{len(turned)} tensors")


def _renamed(facts: Facts) -> Iterable[Row]:
    """Tensors with A's values that do the same under another name."""
    exact = facts.applied("exact_sharing")
    a, b = facts.models.a.tensors, facts.models.b.tensors
    names = {f.b: f.a for f in facts.copies if f.kind != "parameter"}
    names |= dict(exact.details["renamed"]) if exact else {}
    pairs = [(b[new], a[old]) for new, old in names.items()]
    stay = [x.place is None or y.place is None or x.place == y.place for x, y in pairs]
    # A name that A has as well is no new name: the tensor's equal is a tied copy, or the block was moved.
    renamed = sum(here and x.name not in a for here, (x, _) in zip(stay, pairs, strict=True))
    if renamed > stay.count(False):
        yield row("rename", {"tensors": renamed}, "the same values under other names")


def _cast(facts: Facts, how: Mapping[str, str]) -> Iterable[Row]:
    """Another floating-point type: exactly A's values rounded, or both roundings of one original."""
    a, b = facts.models.a.tensors, facts.models.b.tensors
    cast = {name for name, h in how.items() if "a cast" in h or "nothing lost" in h}
    types = Counter((a[f.a].dtype, b[f.b].dtype) for f in facts.re_encoded if f.b in cast)
    rounded = [c for c in facts.changes.untouched if c.b.name not in how and c.n and c.a.dtype != c.b.dtype]
    types.update((c.a.dtype, c.b.dtype) for c in rounded)
    types = Counter({pair: n for pair, n in types.items() if pair[0] != pair[1]})
    if not types or 2 * types.total() < sum(t.dtype != a[n].dtype for n, t in b.items() if n in a):
        return
    (before, after), _ = types.most_common(1)[0]
    parameters: Row = {"dtype": after, "from": before}
    if how:
        parameters["how"] = sorted({how[name] for name in cast})
    yield row("re_dtype", parameters, f"{types.total()} tensors hold the same values in another type")


def _quantised(facts: Facts, how: Mapping[str, str]) -> Iterable[Row]:
    scaled = {name: h for name, h in how.items() if "scale" in h}
    b = facts.models.b.tensors
    if scaled:
        method, bits = Counter(_CODES.get(b[n].dtype, (b[n].dtype, 0)) for n in scaled).most_common(1)[0][0]
        parameters: Row = {"method": method, "bits": bits, "how": sorted(set(scaled.values()))}
        yield row("quantise", parameters, f"{len(scaled)} tensors")
        return
    coded = [c for c in facts.changes.changed if " " in c.b.dtype and " " not in c.a.dtype]
    grids = facts.changes.of_kind("grid", 0.3)
    if 2 * len(coded) > len(facts.changes.matrices):
        stored, _, scheme = Counter(c.b.dtype for c in coded).most_common(1)[0][0].partition(" ")
        method, bits = _CODES.get(stored, (scheme, _digits(scheme)))
        changes, parameters = coded, {"method": method, "scheme": scheme} | ({"bits": bits} if bits else {})
        where = f"{len(coded)} matrices are stored as {scheme}"
    elif grids:
        found = Counter((s.grid.bits, s.grid.group, s.grid.kind) for _, s in grids if s.grid)
        (bits, group, kind), _ = found.most_common(1)[0]
        changes = [c for c, _ in grids]
        parameters = {"method": f"int{bits}", "bits": bits, "grid": kind} | ({"group": group} if group else {})
        where = f"{len(grids)} matrices looked at lie on a grid of {bits} bits per {group or 'row'}"
    else:
        return
    whole = pooled(changes)
    if whole is not None:
        parameters["error"] = float(f"{whole.relative:.3g}")
    yield row("quantise", parameters, where, 0.95)


def _digits(words: str) -> int:
    found = re.search(r"\d+", words)
    return int(found[0]) if found else 0
