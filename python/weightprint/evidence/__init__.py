"""The tests. Each module asks one question of two models and answers with an :class:`Evidence`.

Adding a test: write its module, add its function to :data:`TESTS`. Nothing else changes.
"""

from __future__ import annotations

from weightprint.evidence._base import Evidence, Models, Pair, Region, Shared, Side, Tensor, Test
from weightprint.evidence.aligned_units import aligned_units
from weightprint.evidence.aligned_weights import aligned_weights
from weightprint.evidence.convergence import convergence
from weightprint.evidence.embeddings import embeddings
from weightprint.evidence.exact_sharing import exact_sharing
from weightprint.evidence.head_agreement import head_agreement
from weightprint.evidence.norm_gains import norm_gains
from weightprint.evidence.published import PUBLISHED
from weightprint.evidence.same_values import same_values
from weightprint.evidence.training_shared import training_shared
from weightprint.evidence.unit_agreement import unit_agreement
from weightprint.evidence.unit_geometry import unit_geometry

__all__ = [
    "PUBLISHED",
    "REBASED",
    "SHARED_OUT",
    "TESTS",
    "Evidence",
    "Models",
    "Pair",
    "Region",
    "Shared",
    "Side",
    "Tensor",
    "Test",
]

#: Tests that need a common basis of the residual channels: run again in every alignment that is found.
REBASED: tuple[Test, ...] = (aligned_weights, unit_agreement, head_agreement, convergence, embeddings)

#: Tests that share out blocks or parts of tables over all cores.
SHARED_OUT: frozenset[Test] = frozenset(
    {aligned_weights, aligned_units, unit_agreement, head_agreement, embeddings, norm_gains}
)

#: Every test, in the order of the report.
TESTS: tuple[Test, ...] = (
    exact_sharing,
    same_values,
    aligned_weights,
    aligned_units,
    unit_agreement,
    unit_geometry,
    head_agreement,
    embeddings,
    norm_gains,
    training_shared,
    *PUBLISHED,
)
