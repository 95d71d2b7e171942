"""Every tensor of real checkpoints finds its place, by the table; and what the values say agrees.

* Whisper's keys have no bias. CTranslate2 fills the gap in its stacked q|k|v with zeros, so the part that is called
  ``k_bias`` must be zero and the others not.
* Rotary pairs turn together, so their rows have grown alike: in canonical form row i of a head goes with i + hd/2, in
  GGUF's order it does not.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import weightprint
import zoo
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.place import Place

pytestmark = pytest.mark.slow  # fetches its models


def complete(anatomy: Anatomy, family: str) -> None:
    """All is mapped, by this row alone, and nothing is claimed twice or left over."""
    assert anatomy.unmapped == ()
    assert {f.name for f in anatomy.families.values()} == {family}
    assert {a.source for a in anatomy.assignments} == {"table"}
    assert len({a.place for a in anatomy.assignments if a.place.part != "fixed"}) == sum(
        a.place.part != "fixed" for a in anatomy.assignments
    )
    sizes: Counter[str] = Counter()
    for a in anatomy.assignments:
        if not a.tied:
            sizes[a.view.weight] += int(np.prod(a.view.shape))
    assert sizes == {name: int(np.prod(shape)) for name, shape in anatomy.weights.shapes.items()}


@pytest.mark.parametrize(("size", "blocks", "hidden"), [("tiny.en", 4, 384), ("base", 6, 512)])
def test_whisper(size: str, blocks: int, hidden: int) -> None:
    anatomy = weightprint.anatomy(zoo.whisper(size))
    complete(anatomy, "whisper_ctranslate2")
    assert {stack: (g.blocks, g.hidden) for stack, g in anatomy.geometry.items()} == {
        "audio": (blocks, hidden),
        "decoder": (blocks, hidden),
    }
    for stack in ("audio", "decoder"):
        for b in range(blocks):
            assert not anatomy.tensor(b, "k_bias", stack=stack).any()
            assert anatomy.tensor(b, "q_bias", stack=stack).any()
            assert anatomy.tensor(b, "v_bias", stack=stack).any()
    assert not anatomy.tensor(0, "cross_k_bias").any()
    assert anatomy.tensor(0, "cross_v_bias").any()
    # The audio positions are sinusoids: sines first, one at every frequency.
    first = anatomy.tensor(None, "position", stack="audio")[0]
    assert (first[: hidden // 2] == 0).all()
    assert (first[hidden // 2 :] == 1).all()
    assert anatomy[Place("decoder", None, "head")].tied


def test_minilm() -> None:
    anatomy = weightprint.anatomy(zoo.minilm())
    complete(anatomy, "bert")
    g = anatomy.geometry["encoder"]
    assert (g.blocks, g.hidden, g.ffn, g.vocabulary) == (6, 384, 1536, 30522)
    assert not anatomy.families["encoder"].pre_norm


@pytest.mark.parametrize("name", [*zoo.SCEPTR_INDEPENDENT, *zoo.SCEPTR_OTHER_SIZES, "SCEPTR_finetuned"])
def test_sceptr(name: str) -> None:
    path = zoo.sceptr(name)
    anatomy = weightprint.anatomy(path)
    complete(anatomy, "sceptr")
    stored = zoo.load(path)
    packed = next(n for n in stored if n.endswith("layers.1.self_attn.in_proj_weight"))
    q, k, v = np.split(stored[packed], 3)
    assert np.array_equal(anatomy.tensor(1, "k"), k)
    assert np.array_equal(np.vstack([anatomy.tensor(1, role) for role in "qv"]), np.vstack([q, v]))


def likeness(x: npt.NDArray[np.float32], heads: int) -> float:
    """Correlation of the norms of rows i and i + hd/2 within each head."""
    norms = np.log(np.linalg.norm(x, axis=1)).reshape(heads, 2, -1)
    return float(np.corrcoef(norms[:, 0].ravel(), norms[:, 1].ravel())[0, 1])


def test_smollm2_from_gguf() -> None:
    pytest.importorskip("gguf")
    anatomy = weightprint.anatomy(zoo.smollm2_gguf())
    complete(anatomy, "gguf_paired")
    g = anatomy.geometry["decoder"]
    assert (g.blocks, g.hidden, g.heads, g.kv_heads, g.head_dim) == (30, 576, 9, 3, 64)
    assert anatomy[Place("decoder", None, "head")].tied
    stored = zoo.load(zoo.smollm2())
    for role, heads in (("q", 9), ("k", 3)):
        as_stored = np.mean([likeness(stored[f"blk.{b}.attn_{role}.weight"], heads) for b in range(30)])
        canonical = np.mean([likeness(anatomy.tensor(b, role), heads) for b in range(30)])
        assert canonical > as_stored + 0.2, (role, canonical, as_stored)


def test_smollm2_without_its_metadata() -> None:
    """The same tensors in safetensors don't say what their rows are, so they are taken as stored."""
    anatomy = weightprint.anatomy(zoo.smollm2())
    complete(anatomy, "gguf")
    stored = zoo.load(zoo.smollm2(), ["blk.3.attn_q.weight"])["blk.3.attn_q.weight"]
    assert np.array_equal(anatomy.tensor(3, "q"), stored)


def test_smollm2_with_a_config_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    names = [n for n in zoo.load(zoo.smollm2()) if n.startswith(("blk.0.", "token_embd", "output_norm"))]
    zoo.save(tmp_path / "model.safetensors", zoo.load(zoo.smollm2(), names))
    config = {"model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    there, here = weightprint.anatomy(zoo.smollm2_gguf()), weightprint.anatomy(tmp_path)
    for role in ("q", "k", "v"):
        assert np.array_equal(here.tensor(0, role), there.tensor(0, role))
