"""Natural order: layer 10 behind layer 9."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts layer 10 behind layer 9."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in _DIGITS.split(name) if word)
