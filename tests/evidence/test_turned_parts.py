"""Parts of A inside a stranger, the whole turned and renumbered: each is found, alone, and strangers hold none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import weightprint
from safetensors.numpy import save_file
from synthetic import Arrays, decoder, models
from weightprint.compare.pipeline import examine
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.tests import TURNED

D, H, LAYERS = 64, 160, 3


def model(seed: int) -> Arrays:
    return dict(decoder(seed, d=D, h=H, layers=LAYERS))


def turned(arrays: Arrays, seed: int) -> Arrays:
    """The same function in another basis, every gain folded first; units and tokens in another order."""
    rng = np.random.default_rng([seed, 3])
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
    tokens = None
    out: Arrays = {}
    for name, x in arrays.items():
        block = name.rsplit(".", 3)[0] if ".layers." in name else ""
        if x.ndim == 1:
            out[name] = np.ones_like(x)
        elif "down_proj" in name or "o_proj" in name:
            out[name] = turn.T @ x
        elif ".layers." in name:
            norm = "post_attention_layernorm" if ".mlp." in name else "input_layernorm"
            gain = arrays[f"{block}.{norm}.weight"]
            out[name] = (x * gain) @ turn
        else:
            tokens = rng.permutation(len(x)) if tokens is None else tokens
            out[name] = (x @ turn)[tokens]
    for i in range(LAYERS):
        order, at = rng.permutation(H), f"model.layers.{i}.mlp"
        for role in ("gate", "up"):
            out[f"{at}.{role}_proj.weight"] = out[f"{at}.{role}_proj.weight"][order]
        out[f"{at}.down_proj.weight"] = out[f"{at}.down_proj.weight"][:, order]
    return {name: np.ascontiguousarray(x, np.float32) for name, x in out.items()}


def holding(words: tuple[str, ...], seed: int = 0) -> tuple[Arrays, Arrays]:
    """A, and a stranger that holds A's tensors with one of these words in their names."""
    a, b = model(seed), model(seed + 100)
    return a, turned({name: a[name] if any(w in name for w in words) else x for name, x in b.items()}, seed)


def ask(given: ModelPair) -> Evidence:
    """The test that says most, with what all of them found."""
    answers = [test(given) for test in TURNED]
    applied = [e for e in answers if e.applied] or answers
    best = min(applied, key=lambda e: e.log10_p or 0.0)
    found = {name: row for e in applied for name, row in e.details.get("found", {}).items()}
    planted = {kind: seen for e in applied for kind, seen in e.details.get("planted_part_found", {}).items()}
    return replace(best, details={"found": found, "planted": planted})


PARTS = {
    "one FFN": (("layers.1.mlp", "layers.1.post_attention"), {"decoder.1"}),
    "all FFNs": ((".mlp.", "post_attention"), {f"decoder.{i}" for i in range(LAYERS)}),
    "attention": (("self_attn", "input_layernorm"), {f"decoder.{i} attention" for i in range(LAYERS)}),
    "one layer": (("layers.2.",), {"decoder.2", "decoder.2 attention"}),
    "embedding": (("embed_tokens",), {"embedding"}),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_of_a_in_a_turned_stranger_is_found(name: str) -> None:
    words, parts = PARTS[name]
    found = ask(models(*holding(words)))
    assert found.log10_p is not None
    assert found.log10_p < -15
    assert (found.effect or 0) > 0.9
    assert set(found.details["found"]) == parts
    assert all(a == ["", 0, None] or b.startswith(f"{a[0]}.{a[1]}") for b, (a, *_) in found.details["found"].items())


@pytest.mark.slow
def test_strangers_hold_no_part_and_planted_ones_would_have_been_found() -> None:
    found = [ask(models(model(seed), turned(model(seed + 50), seed))) for seed in range(8)]
    assert all(e.log10_p is not None and e.log10_p > -2 for e in found)
    assert all(not e.details["found"] for e in found)
    assert all((e.detectable or 1.0) < 0.25 for e in found)
    assert all(all(e.details["planted"].values()) for e in found)


def test_gate_and_up_interleaved_in_one_tensor_are_found(tmp_path: Path) -> None:
    """Halves are what most store, and what the anatomy takes; every other row is gate here."""
    a, b = model(0), turned(model(0), 5)
    for i in range(LAYERS):
        at = f"model.layers.{i}.mlp"
        both = np.stack([b.pop(f"{at}.{role}_proj.weight") for role in ("gate", "up")], axis=1)
        b[f"{at}.gate_up_proj.weight"] = both.reshape(2 * H, D)
    for name, tensors in (("a", a), ("b", b)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    with weightprint.open(tmp_path / "a.safetensors") as one, weightprint.open(tmp_path / "b.safetensors") as two:
        found = ask(examine(one, two)[2])
    assert {f"decoder.{i}" for i in range(LAYERS)} <= set(found.details["found"])


def test_streams_of_different_width_are_not_asked() -> None:
    found = ask(models(model(0), dict(decoder(1, d=48, h=H, layers=LAYERS))))
    assert not found.applied
    assert "width" in (found.why_not or "")
