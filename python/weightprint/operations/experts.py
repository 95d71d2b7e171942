"""Experts made from FFNs, experts moved or repeated, and FFNs made from experts: read off the expert map.

* Dense to experts. Experts as wide as the FFN are copies of it (sparse upcycling, arXiv 2212.05055), a part of whose
  units may be drawn anew (Drop-Upcycling, arXiv 2502.19261). Narrower ones are parts (LLaMA-MoE, arXiv 2406.16554).
* Experts to experts: which expert of A each is, or of which it is a mean (:mod:`.edits.experts_merged`).
* Experts to dense. With equal widths, least squares of B's rows on those of all experts of the block: one weight is one
  expert, several are a mean. A dense FFN as wide as several experts holds them side by side; the weight of each is then
  the slope of its output columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.edits.experts_merged import experts_merged
from weightprint.operations.structure import Found, common, found_ffns, number
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import lstsq, row_cosines
from weightprint.verdict.facts import Facts

__all__ = ["experts"]

_LAYERS = 8  # whose values are read
_UNITS = 128  # of an FFN
_WHOLE, _READ = 512, 32  # units of an expert, and experts, that are compared with their own numbers
_OWN = 0.9  # of what was found under any number
_SAME = 0.5  # cosine of a unit with itself; a unit drawn anew has 5/sqrt(d) at most
_MOST = 32  # experts in one least squares
_WEIGHT = 0.03  # a smaller weight is none
_FITS = 0.3  # of the variance that experts must explain

Block = tuple[str, int]


def experts(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """One row for each way between FFNs and experts."""
    found = found_ffns(facts)
    count = _counts(facts.models.b)
    made = [f for f in found if isinstance(f.b.expert, int) and f.a.expert is None]
    moved = [f for f in found if isinstance(f.b.expert, int) and isinstance(f.a.expert, int)]
    merged = [f for f in found if f.b.expert is None and isinstance(f.a.expert, int)]
    if made and len(made) >= max(len(moved), len(merged)):
        yield _from_dense(facts, made, common([count[f.b.key[:2]] for f in made]))
    elif moved and len(moved) >= len(merged):
        means = tuple(experts_merged(facts, moved))
        yield from means or _moved(facts, moved, count)
    elif merged:
        yield from _to_dense(facts, merged)


def _counts(side: ModelView) -> Mapping[Block, int]:
    """Block → its routed experts."""
    return Counter(f.key[:2] for f in ffns(side) if isinstance(f.expert, int))


# Dense to experts


def _from_dense(facts: Facts, made: Sequence[Found], n: int) -> Operation:
    per_layer = Counter(f.b.key[:2] for f in made)
    layers, copied = len(per_layer), common([*per_layer.values()])
    share = sum(f.row.share for f in made) / len(made)
    parts = common([f.a.units // f.b.units if f.a.units % f.b.units == 0 else 0 for f in made])
    where = f"{n} experts in each of {layers} layers"
    if parts > 1 and n % parts == 0 and copied == n and _tile(made, parts):
        parameters: Row = {"parts": parts, "copies": n // parts, "experts": n, "share_of_units": round(share, 4)}
        return Operation("expert_split", parameters, f"{where}, each a part of the layer's FFN", 0.95)
    fresh = 1 - float(np.mean([_kept(facts, f) for f in made[:: max(1, len(made) // _READ)]]))
    fresh = 0.0 if fresh < 0.01 else number(fresh)
    words = f", {fresh:.0%} of their units not A's" if fresh else ""
    parameters = {"experts": n, "fresh": fresh, "share_of_units": round(share, 4)}
    which = "each a copy"
    if copied < n:  # the others were made elsewhere, or anew
        parameters |= {"copied": copied}
        which = f"{copied} of them a copy" if copied == 1 else f"{copied} of them copies"
    return Operation(
        "moe_upcycling", parameters, f"{where}, {which} of the layer's FFN{words}", 0.95 if copied == n else 0.6
    )


def _kept(facts: Facts, f: Found) -> float:
    """Share of an expert's units that are A's. Where numbers were kept every unit is compared with its own."""
    if f.row.order != "same" or f.a.units != f.b.units:
        return f.row.found
    units = pick(f.b.units, _WHOLE, facts.models.seed, "units of an expert")
    x, y = (
        sampled_rows(s, t, units)
        for s, t in ((facts.models.a, f.a.gate or f.a.up), (facts.models.b, f.b.gate or f.b.up))
    )
    if x.shape != y.shape:  # a turned stream of another width
        return f.row.found
    x, y = (z - z.mean(axis=0) for z in (x, y))
    cosine = row_cosines(x, y)
    own = float(np.mean(cosine > _SAME))
    return own if own >= _OWN * f.row.found else f.row.found


def _tile(made: Sequence[Found], parts: int) -> bool:
    """Experts of a layer hold different units: of any two either the same or none in common."""
    by_layer: dict[int, list[set[int]]] = defaultdict(list)
    for f in made:
        by_layer[f.b.block].append(set(f.row.units[:, 1].tolist()))
    seen = []
    for held in by_layer.values():
        union = set().union(*held)
        seen.append(len(union) / max(1.0, sum(map(len, held)) / len(held)))
    return float(np.median(seen)) > 0.6 * parts


# Experts to experts


def _moved(facts: Facts, moved: Sequence[Found], count: Mapping[Block, int]) -> Iterable[Operation]:
    before = _counts(facts.models.a)
    n_b, n_a = common([count[f.b.key[:2]] for f in moved]), common([before[f.a.key[:2]] for f in moved])
    by_layer: dict[Block, list[Found]] = defaultdict(list)
    for f in moved:
        by_layer[f.b.key[:2]].append(f)
    whole = {at: fs for at, fs in by_layer.items() if len(fs) == n_b}
    sources = {at: [int(f.a.expert or 0) for f in fs] for at, fs in whole.items()}
    if not sources:
        return
    where = f"{len(sources)} layers"
    uses = [Counter(s) for s in sources.values()]
    times = n_b // n_a
    if n_b > n_a:
        even = n_b % n_a == 0 and all(set(u.values()) == {times} for u in uses)
        parameters: Row = {"times": times} if even else {"experts": n_b, "experts_of_a": n_a}
        if even and (noise := _noise(facts, whole)) is not None:
            parameters["noise"] = noise
        yield Operation("expert_duplication", parameters, f"{n_a} -> {n_b} experts in {where}", 0.95 if even else 0.6)
        return
    if n_b < n_a:
        same = len({tuple(s) for s in sources.values()}) == 1
        kept: Row = {"experts": n_b, "experts_of_a": n_a}
        kept |= {"kept": next(iter(sources.values()))} if same else {}
        yield Operation("expert_drop", kept, f"{n_a} -> {n_b} experts in {where}", 0.9)
    share = float(np.mean([np.mean([s != e for e, s in enumerate(layer)]) for layer in sources.values()]))
    if n_b == n_a and share > 0.0 and all(len(u) == n_b for u in uses):
        yield Operation("expert_shuffle", {"share": number(share)}, where)


def _noise(facts: Facts, whole: Mapping[Block, Sequence[Found]]) -> float | None:
    """What was added to copies after the first of each expert, relative to the matrix' spread; 0 where they are equal.
    None where the first ones are not A's values."""
    if not facts.models.budget.whole:
        return None
    out = []
    for fs in [*whole.values()][:_LAYERS]:
        seen: set[Any] = set()
        for f in fs:
            x, y = facts.models.a.rows(f.a.up, 0, _UNITS), facts.models.b.rows(f.b.up, 0, _UNITS)
            if x.shape != y.shape:
                return None
            if f.a.expert in seen:
                out.append(float((y - x).std() / x.std()))
            elif not np.array_equal(x, y):
                return None
            seen.add(f.a.expert)
    return number(float(np.mean(out))) if out else None


