"""One pass over every byte of a checkpoint: a row of statistics per tensor.

The core does the reading and the arithmetic; here the tensors are chosen, the work is handed out, and the columns are
put in natural order.

Definitions. Everything runs over the *finite* values; NaN and infinities are counted and their first positions kept.
std has ddof 0, rms = l2/√n_finite, skewness = m₃/m₂^1.5, kurtosis = m₄/m₂² (normal: 3). A complex tensor counts as
its real components. Quantiles are the smallest value v with F(v) ≥ p; exact for types of up to 16 bits, else within
`quantile_error` (relative).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.errors import UsageError
from weightprint.scan.request import IO, Progress
from weightprint.scan.result import Scan
from weightprint.scan.stored import _scan

if TYPE_CHECKING:
    from weightprint.anatomy.anatomy import Anatomy

__all__ = ["scan"]


def scan(
    model: str | os.PathLike[str] | Checkpoint,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    exact: bool = False,
    rows: bool = False,
    columns: bool = False,
    digest: bool = False,
    threads: int | None = None,
    io: IO = "auto",
    progress: Progress | None = None,
    executor: Executor | None = None,
    places: bool | Anatomy = False,
    canonical: bool = False,
) -> Scan:
    """Read every byte of the chosen tensors once and measure them.

    Args:
        model: what `open` takes, or an open checkpoint.
        include: glob or globs on names (``*`` also matches dots; case-sensitive); empty: all.
        exclude: glob or globs that take tensors out again.
        exact: count values: quantiles, distinct values and entropy also for floats of 16 bits and wider.
        rows: mean, std and L2 norm of every matrix row (`Scan.rows`), and the number of dead rows.
        columns: the same of every column (`Scan.columns`).
        digest: BLAKE3 of every tensor's bytes, and one digest of the whole.
        threads: how many; None: all cores (with an executor: one per task). The result does not depend on it.
        io: ``"pread"``, ``"mmap"``, or ``"auto"`` to let the core choose. The result does not depend on it.
        progress: called as ``progress(bytes_done, bytes_total)`` from this thread; an exception in it stops the scan.
        executor: any `concurrent.futures.Executor` to spread groups of tensors over. Process pools reopen the files.
        places: also the columns ``stack``, ``block``, ``part``, ``role``, ``expert`` and ``component``, which
            `Scan.by` pools by. They come from the model's anatomy, which may be given.
        canonical: one row per *canonical* tensor, named by its place (``decoder.7.up``): fused tensors split, turned
            ones turned, quantised ones decoded to float32. Globs are then on places, weights without one keep their
            names, and `places` is implied. See :mod:`weightprint.scan.canonical`.

    Raises:
        UsageError: globs that match nothing; an executor for canonical tensors.
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `open` does.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}", code="bad_threads")
    asked: dict[str, Any] = {"exact": exact, "rows": rows, "columns": columns, "digest": digest, "io": io}
    if canonical and executor is not None:
        raise UsageError("canonical tensors are measured by threads, not by an executor", code="no_executor")
    with nullcontext(model) if isinstance(model, Checkpoint) else open(model) as checkpoint:
        if canonical:
            from weightprint.scan.canonical import scan_canonical

            return scan_canonical(checkpoint, include, exclude, asked, threads, progress)
        return _scan(checkpoint, include, exclude, asked, threads, progress, executor, places)


# The result
