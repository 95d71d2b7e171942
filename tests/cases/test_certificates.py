"""What `compare` and `diff` say of models after public reports: a certificate only where every value was read and is
equal, sentences that hold of every tensor, operations that happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from makers import BF16, ENCODINGS, Array, Arrays, folder, int4, llama
from weightprint.cli import cli

from tests.conftest import encode


def model(at: Path, tensors: Arrays, **config: Any) -> Path:
    """As stored, the plain ones in bfloat16."""
    stored = {
        n: x.astype(BF16) if x.dtype == np.float32 and not n.endswith("_scale") else x for n, x in tensors.items()
    }
    return folder(at, encode, stored, **config)


def encoded(w: Arrays, how: str) -> Arrays:
    """The matrices of the blocks in another encoding."""
    out: Arrays = {}
    for name, x in w.items():
        out |= ENCODINGS[how][0](name, x) if "_proj" in name else {name: x}
    return out


def told(a: Path, b: Path) -> tuple[str, str, dict[str, Any], dict[str, int]]:
    """The verdict, its sentence, operations by name, and what diff counts."""
    result = weightprint.compare(a, b)
    done = {o.name: o.parameters for o in result.operations}
    return result.verdict, result.result.sentence, done, weightprint.diff(a, b).counts


# BitNet


def ternary(w: Arrays) -> tuple[Arrays, Arrays, Arrays]:
    """Packed, its values in bfloat16, and in float32 with the scale on the wrong side of the fraction."""
    packed, plain, divided = dict(w), dict(w), {n: x.astype(np.float64) for n, x in w.items()}
    for name, x in w.items():
        if "_proj" not in name:
            continue
        scale = np.array([np.abs(x).mean()]).astype(BF16)
        codes = np.clip(np.rint(x / scale.astype(np.float32)), -1, 1)
        quarter = (codes + 1).astype(np.uint8).reshape(4, -1, x.shape[1])
        packed[name] = quarter[0] | quarter[1] << 2 | quarter[2] << 4 | quarter[3] << 6
        packed[f"{name}_scale"] = scale
        plain[name] = codes * scale.astype(np.float32)
        divided[name] = (codes / scale.astype(np.float32)).astype(np.float32)
    return packed, plain, {n: x.astype(np.float32) for n, x in divided.items()}


@pytest.fixture
def bitnets(tmp_path: Path) -> dict[str, Path]:
    packed, plain, divided = ternary(llama(36, tied=True))
    said = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    return {
        "packed": model(tmp_path / "packed", packed, quantization_config=said),
        "unknown": model(tmp_path / "unknown", packed),
        "bf16": model(tmp_path / "bf16", plain),
        "divided": folder(tmp_path / "divided", encode, divided),
    }


@pytest.mark.slow_but_first
@pytest.mark.parametrize("turned", [False, True])
def test_a_scale_on_the_wrong_side_is_no_encoding(bitnets: dict[str, Path], turned: bool) -> None:
    for first in ("bf16", "packed"):
        a, b = (bitnets[first], bitnets["divided"])[:: -1 if turned else 1]
        verdict, sentence, done, counts = told(a, b)
        assert verdict == "shared_origin"
        assert "14 tensors of B is A's times" in sentence
        assert done["scaled"]["tensors"] == counts["changed"] == 14
        factor = done["scaled"]["factor"]
        assert 1000 < (1 / factor if turned else factor) < 4000
        assert not {"fine_tune", "continued_pretraining"} & set(done)


@pytest.mark.parametrize("turned", [False, True])
def test_ternary_codes_are_read(bitnets: dict[str, Path], turned: bool) -> None:
    verdict, _, _, counts = told(*(bitnets["bf16"], bitnets["packed"])[:: -1 if turned else 1])
    assert verdict == "re_encoded"
    assert counts == {"re_encoded": 14, "same": 6}


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_decoded_is_neither_equal_nor_different(bitnets: dict[str, Path], turned: bool) -> None:
    a, b = (bitnets["bf16"], bitnets["unknown"])[:: -1 if turned else 1]
    verdict, sentence, done, counts = told(a, b)
    assert verdict == "partly_shared"
    assert "value for value" not in sentence
    assert not {"fine_tune", "continued_pretraining", "unstructured_pruning"} & set(done)
    assert counts == {"not_read": 28, "same": 6}
    result = weightprint.compare(a, b)
    assert any(line.startswith("Not read: 28 tensors") for line in result.result.against)
    assert not any("Other values" in line for line in result.result.against)
    rows = weightprint.diff(a, b).table.to_records()
    assert all(row["relative"] is row["cosine"] is None for row in rows if row["status"] != "same")
    assert weightprint.compare(bitnets["unknown"], bitnets["unknown"]).verdict == "identical"
    assert weightprint.diff(bitnets["unknown"], bitnets["unknown"]).same


def test_bytes_of_one_unknown_scheme_that_differ_give_no_numbers(tmp_path: Path) -> None:
    """Two fine-tunes stored in words that nothing decodes."""
    w = llama(3)
    rng = np.random.default_rng(0)
    words = {n: rng.integers(0, 1 << 32, (len(x), x.shape[1] // 8), np.uint32) for n, x in w.items() if "_proj" in n}
    other = {n: np.where(rng.random(x.shape) < 0.2, x + 1, x).astype(np.uint32) for n, x in words.items()}
    a, b = (model(tmp_path / at, w | x) for at, x in (("a", words), ("b", other)))
    _, _, done, counts = told(a, b)
    assert counts == {"not_read": 14, "same": 7}
    assert not done
    cosines = [e.details.get("cosines", {}) for e in weightprint.compare(a, b).evidence if e.test == "aligned_weights"]
    assert all(not set(found) & set(words) for found in cosines)


# Codes


@pytest.mark.slow_but_first
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("how", ["MXFP4", "MXFP8", "I4 in groups"])
def test_codes_under_scales_are_the_values(tmp_path: Path, how: str, turned: bool) -> None:
    w = llama(37)
    a, b = (model(tmp_path / "a", w), model(tmp_path / "b", encoded(w, how)))[:: -1 if turned else 1]
    verdict, _, done, counts = told(a, b)
    assert verdict == "re_encoded"
    assert set(done) == {"quantise"}  # told from the earlier model to the later one
    assert counts == {"re_encoded": 14, "same": 7}


def test_one_model_in_two_schemes(tmp_path: Path) -> None:
    """Groups of four bits in words, and the same codes as an F32 file's Q4_0 in another tool's words."""
    w = llama(64)
    decoded = {}
    for name, x in w.items():
        codes, scale = int4(x) if "_proj" in name else (x, np.ones(0, np.float32))
        decoded[name] = codes * np.repeat(scale, 32, 1) if "_proj" in name else x
    hub = model(tmp_path / "hub", encoded(w, "I4 in groups"))
    eight = folder(tmp_path / "eight", encode, encoded(decoded, "I8 per row"))
    for a, b in ((hub, eight), (eight, hub)):
        verdict, _, done, counts = told(a, b)
        assert "changed" not in counts or verdict not in ("re_encoded", "identical")
        assert not {"fine_tune", "continued_pretraining"} & set(done)


@pytest.mark.slow
def test_a_scale_of_activations_that_differs_or_is_gone_is_no_copy(tmp_path: Path) -> None:
    """It is no part of a weight, and the model computes with it."""
    w = encoded(llama(2), "F8 per row")
    name = "model.layers.1.mlp.down_proj.input_scale"
    scales = {f"{n.removesuffix('weight')}input_scale": np.float32([0.01]) for n in w if n.endswith("_proj.weight")}
    whole, lost, other = (
        model(tmp_path / at, w | x)
        for at, x in (
            ("whole", scales),
            ("lost", {n: x for n, x in scales.items() if n != name}),
            ("other", scales | {name: np.float32([0.02])}),
        )
    )
    assert told(whole, whole)[0] == "identical"
    for b, status in ((lost, "only_a"), (other, "changed")):
        verdict, _, _, counts = told(whole, b)
        assert verdict == "shared_origin"
        assert counts[status] == 1
        assert told(b, whole)[0] == "shared_origin"
    assert told(model(tmp_path / "plain", llama(2)), whole)[0] == "re_encoded"


# What is there and what isn't


@pytest.mark.parametrize("kind", [BF16, np.float32])
@pytest.mark.parametrize("turned", [False, True])
def test_a_tied_head_that_is_stored_moved_nothing(tmp_path: Path, kind: Any, turned: bool) -> None:
    w = llama(52, tied=True)
    stored = w | {"lm_head.weight": w["model.embed_tokens.weight"]}
    a = model(tmp_path / "hub", w)
    b = folder(tmp_path / "merger", encode, {n: x.astype(kind) for n, x in stored.items()}, tie_word_embeddings=True)
    verdict, sentence, done, counts = told(*(a, b)[:: -1 if turned else 1])
    assert verdict == ("identical" if kind is BF16 else "re_encoded")
    assert "moved" not in sentence
    assert set(done) <= {"re_dtype"}
    assert set(counts) <= {"same", "re_encoded"}


def test_a_model_with_simple_tensors_more_says_how_many(tmp_path: Path) -> None:
    w = llama(1)
    ours, theirs = model(tmp_path / "a", w), model(tmp_path / "b", w | {"steps": np.zeros(3, np.float32)})
    for a, b in ((ours, theirs), (theirs, ours)):
        sentence = weightprint.compare(a, b).result.sentence
        assert " 0 more" not in sentence
        assert "1 more tensor" in sentence


# diff


def test_names_that_differ_are_said_with_their_rule(tmp_path: Path) -> None:
    w = llama(41)
    long = {n.replace("model.", "model.language_model.", 1): x for n, x in w.items()}
    thrice = {n.replace("language_model.", "language_model." * 3): x for n, x in long.items()}
    a, b = model(tmp_path / "a", long), model(tmp_path / "b", thrice)
    found = weightprint.diff(a, b)
    n = sum(name.startswith("model.") for name in w)
    assert found.same
    assert found.renamed == [("'language_model' stands 3 times in B's names, once in A's", n)]
    output = CliRunner().invoke(cli, ["diff", str(a), str(b)]).output
    assert f"{n} names differ" in output
    assert "3 times" in output
    assert weightprint.diff(a, a).renamed == []
    assert weightprint.diff(model(tmp_path / "c", w), a).renamed == [("'language_model' is in B's names only", n)]


def test_new_nan_and_inf_come_first_and_have_no_number(tmp_path: Path) -> None:
    w = llama(5)
    broken: dict[str, Array] = {n: x.copy() for n, x in w.items()}
    broken["model.layers.1.mlp.down_proj.weight"][3, 5:7] = np.nan, np.inf
    broken["model.layers.0.self_attn.q_proj.weight"] *= 1.5
    a, b = model(tmp_path / "a", w), model(tmp_path / "b", broken)
    (row,) = (r for r in weightprint.diff(a, b).table.to_records() if "1.mlp.down" in r["name"])
    assert row["relative"] is row["cosine"] is row["max_difference"] is None
    assert (row["n_differ"], row["n_nonfinite_a"], row["n_nonfinite_b"]) == (2, 0, 2)
    lines = CliRunner().invoke(cli, ["diff", str(a), str(b)]).output.splitlines()
    first = next(line for line in lines if line.startswith("model."))
    assert "1.mlp.down_proj" in first
    assert "NaN or Inf 0 → 2" in first
    assert weightprint.diff(b, b).same


def test_what_one_side_lacks_is_no_scalar(tmp_path: Path) -> None:
    w = llama(6)
    a, b = model(tmp_path / "a", w), model(tmp_path / "b", w | {"new.weight": np.ones((7, 9), np.float32)})
    for names, shapes in (((a, b), "- → 7×9"), ((b, a), "7×9 → -")):
        output = CliRunner().invoke(cli, ["diff", *map(str, names)]).output
        assert shapes in output
        assert "scalar" not in output


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "txt"])
def test_the_suffix_says_what_is_written(tmp_path: Path, suffix: str) -> None:
    a, b = model(tmp_path / "a", llama(6)), model(tmp_path / "b", llama(7))
    out = tmp_path / f"diff.{suffix}"
    assert CliRunner().invoke(cli, ["diff", str(a), str(b), "-o", str(out)]).exit_code == 1
    start = {"csv": "name,name_a,status", "json": "{", "jsonl": '{"name"', "txt": "A  "}[suffix]
    assert out.read_text().startswith(start)
    assert CliRunner().invoke(cli, ["diff", str(a), str(b), "-o", str(tmp_path / "x.odd")]).exit_code == 2
