"""The bias curve [2507.03014]: the standard deviation of the biases of Q, K and V over depth, correlated.

The sigma curve's recipe on the biases, which few families have (Qwen2 and GPT-2 do). Detrended beside it.

Known false positives: biases of K grow in the first and last layers of most models that have them, so strangers of one
family of architectures correlate; with so few such families no table of errors was ever made.
"""

from __future__ import annotations

from functools import partial

from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.published.curves import told
from weightprint.evidence.test import Test

_PARTS = ("q_bias", "k_bias", "v_bias")

_QUESTION = Evidence(
    test="bias_curve",
    asked="Do the standard deviations of the biases of Q, K and V run alike over depth?",
    null="none: descriptive. Unrelated models share depth trends, and no null is known for this score",
    assumes="nothing: it decides nothing",
    blind_to="everything but one number per bias; models without biases",
    statistic_of="mean over the biases of Q, K, V of the Pearson correlation of sigma over layers",
    effect_of="the same after a straight line over depth is removed",
)


@partial(Test, published=True)
def bias_curve(models: ModelPair) -> Evidence:
    """Raw and detrended correlation of the bias curves that both models have."""
    return told(_QUESTION, models, _PARTS, "bias", "biases of Q, K or V")
