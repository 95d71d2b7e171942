"""What had to be undone before the weights could be compared: it changes no output of the model.

* *Units permuted*: units that were found under another number, those numbers being the same set on both sides.
* *Channels permuted, signs flipped*: the channel map, read again from matched units.
* *Stream turned*: a rotation decides, and there is no channel map.
* *Scales folded*: what a unit reads grew by a factor and what it writes shrank by the same; or a norm's gain did and
  the columns that read it. The factors differ from one, and their products are one.
* *Maps inside heads*: the products of a head agree, and its values and keys do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from weightprint.evidence.head_agreement import HeadAgreement
from weightprint.evidence.lookup.units import unit_outputs
from weightprint.evidence.same_values import SameValues
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import sampled_rows
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import Changes
from weightprint.operations.edits.sorted_units import sorted_by
from weightprint.operations.structure import Channels, Found, channels, found_ffns, number, placed
from weightprint.util.arrays import F32, I64
from weightprint.util.linear_algebra import row_cosines
from weightprint.verdict.facts import Facts

__all__ = ["reparameterisation"]


_MOST = 0.5  # of the channels, for a channel map
_EXPECTED = 4  # numbers that moved units should have taken from one another, for their lack to mean anything
_FEW = 0.02  # a smaller share of units or channels is none
_CLOSED = 0.8  # of the numbers that units left must be numbers that units took
_UNITS = 256
_OPPOSITE = 0.3  # cosine of a flipped unit with itself is below minus this
_LAYERS = 4
_OF_SCALES = ("sign_flips", "scale_folding")  # what rows and columns were multiplied by, others undo
_FOLDED = 0.02  # spread of the logarithm of factors, at least
_EXACT = 0.1  # of that spread may remain in their products
_HEAD, _INSIDE = 0.7, 0.3  # cosines of a head's products, and how much less its own matrices have


def reparameterisation(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """Units, channels, signs, rotation, scales, maps inside heads."""
    if not facts.decisive:
        return
    undone = frozenset(c.b.name for c, _ in changes.seen if c.kind == "scaling")
    same = facts.told(SameValues)
    misread = any(order.get("read") for order in same.reordered.values()) if same else False
    for operation in _reparameterised(facts):
        if misread and operation.name in _OF_SCALES:
            continue  # gains that are read as other numbers have other signs and sizes, which nothing undoes
        yield replace(operation, explains=undone) if operation.name in _OF_SCALES else operation


def _reparameterised(facts: Facts) -> Iterable[Operation]:
    found = found_ffns(facts)
    seen = channels(facts)
    yield from _stream(facts, seen, found)
    yield from _units(facts, found)
    if seen is not None and seen.width_a == seen.of_a.size and seen.known > 0.99 and seen.moved == 0.0:
        yield from _scales(facts, found)
    yield from _inside_heads(facts)


# The stream


def _stream(facts: Facts, seen: Channels | None, found: Sequence[Found]) -> Iterable[Operation]:
    """Channels permuted, their signs flipped, or the stream turned."""
    basis = facts.weights.basis if facts.weights else "identity"
    if seen is None or seen.known < _MOST:
        if basis == "rotation":
            cosine = round(facts.weights.effect or 0.0, 4) if facts.weights else None
            spread = _spread_of_gains(facts.models.b)
            parameters: Row = {"cosine_once_undone": cosine}
            parameters |= {} if spread is None else {"gain_spread": spread}
            yield Operation("rotation", parameters, "residual stream")
        return
    if seen.width_a != seen.of_a.size:
        return
    there = seen.of_a >= 0
    if seen.moved > _FEW and seen.known > _CLOSED and not _anchored(facts):
        parameters = {"share": number(seen.moved), "channels": seen.of_a.tolist()}
        yield Operation(
            "channel_permutation", parameters, f"{seen.moved:.0%} of {there.sum():,} residual channels moved"
        )
    flipped = float(np.mean(seen.signs[there] < 0))
    of_this = [f for f in found if (f.b.width, f.a.width) == (seen.of_a.size, seen.width_a)]  # a tower has its own
    units = float(np.mean([_flipped_units(facts, f, seen) for f in of_this[:_LAYERS]]))
    if max(flipped, units) > _FEW:
        parameters = {"channels": flipped > _FEW, "units": units > _FEW, "share": number(max(flipped, units))}
        if flipped > _FEW:
            parameters["channel_signs"] = [int(sign) for sign in seen.signs.tolist()]
        what = {"residual channels": flipped, "gated units": units}
        where = " and ".join(f"{share:.0%} of the {name}" for name, share in what.items() if share > _FEW)
        yield Operation("sign_flips", parameters, where)


def _anchored(facts: Facts) -> bool:
    """B's embedding is A's, value for value, so every channel is where it was."""
    tensors = facts.models.b.tensors
    return any((place := tensors[f.b].place) is not None and place.role == "embedding" for f in facts.shown)


def _flipped_units(facts: Facts, f: Found, seen: Channels) -> float:
    """Share of matched units whose up- and down-projections point the other way while the gate does not. Units that
    only resemble each other, in a wider FFN say, have one of the two at most."""
    if f.b.gate is None or f.a.gate is None or len(f.row.units) < 16:
        return 0.0
    there = np.nonzero(seen.of_a >= 0)[0]
    pairs = f.row.units[:_UNITS]
    reads = sampled_rows(facts.models.a, f.a.up, pairs[:, 1]), sampled_rows(facts.models.b, f.b.up, pairs[:, 0])
    writes = unit_outputs(facts.models.a, f.a, pairs[:, 1]), unit_outputs(facts.models.b, f.b, pairs[:, 0])
    opposite = np.ones(len(pairs), bool)
    for x, y in (reads, writes):
        if x is None or y is None:
            return 0.0
        x, y = x[:, seen.of_a[there]], y[:, there] * seen.signs[there]
        cosine = row_cosines(x, y)
        opposite &= cosine < -_OPPOSITE
    return float(np.mean(opposite))


def _spread_of_gains(side: ModelView) -> float | None:
    """Standard deviation of the logarithm of norm gains; None without norms or where one is not positive."""
    gains = [side.rows(t).ravel() for role in ("attn_norm", "ffn_norm") for t in placed(side, role)]
    every = np.concatenate(gains) if gains else np.zeros(1)
    return number(float(np.log(every).std())) if (every > 0).all() else None


# Units


def _units(facts: Facts, found: Sequence[Found]) -> Iterable[Operation]:
    """Units in another order. Pruned ones keep their order; where widths differ only an order that is lost counts.
    ``"sorted_by"`` where B's stand in order of a norm."""
    plain = [f for f in found if len(f.row.units) >= 16 and f.row.repeats <= 1 and f.b.expert == f.a.expert]
    shares = [s for f in plain if (s := _moved(f)) is not None]
    moved = [s for s in shares if s > _FEW]
    if moved and 2 * len(moved) > len(shares):
        share = number(float(np.mean(moved)))
        where = f"hidden units of {len(moved)} FFNs stand in another order"
        order = sorted_by(facts.models.b, [f.b for f in plain]) if facts.models.budget.whole else {}
        if order:
            where += f", sorted by the norm of their weights ({order['norm_of']})"
        yield Operation("unit_permutation", {"share": share} | order, where, 0.95)


