"""How often verdicts like this one were wrong on pairs whose truth is known.

The counts are in ``error_rates.json`` beside this file, which ``python -m benches.lineage score --report`` makes out of
``benches/lineage/results/results.json``: small models, really trained, whose family tree is known, compared at standard
effort. Pairs of one family tree are not independent, so what a rate rests on is the number of roots.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_RELATED = {"shared_origin", "partly_shared", "shared_initialisation"}


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """A count of wrong verdicts.

    Attributes:
        wrong: pairs that got such a verdict, and should not have.
        pairs: pairs that should not have got it.
        roots: independently initialised models among them; pairs of one root are no separate trials.
        at_most: upper end of the 95 % interval of the rate, over roots; a fraction.
        of: what those pairs are: "unrelated" or "related".
        called: what it would have been wrong to call them: "related" or "no evidence".
    """

    wrong: int
    pairs: int
    roots: int
    at_most: float
    of: str
    called: str

    @property
    def sentence(self) -> str:
        """``"0 of 2,450 unrelated pairs were called related (37 independent models: a rate below 7.8 %)"``."""
        said = f"{self.wrong:,} of {self.pairs:,} {self.of} pairs were called {self.called}"
        return f"{said} ({self.roots:,} independent models: a rate below {self.at_most:.1%})".replace("%)", " %)")


def error_rate(verdict: str) -> ErrorRate | None:
    """How often that verdict was wrong where the truth is known. None for verdicts that can't be wrong by chance
    (values were compared one by one) and for one that claims nothing."""
    if verdict in _RELATED:
        return _rate("unrelated", "claimed", "related")
    return _rate("related", "no_evidence", "no evidence") if verdict == "no_evidence" else None


def _rate(of: str, said: str, called: str) -> ErrorRate:
    row = counted()[of][said]
    return ErrorRate(row["n"], row["pairs"], row["roots"], row["at_most"], of, called)


@cache
def counted() -> dict[str, dict[str, Any]]:
    """What pairs are (unrelated, related, shared_init) → what was said of them (claimed, inconclusive, no_evidence)."""
    table = files("weightprint.verdict").joinpath("error_rates.json").read_text(encoding="utf-8")
    return dict(json.loads(table))
