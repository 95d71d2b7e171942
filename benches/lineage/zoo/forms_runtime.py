"""How XLA runs here: on one thread, so that bits repeat, and without giving memory back between steps.

A sum that is split over threads is rounded differently from run to run. And a training step frees megabytes that the
next one asks for again: glibc hands such blocks back to the kernel every time, which then clears them anew, a third of
the whole time. Both settings work only before the first computation.
"""

from __future__ import annotations

import ctypes
import os

_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt's parameters, malloc.h


def prepare() -> None:
    """Set this process up; again is harmless."""
    if _FLAGS not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**28)