def _moved(f: Found) -> float | None:
    theirs, ours = f.row.units[:, 0], f.row.units[:, 1]
    if f.b.units != f.a.units:
        lost = f.row.order == "changed" and f.b.units < f.a.units
        return 1.0 if lost else 0.0 if f.row.order in ("same", "kept", "shifted") else None
    away = theirs != ours
    if np.count_nonzero(away) < 4:
        return 0.0
    left, taken = set(theirs[away].tolist()), set(ours[away].tolist())
    # A sample of units leaves some numbers unseen; chance finds would not land on one another's numbers.
    seen = len(theirs) / f.b.units
    if seen * len(left) < _EXPECTED:  # most units moved, or nothing is said
        return float(away.mean()) if away.mean() > 0.5 else 0.0
    return float(away.mean()) if len(left & taken) >= _CLOSED * seen * len(left) else 0.0


# Scales


def _scales(facts: Facts, found: Sequence[Found]) -> Iterable[Operation]:
    units = [x for f in found[:_LAYERS] if (x := _unit_factors(facts, f)) is not None]
    norms = [x for t in _fed_by_norms(facts, found) if (x := _column_factors(facts, *t)) is not None]
    folded = {name: _folded(pairs) for name, pairs in (("units", units), ("norms", norms))}
    spreads = [spread for spread in folded.values() if spread is not None]
    if spreads:
        parameters: Row = {name: spread is not None for name, spread in folded.items()}
        parameters["spread"] = float(f"{np.mean(spreads):.2g}")
        what = {"units": "from up- into down-projections", "norms": "from norm gains into the matrices that read them"}
        where = " and ".join(words for name, words in what.items() if folded[name] is not None)
        yield Operation("scale_folding", parameters, f"factors moved {where}")


