"""The four models in the package: small, sound, really trained, and judged truly."""

from __future__ import annotations

import dataclasses
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import weightprint
from weightprint.demo.demo_models import MODELS

FOLDER = Path(str(files("weightprint.demo"))) / "models"
NAMES = [model.name for model in MODELS]


def test_together_they_stay_within_two_megabytes() -> None:
    present = sorted(str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file())
    assert present == sorted(f"{name}/{file}" for name in NAMES for file in ("config.json", "model.safetensors"))
    assert sum((FOLDER / file).stat().st_size for file in present) <= 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_sound_bf16_checkpoint(name: str) -> None:
    report = weightprint.check(FOLDER / name)
    assert report.exit_code == 0, [finding.message for finding in report.findings]
    with weightprint.open(FOLDER / name) as checkpoint:
        assert {tensor.dtype for tensor in checkpoint.tensors} == {"BF16"}


@pytest.mark.parametrize("name", NAMES)
def test_each_learned_far_more_than_byte_frequencies(name: str) -> None:
    with weightprint.open(FOLDER / name) as checkpoint:
        about = checkpoint.metadata
    assert float(about["held_out_bits_per_byte"]) < 0.6 * float(about["held_out_unigram_bits_per_byte"])
    assert about["parents"] == ("parent" if name in ("finetune", "moe") else "")


def test_the_forward_pass_of_the_stored_parent_predicts_text() -> None:
    """An oracle for the claim in the metadata: a Llama written in numpy, on text that every Python has."""
    text = np.frombuffer(Path(dataclasses.__file__).read_bytes(), np.uint8)[:512].astype(np.int64)
    windows = text.reshape(4, 128)
    with weightprint.open(FOLDER / "parent") as checkpoint:
        weights = {name: checkpoint.read(name).astype(np.float64) for name in checkpoint.names()}
    assert _bits_per_byte(weights, windows) < 3.0
    shuffled = weights | {"model.layers.2.mlp.up_proj.weight": weights["model.layers.2.mlp.up_proj.weight"][::-1]}
    assert _bits_per_byte(shuffled, windows) > _bits_per_byte(weights, windows)


def _bits_per_byte(w: dict[str, np.ndarray], windows: np.ndarray) -> float:
    heads, kv_heads, theta, layers = 4, 2, 10_000.0, 5
    x = w["model.embed_tokens.weight"][windows[:, :-1]]
    batch, time, width = x.shape
    head = width // heads
    angle = np.tile(np.arange(time)[:, None] * theta ** (-np.arange(0, head, 2) / head), (1, 2))

    def norm(name: str) -> np.ndarray:
        return w[name] * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    def split(y: np.ndarray, count: int) -> np.ndarray:
        return np.repeat(y.reshape(batch, time, count, head).swapaxes(1, 2), heads // count, axis=1)

    def turn(y: np.ndarray) -> np.ndarray:
        half = np.concatenate([-y[..., head // 2 :], y[..., : head // 2]], axis=-1)
        return y * np.cos(angle) + half * np.sin(angle)

    for layer in range(layers):
        p = f"model.layers.{layer}."
        n = norm(p + "input_layernorm.weight")
        q, k, v = (
            split(n @ w[p + f"self_attn.{r}_proj.weight"].T, c)
            for r, c in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        scores = turn(q) @ turn(k).swapaxes(-1, -2) / math.sqrt(head)
        scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
        a = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (a / a.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(x.shape)
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        n = norm(p + "post_attention_layernorm.weight")
        gate = n @ w[p + "mlp.gate_proj.weight"].T
        up = n @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    logits = norm("model.norm.weight") @ w["lm_head.weight"].T
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    picked: np.ndarray = np.take_along_axis(logits, windows[:, 1:, None], -1)
    return float(-picked.mean() / math.log(2))


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("finetune", {"shared_origin"}),
        ("moe", {"shared_origin", "partly_shared"}),
        ("stranger", {"inconclusive", "no_evidence"}),
    ],
)
def test_the_verdict_is_true(name: str, true: set[str]) -> None:
    for a, b in (("parent", name), (name, "parent")):
        comparison = weightprint.compare(FOLDER / a, FOLDER / b)
        assert comparison.verdict in true
        assert comparison.log10_p is not None
        assert (comparison.log10_p <= -6) == (name != "stranger")


@pytest.mark.parametrize("name", ["finetune", "moe"])
def test_the_stranger_is_no_kin_of_the_children_either(name: str) -> None:
    assert weightprint.compare(FOLDER / "stranger", FOLDER / name).verdict in {"inconclusive", "no_evidence"}


def test_finetune_and_moe_are_kin() -> None:
    assert weightprint.compare(FOLDER / "finetune", FOLDER / "moe").verdict in {"shared_origin", "partly_shared"}


def test_a_model_is_identical_to_itself() -> None:
    assert weightprint.compare(FOLDER / "parent", FOLDER / "parent").verdict == "identical"
