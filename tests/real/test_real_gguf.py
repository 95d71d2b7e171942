"""A GGUF file as published: SmolLM2-135M-Instruct in Q4_1 (272 tensors: 30 blocks, Q8_0, Q4_1 and F32)."""

from __future__ import annotations

import numpy as np
import pytest
import weightprint
import zoo
from weightprint.anatomy.access import anatomy

gguf = pytest.importorskip("gguf")


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
