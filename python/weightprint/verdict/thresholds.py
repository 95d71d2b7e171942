"""The numbers that a verdict rests on, each once, with where it comes from.

They come from outside the cases that the rules are tested on:

* ``LOG10_P`` and ``EFFECT``: :mod:`weightprint.evidence.thresholds`.
* ``ABSENT`` = .02: a part outside the blocks counts as not shared in place only if a cosine of .02 would have stood
  five null deviations out, and its cosine is below that; :mod:`weightprint.verdict.absent_parts` says when parts of
  blocks are absent.
* ``DETECTABLE`` = .25: "no evidence" may be said only where a descendant with an effect of this size would have been
  seen, a cosine or a share of hidden units: what was not seen stands in the report beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from weightprint.evidence.thresholds import EFFECT, LOG10_P

#: Share of units or heads (or a cosine) from which on most of a part is there.
MOST = 0.5

#: A block is absent only where fewer units than this were found by tests that would have seen more.
ABSENT_UNITS = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What a finding must reach: its corrected p-value, and an effect. Whoever weighs again may ask for more."""

    log10_p: float = LOG10_P
    effect: float = EFFECT


LIMITS = Limits()

#: Gains start constant. If two models' correlate by g, training in common explains at most g of how far they moved; at
#: a third it is half of what each did alone.
DISTANT_GAINS = 1 / 3

#: Heads of one block in the very block of A where its hidden units were found: few heads, and nothing was chosen.
BESIDE_LOG10_P = -2.0

#: Equal rows of an embedding that make a part shared: each is tens of learned values, so a few would do.
ROWS = 32

#: In place: a cosine below this (and three deviations of chance) is none.
ABSENT = 0.02

#: A share of hidden units that a test must have been able to see, before its silence says that they are not there.
DETECTABLE = 0.25
