"""A basis fitted on one expert has seen the others: upcycled experts are copies of one FFN."""

from __future__ import annotations

from weightprint.evidence._base import Basis


def test_a_basis_fitted_on_an_expert_has_seen_its_block() -> None:
    basis = Basis("rotation", fitted=frozenset({"decoder.2.expert.0", "decoder.5", "embedding"}))
    assert basis.saw("decoder.2.expert.0")
    assert basis.saw("decoder.2.expert.3")
    assert basis.saw("decoder.5")
    assert not basis.saw("decoder.1.expert.0")
    assert not basis.saw("decoder.22.expert.0")
