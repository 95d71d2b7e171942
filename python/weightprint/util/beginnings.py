"""Which of many strings begin so, and which of them has most in common with another: by bisection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from os.path import commonprefix


class Beginnings:
    """Strings, known by their numbers in the order given."""

    def __init__(self, strings: Sequence[str]) -> None:
        order = sorted(range(len(strings)), key=strings.__getitem__)
        self._numbers, self._sorted = order, [strings[k] for k in order]
        self._first: dict[str, int] = {}

    def of(self, beginning: str) -> list[int]:
        """The numbers of those that begin so, in order of the alphabet."""
        first = last = bisect_left(self._sorted, beginning)
        while last < len(self._sorted) and self._sorted[last].startswith(beginning):
            last += 1
        return self._numbers[first:last]

    def nearest(self, text: str) -> int:
        """The number of the one that shares the longest beginning with `text`, of several the first that was given."""
        at = bisect_left(self._sorted, text)
        common = max((commonprefix([text, near]) for near in self._sorted[max(0, at - 1) : at + 1]), key=len)  # noqa: RUF071
        if common not in self._first:
            self._first[common] = min(self.of(common))
        return self._first[common]
