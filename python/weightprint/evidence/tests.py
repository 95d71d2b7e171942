"""The tests. Each module asks one question of two models and answers with an :class:`Evidence`.

Adding a test: write its module, add its function to :data:`TESTS`. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable

from weightprint.evidence.aligned_units import aligned_units, unit_rows
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.common_zeros import common_zeros
from weightprint.evidence.convergence import convergence
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.evidence import Test
from weightprint.evidence.exact_sharing import exact_sharing
from weightprint.evidence.head_agreement import head_agreement, head_looks
from weightprint.evidence.lookup.channel_sums import channel_sums
from weightprint.evidence.lookup.token_tables import table_looks
from weightprint.evidence.norm_gains import norm_gains
from weightprint.evidence.pair import Models
from weightprint.evidence.published.ghostspec import ghostspec
from weightprint.evidence.published.ics import ics
from weightprint.evidence.published.table import PUBLISHED
from weightprint.evidence.same_values import same_values
from weightprint.evidence.training_shared import training_shared
from weightprint.evidence.unit_agreement import unit_agreement, unit_looks
from weightprint.evidence.unit_geometry import unit_geometry
from weightprint.fingerprint.steps import Looks

__all__ = ["ALONE", "EXACT", "LONGEST", "REBASED", "STREAMING", "TESTS"]

#: Tests that need a common basis of the residual channels: run again in every alignment that is found.
REBASED: tuple[Test, ...] = (
    aligned_weights,
    unit_agreement,
    head_agreement,
    convergence,
    embeddings,
    training_shared,
)

#: What tests do while the models stream by: headers → looks, or None where the test won't apply or looks afterwards.
STREAMING: tuple[Callable[[Models], Looks | None], ...] = (unit_looks, head_looks, channel_sums, unit_rows, table_looks)

#: Tests that may have much to share out themselves, large products or whole tensors: each runs alone, the others side
#: by side.
ALONE: frozenset[Test] = frozenset({same_values, unit_agreement, head_agreement})

#: Tests of equality: they read values as they are, NaN and infinities too; the others read those as 0.
EXACT: frozenset[Test] = frozenset({exact_sharing, same_values})

#: Of those that run side by side, the ones that take longest, so that they start first.
LONGEST: tuple[Test, ...] = (embeddings, ics, aligned_units, training_shared, aligned_weights, ghostspec, unit_geometry)

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
    embeddings,
    norm_gains,
    training_shared,
    *PUBLISHED,
)
