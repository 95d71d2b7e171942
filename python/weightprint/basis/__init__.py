"""Alignments of the residual basis."""

from __future__ import annotations

from weightprint.evidence._base import Basis, Models


def find_bases(models: Models) -> list[Basis]:
    """None yet."""
    return []
