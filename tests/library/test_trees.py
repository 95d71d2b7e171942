"""Trees of models that are made here: every parent, every unseen ancestor and every merge is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from weightprint.compare.mixing import fit
from weightprint.library import group as grouping
from weightprint.library import grown
from weightprint.library.distances import distances
from weightprint.library.frame import Coordinates, Patch, products
from weightprint.library.group import Group
from weightprint.library.grown import Tree, tree_of
from weightprint.library.members import Member
from weightprint.library.rooting import Rooted, rooted
from weightprint.library.tree import arborescence, hubs, released, shared_ways

Matrices = list[np.ndarray]
BLOCKS, KINDS, SHAPE = 5, ("up", "q"), (40, 48)

#: Child → (parent, size of what is new, decay); in order.
FAMILY: Mapping[str, tuple[str, float, float]] = {
    "tuned": ("root", 0.1, 0.01),
    "other": ("root", 0.3, 0.05),
    "long": ("root", 0.6, 0.1),
    "grandchild": ("other", 0.3, 0.05),
    "second grandchild": ("other", 0.2, 0.03),
    "great-grandchild": ("grandchild", 0.3, 0.05),
}


@pytest.fixture(autouse=True)
def no_files(monkeypatch: Any) -> None:
    monkeypatch.setattr(grown, "relate", lambda *_: SimpleNamespace(related=False))


def root(seed: int = 0) -> Matrices:
    rng = np.random.default_rng([seed, 3])
    return [rng.standard_normal(SHAPE) * rng.uniform(0.5, 1.5, (SHAPE[0], 1)) for _ in range(BLOCKS * len(KINDS))]


def trained(parent: Matrices, size: float, decay: float, seed: int) -> Matrices:
    """Decayed, and more was learned in some matrices and rows than in others; nothing of it knows the parent."""
    rng = np.random.default_rng([seed, 4])
    rows = [rng.gamma(6.0, 1 / 6, (SHAPE[0], 1)) * (1.0 + 0.5 * (i % len(KINDS))) for i in range(len(parent))]
    new = zip(parent, rows, strict=True)
    return [(1 - decay) * x + size * r * rng.standard_normal(SHAPE) for x, r in new]


def family(seed: int = 0) -> dict[str, Matrices]:
    out = {"root": root(seed)}
    for k, (name, (parent, size, decay)) in enumerate(FAMILY.items()):
        out[name] = trained(out[parent], size, decay, 100 * seed + k)
    return out


def group(models: Mapping[str, Matrices], edits: Any = None) -> Group:
    at = np.arange(SHAPE[0]), np.arange(SHAPE[1])
    frame: list[Coordinates] = [
        {
            (("decoder", i // len(KINDS), None), KINDS[i % len(KINDS)]): Patch(*at, x.astype(np.float32))
            for i, x in enumerate(matrices)
        }
        for matrices in models.values()
    ]
    members = [Member(name, name, None, None) for name in models]
    return Group(members, frame, np.zeros((len(models), len(models))) if edits is None else edits)


def proved(models: Mapping[str, Matrices]) -> Any:
    """As `recipe` would: of linear mixes only."""
    names = sorted(models)

    def prove(child: int, parents: Sequence[int]) -> Any:
        c, *p = (np.concatenate([m.reshape(-1) for m in models[names[i]]]) for i in (child, *parents))
        x = np.array([p[0], c - p[0], *(q - p[0] for q in p[1:])])
        weights = fit(x @ x.T, range(len(p)))
        rest = c - sum(w * q for w, q in zip(weights, p, strict=True))
        of = [SimpleNamespace(parent=names[i], value=float(w)) for i, w in zip(parents, weights, strict=True)]
        parts = {"weights": of, "parents": [names[i] for i in parents], "base": None, "parameters": {}}
        exact = np.abs(rest).max() < 1e-5
        return SimpleNamespace(method="linear" if exact else None, reproduces=1.0, **parts)

    return prove


def tree(models: Mapping[str, Matrices]) -> Tree:
    return tree_of(group(models), prove=proved(models))


def edges(found: Tree) -> set[tuple[str, str]]:
    return {(e.parent, e.child) for e in found.edges}


TRUE = {(parent, child) for child, (parent, _, _) in FAMILY.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_every_parent_is_found_whatever_decayed(seed: int) -> None:
    found = tree(family(seed))
    assert edges(found) == TRUE
    assert found.root == "root"
    assert not found.unseen
    assert not found.merges


def test_lengths_are_those_of_what_is_new_and_inside_their_intervals() -> None:
    models = family(1)
    for e in tree(models).edges:
        parts = [-2 * np.log(_cosine(x, y)) for x, y in zip(models[e.parent], models[e.child], strict=True)]
        assert e.length == pytest.approx(np.mean(parts), rel=1e-3)
        assert e.length is not None
        assert e.low is not None
        assert e.high is not None
        assert e.low <= e.length <= e.high
        assert e.support == 1.0


def test_lengths_add_up_along_a_chain_that_decayed() -> None:
    models = family(4)
    names = list(models)
    d = distances(list(products(group(models).coordinates))).common()
    a, b, c = (names.index(n) for n in ("root", "other", "grandchild"))
    assert d[a, c] == pytest.approx(d[a, b] + d[b, c], rel=0.02)


def test_what_no_two_have_in_the_frame_is_no_length() -> None:
    """A rotated copy's attention is in no common frame; its FFNs say how little is new in it."""
    there = group(family(4)).coordinates
    alone = {(("decoder", 0, None), "o"): Patch(np.arange(4), np.arange(4), np.ones((4, 4), np.float32))}
    with_one: list[Coordinates] = [{**there[0], **alone}, *there[1:]]
    before, after = (distances(list(products(x))).common() for x in (there, with_one))
    np.testing.assert_allclose(after, before)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hidden_root_is_an_unseen_ancestor(seed: int) -> None:
    base = root(seed)
    sizes = {"a": 0.3, "b": 0.4, "c": 0.35, "d": 0.5}
    models = {name: trained(base, size, 0.02, 30 + k) for k, (name, size) in enumerate(sizes.items())}
    models["below a"] = trained(models["a"], 0.2, 0.02, 40)
    found = tree(models)
    assert found.unseen == ["unseen 1"]
    assert found.root == "unseen 1"
    assert edges(found) == {("a", "below a"), *(("unseen 1", name) for name in sizes)}
    seen = {e.child: e.length for e in tree({**models, "root": base}).edges}
    assert [e.length for e in found.edges if e.child == "b"] == pytest.approx([seen["b"]], rel=0.25)


