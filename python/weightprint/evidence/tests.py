"""All tests, and the groups of them that the other stages ask for.

Adding a test: write its file, add it to :data:`TESTS`. Every other list follows from its traits
(:class:`weightprint.evidence.test.Test`).
"""

from __future__ import annotations

from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.common_zeros import common_zeros
from weightprint.evidence.convergence import convergence
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.exact_sharing import exact_sharing
from weightprint.evidence.head_agreement import head_agreement
from weightprint.evidence.norm_gains import norm_gains
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
from weightprint.evidence.same_values import same_values
from weightprint.evidence.test import Test
from weightprint.evidence.training_shared import training_shared
from weightprint.evidence.turned_attention import turned_attention
from weightprint.evidence.turned_ffns import turned_ffns
from weightprint.evidence.turned_tables import turned_tables
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.evidence.unit_geometry import unit_geometry

#: Every test, in the order of the report.
TESTS: tuple[Test, ...] = (
    exact_sharing,
    same_values,
    aligned_weights,
    aligned_units,
    unit_agreement,
    unit_geometry,
    head_agreement,
    common_zeros,
    convergence,
    turned_ffns,
    turned_attention,
    turned_tables,
    embeddings,
    norm_gains,
    training_shared,
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

#: By the bases that they are run in: as stored; in each alignment that was found; in one that they find themselves.
AS_STORED = tuple(test for test in TESTS if "stored" in test.bases)
REBASED = tuple(test for test in TESTS if "found" in test.bases)
TURNED = tuple(test for test in TESTS if "own" in test.bases)

#: Measures as published, for comparison.
PUBLISHED = tuple(test for test in TESTS if test.published)

#: What runs without published measures being asked for.
UNASKED = tuple(test for test in TESTS if test.unasked)

#: What tests collect while the models stream by.
COLLECTORS = tuple(dict.fromkeys(test.collector for test in TESTS if test.collector is not None))

#: What must have been asked with power before silence means anything → names of the tests that ask it.
QUESTIONS = {
    question: tuple(test.name for test in TESTS if question in test.answers)
    for question in dict.fromkeys(question for test in TESTS for question in test.answers)
}

#: Name → the kind of its details, and how they read from B to A.
DETAILS = {test.name: test.details for test in TESTS if test.details is not None}
MIRRORED = {test.name: test.mirrored for test in TESTS if test.mirrored is not None}

# Names of tests, as evidence carries them.

#: The tests whose p-values may decide, and of these the ones that may in a basis that was fitted. The others are shown.
DECIDING = tuple(test.name for test in TESTS if test.decides != "never")
IN_ANY_BASIS = tuple(test.name for test in TESTS if test.decides == "any basis")
SUPPORTING = tuple(test.name for test in TESTS if test.supports)

OWN_BASIS = tuple(test.name for test in TURNED)
BASIS_FREE = tuple(test.name for test in TESTS if test.basis_free)
EXCHANGING = tuple(test.name for test in TESTS if test.exchanges)
OF_ORDER = tuple(test.name for test in TESTS if test.of_order)
OF_HEADS = tuple(test.name for test in TESTS if test.of_heads)
QUOTED = tuple(test.name for test in TESTS if test.quoted)
