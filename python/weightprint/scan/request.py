"""Types of what a scan may be asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

IO = Literal["auto", "pread", "mmap"]


Progress = Callable[[int, int], object]
