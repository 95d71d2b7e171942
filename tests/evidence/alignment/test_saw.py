"""What a basis was fitted on, it has seen in every copy: experts of one block, repeated layers."""

from __future__ import annotations

from synthetic import decoder, models, relayered
from weightprint.evidence.alignment.copies import with_copies
from weightprint.evidence.pair import Basis


def test_a_basis_fitted_on_an_expert_has_seen_its_block() -> None:
    basis = Basis("rotation", fitted=frozenset({"decoder.2.expert.0", "decoder.5", "embedding"}))
    assert basis.saw("decoder.2.expert.0")
    assert basis.saw("decoder.2.expert.3")
    assert basis.saw("decoder.5")
    assert not basis.saw("decoder.1.expert.0")
    assert not basis.saw("decoder.22.expert.0")


def test_a_repeated_layer_has_been_seen_too() -> None:
    a, b = decoder(0), relayered(decoder(1, layers=4), [0, 1, 2, 3, 0, 1])
    m = models(a, b)
    assert with_copies(m, {"decoder.0"}) == {"decoder.0", "decoder.4"}
    assert with_copies(m, {"decoder.2"}) == {"decoder.2"}
