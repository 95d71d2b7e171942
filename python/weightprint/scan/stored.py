"""A scan of tensors as they are stored."""

from __future__ import annotations

import time
from collections.abc import Iterable

from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.selection import select
from weightprint.scan.columns import measure
from weightprint.scan.executor import measure_on
from weightprint.scan.places import place_columns
from weightprint.scan.request import Request, Settings
from weightprint.scan.result import Scan, described, result, whole_digest
from weightprint.util.natural_order import natural_key


def scan_stored(
    checkpoint: Checkpoint,
    include: str | Iterable[str],
    exclude: str | Iterable[str],
    request: Request,
    settings: Settings,
    anatomy: Anatomy | None = None,
) -> Scan:
    """Every byte of the chosen tensors read once; with an anatomy also the columns that say where they lie."""
    infos = select(checkpoint, include, exclude)
    order = sorted(range(len(infos)), key=lambda k: natural_key(infos[k].name))
    shown = [infos[k] for k in order]
    names, dtypes = [info.name for info in shown], [info.dtype for info in shown]
    shapes, nbytes = [info.shape for info in shown], [info.nbytes for info in shown]
    heads = described(names, dtypes, shapes, nbytes, [checkpoint.files[info.file].name for info in shown])
    if anatomy is not None:
        heads += place_columns(anatomy, names)
    began = time.perf_counter()
    if settings.executor is None:
        measured = measure(checkpoint, infos, request, settings)
    else:
        measured = measure_on(settings.executor, checkpoint, infos, request, settings)
        checkpoint.check_unchanged()
    seconds = time.perf_counter() - began
    measured = measured.take(order)
    digest = whole_digest(dtypes, shapes, measured["digest"]) if request.digest else None
    n = sum(checkpoint.elements_of(info) for info in infos)
    return result(checkpoint.source, heads, measured, n, sum(nbytes), seconds, digest)
