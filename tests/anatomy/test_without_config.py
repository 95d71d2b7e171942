"""Names and shapes alone: without a config.json less may be placed, but nothing wrongly in silence.

What can't be split without a head size stays unmatched with a note that names it. GGUF's names alone don't say which
architecture's they are, and the row says so.
"""

from __future__ import annotations

import pytest
from miniature import Miniature, collect, read
from weightprint.anatomy.match import match
from weightprint.anatomy.roles import FIXED


@pytest.mark.parametrize("mini", collect(), ids=lambda m: m.name)
def test_nothing_is_wrong_in_silence(mini: Miniature) -> None:
    matched = match({name: array.shape for name, array in mini.tensors.items()}, {})
    wrong = []
    for a in matched.assignments:
        if a.place.role in FIXED or a.tied:
            continue
        expected = mini.canonical.get(a.place)
        found = read(mini.tensors, a.view)
        if expected is None or expected.shape != found.shape or expected.tobytes() != found.tobytes():
            wrong.append(str(a.place))
    if "gguf" in {family.name for family in matched.families.values()}:
        assert any(note.startswith("gguf:") for note in matched.notes)
    else:
        assert not wrong
    placed = sum(a.view.weight not in matched.unmatched for a in matched.assignments)
    assert placed > len(matched.unmatched)
    for name in matched.unmatched:
        blank = [part for part in name.split(".") if not part.isdecimal()]
        assert any(all(part in note for part in blank) for note in matched.notes), name
