"""Published measures of kinship, as their authors define them: comparators. They describe and never decide.

Each is a function of :class:`Models` that returns an :class:`Evidence` without a p-value. ``Evidence.statistic`` is the
score as published, larger for closer kin; ``effect`` is the repaired form where one is known. What a paper does not
say (unequal widths, for most) is not applied, with the reason. P-values that authors claim stand in
``details["claimed_log10_p"]`` (phi_u, phi_match, mdir), for a benchmark to judge.
"""

from __future__ import annotations

from weightprint.evidence.evidence import Test
from weightprint.evidence.published.bias_curve import bias_curve
from weightprint.evidence.published.bit_distance import bit_distance
from weightprint.evidence.published.crs import crs
from weightprint.evidence.published.ghostspec import ghostspec
from weightprint.evidence.published.ics import ics
from weightprint.evidence.published.mdir import mdir
from weightprint.evidence.published.mother import mother
from weightprint.evidence.published.norm_curve import norm_curve
from weightprint.evidence.published.pcs import pcs
from weightprint.evidence.published.phi_match import phi_match
from weightprint.evidence.published.phi_u import phi_u
from weightprint.evidence.published.sigma_curve import sigma_curve
from weightprint.evidence.published.ucka import ucka

__all__ = ["PUBLISHED"]

#: Every published measure, in the order of the report.
PUBLISHED: tuple[Test, ...] = (
    sigma_curve,
    bias_curve,
    norm_curve,
    pcs,
    ics,
    ucka,
    crs,
    ghostspec,
    bit_distance,
    phi_u,
    phi_match,
    mdir,
    mother,
)
