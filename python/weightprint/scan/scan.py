"""One pass over every byte of a checkpoint: a row of statistics per tensor.

Definitions. Everything runs over the *finite* values; NaN and infinities are counted and their first positions kept.
std has ddof 0, rms = l2/√n_finite, skewness = m₃/m₂^1.5, kurtosis = m₄/m₂² (normal: 3). A complex tensor counts as
its real components. Quantiles are the smallest value v with F(v) ≥ p; exact for types of up to 16 bits, else within
`quantile_error` (relative).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import ExitStack

from weightprint.anatomy.adapters.merged import Merged
from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint, open
from weightprint.errors import UsageError
from weightprint.scan.canonical import scan_canonical
from weightprint.scan.request import IO, Of, Request, Settings
from weightprint.scan.result import Scan
from weightprint.scan.stored import scan_stored
from weightprint.util.progress import Progress


def scan(
    model: str | os.PathLike[str] | Checkpoint | Anatomy,
    *,
    of: Of = "stored",
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    exact: bool = False,
    rows: bool = False,
    columns: bool = False,
    digest: bool = False,
    threads: int | None = None,
    io: IO = "auto",
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read every byte of the chosen tensors once and measure them.

    Args:
        model: what `open` takes, an open checkpoint, or an anatomy: then the table also has the columns ``stack``,
            ``block``, ``part``, ``role``, ``expert`` and ``component``, which `Scan.by` pools by.
        of: ``"stored"`` tensors; or ``"canonical"`` ones, one row each, named by their place (``decoder.7.up``): fused
            tensors split, (in x out) ones transposed, quantised ones decoded to float32. Globs are then on places, and
            weights without one keep their names. See :mod:`weightprint.scan.canonical`.
        include: glob or globs on names (``*`` also matches dots; case-sensitive); empty: all.
        exclude: glob or globs that take tensors out again.
        exact: count values: quantiles, distinct values and entropy also for floats of 16 bits and wider.
        rows: mean, std and L2 norm of every matrix row (`Scan.rows`), and the number of dead rows.
        columns: the same of every column (`Scan.columns`).
        digest: BLAKE3 of every tensor's bytes, and one digest of the whole.
        threads: how many; None: all cores (with an executor: one per task). The result does not depend on it.
        io: ``"pread"``, ``"mmap"``, or ``"auto"`` to let the core choose. The result does not depend on it.
        executor: any `concurrent.futures.Executor` to spread groups of tensors over. Process pools reopen the files.
        progress: called as ``progress(bytes_done, bytes_total)``, one call at a time (of canonical tensors from the
            threads that read them); an exception in it stops the scan.

    Raises:
        UsageError: globs that match nothing; no such `of`; an executor for canonical tensors; the stored tensors of a
            model with an adapter merged into it (there are none).
        FileChangedError: a file changed while it was read.
        FormatError, OSError, …: as `open` does.

    Example (the models that ``weightprint demo`` writes):
        >>> import weightprint
        >>> scan = weightprint.scan("weightprint-demo/parent", include="*.up_proj.weight", exact=True)
        >>> scan.n_tensors, scan.n_parameters
        (5, 30720)
        >>> print(scan.table.select(["name", "max", "n_distinct"]).take([0]).to_csv(), end="")
        name,max,n_distinct
        model.layers.0.mlp.up_proj.weight,0.37890625,1531

        Pooled by role, as if the tensors of a role were one:

        >>> scan = weightprint.scan(weightprint.anatomy("weightprint-demo/parent"))
        >>> dict(zip(*map(scan.by("role").to_dict().get, ("role", "numel"))))["up"]
        30720
    """
    if of not in ("stored", "canonical"):
        raise UsageError(f"of is 'stored' or 'canonical', not {of!r}", code="bad_of")
    if of == "stored" and isinstance(model, Merged):
        raise UsageError("a merged model is stored nowhere: scan it with of='canonical'", code="not_stored")
    request, settings = Request(exact, rows, columns, digest), Settings(threads, io, executor, progress)
    if of == "canonical" and settings.executor is not None:
        raise UsageError("canonical tensors are measured by threads, not by an executor", code="no_executor")
    with ExitStack() as opened:
        anatomy = model if isinstance(model, Anatomy) else None
        if isinstance(model, Anatomy):
            model = model.checkpoint
        elif not isinstance(model, Checkpoint):
            model = opened.enter_context(open(model))
        if of == "canonical":
            return scan_canonical(anatomy or Anatomy(model), include, exclude, request, settings)
        return scan_stored(model, include, exclude, request, settings, anatomy)
