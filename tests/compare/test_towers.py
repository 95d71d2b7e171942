"""Models of several stacks: a tower of another model beside the shared one is told, stack by stack, in either order."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Arrays, child, decoder, models
from weightprint.compare.compare import Judgement, judge
from weightprint.evidence.tests import AS_STORED

#: Of the blocks of a decoder, what a CLIP tower has, and its names.
TOWER = {
    **{f"self_attn.{part}_proj": f"self_attn.{part}_proj" for part in "qkv"},
    "self_attn.o_proj": "self_attn.out_proj", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2",
    "input_layernorm": "layer_norm1", "post_attention_layernorm": "layer_norm2",
}  # fmt: skip


def tower(seed: int, d: int = 96) -> Arrays:
    """A vision encoder."""
    out: Arrays = {}
    for name, x in decoder(seed, d=d, h=256, layers=3).items():
        module = name.removesuffix(".weight").split(".", 3)[-1]
        if ".layers." in name and module in TOWER:
            at = f"vision_tower.vision_model.encoder.layers.{name.split('.')[2]}.{TOWER[module]}"
            out[f"{at}.weight"] = x
            if "norm" in module:
                out[f"{at}.bias"] = (0.02 * np.random.default_rng([seed, x.size]).standard_normal(x.size)).astype("f4")
    return out


def text(seed: int) -> Arrays:
    """A language model."""
    return {f"language_model.{n}": x for n, x in decoder(seed, h=192, layers=3).items()}


def judged(a: Arrays, b: Arrays) -> Judgement:
    m = models(a, b)
    return judge(m, [test(m) for test in AS_STORED])


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("other", "stacks"),
    [
        ("vision", {"decoder": "shared_origin", "vision": "no_evidence"}),
        ("decoder", {"decoder": "no_evidence", "vision": "shared_origin"}),
        ("none", {"decoder": "shared_origin", "vision": "shared_origin"}),
    ],
)
def test_a_tower_of_another_model(other: str, stacks: dict[str, str], trained: bool) -> None:
    a = text(0) | tower(1)
    b = text(2 if other == "decoder" else 0)
    b |= tower(3 if other == "vision" else 1)
    b = child(b, 0.95) if trained or other == "none" else b
    for one, two in ((a, b), (b, a)):
        verdict = judged(one, two).verdict
        assert verdict.name == ("shared_origin" if other == "none" else "partly_shared")
        assert verdict.stacks == stacks
        words = {"shared_origin": "found", "no_evidence": "not A's"}
        said = ", ".join(f"{stack}: {words[name]}" for stack, name in stacks.items())
        assert (said in verdict.sentence) == (other != "none")


def test_a_tower_of_another_width_is_left_open() -> None:
    """Units of another width can't be looked for by their channels, and it may be this one made narrower."""
    for one, two in ((text(0) | tower(1), text(0) | tower(3, 64)), (text(0) | tower(3, 64), text(0) | tower(1))):
        verdict = judged(one, two).verdict
        assert (verdict.name, verdict.stacks) == (
            "shared_origin", {"decoder": "shared_origin", "vision": "inconclusive"}
        )  # fmt: skip


def test_a_tower_that_only_one_of_them_has_makes_no_part() -> None:
    for one, two in ((text(0), text(0) | tower(3)), (text(0) | tower(3), child(text(0), 0.95))):
        assert judged(one, two).verdict.name == "shared_origin"


def test_strangers_have_no_stacks() -> None:
    verdict = judged(text(0) | tower(1), text(2) | tower(3)).verdict
    assert verdict.name in ("no_evidence", "inconclusive")
    assert not verdict.stacks