def test_an_unseen_node_below_a_root_that_is_there() -> None:
    models = {"root": root(5)}
    hidden = trained(models["root"], 0.5, 0.05, 1)
    for k in (2, 3, 4):
        models[f"leaf {k}"] = trained(hidden, 0.2, 0.02, k)
    models["beside"] = trained(models["root"], 0.4, 0.05, 9)
    found = tree(models)
    (unseen,) = found.unseen
    assert edges(found) == {("root", unseen), ("root", "beside"), *((unseen, f"leaf {k}") for k in (2, 3, 4))}


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.8, 0.2)])
def test_a_merge_hangs_from_both_parents_and_its_child_from_it(weights: tuple[float, float]) -> None:
    models = family(6)
    pairs = zip(models["other"], models["long"], strict=True)
    models["merge"] = [weights[0] * x + weights[1] * y for x, y in pairs]
    models["merge on"] = trained(models["merge"], 0.1, 0.01, 50)
    found = tree(models)
    assert edges(found) == TRUE | {("other", "merge"), ("long", "merge"), ("merge", "merge on")}
    assert {e.parent: round(e.weight or 0, 2) for e in found.edges if e.kind == "merge"} == {
        "other": weights[0],
        "long": weights[1],
    }


def test_a_copy_whose_units_stand_elsewhere_hangs_from_what_the_others_stand_like() -> None:
    models = family(7)
    models["a copy"] = models["root"]
    names = list(models)
    edits = np.zeros((len(names), len(names)))
    edits[-1, :-1] = edits[:-1, -1] = 0.4
    found = tree_of(group(models, edits), prove=proved(models))
    assert edges(found) == TRUE | {("root", "a copy")}
    assert [e.kind for e in found.edges if e.child == "a copy"] == ["copy"]


