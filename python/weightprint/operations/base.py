"""What every reader of operations shares: the shape of a row, and the layer map."""

from __future__ import annotations

from typing import Any

__all__ = ["Row", "row"]

#: ``{"name", "parameters", "confidence", "where"}``, as in the JSON contract; names as in METHODS section 5.
Row = dict[str, Any]


def row(name: str, parameters: Row, where: str, confidence: float = 1.0) -> Row:
    """One operation. ``confidence`` below 1 where another reading leaves the same trace."""
    return {"name": name, "parameters": parameters, "confidence": confidence, "where": where}
