"""Natural order: layer 10 behind layer 9."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts layer 10 behind layer 9."""
    words = enumerate(_DIGITS.split(name))
    return tuple((0, *number_key(word)) if k % 2 else (1, 0, word) for k, word in words if word)


def number_key(digits: str) -> tuple[int, str]:
    """Sort key of a number as it is written, of any length."""
    bare = digits.lstrip("0")
    return len(bare), bare
