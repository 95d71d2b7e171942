"""From files to the report: the JSON contract, the exit codes, hostile names, odd tensors."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from safetensors.numpy import save_file
from synthetic import child, decoder
from weightprint.cli.compare import compare as command
from weightprint.evidence.tests import PUBLISHED, TESTS

CONTRACT = [
    "schema_version", "tool", "a", "b", "verdict", "log10_p", "share", "direction", "operations", "layer_map",
    "expert_map", "evidence", "against", "seconds", "bytes_read", "peak_rss_bytes",
]  # fmt: skip
MODEL = ["source", "digest", "n_tensors", "n_parameters", "n_bytes", "family", "layers", "hidden_size", "vocabulary"]
EVIDENCE = [
    "test", "applied", "why_not", "statistic", "effect", "n", "log10_p", "null", "assumes", "blind_to", "seconds",
]  # fmt: skip


@pytest.fixture
def pair(save: Any) -> tuple[Path, Path]:
    a = decoder(0)
    return save("a.safetensors", a), save("b.safetensors", child(a, 0.8))


def test_the_json_contract(pair: tuple[Path, Path]) -> None:
    result = weightprint.compare(*pair)
    out = json.loads(result.to_json())
    assert list(out)[: len(CONTRACT)] == CONTRACT
    assert out["schema_version"] == 1
    assert list(out["a"]) == MODEL
    assert (out["a"]["layers"], out["a"]["hidden_size"], out["a"]["vocabulary"]) == (4, 64, 200)
    assert all(list(e)[: len(EVIDENCE)] == EVIDENCE for e in out["evidence"])
    assert out["verdict"] == "shared_origin"
    assert out["log10_p"] < -40
    assert list(out["direction"])[:5] == ["later", "confidence", "because", "relation", "parted_at"]
    assert out["direction"]["later"] == "b"
    assert [row[:2] for row in out["layer_map"]] == [[i, i] for i in range(4)]
    assert out["expert_map"] == []
    assert out["bytes_read"] >= sum(p.stat().st_size for p in pair) * 0.9
    assert 0 <= out["share"]["low"] <= out["share"]["value"] <= out["share"]["high"] <= 1


def test_non_finite_values_give_valid_json(save: Any) -> None:
    a = decoder(0)
    a["model.layers.0.mlp.up_proj.weight"][0, :5] = [np.nan, np.inf, -np.inf, np.nan, 1e38]
    a["all_nan"] = np.full((8, 8), np.nan, np.float32)
    b = {**child(a, 0.9), "model.layers.1.self_attn.q_proj.weight": np.full((64, 64), np.nan, np.float32)}
    out = weightprint.compare(save("a.safetensors", a), save("b.safetensors", b)).to_json()
    assert json.loads(out, parse_constant=pytest.fail)["verdict"] == "shared_origin"


@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
@pytest.mark.parametrize("kept", [0, 1])
def test_models_of_nan_but_for_one_value_say_nothing(save: Any, effort: Any, kept: int) -> None:
    def emptied(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: np.where(np.arange(x.size).reshape(x.shape) < kept, x, np.nan) for n, x in model.items()}

    a, b = save("a.safetensors", emptied(decoder(0))), save("b.safetensors", emptied(decoder(1)))
    # Files of NaN alone are equal byte for byte, which quick doesn't look at.
    expected = "inconclusive" if kept or effort == "quick" else "identical"
    assert weightprint.compare(a, b, effort=effort).verdict == expected


def test_quick_calls_a_file_and_itself_identical_and_no_copy(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = pair
    link, hard, copy = (tmp_path / f"{name}.safetensors" for name in ("link", "hard", "copy"))
    link.symlink_to(a)
    hard.hardlink_to(a)
    copy.write_bytes(a.read_bytes())
    for other in (a, link, hard):
        found = weightprint.compare(a, other, effort="quick")
        told = found.to_dict()
        assert (found.verdict, found.same, found.weighed().name) == ("identical", True, "identical")
        assert told["evidence"][0]["details"]["one_file"] is True
        assert "the same file" in told["sentence"]
        assert "BLAKE3" not in str(found)
    assert weightprint.compare(a, copy, effort="quick").verdict == "shared_origin"
    details = weightprint.compare(a, link).to_dict()["evidence"][0]["details"]
    assert "one_file" not in details  # there every value was compared


def test_the_result_is_frozen_and_shows_itself(pair: tuple[Path, Path]) -> None:
    result = weightprint.compare(*pair)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.seconds = 0.0
    assert "SHARED ORIGIN" in str(result)
    assert "SHARED ORIGIN" in result._repr_html_()
    assert len(result.to_pandas()) == len(result.evidence)


def test_a_checkpoint_may_be_open_already(pair: tuple[Path, Path]) -> None:
    with weightprint.open(pair[0]) as a:
        assert weightprint.compare(a, pair[1]).verdict == "shared_origin"
        assert len(a.names()) == a.n_tensors  # still open


def test_identical_across_shards_names_and_order(save: Any, save_sharded: Any) -> None:
    a = decoder(0)
    renamed = {f"t{i:03d}": x for i, x in enumerate(reversed(a.values()))}
    shards = [dict(list(renamed.items())[k::3]) for k in range(3)]
    result = weightprint.compare(save("a.safetensors", a), save_sharded("b", shards))
    assert (result.verdict, result.same) == ("identical", True)
    assert result.a.digest == result.b.digest


def test_the_same_seed_gives_the_same_answer(pair: tuple[Path, Path]) -> None:
    drop = {"seconds", "gemm_seconds", "peak_rss_bytes"}

    def answer() -> dict[str, Any]:
        out = weightprint.compare(*pair, seed=3).to_dict()
        for e in out["evidence"]:
            e.pop("seconds")
            e.pop("gemm_seconds")
        return {k: v for k, v in out.items() if k not in drop}

    assert answer() == answer()


def test_progress_is_in_bytes_of_both(pair: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    weightprint.compare(*pair, progress=lambda done, total: seen.append((done, total)))
    with weightprint.open(pair[0]) as a, weightprint.open(pair[1]) as b:
        assert {total for _, total in seen} == {a.n_bytes + b.n_bytes}


def test_an_unknown_effort_is_refused(pair: tuple[Path, Path]) -> None:
    with pytest.raises(weightprint.UsageError, match="effort"):
        weightprint.compare(*pair, effort="heroic")


@pytest.mark.parametrize("other", ["empty", "scalars", "complex", "ranks"])
def test_odd_tensors_are_survived(save: Any, other: str) -> None:
    rng = np.random.default_rng(0)
    odd: dict[str, dict[str, Any]] = {
        "empty": {"none": np.empty((0, 64), np.float32), "layers.0.up_proj.weight": np.empty((0,), np.float32)},
        "scalars": {"s": np.float32(3).reshape(()), "i": np.array([1, 2], np.int64), "b": np.array([True, False])},
        "complex": {"c": (rng.standard_normal((64, 64)) + 1j).astype(np.complex64)},
        "ranks": {"layers.0.experts.gate_up_proj": rng.standard_normal((4, 64, 64)).astype(np.float32)},
    }
    b = odd[other]
    path = save("b.safetensors", b)
    assert weightprint.compare(save("a.safetensors", decoder(0)), path).verdict == "inconclusive"
    assert weightprint.compare(path, path).verdict == "identical"


def test_hostile_names_are_escaped_everywhere(save: Any) -> None:
    bad = "evil\x1b[31m<script>alert(1)</script>\u202e"
    a = {**decoder(0), bad: decoder(3)["model.embed_tokens.weight"]}
    result = weightprint.compare(save("a.safetensors", a), save("b.safetensors", decoder(0)))
    from weightprint.report.compare import text as shown

    for text in (shown(result, verbose=True), result._repr_html_()):
        assert "evil" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in result._repr_html_()


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, [str(x) for x in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


def test_exit_codes(save: Any) -> None:
    a = decoder(0)
    first = save("a.safetensors", a)
    half = save("half.safetensors", {n: x.astype(ml_dtypes.bfloat16) for n, x in a.items()})
    headless = save("c.safetensors", {n: x.astype(ml_dtypes.bfloat16) for n, x in a.items() if "embed" not in n})
    assert run(first, first)[0] == 0
    assert run(first, half)[0] == 0
    assert run(first, headless)[0] == 1  # re-encoded, but not all of it
    assert run(first, save("d.safetensors", child(a, 0.8)))[0] == 1
    assert run(first, save("e.safetensors", decoder(1)))[0] == 1
    with pytest.raises(FileNotFoundError):
        run(first, "no/such/file.safetensors")


def test_the_screen_says_what_a_reader_needs(pair: tuple[Path, Path]) -> None:
    _, text = run(*pair)
    for part in (
        "SHARED ORIGIN. ",
        "How sure",
        "Error rate",
        "Who first",
        "Layers",
        "For",
        "Against",
        "-v: test by test",
    ):
        assert part in text
    assert len(text.splitlines()) < 24
    assert not {test.name for test in TESTS}.intersection(re.findall(r"\w+", text))
    _, verbose = run(*pair, "-v")
    for test in ("exact_sharing", "same_values", "aligned_weights", "aligned_units", "norm_gains", "sigma_curve"):
        assert test in verbose
    assert verbose.startswith(text.splitlines()[0])
    assert set(re.findall("^  [A-Z][a-z ]+", text, re.M)) <= set(re.findall("^  [A-Z][a-z ]+", verbose, re.M))
    assert "What these tests can't see" in verbose
    assert "chance of such agreement if" in " ".join(verbose.split())
    assert "assumes:" in verbose
    assert "Decided by:" in verbose
    assert max(map(len, verbose.splitlines())) <= 80
    assert run(*pair, "-q")[1] == "shared origin\n"


def test_published_measures_run_when_asked(pair: tuple[Path, Path]) -> None:
    """Unasked only the one that people quote; none decides, so nothing else changes."""
    plain, asked = weightprint.compare(*pair), weightprint.compare(*pair, published=True)
    shown, every = ({e.test for e in found.evidence} for found in (plain, asked))
    published = {test.name for test in PUBLISHED}
    assert shown & published == {"sigma_curve"}
    assert every >= published
    assert every - published == shown - published
    assert (plain.parameters["published"], asked.parameters["published"]) == (False, True)
    assert plain.result == asked.result
    hint = "--published"
    asked_for = (["-v"], ["-v", "--published"], ["-v", "--effort", "full"])
    assert [hint in run(*pair, *more)[1] for more in asked_for] == [True, False, False]


def test_json_goes_to_stdout_and_reports_to_files(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, text = run(*pair, "--json", "-o", tmp_path / "x.json")
    assert json.loads(text)["verdict"] == json.loads((tmp_path / "x.json").read_text())["verdict"]
    run(*pair, "-o", tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    with pytest.raises(Exception, match="can't tell the form"):
        run(*pair, "-o", tmp_path / "x.pdf")


def test_a_block_quantised_copy_is_measured_decoded(tmp_path: Path) -> None:
    """FP8 under scales of 128 x 128 blocks: the tests see the values, not the codes."""
    a, b = decoder(0), {}
    for name, x in a.items():
        if x.ndim == 2 and ".layers." in name:
            starts = [np.arange(0, n, 128) for n in x.shape]
            scales = np.maximum.reduceat(np.maximum.reduceat(np.abs(x), starts[0], axis=0), starts[1], axis=1) / 448
            spread = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)[: x.shape[0], : x.shape[1]]
            b[name] = (x / spread).astype(ml_dtypes.float8_e4m3fn)
            b[f"{name}_scale_inv"] = scales.astype(np.float32)
        else:
            b[name] = x
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(a, ours)
    save_file(b, theirs)
    result = weightprint.compare(ours, theirs)
    assert result.verdict == "re_encoded"
    (quantise,) = (o for o in result.operations if o.name == "quantise")
    assert quantise.parameters.items() >= {"method": "fp8", "scheme": "fp8_tensor", "bits": 8, "group": 64}.items()
    sigma = next(e for e in result.evidence if e.test == "sigma_curve")
    assert sigma.statistic == pytest.approx(1, abs=0.01)
    exact = next(e for e in result.evidence if e.test == "exact_sharing")
    assert exact.details["n_equal"] == sum(not (x.ndim == 2 and ".layers." in n) for n, x in a.items())


def test_a_fused_copy_is_identical(tmp_path: Path) -> None:
    """q|k|v and gate|up stacked, as Phi-3 stores them: the same canonical tensors, bit for bit."""
    a = decoder(0)
    fused = {n: x for n, x in a.items() if not any(p in n for p in ("q_proj", "k_proj", "v_proj", "gate_", "up_proj"))}
    for i in range(4):
        at = f"model.layers.{i}."
        fused[f"{at}self_attn.qkv_proj.weight"] = np.concatenate([a[f"{at}self_attn.{p}_proj.weight"] for p in "qkv"])
        fused[f"{at}mlp.gate_up_proj.weight"] = np.concatenate([a[f"{at}mlp.{p}_proj.weight"] for p in ("gate", "up")])
    (tmp_path / "b").mkdir()
    config = {"model_type": "phi3", "num_attention_heads": 8, "num_key_value_heads": 8, "hidden_size": 64}
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    save_file(a, tmp_path / "a.safetensors")
    save_file(fused, tmp_path / "b" / "model.safetensors")
    result = weightprint.compare(tmp_path / "a.safetensors", tmp_path / "b")
    assert result.verdict == "identical"
    assert result.b.family == "phi3"


@pytest.mark.parametrize("value", [1e38, 1e-38, np.nan, np.inf])
@pytest.mark.parametrize("effort", ["standard", "full"])
def test_values_at_the_ends_of_float32_break_nothing(tmp_path: Path, value: float, effort: Any) -> None:
    shapes = {
        "q": (16, 16),
        "k": (16, 16),
        "v": (16, 16),
        "o": (16, 16),
        "gate": (40, 16),
        "up": (40, 16),
        "down": (16, 40),
    }
    for k, file in enumerate((tmp_path / "a.safetensors", tmp_path / "b.safetensors")):
        tensors = {"model.embed_tokens.weight": np.full((90, 16), value, np.float32)}
        for role, shape in shapes.items():
            part = "self_attn" if role in "qkvo" else "mlp"
            tensors[f"model.layers.0.{part}.{role}_proj.weight"] = np.full(shape, value, np.float32)
        tensors["model.layers.0.mlp.up_proj.weight"][k, 3] = 1
        save_file(tensors, file)
    with np.errstate(all="ignore"):
        found = weightprint.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors", effort=effort)
    assert json.loads(found.to_json())["verdict"] == found.verdict
