"""Units by content: the same ones whatever was done to hide them."""

from __future__ import annotations

import numpy as np
import pytest
import weightprint
from llama import LAYERS, D, H, draw, noised, of_units, permuted, write

BASE = draw(1)


def content(folder, weights, save, seed=0):
    """Block → the units that were taken by content."""
    units = weightprint.fingerprint(write(folder, weights, save), seed=seed).part("units")
    return [set(u["units"][int(u["by_number"][0]) :].tolist()) for u in (units[f"decoder.{i}"] for i in range(LAYERS))]


def overlap(found, others):
    return np.mean([len(a & b) / len(a) for a, b in zip(found, others, strict=True)])


@pytest.fixture
def taken(save):
    return content("base", BASE, save)


def test_most_are_by_content_and_chance_would_find_few(taken, save):
    by_chance = overlap(taken, content("stranger", draw(2), save))
    assert by_chance < 0.6
    assert len(taken[0]) > 60


def test_a_fine_tune_keeps_its_units(taken, save):
    assert overlap(taken, content("tuned", noised(BASE, 0.05), save)) > 0.9


def test_permuted_units_are_followed(save):
    """The content half leaves out what was taken by number, so what can be common is less; of scores themselves all."""
    from weightprint.fingerprint.units import content as score

    moved, orders = permuted(BASE)
    for i in range(LAYERS):
        at = f"model.layers.{i}.mlp."
        before, after = (
            score(
                {
                    r: w[f"{at}{r}_proj.weight"] if r != "down" else w[f"{at}down_proj.weight"].T
                    for r in ("gate", "up", "down")
                },
                None,
            )
            for w in (BASE, moved)
        )
        assert np.array_equal(before[orders[i]], after)


def test_signs_scales_and_folded_gains_change_nothing(taken, save):
    rng = np.random.default_rng(3)
    signs, scale = rng.choice([-1, 1], (H, 1)), rng.uniform(0.2, 5, (H, 1))
    hidden = of_units(BASE, lambda i, gate, up, down: (gate * scale, up * signs / scale, down * signs * scale))
    assert overlap(taken, content("hidden", hidden, save)) > 0.98
    folded = dict(BASE)
    for i in range(LAYERS):
        gain = folded[f"model.layers.{i}.post_attention_layernorm.weight"]
        for name in ("gate_proj", "up_proj"):
            folded[f"model.layers.{i}.mlp.{name}.weight"] = folded[f"model.layers.{i}.mlp.{name}.weight"] * gain
        folded[f"model.layers.{i}.post_attention_layernorm.weight"] = np.ones(D, np.float32)
    assert overlap(taken, content("folded", folded, save)) > 0.98


def test_a_rotated_stream_and_shuffled_layers_change_nothing(taken, save):
    turn, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((D, D)))
    plain = {n: np.ones_like(x) if "norm" in n else x for n, x in BASE.items()}
    turned = of_units(plain, lambda i, gate, up, down: (gate @ turn, up @ turn, down @ turn))
    assert overlap(content("plain", plain, save), content("turned", turned, save)) > 0.98
    order = [2, 0, 1]
    shuffled = {
        n.replace(f"layers.{old}.", f"layers.{new}."): x
        for new, old in enumerate(order)
        for n, x in BASE.items()
        if f"layers.{old}." in n
    } | {n: x for n, x in BASE.items() if "layers" not in n}
    found = content("shuffled", shuffled, save)
    assert overlap([taken[old] for old in order], found) == 1.0


def test_an_ffn_without_a_gate_is_read_too(save):
    weights = {n: x for n, x in BASE.items() if "gate_proj" not in n}
    units = weightprint.fingerprint(write("plain", weights, save)).part("units")
    assert set(units["decoder.0"]) == {"units", "by_number", "up", "up_scale", "down", "down_scale"}
