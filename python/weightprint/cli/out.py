"""Data to stdout, all of it or an error.

``sys.stdout`` is unbuffered under ``PYTHONUNBUFFERED``, and then one large write may end early without a word, so what
is left is written again until nothing is.
"""

from __future__ import annotations

import sys

__all__ = ["emit"]

_PIECE = 1 << 20


def emit(data: str | bytes) -> None:
    """Write text (in stdout's encoding, what it lacks as backslash escapes) or bytes to stdout."""
    if isinstance(data, str):
        data = data.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
    sys.stdout.flush()
    left = memoryview(data)
    while left:
        left = left[sys.stdout.buffer.write(left[:_PIECE]) :]
    sys.stdout.buffer.flush()
