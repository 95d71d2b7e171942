"""Numbers as ranges: ``0–31`` for people, ``0-31`` for programs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise


def spans(numbers: Iterable[int], limit: int = 5) -> str:
    """``0–31``, ``0, 2, …, 30``, ``0–2, 5``; at most `limit` pieces."""
    found = sorted(set(numbers))
    steps = {b - a for a, b in pairwise(found)}
    if len(found) > 2 and len(steps) == 1 and steps != {1}:
        return f"{found[0]}, {found[1]}, …, {found[-1]}" if len(found) > 3 else ", ".join(map(str, found))
    runs = _runs(found)
    shown = [str(a) if a == b else f"{a}–{b}" for a, b in runs[:limit]]
    return ", ".join(shown + ["…"] * (len(runs) > limit))


def ranges(numbers: Iterable[int]) -> str:
    """``0-2,7``, all of them."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in _runs(sorted(set(numbers))))


def _runs(ascending: Iterable[int]) -> list[list[int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[list[int]] = []
    for n in ascending:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return runs
