"""Names, types and codes: read off exact equality."""

from __future__ import annotations

from collections.abc import Iterable

from weightprint.facts import Facts
from weightprint.operations._base import Row, row

__all__ = ["encoded"]


def encoded(facts: Facts) -> Iterable[Row]:
    """Renamed, cast, quantised and transposed tensors."""
    exact, same = facts.applied("exact_sharing"), facts.applied("same_values")
    if exact and exact.details["renamed"]:
        yield row("rename", {"tensors": len(exact.details["renamed"])}, "equal tensors")
    how: dict[str, str] = same.details["how"] if same else {}
    for name, words in (("re_dtype", ("a cast",)), ("quantise", ("scale",)), ("transpose", ("transposed",))):
        chosen = [h for h in how.values() if any(w in h for w in words)]
        if chosen:
            yield row(name, {"how": sorted(set(chosen))}, f"{len(chosen)} tensors")
