"""Is the attention of one block of B one of A's, moved to another basis of the stream?

How it is looked for, its null and its power: :mod:`weightprint.evidence.lookup.turned_parts`.
"""

from __future__ import annotations

from functools import partial

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.lookup.turned_parts import TurnedParts, looked_for, not_found_of_a
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.test import Test


@partial(
    Test,
    decides="any basis",
    bases=("own",),
    answers=("attention in a turned stream",),
    of_heads=True,
    details=TurnedParts,
    mirrored=not_found_of_a,
    needs="attention on the whole stream",
)
def turned_attention(models: ModelPair) -> Evidence:
    """The attention of every block of B, looked for in A by itself, in any basis of the stream."""
    return looked_for("turned_attention", models, "attention", ("attention",))
