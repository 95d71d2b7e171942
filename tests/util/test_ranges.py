"""Numbers as ranges."""

from __future__ import annotations

import pytest
from weightprint.util.ranges import ranges, spans


@pytest.mark.parametrize(
    ("numbers", "for_programs", "for_people"),
    [
        ([], "", ""),
        ([4], "4", "4"),
        ([2, 0, 1, 7, 7], "0-2,7", "0–2, 7"),
        ([0, 2, 4, 6], "0,2,4,6", "0, 2, …, 6"),
        ([0, 2, 5, 7, 9, 12], "0,2,5,7,9,12", "0, 2, 5, 7, 9, …"),
    ],
)
def test_ranges(numbers: list[int], for_programs: str, for_people: str) -> None:
    assert ranges(numbers) == for_programs
    assert spans(numbers) == for_people
