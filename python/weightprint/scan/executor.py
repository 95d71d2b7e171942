"""A scan spread over an executor: threads, processes, or another machine's workers.

The tensors are cut into contiguous groups of about equal bytes. Every worker opens the files of its group itself, by
path, so nothing but names and results travels. The parts are put together in the order of the plan; since no tensor is
cut, the bits are those of a scan in one piece.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from weightprint.checkpoint.checkpoint import Checkpoint, Mode
from weightprint.checkpoint.containers import open_file
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import FileChangedError
from weightprint.scan.columns import join, measure
from weightprint.scan.request import Progress

__all__ = ["scan_on"]


@dataclass(frozen=True, slots=True)
class _Task:
    """One worker's share: files to open, pairs (position in `paths`, tensor number), what to measure."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    mode: Mode
    tensors: tuple[tuple[int, int], ...]
    asked: dict[str, Any]

    def __call__(self) -> dict[str, Any]:
        files = [open_file(path, self.mode).core for path in self.paths]
        for file, path, size in zip(files, self.paths, self.sizes, strict=True):
            if file.nbytes != size:
                message = f"the file has {file.nbytes:,} bytes here, {size:,} where the scan began"
                raise FileChangedError(message, path=path, code="file_changed")
        return measure(files, self.tensors, self.asked)


def _run(task: _Task) -> dict[str, Any]:
    return task()


def scan_on(
    executor: Executor,
    checkpoint: Checkpoint,
    infos: Sequence[TensorInfo],
    asked: dict[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """What `measure` returns for these tensors, measured by the executor's workers."""
    groups = _groups(infos, 4 * (os.cpu_count() or 1))
    futures = [executor.submit(_run, _task(checkpoint, group, asked)) for group in groups]
    total = sum(info.nbytes for info in infos)
    done, parts = 0, []
    try:
        for group, future in zip(groups, futures, strict=True):
            parts.append(future.result())
            done += sum(info.nbytes for info in group)
            if progress is not None:
                progress(done, total)
    finally:
        for future in futures:
            future.cancel()
    return join(parts)


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


def _task(checkpoint: Checkpoint, group: Sequence[TensorInfo], asked: dict[str, Any]) -> _Task:
    used = sorted({info.file for info in group})
    position = {file: k for k, file in enumerate(used)}
    paths = tuple(checkpoint.files[file].path for file in used)
    sizes = tuple(checkpoint.files[file].nbytes for file in used)
    tensors = tuple((position[info.file], info.index) for info in group)
    return _Task(paths, sizes, checkpoint.mode, tensors, asked)