def _folded(pairs: Sequence[tuple[F32, F32]]) -> float | None:
    """Spread of the factors' logarithms if the two of each pair undo one another, else None."""
    if not pairs:
        return None
    one, other = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
    spread = float(one.std())
    return spread if spread > _FOLDED and float(np.abs(one + other).mean()) < _EXACT * spread else None


def _unit_factors(facts: Facts, f: Found) -> tuple[F32, F32] | None:
    """log of (what a unit reads, what it writes) over A's, for units found."""
    pairs = f.row.units[:_UNITS]
    if len(pairs) < 16 or f.b.gate is None:
        return None
    up = [_rows_with_gain(s, t, x) for s, t, x in _sides(facts, f.a.up, f.b.up, pairs)]
    down = [unit_outputs(facts.models.a, f.a, pairs[:, 1]), unit_outputs(facts.models.b, f.b, pairs[:, 0])]
    if down[0] is None or down[1] is None:
        return None
    return _ratio(*(np.linalg.norm(x, axis=1) for x in up)), _ratio(
        *(np.linalg.norm(x, axis=1) for x in down if x is not None)
    )


def _rows_with_gain(side: ModelView, tensor: Tensor, rows: I64) -> F32:
    gain = side.gain(tensor)
    x = sampled_rows(side, tensor, rows)
    return x if gain is None else x * gain


def _sides(facts: Facts, a: Tensor, b: Tensor, pairs: I64) -> list[tuple[ModelView, Tensor, I64]]:
    return [(facts.models.a, a, pairs[:, 1]), (facts.models.b, b, pairs[:, 0])]


def _ratio(a: F32, b: F32) -> F32:
    tiny = np.float32(1e-30)
    logs: F32 = np.log(np.maximum(b, tiny) / np.maximum(a, tiny))
    return logs


def _fed_by_norms(facts: Facts, found: Sequence[Found]) -> list[tuple[Tensor, Tensor, I64]]:
    """(gate or up of A, of B, units) of FFNs that a norm feeds on both sides."""
    out = []
    for f in found[:_LAYERS]:
        a, b = f.a.gate or f.a.up, f.b.gate or f.b.up
        if facts.models.a.gain(a) is not None and facts.models.b.gain(b) is not None and len(f.row.units) >= 16:
            out.append((a, b, f.row.units[:_UNITS]))
    return out


def _column_factors(facts: Facts, a: Tensor, b: Tensor, pairs: I64) -> tuple[F32, F32] | None:
    """log of (gain, columns that read it) over A's; gates, since nothing folds into their rows."""
    gains = facts.models.a.gain(a), facts.models.b.gain(b)
    if gains[0] is None or gains[1] is None:
        return None
    x, y = (np.linalg.norm(sampled_rows(s, t, rows), axis=0) for s, t, rows in _sides(facts, a, b, pairs))
    return _ratio(np.abs(gains[0]), np.abs(gains[1])), _ratio(x, y)


# Inside heads


def _inside_heads(facts: Facts) -> Iterable[Operation]:
    heads = facts.applied("head_agreement")
    if heads is None or facts.weights is None or facts.weights.basis != "identity":
        return
    cosines = facts.cosines
    inside: dict[tuple[str, str], float] = {
        (f"{t.place.stack}.{t.place.block}", t.place.role): cosines[t.name]
        for t in facts.models.b.tensors.values()
        if t.place is not None and t.place.role in ("k", "v") and t.name in cosines
    }
    mapped = looked = 0
    for block in heads.told(HeadAgreement).head_map:
        name, own = block["b"], [h for i, h in enumerate(block["heads"]) if h is not None and h[:2] == [block["b"], i]]
        if len(own) * 2 <= len(block["heads"]) or (name, "v") not in inside:
            continue
        looked += 1
        by_qk, by_vo = (float(np.mean([h[i] for h in own])) for i in (2, 3))
        apart = by_vo - inside[name, "v"] >= _INSIDE and by_qk - inside.get((name, "k"), 1.0) >= _INSIDE
        mapped += apart and min(by_qk, by_vo) >= _HEAD
    if mapped and 2 * mapped > looked:
        yield Operation("per_head_maps", {}, f"heads of {mapped} layers: products agree, keys and values do not", 0.95)
