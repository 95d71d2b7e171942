"""The norm curve [2507.03014]: the standard deviation of the norm gains over depth, correlated.

The sigma curve's recipe on the gains in front of attention and of the FFN. Detrended beside it.

Known false positives: gains of almost every decoder grow with depth, so strangers correlate as sigma curves do.
"""

from __future__ import annotations

from functools import partial

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.curves import told
from weightprint.evidence.test import Test

_PARTS = ("attn_norm", "ffn_norm", "attn_post_norm", "ffn_post_norm")

_QUESTION = Evidence(
    test="norm_curve",
    asked="Do the standard deviations of the norm gains run alike over depth?",
    null="none: descriptive. Unrelated models share depth trends, and no null is known for this score",
    assumes="nothing: it decides nothing",
    blind_to="everything but one number per norm; gains folded into the matrices",
    statistic_of="mean over the norms of a block of the Pearson correlation of sigma over layers",
    effect_of="the same after a straight line over depth is removed",
)


@partial(Test, published=True)
def norm_curve(models: ModelPair) -> Evidence:
    """Raw and detrended correlation of the gain curves that both models have."""
    return told(_QUESTION, models, _PARTS, "gain", "norm gains")
