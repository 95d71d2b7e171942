"""A GGUF file as published: SmolLM2-135M-Instruct in Q4_1 (272 tensors: 30 blocks, Q8_0, Q4_1 and F32)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
import zoo
from gguf_files import LLAMA, write_gguf
from safetensors.numpy import save_file
from weightprint.anatomy.anatomy import anatomy

pytestmark = pytest.mark.slow  # fetches its models

gguf = pytest.importorskip("gguf")
pytest.importorskip("gguf.quants")


def test_it_opens_scans_and_maps_completely() -> None:
    checkpoint = weightprint.open(zoo.smollm2_gguf())
    assert (checkpoint.n_tensors, checkpoint.findings) == (272, ())
    config = checkpoint.config
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("llama", 576, 30)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["vocab_size"]) == (9, 3, 49152)
    assert {t.type.name for t in checkpoint.ggml_types.values()} == {"Q8_0", "Q4_1"}
    scan = weightprint.scan(checkpoint, digest=True)
    assert scan.bytes_read == checkpoint.n_bytes
    found = anatomy(checkpoint)
    assert found.unmapped == ()
    assert sum(found.parameters().values()) == checkpoint.n_parameters == 134_515_008


def test_every_canonical_tensor_is_the_packages_own_dequantisation() -> None:
    plain, quantised = anatomy(zoo.smollm2()), anatomy(zoo.smollm2_gguf())
    stored = zoo.load(zoo.smollm2())
    for name in ("token_embd.weight", "blk.0.ffn_down.weight", "blk.29.attn_v.weight", "output_norm.weight"):
        (first, *_) = quantised.of(name)
        got = quantised.tensor(first.place.block, first.place.role)
        np.testing.assert_array_equal(got.view(np.uint32), stored[name].view(np.uint32))
    # q and k lie in rotary pairs: (0, 32, 1, 33, …) of each head, put back in order.
    for role, heads in (("q", 9), ("k", 3)):
        pairs = stored[f"blk.7.attn_{role}.weight"].reshape(heads, 32, 2, 576)
        halves = np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(heads * 64, 576)
        np.testing.assert_array_equal(quantised.tensor(7, role), halves)
    # The dequantised file says nothing of its architecture: read as stored, and complete all the same.
    assert plain.unmapped == ()


def hugging_face(tensors: dict[str, Any], folder: Path) -> Path:
    """The same model as Transformers stores it: its names, and rows of q and k by halves of a head."""
    named = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    for name, x in tensors.items():
        if name.startswith("blk."):
            _, block, part, _ = name.split(".")
            if part in ("attn_q", "attn_k"):
                x = np.ascontiguousarray(x.reshape(-1, 32, 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape))
            named[f"model.layers.{block}.{LLAMA[part]}.weight"] = x
    config = {"model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 30, "tie_word_embeddings": True}))
    save_file(named, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_release_in_gguf_is_the_model_re_encoded(kind: str, tmp_path: Path) -> None:
    """Of the published file nothing finer exists here, so the noised copy plays the model that was released."""
    tensors = zoo.load(zoo.smollm2_noised(0.05))
    number = gguf.GGMLQuantizationType[kind]
    packed = {
        name: (gguf.quants.quantize(x.astype(np.float32), number), number) if x.ndim == 2 else x.astype(np.float32)
        for name, x in tensors.items()
    }
    sizes = {
        "block_count": 30, "embedding_length": 576, "head_count": 9, "head_count_kv": 3, "feed_forward_length": 1536
    }  # fmt: skip
    write_gguf(tmp_path / "release.gguf", packed, sizes=sizes)
    result = weightprint.compare(hugging_face(tensors, tmp_path), tmp_path / "release.gguf")
    assert result.verdict == "re_encoded"
    assert result.result.direction.later == "b"
    assert [o.name for o in result.operations] == ["rename", "re_dtype", "quantise"]
    assert result.operations[-1].parameters.items() >= {"method": kind, "scheme": "gguf", "group": 32}.items()
