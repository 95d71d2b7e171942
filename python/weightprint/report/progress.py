"""A progress bar in bytes, with rate and time left, on stderr; only on a terminal, and never if switched off."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from weightprint.report.terminal import console
from weightprint.util.escape import escape

__all__ = ["progress_bar", "wanted"]


def wanted() -> bool:
    """Whether stderr is a terminal and ``HF_HUB_DISABLE_PROGRESS_BARS`` isn't set."""
    off = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
    return not off and sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback ``(bytes_done, bytes_total)`` that draws a bar, or None where no bar is wanted."""
    if not wanted():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(label, 40), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
