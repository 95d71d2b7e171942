"""Who came first, from stored fingerprints: t from norms and sketches, and no direction that the weights don't show."""

from __future__ import annotations

import json

import numpy as np
import pytest
import weightprint
from llama import CONFIG, draw, noised, write
from weightprint.verdict.direction.direction import mirrored, relation
from weightprint.verdict.direction.sketched import sketched_parting

DEEP = 8
BASE = draw(1, layers=DEEP)


@pytest.fixture
def kept(save):
    def made(weights, name="model"):
        layers = sum(n.endswith("mlp.up_proj.weight") for n in weights)
        return weightprint.fingerprint(write(name, weights, save, config={**CONFIG, "num_hidden_layers": layers}))

    return made


def trained(weights, size, decay, seed):
    """Decayed, and more was learned in some matrices than in others; nothing of it knows the parent."""
    rng = np.random.default_rng(seed)
    return {
        n: ((1 - decay) * x + size * rng.gamma(6.0, 1 / 6) * x.std() * rng.standard_normal(x.shape)).astype(np.float32)
        if x.ndim == 2
        else x
        for n, x in weights.items()
    }


@pytest.mark.parametrize("size", [0.1, 0.3, 1.0])
def test_plain_t_is_that_of_the_values(kept, size):
    """Within four of the deviations that it is told with, which are small: norms are exact."""
    other = noised({n: 0.99 * x if x.ndim == 2 else x for n, x in BASE.items()}, size)
    found = sketched_parting(kept(BASE), kept(other, "other"))
    x, y = (np.concatenate([w[n].ravel() for n in BASE if "proj" in n]).astype(float) for w in (BASE, other))
    gap = float((y - x) @ (y - x))
    assert found.plain == pytest.approx(float(x @ x - x @ y) / gap, abs=4 * found.sd_of_plain)
    assert found.sd_of_plain < 0.02
    assert found.relative == pytest.approx(np.sqrt(gap / np.linalg.norm(x) / np.linalg.norm(y)), rel=0.1)


@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("size", [0.1, 0.3])
def test_a_child_by_decay_is_the_later_one_in_either_order(kept, size, seed):
    parent, child = kept(BASE), kept(trained(BASE, size, size**2, seed), "child")
    found = sketched_parting(parent, child)
    assert found.sketched
    assert found.low <= 0 <= found.high
    assert relation(found).later == "b"
    assert relation(sketched_parting(child, parent)).later == "a"
    turned = mirrored(sketched_parting(child, parent))
    assert turned.t == pytest.approx(found.t, abs=1e-6)
    assert turned.pull == pytest.approx(found.pull, abs=1e-6)


def test_nothing_else_is_claimed(kept):
    """Noise, siblings, a mean of relatives, a pruned copy, another type of numbers: silence."""
    one, other = trained(BASE, 0.3, 0.05, 5), trained(BASE, 0.3, 0.05, 6)
    mean = {n: ((one[n] + other[n]) / 2).astype(np.float32) for n in BASE}
    pruned = {n: np.where(np.abs(x) < np.quantile(np.abs(x), 0.3), 0, x) if x.ndim == 2 else x for n, x in one.items()}
    pairs = [(BASE, noised(BASE, 0.3)), (one, other), (one, mean), (BASE, pruned)]
    for k, (a, b) in enumerate(pairs):
        found = sketched_parting(kept(a, f"{k} a"), kept(b, f"{k} b"))
        assert found is None or relation(found).later is None, k


def test_the_comparison_of_fingerprints_says_who_came_first(kept):
    parent, child = kept(BASE), kept(trained(BASE, 0.3, 0.09, 2), "child")
    comparison = weightprint.compare(parent, child)
    direction = comparison.result.direction
    assert direction.later == "b"
    assert 0.5 < direction.confidence < 0.87  # less than of values
    assert comparison.weighed() == comparison.result
    assert type(comparison).from_dict(json.loads(comparison.to_json())).weighed() == comparison.result
    silent = weightprint.compare(parent, kept(noised(BASE, 0.3), "noised")).result.direction
    assert silent.later is None
    assert "needs the weights" in silent.because
    assert silent.measured.t == pytest.approx(0, abs=0.5)


def test_too_few_matrices_tell_nothing(kept):
    few = {n: x for n, x in draw(1).items() if ".layers.0." in n or ".layers." not in n}
    assert sketched_parting(kept(few), kept(noised(few, 0.3), "other")) is None
