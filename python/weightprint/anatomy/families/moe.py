"""Decoder-only Mixture-of-Experts models."""

from __future__ import annotations

from weightprint.anatomy.family import Family

__all__ = ["FAMILIES"]

FAMILIES: tuple[Family, ...] = ()
