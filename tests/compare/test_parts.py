"""A stranger that holds one part of A is *partly shared*, with the true share; a descendant of all of A never is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import weightprint

ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, ROOT)
pytest.importorskip("jax")
parts = import_module("benches.lineage.populations.parts")
made = import_module("benches.lineage.zoo.model_folder")
sys.path.remove(ROOT)

SMALL, PLAIN = parts.Shape(64, 160, 6, 4, 4, 200), parts.Shape(96, 224, 4, 6, 3, 160, gated=False)


def numel(model: Any) -> int:
    return sum(x.size for x in model.tensors.values())


def written(folder: Path, name: str, model: Any, tensors: Mapping[str, npt.NDArray[Any]] | None = None) -> Path:
    return Path(made.save(folder / name, model if tensors is None else replace(model, tensors=dict(tensors))))


def child(model: Any, rho: float, seed: int = 3) -> dict[str, npt.NDArray[np.float32]]:
    """Trained on: every matrix keeps a correlation of rho."""
    rng = np.random.default_rng(seed)
    return {
        n: (rho * x + np.sqrt(1 - rho**2) * x.std() * rng.standard_normal(x.shape)).astype(np.float32)
        if x.ndim > 1
        else x * (1 + 0.02 * rng.standard_normal(x.shape)).astype(np.float32)
        for n, x in model.tensors.items()
    }


@pytest.mark.slow_but_first
@pytest.mark.parametrize(
    ("part", "how", "shape"),
    [
        ("attention", "copied", SMALL),
        ("attention", "reordered", PLAIN),
        ("attention", "trained", SMALL),
        ("ffn", "copied", PLAIN),
        ("ffn", "reordered", SMALL),
        ("two_layers", "trained", PLAIN),
        ("one_layer", "reordered", SMALL),
        ("embedding", "trained", SMALL),
        ("one_expert", "reordered", PLAIN),
        ("upcycled", "trained", SMALL),
    ],
)
def test_a_part_alone(part: str, how: str, shape: Any, tmp_path: Path) -> None:
    pair = parts.pair(part, shape, 1, how)
    a, b = written(tmp_path, "a", pair.a), written(tmp_path, "b", pair.b)
    other = pair.share * numel(pair.b) / numel(pair.a)
    for first, second, truth in ((a, b, pair.share), (b, a, other)):
        found = weightprint.compare(first, second)
        share = found.result.share
        assert found.verdict == "partly_shared"
        assert share.value == pytest.approx(truth, abs=0.05)
        assert share.low - 0.01 <= truth <= share.high + 0.01
        assert "not found" in found.result.sentence or part == "embedding"


def test_the_report_names_the_part_that_is_not_there(tmp_path: Path) -> None:
    for part, absent, held in (("attention", "0 FFN", "attention"), ("ffn", "0 attention", "FFN")):
        pair = parts.pair(part, SMALL, 2)
        found = weightprint.compare(written(tmp_path, "a", pair.a), written(tmp_path, "b", pair.b))
        assert any(f"decoder.{absent}" in line for line in found.result.against)
        assert any(f"6 of them in their {held} only" in line for line in found.result.in_favour)


def pooled(x: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of heads averaged two by two."""
    return np.asarray(x.reshape(heads // 2, 2, -1, x.shape[1]).mean(1).reshape(-1, x.shape[1]))


@pytest.mark.slow_but_first
@pytest.mark.parametrize("edit", ["heads pooled", "embedding anew", "far", "units anew in part", "layer anew"])
def test_a_descendant_of_all_of_it_is_not_a_part(edit: str, tmp_path: Path) -> None:
    """Attention rewritten beyond the tests, a new vocabulary, long training, a widened FFN."""
    a = parts.pair("embedding", SMALL, 3).a
    b, config = child(a, 0.45 if edit == "far" else 0.8), dict(a.config)
    rng = np.random.default_rng(4)
    if edit == "heads pooled":
        config["num_key_value_heads"] = 2
        for name in [n for n in b if "k_proj" in n or "v_proj" in n]:
            b[name] = pooled(b[name], 4)
        for name in [n for n in b if "q_proj" in n or "o_proj" in n]:  # and nothing left of the others
            b[name] = rng.permuted(b[name], axis=1).astype(np.float32)
    if edit == "embedding anew":
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            b[name] = (0.02 * rng.standard_normal((150, 64))).astype(np.float32)
        config["vocab_size"] = 150
    if edit == "far":
        parts._reorder(b, SMALL, rng)
    if edit == "units anew in part":
        config["intermediate_size"] = 240
        for name in [n for n in b if ".mlp." in n]:
            axis, x = int("down" in name), b[name]
            more = x.std() * rng.standard_normal((80, 64) if axis == 0 else (64, 80))
            b[name] = np.concatenate([x, more.astype(np.float32)], axis)
    if edit == "layer anew":  # that writes nothing, as inserted ones do
        for name in [n for n in b if ".layers.3." in n]:
            b[name.replace("layers.3", "layers.6")] = (
                np.zeros_like(b[name]) if "o_proj" in name or "down_proj" in name else b[name]
            )
        config["num_hidden_layers"] = 7
    after = replace(a, tensors={n: np.ascontiguousarray(x, np.float32) for n, x in b.items()}, config=config)
    for first, second in ((a, after), (after, a)):
        found = weightprint.compare(written(tmp_path, "a", first), written(tmp_path, "b", second))
        assert found.verdict == "shared_origin"


def test_one_expert_of_four_is_not_four(tmp_path: Path) -> None:
    pair = parts.pair("shared_body", SMALL, 1)
    found = weightprint.compare(written(tmp_path, "a", pair.a), written(tmp_path, "b", pair.b))
    (row,) = [o for o in found.operations if o.name == "moe_upcycling"]
    assert (row.parameters["experts"], row.parameters["copied"]) == (4, 1)
    assert "1 of them a copy" in row.where
    assert row.confidence < 0.9


@pytest.mark.parametrize("axis", [0, -1])
def test_stacked_layers_are_said_not_to_be_looked_at(axis: int, tmp_path: Path) -> None:
    """Weights of all layers in one tensor: what isn't read is never said to be absent."""
    a = parts.pair("embedding", SMALL, 1).a
    stacked: dict[str, list[npt.NDArray[Any]]] = {}
    outside = {n: x for n, x in a.tensors.items() if ".layers." not in n}
    for name, x in child(a, 0.9).items():
        if ".layers." in name:
            stacked.setdefault("layers." + name.split(".", 3)[3], []).append(x)
    b = outside | {n: np.ascontiguousarray(np.stack(xs, axis)) for n, xs in stacked.items()}
    for first, second in (({}, b), (b, {})):
        found = weightprint.compare(
            written(tmp_path, "a", a, first or a.tensors), written(tmp_path, "b", a, second or a.tensors)
        )
        if found.verdict == "partly_shared":
            assert "not looked at: 7 tensors" in found.result.sentence
            assert "hold stacked layers" in found.result.sentence
            assert "not found" not in found.result.sentence
            assert found.result.share.high == 1
        else:
            assert found.verdict == "shared_origin"  # once they are read


def test_quick_does_not_tell_a_part_from_the_whole(tmp_path: Path) -> None:
    pair = parts.pair("attention", SMALL, 1)
    found = weightprint.compare(written(tmp_path, "a", pair.a), written(tmp_path, "b", pair.b), effort="quick")
    assert found.verdict == "shared_origin"
    assert found.to_dict()["readings"][:2] == ["shared_origin", "partly_shared"]
    assert "SHARED ORIGIN OR A PART OF IT" in str(found)
    whole = weightprint.compare(tmp_path / "a", tmp_path / "a")
    assert whole.to_dict()["readings"] == ["identical"]


def test_the_generator_gives_the_same_values_again_and_true_shares() -> None:
    first, again = (parts.pair("attention", SMALL, 5, "reordered") for _ in range(2))
    assert all(np.array_equal(x, again.b.tensors[n]) for n, x in first.b.tensors.items())
    copied = parts.pair("two_layers", PLAIN, 5)
    equal = sum(x.size for n, x in copied.b.tensors.items() if np.array_equal(x, copied.a.tensors[n]))
    assert copied.share == pytest.approx(equal / numel(copied.b))


@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_numbers_of_positions_are_no_part(effort: Any, tmp_path: Path) -> None:
    """Two strangers of other architectures keep 0, 1, 2, … in their own types."""
    ids = np.arange(512)
    one = dict(parts.pair("embedding", SMALL, 1).a.tensors) | {"model.position_ids": ids[None]}
    other = dict(parts.pair("embedding", PLAIN, 2).b.tensors) | {"model.position_ids": ids[None].astype(np.float32)}
    a, b = (
        written(tmp_path, name, parts.pair("embedding", shape, 1).a, tensors)
        for name, shape, tensors in (("a", SMALL, one), ("b", PLAIN, other))
    )
    for first, second in ((a, b), (b, a)):
        assert weightprint.compare(first, second, effort=effort).verdict in ("inconclusive", "no_evidence")
