"""How far a long call is: bytes done so far, of all, told to the caller's callback; and what it does now, told to
whoever listens (the command line's bar)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from weightprint.util.parallel import check

Progress = Callable[[int, int], object]
"""Called as ``progress(bytes_done, bytes_total)``, one call at a time; an exception in it stops the work."""


class Meter:
    """Adds up the bytes of several pieces of work, which may run side by side, for one callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def part(self) -> Progress:
        """A callback for one piece of work, given its own bytes done so far; it ends work whose caller has gone."""
        before = 0

        def advanced(done: int, _: int) -> None:
            nonlocal before
            check()
            with self._lock:
                self._done += done - before
                before = done
                if self._progress is not None:
                    self._progress(self._done, self._total)

        return advanced


_listeners: list[Callable[[str], object]] = []


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Within, `listener` is told the name of every phase that starts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def phase(name: str) -> None:
    """Say what starts now, in a word or two; work without a number of bytes."""
    for listener in _listeners:
        listener(name)
