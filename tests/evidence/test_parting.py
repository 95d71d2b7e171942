"""Where two models parted: parents, children, siblings and means of relatives whose truth is known, in either order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple

import numpy as np
import pytest
from synthetic import decoder, models
from weightprint.verdict.direction.counterparts import Counterpart, counterparts
from weightprint.verdict.direction.direction import direction, mirrored, relation
from weightprint.verdict.direction.parting import measured
from weightprint.verdict.values import Cue, Cues, Parting

Matrices = list[np.ndarray]
BLOCKS, KINDS = 8, ("up", "gate", "down", "q")


def root(seed: int = 0, rows: int = 64) -> Matrices:
    """Matrices of a few blocks whose rows differ in size, as trained ones do."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rows, 96)) * rng.uniform(0.5, 1.5, (rows, 1)) for _ in range(BLOCKS * len(KINDS))]


def trained(parent: Matrices, size: float, decay: float, seed: int) -> Matrices:
    """Decayed, and more was learned in some rows and kinds than in others; nothing of it knows the parent."""
    rng = np.random.default_rng([seed, 5])
    out = []
    for i, x in enumerate(parent):
        rows = rng.gamma(6.0, 1 / 6, (len(x), 1)) * (1.5 if i % len(KINDS) == 2 else 1.0)
        out.append((1 - decay) * x + size * rows * rng.standard_normal(x.shape))
    return out


