"""The type that the header says is held against the spread of the values, and nothing sound is called misread."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import weightprint
from small_models import CONFIG, llama, normal, put

BF16 = np.dtype(ml_dtypes.bfloat16)


def stored(dtype):
    return {name: x.astype(dtype) for name, x in llama().items()}


def shifted(w):
    """All tensors' bytes one place further on, as they stand in the file."""
    data = b"".join(x.tobytes() for x in w.values())[1:] + b"\0"
    out, at = {}, 0
    for name, x in w.items():
        out[name] = np.frombuffer(data[at : at + x.nbytes], x.dtype).reshape(x.shape)
        at += x.nbytes
    return out


MISREAD = {
    "bfloat16 as F16": ({n: x.view(np.float16) for n, x in stored(BF16).items()}, "as BF16"),
    "F16 as bfloat16": ({n: x.view(BF16) for n, x in stored(np.float16).items()}, "as F16"),
    "big-endian bfloat16": (
        {n: x.view(np.uint16).byteswap().view(BF16) for n, x in stored(BF16).items()},
        "other order",
    ),
    "big-endian F16": (
        {n: x.view(np.uint16).byteswap().view(np.float16) for n, x in stored(np.float16).items()},
        "other order",
    ),
    "big-endian F32": ({n: x.byteswap() for n, x in stored(np.float32).items()}, "other order"),
    "a byte missing in front, bfloat16": (shifted(stored(BF16)), "second byte"),
    "a byte missing in front, F32": (shifted(stored(np.float32)), "fourth byte"),
}


@pytest.mark.parametrize("name", MISREAD)
def test_bits_that_are_no_weights_as_stored(tmp_path, name):
    w, words = MISREAD[name]
    (found,) = weightprint.check(put(tmp_path / "m", w), select=["other_type"]).findings
    assert words in found.message


def matrices(change):
    return {n: change(x) if x.ndim == 2 else x for n, x in llama().items()}


SOUND = {
    "float32": stored(np.float32),
    "float16": stored(np.float16),
    "bfloat16": stored(BF16),
    "signs alone": matrices(np.sign),
    "ternary": matrices(lambda x: np.sign(np.where(np.abs(x) < 0.1, 0, x)).astype(BF16)),
    "four bits": matrices(lambda x: np.round(x * 20) / np.float32(20)),
    "uniform": matrices(lambda x: np.random.default_rng(1).uniform(-0.1, 0.1, x.shape).astype(np.float16)),
    "mostly zero": matrices(lambda x: np.where(np.abs(x) < 0.25, 0, x).astype(np.float16)),
    "heavy tails": matrices(lambda x: np.sinh(20 * x).astype(np.float32)),
    "large": matrices(lambda x: (1000 * x).astype(np.float16)),
    "tiny": matrices(lambda x: (1e-4 * x).astype(np.float16)),
    "cubed": matrices(lambda x: (x**3).astype(BF16)),
    "random bits": {
        n: np.random.default_rng(2).integers(0, 2**15, x.shape, np.uint16).view(np.float16) for n, x in llama().items()
    },
    "absolute values": matrices(lambda x: (0.5 + np.abs(x)).astype(np.float16)),
}


@pytest.mark.parametrize("name", SOUND)
def test_other_spreads_are_no_other_type(tmp_path, name):
    assert not weightprint.check(put(tmp_path / "m", SOUND[name]), select=["other_type"]).findings


def test_a_part_of_the_blocks_is_no_loop_gone_wrong(tmp_path):
    w = llama()
    w |= {n.replace("layers.1", "layers.2"): x for n, x in w.items() if "layers.1" in n}
    w |= {n.replace("layers.0", "layers.3"): x for n, x in w.items() if "layers.0" in n}
    assert not weightprint.check(put(tmp_path / "m", w), select=["repeated_blocks"]).findings


@pytest.mark.parametrize(("kind", "severity"), [("llama", "error"), ("gemma", "note")])
def test_gains_of_zeros_close_a_block_unless_one_is_added(tmp_path, kind, severity):
    w = {name: 0 * x if x.ndim == 1 else x for name, x in llama().items()}
    found = weightprint.check(put(tmp_path / "m", w, CONFIG | {"model_type": kind}), select=["all_zero"]).findings
    assert {f.severity for f in found} == {severity}


def test_moments_of_an_adapter_or_a_name_alone_are_no_state(tmp_path):
    w = llama() | {"optimizer_head.weight": normal(4, 32)}
    assert not weightprint.check(put(tmp_path / "m", w), select=["training_states"]).findings
