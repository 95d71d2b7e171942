"""How names differ between two files that hold the same tensors: one rule for as many of them as follow it.

A name is split at its points. What both ends have in common is left out; the middle that remains is the rule: something
that one side has more of, something that one side says several times, or one thing in place of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["rename_rules"]

Words = tuple[str, ...]


def rename_rules(names: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    """(A's name, B's name) of tensors that go together → each rule in words with how many names follow it, the
    commonest first. Names that are equal are left out."""
    return Counter(_rule(a, b) for a, b in names if a != b).most_common()


def _rule(a: str, b: str) -> str:
    ours, theirs = tuple(a.split(".")), tuple(b.split("."))
    start = _common(ours, theirs)
    end = min(_common(ours[::-1], theirs[::-1]), len(ours) - start, len(theirs) - start)
    mine, its = ours[start : len(ours) - end], theirs[start : len(theirs) - end]
    if mine and its:
        return f"{_shown(mine)} in A is {_shown(its)} in B"
    more, whole, side, other = (its, theirs, "B", "A") if its else (mine, ours, "A", "B")
    unit = _period(more)
    times = _times(whole, start, unit)
    if times > 1:
        less = times - len(more) // len(unit)
        return f"{_shown(unit)} stands {times} times in {side}'s names, {_often(less)} in {other}'s"
    return f"{_shown(more)} is in {side}'s names only"


def _common(a: Words, b: Words) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _period(words: Words) -> Words:
    """The shortest run of which the words are so many copies."""
    return next(words[:n] for n in range(1, len(words) + 1) if words == words[:n] * (len(words) // n))


def _times(words: Words, at: int, unit: Words) -> int:
    """How often the unit stands in a row around a place where it begins."""
    n, first, last = len(unit), at, at
    while first >= n and words[first - n : first] == unit:
        first -= n
    while words[last : last + n] == unit:
        last += n
    return (last - first) // n


def _often(n: int) -> str:
    return "once" if n == 1 else f"{n} times" if n else "nowhere"


def _shown(words: Words) -> str:
    return f"'{'.'.join(words)}'"