def test_a_short_step_on_the_way_of_the_others_is_not_taken_for_their_sibling() -> None:
    """The most central model (0) went a little of the way that all went, so that they seem to have parted from it half
    way; their ancestor (1) is there. Without it an ancestor is unseen."""
    lengths = np.array([[0, 1, 9, 9], [1, 0, 10, 10], [9, 10, 0, 18], [9, 10, 18, 0]]) / 1000
    odds = {(1, 2): 2.0, (1, 3): 2.0}
    t = {(0, 2): 0.3, (0, 3): 0.3, (1, 2): 0.05, (1, 3): 0.05}

    def told(keep: Sequence[int], odds: Mapping[tuple[int, int], float]) -> Rooted:
        return rooted(
            [None, *[0] * (len(keep) - 1)],
            [],
            lengths[np.ix_(keep, keep)],
            lambda i, j: odds.get((keep[i], keep[j]), 0.0),
            lambda i, j: 0.0,
            lambda i, j: t.get((keep[i], keep[j])),
        )

    there = told([0, 1, 2, 3], odds)
    assert (there.parent, there.root, there.beside) == ((1, None, 1, 1), 1, frozenset())
    assert told([0, 2, 3], odds).beside == {1, 2}
    assert told([0, 1, 2, 3], {}).beside  # nothing says that the other one is it


def test_copies_hang_as_their_signs_say(monkeypatch: Any) -> None:
    """The grandchild stands like the copy, so that is its parent; which copy was first, lengths don't tell."""
    models = {"grandchild": family(1)["grandchild"], **{k: family(1)[k] for k in ("root", "tuned", "long", "other")}}
    models["other again"] = models["other"]
    names = list(models)
    apart = np.zeros((len(names), len(names)))
    order, first = sorted(names), names.index("other")
    apart[first] = apart[:, first] = 0.1
    apart[first, first] = 0.0

    def signs(i: int, j: int) -> float:
        return {("other", "other again"): 2.0, ("other again", "other"): -2.0}.get((order[i], order[j]), 0.0)

    monkeypatch.setattr(grown, "_signs", lambda *_: signs)
    found = edges(tree_of(group(models, apart), prove=proved(models)))
    assert {("root", "other"), ("other", "other again"), ("other again", "grandchild")} <= found


def test_the_order_of_models_changes_nothing() -> None:
    models = family(8)
    models["merge"] = [0.4 * x + 0.6 * y for x, y in zip(models["other"], models["long"], strict=True)]
    once = tree(models)
    for seed in (1, 2):
        names = np.random.default_rng(seed).permutation(list(models)).tolist()
        again = tree({name: models[name] for name in names})
        assert edges(again) == edges(once)
        assert sorted(map(str, again.edges)) == sorted(map(str, once.edges))


def test_what_siblings_share_by_common_data_makes_none_the_parent_of_another() -> None:
    base = root(9)
    way = [0.05 * x for x in root(10)]  # where the data pull
    models = {"root": base}
    for k in range(4):
        models[f"tuned {k}"] = trained([x + (k + 1) * w for x, w in zip(base, way, strict=True)], 0.1, 0.02, 20 + k)
    assert edges(tree(models)) == {("root", f"tuned {k}") for k in range(4)}


