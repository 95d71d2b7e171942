"""``recipe`` from fingerprints: the weights of a mix from linear sketches, with intervals, no more."""

from __future__ import annotations

import json

import numpy as np
import pytest
import weightprint
from merges import CONFIG, linear, root, tuned
from weightprint.compare.sketched_mix import sketched_grams
from weightprint.errors import UsageError

BASE = root(0)
A, B, C = tuned(BASE, 1), tuned(BASE, 2), tuned(BASE, 3)


@pytest.fixture
def write(save):
    def written(name, model):
        path = save(f"{name}/model.safetensors", model)
        (path.parent / "config.json").write_text(json.dumps(CONFIG))
        return path.parent

    return written


@pytest.fixture
def kept(write):
    return lambda name, model, seed=0: weightprint.fingerprint(write(name, model), seed=seed)


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.5, 0.5), (0.9, 0.1)])
def test_the_weights_of_a_linear_mix_come_out(kept, weights):
    found = weightprint.recipe(kept("child", linear([A, B], weights)), [kept("a", A), kept("b", B)])
    for truth, told in zip(weights, found.weights, strict=True):
        assert told.value == pytest.approx(truth, abs=0.002)
        assert told.low <= truth + 1e-4
        assert told.high >= truth - 1e-4
    assert found.unexplained < 1e-6
    assert found.unknown_origin == 0
    assert found.compared == "fingerprints"
    assert found.method is None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fingerprints_and_weights_agree_within_the_interval(kept, write, share):
    """Trained on after the mix: the residual is large, and so is the interval."""
    child = linear([A, B], (0.6, 0.4))
    child = tuned(child, 9, share) if share else child
    ours = weightprint.recipe(kept("child", child), [kept("a", A), kept("b", B)])
    theirs = weightprint.recipe(write("child", child), [write("a", A), write("b", B)])
    for x, y in zip(ours.weights, theirs.weights, strict=True):
        assert x.low - 1e-4 <= y.value <= x.high + 1e-4
        assert x.high - x.low >= (y.high or 0) - (y.low or 0) - 1e-3
    for mine, other in zip(ours.layers, theirs.layers, strict=True):  # of matrices both
        assert mine.unexplained == pytest.approx(other.unexplained, rel=0.2, abs=1e-6)


def test_the_interval_covers_the_truth_as_often_as_it_says(kept):
    """Of twelve children trained on after a mix, in few does the interval miss the weight that values give."""
    rng = np.random.default_rng(5)
    ours = [kept("a", A), kept("b", B)]
    missed = 0
    for k in range(12):
        w = float(rng.uniform(0.2, 0.8))
        child = tuned(linear([A, B], (w, 1 - w)), 20 + k, 0.5)
        told = weightprint.recipe(kept(f"child {k}", child), ours).weights[0]
        missed += not told.low <= w <= told.high
    assert missed <= 2


def test_a_mix_that_does_not_sum_to_one_comes_out_too(kept):
    """As of a SLERP between models that have nothing in common."""
    other = root(8)
    found = weightprint.recipe(kept("child", linear([A, other], (0.8, 0.5))), [kept("a", A), kept("b", other)])
    assert [w.value for w in found.weights] == pytest.approx([0.8, 0.5], abs=1e-3)
    assert found.unexplained < 1e-6
    assert not found.sum_to_one


def test_task_arithmetic_has_a_weight_below_zero(kept):
    child = linear([BASE, A, B], (-0.4, 0.8, 0.6))
    found = weightprint.recipe(kept("child", child), [kept("a", A), kept("b", B)], base=kept("base", BASE))
    assert [w.value for w in found.weights] == pytest.approx([-0.4, 0.8, 0.6], abs=5e-3)
    assert found.base == found.parents[0]
    assert found.weights[0].high < 0


def test_a_model_that_is_not_in_it_has_no_weight(kept):
    parents = [kept(name, model) for name, model in {"a": A, "b": B, "c": C}.items()]
    found = weightprint.recipe(kept("child", linear([A, B], (0.7, 0.3))), parents)
    assert [round(w.value, 2) for w in found.weights] == [0.7, 0.3, 0.0]
    stranger = weightprint.recipe(kept("child", A), [kept("stranger", root(8))])
    assert stranger.weights[0].value < 0.05
    assert stranger.unexplained > 0.95


def test_what_needs_the_weights_is_said(kept, write):
    a, b = kept("a", A), kept("b", B)
    child = write("child", linear([A, B], (0.7, 0.3)))
    found = weightprint.recipe(child, [a, b])  # made a fingerprint first
    assert found.bytes_read > 0
    assert any(note.startswith("needs the weights") for note in found.notes)
    assert "needs the weights" in str(found)
    assert not found.answer
    told = json.loads(found.to_json())
    assert type(found).from_dict(told).weights == found.weights
    old = {key: value for key, value in told.items() if key != "compared"}
    assert type(found).from_dict(old).compared == "weights"
    with pytest.raises(UsageError) as error:
        weightprint.recipe(a, candidates=[b])
    assert error.value.code == "needs_weights"


def test_what_cannot_be_compared_is_refused(kept):
    a = kept("a", A)
    with pytest.raises(UsageError) as error:
        weightprint.recipe(a, [kept("other seed", B, seed=1)])
    assert error.value.code == "other_plan"
    with pytest.raises(UsageError) as error:
        weightprint.recipe(a, [kept("wide", root(4, d=48))])
    assert error.value.code == "no_common_tensors"
    with pytest.raises(UsageError) as error:
        weightprint.recipe(a)
    assert error.value.code == "no_parents"


def test_products_of_sketches_are_those_of_values_within_their_deviation(kept):
    """At most four standard deviations off, one on average."""
    grams = sketched_grams(kept("child", C), [kept("a", A), kept("b", B)])
    off = []
    for g in grams:
        c, a, b = (m[g.name].astype(np.float64).ravel() for m in (C, A, B))
        x = np.stack([a, c - a, b - a])
        truth = x @ x.T
        lengths = np.diag(truth)
        deviation = np.sqrt((np.outer(lengths, lengths) + truth**2) / 256)
        off.append((g.products - truth) / deviation)
    assert np.abs(off).max() < 4.5
    assert np.sqrt(np.mean(np.square(off))) == pytest.approx(1, abs=0.35)
