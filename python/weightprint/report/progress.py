"""A progress bar in bytes, with rate and time left, on stderr; only on a terminal, and never if switched off."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from rich.text import Text

from weightprint.report.terminal import console
from weightprint.util.escape import escape
from weightprint.util.progress import listening

__all__ = ["progress_bar", "wanted"]


def wanted() -> bool:
    """Whether stderr is a terminal and ``HF_HUB_DISABLE_PROGRESS_BARS`` isn't set."""
    off = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").strip().upper() in {"1", "ON", "YES", "TRUE"}
    return not off and sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback ``(bytes_done, bytes_total)`` that draws a bar, or None where no bar is wanted.

    The bar names the phase that the work is in; once all is read it moves without an end, since work goes on.
    """
    if not wanted():
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    class OfBytes(ProgressColumn):
        """Shown while bytes are counted, then another column or none."""

        def __init__(self, column: ProgressColumn, then: ProgressColumn | None = None) -> None:
            super().__init__()
            self.column, self.then = column, then

        def render(self, task: Task) -> Text:
            shown = self.column if task.total is not None else self.then
            return Text() if shown is None else cast(Text, shown.render(task))

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        OfBytes(DownloadColumn()),
        OfBytes(TransferSpeedColumn()),
        OfBytes(TimeRemainingColumn(compact=True), TimeElapsedColumn()),
    )
    label = escape(label, 40)
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def read(done: int, total: int) -> None:
            if done < total:
                progress.update(task, description=f"{label}: reading", completed=done, total=total)
            else:
                working("working")

        def working(phase: str) -> None:
            nonlocal task
            progress.remove_task(task)
            task = progress.add_task(f"{label}: {phase}", total=None)

        with listening(working):
            yield read