def test_what_is_all_but_the_hub_shares_no_way_with_another_child() -> None:
    """A copy that lacks matrices is nearer to a child than the whole hub: lengths over what both have say so."""
    lengths = np.array([[0, 1e-5, 2e-2], [1e-5, 0, 1.5e-2], [2e-2, 1.5e-2, 0]])
    assert not list(shared_ways(lengths, [None, 0, 0], []))


def test_an_inner_node_must_be_worth_it() -> None:
    lengths = np.array([[0, 1, 1.6, 1.6], [1, 0, 1.0, 2.6], [1.6, 1.0, 0, 3.2], [1.6, 2.6, 3.2, 0]])
    none = np.zeros((4, 4))
    assert hubs(lengths, none, {}, 0) == [None, 0, 0, 0]  # nearer to 1, by a factor of .63
    lengths[1, 2] = lengths[2, 1] = 0.6
    assert hubs(lengths, none, {}, 0) == [None, 0, 1, 0]


@pytest.mark.parametrize("seed", range(12))
def test_no_other_tree_costs_less(seed: int) -> None:
    n, root = 5, seed % 5
    cost = np.random.default_rng(seed).exponential(size=(n, n))
    np.fill_diagonal(cost, np.inf)
    others = [j for j in range(n) if j != root]

    def leads_up(parent: Mapping[int, int], j: int) -> bool:
        for _ in range(n):
            j = parent.get(j, root)
        return j == root

    trees = (dict(zip(others, some, strict=True)) for some in product(range(n), repeat=n - 1))
    best = min(sum(cost[p, j] for j, p in tree.items()) for tree in trees if all(leads_up(tree, j) for j in others))
    found = arborescence(cost, root)
    assert all(leads_up({j: found[j] for j in others}, j) for j in others)
    assert sum(cost[found[j], j] for j in others) == pytest.approx(best)


def test_a_chain_whose_last_two_are_near_twins_is_a_chain() -> None:
    """The nearest two are joined first, and yet neither takes the others for its children."""
    at = np.array([0.0, 0.01, 0.06, 0.10, 0.10 + 1e-5])
    lengths, parts = np.abs(at[:, None] - at), np.zeros((5, 5))
    parts[0, 1:] = parts[1:, 0] = 0.6  # all but the first were rearranged
    assert hubs(lengths, parts, {}, 0) == [None, 0, 1, 2, 3]


def test_rounding_of_a_child_releases_it_from_no_parent() -> None:
    """What codes lose isn't new: so little that it says nothing of the way that the parent came."""
    lengths = np.array([[0.0, 0.09, 0.0899], [0.09, 0.0, 3e-5], [0.0899, 3e-5, 0.0]])
    assert released([None, 0, 1], lengths) == [None, 0, 1]


def test_what_may_be_a_common_initialisation_joins_a_group_only_by_sure_kin(monkeypatch: Any) -> None:
    names = ["reference", "kin", "doubtful", "grandchild"]
    near = np.array([[1.0, 0.9, 0.6, 0.6], [0.9, 1, 0.5, 0.8], [0.6, 0.5, 1, 0.5], [0.6, 0.8, 0.5, 1]])
    open_ones = {("reference", "doubtful"), ("kin", "doubtful"), ("reference", "grandchild")}

    def relate(a: Member, b: Member, _: int) -> Any:
        return SimpleNamespace(related=True, verdict="shared_origin", doubtful=(a.name, b.name) in open_ones)

    monkeypatch.setattr(grouping, "relate", relate)
    monkeypatch.setattr(grouping, "nearness", lambda _: near)
    monkeypatch.setattr(grouping, "_placed", lambda *_: {"a matrix": None})
    found, _ = grouping.groups([Member(name, name, None, None) for name in names])
    assert [sorted(m.name for m in g.members) for g in found] == [["grandchild", "kin", "reference"], ["doubtful"]]


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float32).astype(float), y.astype(np.float32).astype(float)
    return float(np.vdot(x, y) / np.sqrt(np.vdot(x, x) * np.vdot(y, y)))
