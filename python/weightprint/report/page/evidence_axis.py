"""Evidence for and against on one axis: how unlikely each answer is by chance, and the level that decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.page.svg import Drawing, element, joined, label, line, rect
from weightprint.verdict.facts import may_decide

__all__ = ["called", "evidence_axis", "named"]

#: Tests as a reader without their names calls what they look for.
_PLAIN = {
    "aligned_weights": "channels in place",
    "aligned_units": "units, in place",
    "unit_agreement": "units, any order",
    "unit_geometry": "units, by angles",
    "head_agreement": "attention heads",
    "embeddings": "token tables",
    "norm_gains": "norm gains",
    "common_zeros": "common zeros",
    "convergence": "what converges",
    "turned_ffns": "feed-forward, turned",
    "turned_attention": "attention, turned",
    "turned_tables": "token tables, turned",
}

_FIRST = 42.0  # percent: where the axis begins
_LAST = 97.0
_ROW, _TOP = 24.0, 34.0


def _looks(evidence: Iterable[Evidence]) -> list[Evidence]:
    """What may decide, of each test its strongest answer, strongest first."""
    best: dict[str, Evidence] = {}
    for e in evidence:
        if may_decide(e) and (e.test not in best or (e.log10_p or 0.0) < (best[e.test].log10_p or 0.0)):
            best[e.test] = e
    return sorted(best.values(), key=lambda e: e.log10_p or 0.0)


def called(test: str) -> str:
    """What a test looks for, in plain words."""
    return _PLAIN.get(test, test.replace("_", " "))


def named(evidence: Evidence) -> str:
    """What was looked for, in plain words, and the basis where it is not the stored one."""
    words = called(evidence.test)
    return words if evidence.basis == "identity" or "turned" in words else f"{words}, realigned"


def evidence_axis(evidence: Sequence[Evidence], highest_stranger: float) -> Drawing | None:
    """A row per test that may decide; ``highest_stranger``: log10 p of the most striking unrelated pair of the
    benchmark. None where no test may decide."""
    shown = _looks(evidence)
    if not shown:
        return None
    far = max(20.0, *(-(e.log10_p or 0.0) for e in shown))
    bottom = _TOP + len(shown) * _ROW

    def at(log10_p: float) -> float:
        return _FIRST + (_LAST - _FIRST) * math.log1p(-min(log10_p, 0.0)) / math.log1p(far)

    parts = [rect(_FIRST, _TOP - 6, at(highest_stranger) - _FIRST, bottom - _TOP + 6, "band", "unrelated pairs")]
    parts.append(label(0, bottom + 14, "by chance, once in", "dim small"))
    for power in (0, 20, 100, 1000, 10_000):
        if power <= far:
            x = at(-power)
            parts.append(line(x, _TOP - 6, x, bottom, "tick"))
            parts.append(label(x, bottom + 14, _power(power), "dim small", anchor="middle" if power else "start"))
    x = at(LOG10_P)
    parts.append(line(x, _TOP - 14, x, bottom, "level-line"))
    parts.append(label(x, _TOP - 20, f"decides: 1 in {_power(-LOG10_P)}", "level", anchor="middle"))
    for i, e in enumerate(shown):
        y, p = _TOP + (i + 0.5) * _ROW, e.log10_p or 0.0
        against = p > LOG10_P
        parts.append(label(0, y + 4, named(e)))
        parts.append(line(_FIRST, y, at(p), y, "stem against" if against else "stem"))
        words = element("title", f"{e.test}: log10 p {p:.1f}")
        kind = "mark-against" if against else "mark-for"
        parts.append(element("circle", words, cx=f"{at(p):.2f}%", cy=y, r=5, class_=kind))
    n = sum((e.log10_p or 0.0) <= LOG10_P for e in shown)
    title = f"{n} of {len(shown)} tests that may decide pass the level of 1 in {_power(-LOG10_P)}."
    return Drawing("evidence", title, bottom + 22, joined(parts))


def _power(power: float) -> str:
    """``10⁶``; 1 for 0."""
    return "1" if not power else "10" + f"{power:.0f}".translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
