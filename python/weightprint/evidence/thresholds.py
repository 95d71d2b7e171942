"""The numbers that tests and verdict share, each once, with where it comes from.

They come from outside the cases that the rules are tested on. What only the verdict needs is in
:mod:`weightprint.verdict.thresholds`.
"""

from __future__ import annotations

#: log10 p of a finding: at one false alarm in a million pairs, an auditor who compares 1,000 models with each other
#: (500,000 pairs) expects half a false alarm. P-values are Bonferroni-corrected over the tests that may decide, over
#: blocks, over pairings and over the alignments that were tried.
LOG10_P = -6.0

#: log10 p of one block of a finding, or of one expert in a block that was found, corrected for the pairs of blocks, or
#: the block's experts, that were compared. The whole must pass `LOG10_P`.
BLOCK_LOG10_P = -4.0

#: log10 p, corrected for all pairs, from which on two FFNs of one model count as copies of each other. Being wrong
#: costs power and nothing else.
COPY_LOG10_P = -2.0

#: Cosine, or share of units, that a part must reach to be called found. Strangers' double-centred cosine is within
#: 4/sqrt(mn), .02 for a block of a few 64 x 64 matrices and .001 for language models; continued pre-training leaves
#: cosines of .1 to .95. Of hidden units, strangers share none beyond chance. A tiny p with a tiny effect is a broken
#: assumption until shown otherwise, and decides nothing.
EFFECT = 0.1

#: In a basis that was fitted a p-value counts only beside this effect of the same test. Between real unrelated
#: encoders and between structured random models `convergence` reached .05; in turned copies, trained on or washed, .37
#: to 1. A stranger may be fitted onto A before it comes to us, so `convergence` needs it in the streams as stored too:
#: one of a single block, its units and its stream put onto A's in turns, reached .11.
FITTED_EFFECT = 0.15
