"""What each test looked for, in plain nouns: how much was found, how much chance finds, and what would have been seen.

Names of tests, p-values and nulls are for those who ask (-v); these are the same numbers for everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.tests import OWN_BASIS
from weightprint.verdict.facts import may_decide

__all__ = ["Look", "found", "looked_for"]

_TELLS = -3  # log10 p from which on it is told, never decided


@dataclass(frozen=True, slots=True)
class Look:
    """``found`` of ``of`` things ``what``, where chance finds ``chance``; ``seen_from``: the part that would have been
    seen, 0..1, or None; ``undone``: what had to be undone first, empty for nothing."""

    what: str
    found: int
    of: int
    chance: float
    seen_from: float | None
    undone: str

    @property
    def sentence(self) -> str:
        """``"640 of 640 feed-forward units (by chance 5)"``."""
        chance = f" (by chance {self.chance:.2g})" if self.chance else ""
        undone = f", a {self.undone} undone" if self.undone else ""
        return f"{self.found:,} of {self.of:,} {self.what}{chance}{undone}"


#: An answer and its details → found, of, by chance.
_Counts = Callable[[Evidence, Mapping[str, Any]], tuple[float, int, float]]


def _statistic(e: Evidence, told: Mapping[str, Any]) -> tuple[float, int, float]:
    return e.statistic or 0, e.n, 0


def _parts(e: Evidence, told: Mapping[str, Any]) -> tuple[float, int, float]:
    return len(told["found"]), len(told["asked"]), 0


def _units(e: Evidence, told: Mapping[str, Any]) -> tuple[float, int, float]:
    return sum(m.agreed for m in e.matches), sum(m.tested for m in e.matches), sum(m.expected for m in e.matches)


def _rows(e: Evidence, told: Mapping[str, Any]) -> tuple[float, int, float]:
    kind = ("rows_equal", "rows_tested") if told["rows_equal"] else ("rows_near", "rows_sampled")
    return told[kind[0]], told[kind[1]], 0


_UNITS = "feed-forward units"
#: Test → (kind of thing, of which the surest test is told; what it is called; counts).
_FOUND: Mapping[str, tuple[str, str, _Counts]] = {
    "exact_sharing": ("tensors", "tensors bit for bit", _statistic),
    "same_values": ("encoded", "tensors in another encoding", _statistic),
    "aligned_weights": ("channels", "channels in place", lambda e, t: (e.statistic or 0, t["channels"], 1)),
    "aligned_units": ("units", _UNITS, lambda e, t: (e.statistic or 0, e.n, t["blocks"])),
    "unit_agreement": ("units", _UNITS, _units),
    "unit_geometry": ("units", f"{_UNITS} by the angles between them", _statistic),
    "head_agreement": ("heads", "attention heads", lambda e, t: (t["agreed"], t["heads_b"], t["expected"])),
    "turned_ffns": ("units", "feed-forward parts, turned", _parts),
    "turned_attention": ("heads", "layers' attention, turned", _parts),
    "turned_tables": ("rows", "token tables, turned", _parts),
    "embeddings": ("rows", "rows of the token table", _rows),
}
_CHECKED = ("exact_sharing", "same_values")  # value by value, without chance

#: How silence is told where it is not told alike: tests that pick the best of many pairs count whole parts.
_SILENT: Mapping[str, tuple[str, _Counts]] = {
    "aligned_units": (f"{_UNITS} in place", _FOUND["aligned_units"][2]),
    "unit_agreement": ("layers' units, any order", lambda e, t: (t["found"], len(e.matches), 0)),
    "unit_geometry": ("layers' units, by angles", lambda e, t: (t["ffns_found"], t["ffns"], 0)),
} | dict.fromkeys(OWN_BASIS, ("any of these, turned", _parts))


def _look(e: Evidence, what: str, counts: _Counts) -> Look:
    n, of, chance = counts(e, e.details)
    undone = "" if e.basis == "identity" or e.test in OWN_BASIS else e.basis.replace("_", " ")
    return Look(what, round(n), of, chance, e.detectable, undone)


def found(evidence: Sequence[Evidence]) -> list[Look]:
    """What speaks for shared weights, one look for each kind of thing: what is equal first, then the surest."""
    told: dict[str, tuple[float, Look]] = {}
    for e in evidence:
        if not e.applied or e.test not in _FOUND:
            continue
        kind, what, counts = _FOUND[e.test]
        equal = e.test in _CHECKED or (e.test == "embeddings" and bool(e.details["rows_equal"]))
        agrees = e.log10_p is not None and e.log10_p <= _TELLS and (may_decide(e) or e.test == "embeddings")
        if not equal and not agrees:
            continue
        look, p = _look(e, what, counts), -1e9 if equal and (e.effect or 0.0) >= 0.5 else e.log10_p or _TELLS
        if look.found and p < told.get(kind, (0.0, look))[0]:
            told[kind] = (p, look)
    return [look for _, look in sorted(told.values(), key=lambda row: row[0])]


def looked_for(evidence: Sequence[Evidence]) -> list[Look]:
    """What was looked for, in the streams as stored or by itself, whether it was found or not."""
    told: dict[str, Look] = {}
    for e in evidence:
        if (
            e.applied
            and e.test in _FOUND
            and e.test != "same_values"
            and (e.basis == "identity" or e.test in OWN_BASIS)
        ):
            look = _look(e, *_SILENT.get(e.test, _FOUND[e.test][1:]))
            before = told.get(look.what)
            told[look.what] = look if before is None else _both(before, look)
    return [*told.values()]


def _both(a: Look, b: Look) -> Look:
    seen = None if None in (a.seen_from, b.seen_from) else max(a.seen_from or 0.0, b.seen_from or 0.0)
    return replace(a, found=a.found + b.found, of=a.of + b.of, chance=a.chance + b.chance, seen_from=seen)
