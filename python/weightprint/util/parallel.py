"""Independent pieces of work on all cores, with one BLAS thread each.

A comparison is many products of small matrices with much between them that is no product: reading, scaling, looking for
the largest. Threads inside BLAS speed up the products alone, slow small decompositions down, and spin while the rest
runs. So pieces of work (a block, a part of a table) run side by side instead, and BLAS stays on the thread that calls
it. What each piece computes doesn't depend on how many run at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import cache, partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

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


def one_blas_thread() -> contextlib.AbstractContextManager[object]:
    """BLAS stays on the thread that calls it. On a busy machine the threads of a decomposition spin while they wait for
    each other, and it takes ten times as long as on one."""
    if sharing() > 1 or all(library["num_threads"] == 1 for library in _blas().info()):
        return contextlib.nullcontext()
    limited: contextlib.AbstractContextManager[object] = _blas().limit(limits=1)
    return limited


def each(work: Callable[[T], R], items: Iterable[T], ahead: int = 1, threads: int | None = None) -> Iterator[R]:
    """``work(item)`` for each item, in the order of the items; few more run than were asked for.

    ``ahead``: how many results may wait to be asked for. While an early item takes long, so many more are worked on.

    ``threads``: how many run at once; None: as many as BLAS was to use threads (``OMP_NUM_THREADS`` and the like say
    how many), and fewer where the system makes no more. Inside a piece of work that is already one of several, they
    run one by one. An exception of one is raised in its turn.
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
    waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    running: deque[Future[R]] = deque()

    def start(n: int) -> None:
        for item in islice(left, n):
            future: Future[R] = Future()
            waiting.put(partial(copy_context().run, _settle, future, inside, item))
            running.append(future)

    pool = _started(threads, waiting)
    if not pool:
        yield from map(work, left)
        return
    with _blas().limit(limits=1):
        try:
            start(threads + ahead)
            while running:
                done = running.popleft().result()
                start(1)
                yield done
        finally:
            stop.set()
            for _ in pool:
                waiting.put(None)
            for thread in pool:
                thread.join()


def _started(n: int, waiting: SimpleQueue[Callable[[], None] | None]) -> list[threading.Thread]:
    """Up to ``n`` threads that do what comes through ``waiting`` until a None."""

    def do() -> None:
        while (piece := waiting.get()) is not None:
            piece()

    pool: list[threading.Thread] = []
    with contextlib.suppress(RuntimeError):  # "can't start new thread": a limit of processes, of a container say
        for i in range(n):
            thread = threading.Thread(target=do, name=f"weightprint_{i}", daemon=True)
            thread.start()
            pool.append(thread)
    return pool


def _settle(future: Future[R], work: Callable[[T], R], item: T) -> None:
    try:
        future.set_result(work(item))
    except BaseException as error:
        future.set_exception(error)