def parted(a: Matrices, b: Matrices) -> Parting:
    found = measured(
        Counterpart(("decoder", i // len(KINDS)), KINDS[i % len(KINDS)], x.astype(np.float32), y.astype(np.float32))
        for i, (x, y) in enumerate(zip(a, b, strict=True))
    )
    assert found is not None
    return found


@pytest.mark.parametrize("decay", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("size", [0.1, 0.3, 1.0])
def test_children_are_the_later_ones_however_much_they_decayed(size: float, decay: float) -> None:
    a = root()
    b = trained(a, size, decay, 1)
    found = parted(a, b)
    assert abs(found.of_a) < 0.05 + 2 * found.sd_of_a
    assert found.kept[0] == pytest.approx(1 - decay, abs=3e-3 + size / 50)
    if decay > size**2 / 2:
        assert relation(found).later == "b"
        assert relation(parted(b, a)).later == "a"
    else:  # so little decay is none that could be told from a mean of relatives
        assert relation(found).later in (None, "b")


def test_plain_t_would_be_wrong_where_decay_is_not_fitted() -> None:
    a = root()
    found = parted(a, trained(a, 0.1, 0.02, 2))
    assert found.plain > 0.5
    assert abs(found.t) < 0.1


@pytest.mark.parametrize(("ours", "theirs"), [(0.3, 0.3), (0.2, 0.2), (0.25, 0.3), (0.3, 0.25)])
@pytest.mark.parametrize("rows", [64, 512])
def test_siblings_parted_where_their_lengths_say(rows: int, ours: float, theirs: float) -> None:
    ancestor = root(3, rows)
    a, b = trained(ancestor, ours, 0.01, 4), trained(ancestor, theirs, 0.01, 5)
    found = parted(a, b)
    truth = ours**2 / (ours**2 + theirs**2)
    assert found.low - 0.1 < truth < found.high + 0.1
    assert relation(found).later is None
    # In few rows the interval is too wide to say so.
    assert relation(found).relation == "siblings" if rows > 64 else relation(found).relation in (None, "siblings")


@pytest.mark.parametrize(("size", "said"), [(0.03, "descent"), (0.3, None)])
def test_a_child_that_went_far_may_be_a_sibling_that_moved_more(size: float, said: str | None) -> None:
    """The later one is named; that the other is its parent only where a nearer sibling would be as good."""
    a = root(17, 512)
    found = relation(parted(a, trained(a, size, size**2, 18)))
    assert (found.later, found.relation) == ("b", said)
    assert ("they are siblings" in found.because) == (said is None)


def test_an_uneven_sibling_is_never_called_a_parent() -> None:
    ancestor = root(19, 512)
    a, b = trained(ancestor, 0.06, 0.002, 20), trained(ancestor, 0.3, 0.03, 21)
    for found in (relation(parted(a, b)), relation(parted(b, a))):
        assert found.relation != "descent"


def test_a_sign_tells_what_was_done_to_one_of_two_siblings() -> None:
    ancestor = root(22, 512)
    found = parted(trained(ancestor, 0.3, 0.01, 23), trained(ancestor, 0.3, 0.01, 24))
    said = direction(Cues((Cue("b", 0.9, "B repeats blocks"),), None, found))
    assert (said.later, said.relation) == (None, "siblings")
    assert "B repeats blocks" in said.because


def test_near_siblings_may_be_means_of_relatives_and_nothing_is_said() -> None:
    ancestor = root(3, 512)
    a, b = trained(ancestor, 0.07, 0.01, 4), trained(ancestor, 0.07, 0.01, 5)
    assert relation(parted(a, b)).relation is None
    assert "a mean of one and a relative" in relation(parted(a, b)).because


def test_a_mean_of_relatives_is_no_ancestor_of_theirs() -> None:
    """It lies nearer to what they share than they do, so t = 1 from either; but nothing decayed."""
    ancestor = root(6)
    one, other = (trained(ancestor, 0.2, 0.01, seed) for seed in (7, 8))
    even = [(x + y) / 2 for x, y in zip(one, other, strict=True)]
    assert relation(parted(one, even)).later is None
    assert relation(parted(even, one)).later is None
    mostly = [0.75 * x + 0.25 * y for x, y in zip(one, other, strict=True)]
    assert relation(parted(one, mostly)).name == "mean of relatives"
    assert relation(parted(one, mostly)).later == "b"
    assert relation(parted(mostly, one)).later == "a"


def test_a_merge_with_a_stranger_is_the_later_one() -> None:
    a, stranger = root(9), root(10)
    b = [0.6 * x + 0.4 * y for x, y in zip(a, stranger, strict=True)]
    assert relation(parted(a, b)).name == "merge with another"
    assert relation(parted(b, a)).later == "a"


@pytest.mark.parametrize("size", [0.05, 0.3])
def test_noise_has_a_direction_and_two_noised_copies_are_siblings(size: float) -> None:
    a = root(15)
    rng = np.random.default_rng(16)
    one, other = ([x + size * rng.standard_normal(x.shape) for x in a] for _ in range(2))
    assert relation(parted(a, one)).name == "noise"
    assert relation(parted(a, one)).later == "b"
    assert relation(parted(one, a)).later == "a"
    assert relation(parted(one, other)).later is None


def test_pruned_values_are_no_part_of_what_was_learned() -> None:
    a = root(11)
    b = trained(a, 0.2, 0.02, 12)
    sparse = [np.where(np.abs(y) > 0.6, y, 0) for y in b]
    assert parted(a, sparse).zeroed > 0.3
    assert relation(parted(a, sparse)).later in (None, "b")
    assert relation(parted(sparse, a)).later in (None, "a")
    nothing = [np.where(np.abs(x) > 0.6, x, 0) for x in a]
    pairs = (Counterpart(("decoder", 0), "up", x, y) for x, y in zip(a, nothing, strict=True))
    assert measured(pairs) is None


def test_rows_that_are_no_counterparts_are_left_out() -> None:
    a = root(13)
    b = trained(a, 0.2, 0.02, 14)
    for y in b:
        y[:8] = y[:8][::-1]
    assert relation(parted(a, b)).later == "b"


@pytest.mark.parametrize("seed", range(6))
def test_the_same_is_said_in_either_order(seed: int) -> None:
    """Numbers mirror, whatever was done."""
    rng = np.random.default_rng(seed)
    ancestor = root(20 + seed)
    a = trained(ancestor, rng.choice([1e-6, 0.2]), 0.01, seed)
    b = trained(ancestor, 0.3, rng.uniform(0, 0.05), seed + 1)
    one, other = parted(a, b), mirrored(parted(b, a))
    for x, y in zip(astuple(one), astuple(other), strict=True):
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            for kind in x:
                assert x[kind] == pytest.approx(y[kind], abs=1e-6)
        else:
            assert x == pytest.approx(y, abs=1e-6)
    flip = {"a": "b", "b": "a", None: None}
    assert relation(parted(b, a)).later == flip[relation(one).later]


def shapes(found: Iterator[Counterpart]) -> dict[str, int]:
    out: dict[str, int] = {}
    for pair in found:
        assert pair.x.shape == pair.y.shape
        out[pair.kind] = out.get(pair.kind, 0) + 1
    return out


def test_counterparts_in_place_and_in_a_turned_stream() -> None:
    a = decoder(0)
    assert shapes(counterparts(models(a, a), None)) == dict.fromkeys(("up", "gate", "down", "q", "k", "v", "o"), 4)
    assert shapes(counterparts(models(a, decoder(1)), None)).get("up", 0) == 0
