"""What a scan is asked for: what to measure of every tensor, and how to run. The core's Request and Settings."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from weightprint.errors import UsageError
from weightprint.util.progress import Progress

IO = Literal["auto", "pread", "mmap"]

Of = Literal["stored", "canonical"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure beyond counts, extremes and moments.

    Attributes:
        exact: quantiles, distinct values and entropy also for floats of 16 bits and wider.
        rows: mean, std and L2 norm of every row.
        columns: the same of every column.
        digest: BLAKE3 of the bytes.
    """

    exact: bool = False
    rows: bool = False
    columns: bool = False
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run; no result depends on it. Raises UsageError for less than one thread.

    Attributes:
        threads: how many; None: all cores (with an executor: one per task).
        io: how bytes come from a file: ``"pread"``, ``"mmap"``, or ``"auto"`` to let the core choose.
        executor: what groups of tensors are spread over; None: threads of this process.
        progress: told of the bytes done.
    """

    threads: int | None = None
    io: IO = "auto"
    executor: Executor | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}", code="bad_threads")