# Experts to dense


def _to_dense(facts: Facts, merged: Sequence[Found]) -> Iterable[Operation]:
    by_block: dict[Block, list[Ffn]] = defaultdict(list)
    for ffn in ffns(facts.models.a):
        if isinstance(ffn.expert, int):
            by_block[ffn.key[:2]].append(ffn)
    if not facts.models.budget.whole:  # their rows would be most of what is read
        yield Operation("moe_to_dense", {}, f"{len(merged)} layers, by units alone", 0.8)
        return
    looked = merged[:: max(1, len(merged) // _LAYERS)][:_LAYERS]
    seen = [_mixture(facts, f, by_block[f.a.key[:2]]) for f in looked]
    method = common([m for m, _, _ in seen])
    chosen = [(names, weights) for m, names, weights in seen if m == method]
    layers = f"{len(merged)} layers"
    if method is None:
        yield Operation("moe_to_dense", {}, f"{layers}, by units alone", 0.8)
        return
    sets = [names for names, _ in chosen]
    names = common([tuple(s) for s in sets])
    parameters: Row = {"method": method}
    if sum(tuple(s) == names for s in sets) > len(sets) / 2:
        weights = np.mean([w for s, w in chosen if tuple(s) == names], axis=0)
        parameters |= {"experts": list(names), "weights": [number(float(w)) for w in weights]}
    words = {"one": "one expert", "mean": "a mean of experts", "concatenation": "experts side by side"}[method]
    yield Operation("moe_to_dense", parameters, f"{layers}, each {words}", 0.95)


def _mixture(facts: Facts, f: Found, group: Sequence[Ffn]) -> tuple[str | None, list[int], list[float]]:
    """(method, experts, their weights) of one dense FFN."""
    numbered = [(int(e.expert), e) for e in group if isinstance(e.expert, int) and e.up.shape[1:] == f.b.up.shape[1:]]
    if any(e.units != f.a.units for _, e in numbered) or not numbered:
        return None, [], []
    if f.b.units == f.a.units and len(numbered) <= _MOST:
        return _mean(facts, f.b, numbered)
    if f.b.units % f.a.units == 0:
        return _side_by_side(facts, f, numbered)
    return None, [], []


def _mean(facts: Facts, b: Ffn, numbered: Sequence[tuple[int, Ffn]]) -> tuple[str | None, list[int], list[float]]:
    y = _rows(facts.models.b, b)
    x = np.stack([_rows(facts.models.a, e) for _, e in numbered], axis=1)
    weights = lstsq(x, y)
    left = float(np.square(y - x @ weights).sum() / max(float(np.square(y).sum()), 1e-30))
    if left > 1 - _FITS:
        return None, [], []
    kept = [(e, float(w)) for (e, _), w in zip(numbered, weights, strict=True) if abs(w) >= _WEIGHT]
    largest = max(kept, key=lambda k: abs(k[1]), default=None)
    if largest is None:
        return None, [], []
    if sum(abs(w) for _, w in kept) - abs(largest[1]) < 0.2 * abs(largest[1]):
        return "one", [largest[0]], [1.0]
    return "mean", [e for e, _ in kept], [w for _, w in kept]


def _rows(side: ModelView, ffn: Ffn) -> F32:
    """Some rows of up and gate as one long vector, as stored (a mean of matrices is a mean of these)."""
    up, gate = unit_inputs(side, ffn, np.arange(min(_UNITS, ffn.units)))
    return up.ravel() if gate is None else np.concatenate([up.ravel(), gate.ravel()])


def _side_by_side(
    facts: Facts, f: Found, numbered: Sequence[tuple[int, Ffn]]
) -> tuple[str | None, list[int], list[float]]:
    """Which expert stands in each stretch of the FFN's units, and its weight in the output."""
    n = f.a.units
    heads = {e: unit_inputs(facts.models.a, ffn, np.arange(min(16, n)))[0] for e, ffn in numbered}
    outputs = unit_outputs(facts.models.b, f.b)
    names, weights = [], []
    for start in range(0, f.b.units, n):
        y, _ = unit_inputs(facts.models.b, f.b, np.arange(start, start + min(16, n)))
        least = np.float32(1e-30)
        alike = {e: float(np.vdot(x, y) / max(np.linalg.norm(x) * np.linalg.norm(y), least)) for e, x in heads.items()}
        best = max(alike, key=lambda e: alike[e])
        if alike[best] < _FITS:
            return "concatenation", [], []
        theirs = unit_outputs(facts.models.a, dict(numbered)[best])
        names.append(best)
        if theirs is not None and outputs is not None:
            mine = outputs[start : start + n]
            weights.append(float(np.vdot(theirs, mine) / max(float(np.vdot(theirs, theirs)), 1e-30)))
    return "concatenation", names, weights
