"""`python -m benches.lineage calibrate`: claimed p-values against observed rates on pairs of independent models."""

from __future__ import annotations

from typing import Any


def add(commands: Any) -> None:
    """Add the subcommand."""
