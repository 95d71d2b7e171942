"""A scan spread over an executor: threads, processes, or another machine's workers.

The tensors are cut into contiguous groups of about equal bytes. Every worker opens the files of its group itself, by
path, so nothing but names and results travels. The parts are put together in the order of the plan; since no tensor is
cut, the bits are those of a scan in one piece.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from weightprint.checkpoint.checkpoint import Checkpoint, Mode
from weightprint.checkpoint.containers import open_file
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FileChangedError
from weightprint.scan.columns import Columns, measure_files
from weightprint.scan.request import Request, Settings
from weightprint.util.progress import Meter


@dataclass(frozen=True, slots=True)
class _Task:
    """One worker's share: files to open, pairs (position in `paths`, tensor number), what to measure and how."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    mode: Mode
    tensors: tuple[tuple[int, int], ...]
    request: Request
    settings: Settings

    def __call__(self) -> Columns:
        files = [open_file(path, self.mode).core for path in self.paths]
        for file, path, size in zip(files, self.paths, self.sizes, strict=True):
            if file.nbytes != size:
                message = f"the file has {file.nbytes:,} bytes here, {size:,} where the scan began"
                raise FileChangedError(message, path=path, code="file_changed")
        return measure_files(files, self.tensors, self.request, self.settings)


def measure_on(
    executor: Executor, checkpoint: Checkpoint, infos: Sequence[TensorInfo], request: Request, settings: Settings
) -> Columns:
    """What `measure` returns for these tensors, measured by the executor's workers."""
    groups = _groups(infos, 4 * (os.cpu_count() or 1))
    each = replace(settings, threads=settings.threads or 1, executor=None, progress=None)
    futures = [executor.submit(_task(checkpoint, group, request, each)) for group in groups]
    advanced, total = Meter(settings.progress, sum(info.nbytes for info in infos)).part(), 0
    parts = []
    try:
        for group, future in zip(groups, futures, strict=True):
            parts.append(future.result())
            total += sum(info.nbytes for info in group)
            advanced(total, total)
    finally:
        for future in futures:
            future.cancel()
    return Columns.join(parts)


def _groups(infos: Sequence[TensorInfo], n: int) -> list[Sequence[TensorInfo]]:
    """At most about `n` contiguous runs of tensors of roughly equal bytes; at least one run, even if it is empty."""
    share = max(1, sum(info.nbytes for info in infos) // n)
    groups: list[Sequence[TensorInfo]] = []
    start = size = 0
    for end, info in enumerate(infos, start=1):
        size += info.nbytes
        if size >= share:
            groups.append(infos[start:end])
            start, size = end, 0
    if start < len(infos) or not groups:
        groups.append(infos[start:])
    return groups


def _task(checkpoint: Checkpoint, group: Sequence[TensorInfo], request: Request, settings: Settings) -> _Task:
    used = sorted({info.file for info in group})
    position = {file: k for k, file in enumerate(used)}
    paths = tuple(checkpoint.files[file].path for file in used)
    sizes = tuple(checkpoint.files[file].nbytes for file in used)
    tensors = tuple((position[info.file], info.index) for info in group)
    return _Task(paths, sizes, checkpoint.mode, tensors, request, settings)
