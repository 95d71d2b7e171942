"""Details as attributes for those who read them, and as the mapping that the JSON holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from weightprint.evidence.evidence import Details, Evidence


@dataclass(frozen=True)
class Counted(Details):
    pairs_tried: int
    look: str | None
    withheld: str | None = None


@dataclass(frozen=True)
class Other(Details):
    pass


EVIDENCE = Evidence("toy", "?", "none", "nothing", "all", details=Counted(3, None))


def test_details_are_a_mapping_in_the_order_of_their_fields() -> None:
    assert list(EVIDENCE.to_dict()["details"].items()) == [("pairs_tried", 3), ("look", None)]
    assert "withheld" not in EVIDENCE.details
    with pytest.raises(KeyError):
        EVIDENCE.details["withheld"]
    assert Counted(**EVIDENCE.details) == EVIDENCE.details


def test_details_are_told_to_those_who_know_their_kind() -> None:
    assert EVIDENCE.told(Counted).pairs_tried == EVIDENCE.pairs_tried == 3
    for evidence in (EVIDENCE, replace(EVIDENCE, details={})):
        with pytest.raises(TypeError, match="toy has told no Other"):
            evidence.told(Other)


def test_what_is_told_instead_comes_last_or_where_it_stood() -> None:
    for details in (EVIDENCE.details, dict(EVIDENCE.details)):
        told = replace(EVIDENCE, details=details).telling(withheld="a reason", pairs_tried=4)
        assert told.withheld == "a reason"
        assert list(told.to_dict()["details"].items()) == [("pairs_tried", 4), ("look", None), ("withheld", "a reason")]
