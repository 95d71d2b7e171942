"""Ranges: numbers written as ranges (``0–31`` for people, ``0-31`` for programs), and items chosen evenly over one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def evenly(items: Sequence[T], most: int, *, rounded: bool = True) -> list[T]:
    """At most so many of the items, evenly over their order, first and last included; places between two items are
    rounded to the nearer, or else down."""
    if len(items) <= most:
        return list(items)
    at = np.linspace(0, len(items) - 1, most)
    return [items[int(i)] for i in np.unique((at.round() if rounded else at).astype(int))]


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """Maximal stretches that rise by one, first and last: ``[0, 1, 2, 1, 2]`` → ``[[0, 2], [1, 2]]``."""
    out: list[list[int]] = []
    for n in numbers:
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def joined(numbers: Iterable[int], *, dash: str = "-", limit: int | None = None) -> list[str]:
    """Ascending numbers as ``["0-2", "7"]``; beyond `limit` pieces a last ``"…"``."""
    pieces = [str(a) if a == b else f"{a}{dash}{b}" for a, b in runs(sorted(set(numbers)))]
    return pieces if limit is None or len(pieces) <= limit else [*pieces[:limit], "…"]


def spans(numbers: Iterable[int], limit: int = 5) -> str:
    """``0–31``, ``0, 2, …, 30``, ``0–2, 5``; at most `limit` pieces."""
    found = sorted(set(numbers))
    steps = {b - a for a, b in pairwise(found)}
    if len(found) > 2 and len(steps) == 1 and steps != {1}:
        return f"{found[0]}, {found[1]}, …, {found[-1]}" if len(found) > 3 else ", ".join(map(str, found))
    return ", ".join(joined(found, dash="–", limit=limit))


def ranges(numbers: Iterable[int]) -> str:
    """``0-2,7``, all of them."""
    return ",".join(joined(numbers))
