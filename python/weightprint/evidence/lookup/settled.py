"""In place first: which blocks of B are A's blocks of the same place, so that nothing need be looked for elsewhere.

Every block of B against every block of A is most of what a comparison costs, and a fine-tune, whatever was done to its
units, has its blocks where they were. So tests of all pairs look in place first, while the models stream by. A block is
*settled* there if nine tenths of its units are found in the block of the same place and hold more than half of the
squared length of those (a cosine beyond sqrt(1/2)): whatever is not itself like them can't then be nearer. The other
pairs are looked at only where one of the two blocks is not settled.

*Why p-values stay bounds.* Which pairs are looked at follows from values, but every p-value pays for all pairs that
could have been, so it bounds the smallest over all of them, of which those looked at are some. Under the null a block
is settled at most once in a million pairs of models, so strangers are looked at in all pairs, as they always were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightprint.evidence.pair import Block, ModelPair
from weightprint.fingerprint.ffns import ffns
from weightprint.util.arrays import Bools, equal_pairs

#: Share of a block's units that must be found in place.
SHARE = 0.9
#: Cosine with them: more than half of the squared length.
ALIKE = 0.5**0.5

#: Why a test that asks what is then known was not run.
NOT_NEEDED = "not needed: the hidden units of every block of B were found in A's block of the same place"


def all_settled(models: ModelPair) -> bool:
    """Whether every block of B that has hidden units is settled."""
    blocks = {(f.stack, f.block) for f in ffns(models.b)}
    return bool(blocks) and blocks <= (models.settled or frozenset())


def asked(models: ModelPair, b: Sequence[Block], a: Sequence[Block]) -> Bools:
    """Which pairs (rows: B's, columns: A's) are to be looked at, given the block that each lies in."""
    own = equal_pairs(b, a)
    if models.settled is None:
        return own
    of_b, of_a = (np.array([x in models.settled for x in side], bool) for side in (b, a))
    out: Bools = own | ~of_b[:, None] | ~of_a
    return out
