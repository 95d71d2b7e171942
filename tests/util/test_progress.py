"""One callback for many pieces of work."""

from __future__ import annotations

import pytest
from weightprint.util import parallel
from weightprint.util.progress import Meter, listening, phase


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_add_up(threads: int) -> None:
    told: list[tuple[int, int]] = []
    meter = Meter(lambda *at: told.append(at), 10 * 60)

    def work(_: int) -> None:
        advanced = meter.part()
        for done in (10, 25, 60):
            advanced(done, 60)

    list(parallel.each(work, range(10), threads=threads))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) == 30
    assert told[-1] == (600, 600)


def test_an_exception_in_the_callback_ends_the_rest() -> None:
    begun: list[int] = []

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    meter = Meter(stop, 1000)

    def work(k: int) -> None:
        begun.append(k)
        meter.part()(1, 1)

    with pytest.raises(KeyboardInterrupt):
        list(parallel.each(work, range(1000), threads=2))
    assert len(begun) < 1000


def test_nobody_need_listen() -> None:
    Meter(None, 5).part()(5, 5)


def test_phases_are_told_to_who_listens() -> None:
    told: list[str] = []
    phase("before")
    with listening(told.append):
        phase("reading")
        phase("weighing")
    phase("after")
    assert told == ["reading", "weighing"]
