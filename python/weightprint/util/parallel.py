"""Independent pieces of work on all cores, with one BLAS thread each.

A comparison is many products of small matrices with much between them that is no product: reading, scaling, looking for
the largest. Threads inside BLAS speed up the products alone, slow small decompositions down, and spin while the rest
runs. So pieces of work (a block, a part of a table) run side by side instead, and BLAS stays on the thread that calls
it. What each piece computes doesn't depend on how many run at once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np

__all__ = ["check", "each", "sharing"]

T = TypeVar("T")
R = TypeVar("R")

#: Of the piece of work that runs here: how many run side by side, and what stops them.
_SHARING: ContextVar[int] = ContextVar("sharing", default=1)
_STOP: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


class _Stopped(Exception):
    """Raised inside a piece of work whose caller has gone."""


@cache
def _blas() -> Any:
    """The BLAS libraries of this process."""
    import numpy.linalg  # noqa: F401  loads them
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped,unused-ignore]

    return ThreadpoolController().select(user_api="blas")


def sharing() -> int:
    """How many pieces of work share the machine with the one that asks, itself included."""
    return _SHARING.get()


def check() -> None:
    """Ends the piece of work that asks if its caller has gone, by Ctrl-C say."""
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise _Stopped


def each(work: Callable[[T], R], items: Iterable[T], ahead: int = 1, threads: int | None = None) -> Iterator[R]:
    """``work(item)`` for each item, in the order of the items; few more run than were asked for.

    ``ahead``: how many results may wait to be asked for. While an early item takes long, so many more are worked on.

    ``threads``: how many run at once; None: as many as BLAS was to use threads (``OMP_NUM_THREADS`` and the like say
    how many). Inside a piece of work that is already one of several, they run one by one. An exception of one is raised
    in its turn.
    """
    if sharing() > 1:
        threads = 1
    elif threads is None:
        threads = max((library["num_threads"] for library in _blas().info()), default=os.cpu_count() or 1)
    if threads == 1:
        yield from map(work, items)
        return
    stop, handling = threading.Event(), np.geterr()

    def inside(item: T) -> R:
        _SHARING.set(threads)
        _STOP.set(stop)
        check()
        with np.errstate(**handling):  # of each thread in numpy 1
            return work(item)

    left = iter(items)
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="weightprint") as pool, _blas().limit(limits=1):
        try:
            running.extend(pool.submit(copy_context().run, inside, item) for item in islice(left, threads + ahead))
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(copy_context().run, inside, item) for item in islice(left, 1))
                yield done
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
