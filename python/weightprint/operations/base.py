"""What every reader of operations answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Operation", "Row"]

#: Parameters by name, ready for JSON; names as in METHODS section 5.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One step that was taken, as in the JSON contract. ``confidence`` below 1 where another reading leaves the same
    trace; ``where``: what it was seen in; ``explains``: tensors of B that this and nothing else changed."""

    name: str
    parameters: Row
    where: str
    confidence: float = 1.0
    explains: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def to_dict(self) -> Row:
        """The fields in the contract's order."""
        return {key: getattr(self, key) for key in ("name", "parameters", "confidence", "where")}
