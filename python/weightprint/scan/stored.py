"""The scan of tensors as they are stored."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from weightprint.anatomy.anatomy import Anatomy
from weightprint.checkpoint.checkpoint import Checkpoint
from weightprint.checkpoint.info import TensorInfo
from weightprint.checkpoint.selection import select
from weightprint.results.table import Column
from weightprint.scan.columns import measure
from weightprint.scan.executor import scan_on
from weightprint.scan.request import Progress
from weightprint.scan.result import Scan, result, whole_digest
from weightprint.util.natural_order import natural_key


def _scan(
    checkpoint: Checkpoint,
    include: str | Iterable[str],
    exclude: str | Iterable[str],
    asked: dict[str, Any],
    threads: int | None,
    progress: Progress | None,
    executor: Executor | None,
    places: bool | Anatomy,
) -> Scan:
    infos = select(checkpoint, include, exclude)
    where = [] if places is False else _places(checkpoint, infos, None if places is True else places)
    began = time.perf_counter()
    if executor is None:
        files = [checkpoint.core_file(f) for f in range(len(checkpoint.files))]
        plan = [(info.file, info.index) for info in infos]
        measured = measure(files, plan, {**asked, "threads": threads or 0}, progress)
    else:
        measured = scan_on(executor, checkpoint, infos, {**asked, "threads": threads or 1}, progress)
        checkpoint.check_unchanged()
    seconds = time.perf_counter() - began
    file_names = [info.name for info in checkpoint.files]
    heads = [
        Column("name", "str", [info.name for info in infos]),
        Column("dtype", "str", [info.dtype for info in infos]),
        Column("shape", "shape", [info.shape for info in infos]),
        Column("numel", "u64", np.array([info.numel for info in infos], np.uint64)),
        Column("nbytes", "u64", np.array([info.nbytes for info in infos], np.uint64)),
        Column("file", "str", [file_names[info.file] for info in infos]),
        *where,
    ]
    order = sorted(range(len(infos)), key=lambda k: natural_key(infos[k].name))
    n, nbytes = sum(checkpoint.elements_of(info) for info in infos), sum(info.nbytes for info in infos)
    dtypes, shapes = [info.dtype for info in infos], [info.shape for info in infos]
    digest = whole_digest(dtypes, shapes, measured["digest"]) if "digest" in measured else None
    return result(checkpoint.source, heads, measured, order, n, nbytes, seconds, digest)


def _places(checkpoint: Checkpoint, infos: Sequence[TensorInfo], anatomy: Anatomy | None) -> list[Column]:
    from weightprint.anatomy.anatomy import Anatomy
    from weightprint.scan.places import place_columns

    return place_columns(anatomy or Anatomy(checkpoint), [info.name for info in infos])
