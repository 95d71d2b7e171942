"""Pieces of work side by side: their order, their exceptions, what they count, and that nothing goes on after its
caller has gone."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from weightprint.util import parallel
from weightprint.util.linear_algebra import accounted, product, qr, svd


class Blas:
    """BLAS of so many threads, as `threadpoolctl` shows it."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def info(self) -> list[dict[str, int]]:
        return [{"num_threads": self.threads}]

    def limit(self, *, limits: int) -> "Blas":
        assert limits == 1
        return self

    def __enter__(self) -> None:
        self.before, self.threads = self.threads, 1

    def __exit__(self, *_: object) -> None:
        self.threads = self.before


@pytest.fixture(params=[1, 3])
def blas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blas]:
    blas = Blas(request.param)
    monkeypatch.setattr(parallel, "_blas", lambda: blas)
    yield blas
    assert blas.threads == request.param


def test_answers_come_in_the_order_of_the_items(blas: Blas) -> None:
    def work(i: int) -> tuple[int, int]:
        time.sleep(0.002 * (i % 3))
        return i, parallel.sharing()

    assert list(parallel.each(work, range(20))) == [(i, blas.threads) for i in range(20)]
    assert list(parallel.each(work, [])) == []


def test_inside_a_piece_of_work_others_run_one_by_one(blas: Blas) -> None:
    def outer(i: int) -> bool:
        here = threading.get_ident()
        return all(t == here for t in parallel.each(lambda _: threading.get_ident(), range(3)))

    assert list(parallel.each(outer, range(4))) == [True] * 4 or blas.threads == 1


def test_few_items_are_taken_beyond_what_was_asked_for(blas: Blas) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    found = parallel.each(lambda i: i, items())
    assert [next(found), next(found)] == [0, 1]
    found.close()  # type: ignore[attr-defined]
    assert len(taken) <= 2 + blas.threads + 1


@pytest.mark.parametrize("fails", [0, 5])
def test_an_exception_is_raised_in_its_turn_and_ends_the_rest(blas: Blas, fails: int) -> None:
    def work(i: int) -> int:
        if i == fails:
            raise ValueError(f"no {i}")
        return i

    seen: list[int] = []
    with pytest.raises(ValueError, match=f"no {fails}"):
        seen.extend(parallel.each(work, range(50)))
    assert seen == list(range(fails))


def test_a_piece_of_work_ends_at_its_next_product_when_its_caller_has_gone() -> None:
    """As after Ctrl-C: the others must not keep the process."""
    blas, x = Blas(2), np.eye(4, dtype=np.float32)
    started, ended = threading.Event(), threading.Event()

    def work(i: int) -> None:
        if i == 0:
            assert started.wait(10)
            raise KeyboardInterrupt
        started.set()
        try:
            for _ in range(2000):
                product(x, x)
                time.sleep(0.005)
        finally:
            ended.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_blas", lambda: blas)
        with pytest.raises(KeyboardInterrupt):
            list(parallel.each(work, range(2)))
    assert ended.is_set()


@pytest.mark.parametrize("to_be_had", [0, 1])
def test_where_the_system_makes_few_threads_or_none_all_is_done(
    to_be_had: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a limit of processes, which containers set."""
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) >= to_be_had:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(parallel, "_blas", lambda: Blas(3))
    monkeypatch.setattr(threading.Thread, "start", limited)
    assert list(parallel.each(lambda i: i * i, range(20))) == [i * i for i in range(20)]
    assert len(started) == to_be_had
    assert not any(thread.is_alive() for thread in started)


def test_products_of_several_count_for_their_part_of_the_machine(blas: Blas) -> None:
    x = np.ones((256, 256), np.float32)

    def work(_: int) -> float:
        with accounted() as own:
            product(x, x)
        return own.seconds

    with accounted() as spent:
        parts = list(parallel.each(work, range(6)))
    assert all(part > 0 for part in parts)
    assert spent.seconds == pytest.approx(sum(parts))


def test_the_real_blas_is_found_and_set_back() -> None:
    before = [library["num_threads"] for library in parallel._blas().info()]
    assert before
    inside: list[int] = []
    work: Callable[[int], None] = lambda _: inside.extend(lib["num_threads"] for lib in parallel._blas().info())  # noqa: E731
    list(parallel.each(work, range(3)))
    assert max(before) == 1 or set(inside) == {1}
    assert [library["num_threads"] for library in parallel._blas().info()] == before


def test_a_decomposition_has_one_blas_thread_wherever_it_runs(blas: Blas, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(x: np.ndarray, **_: object) -> tuple[np.ndarray, ...]:
        seen.append(blas.threads)
        return (x,) * 3

    monkeypatch.setattr(np.linalg, "svd", noted)
    monkeypatch.setattr(np.linalg, "qr", lambda x: noted(x)[:2])
    x = np.eye(3)
    svd(x)
    qr(x)
    list(parallel.each(svd, [x, x]))
    assert seen == [1] * 4
