"""Faults are planted, and the report must name them: what, where, how many, and how bad."""

from __future__ import annotations

import json
import os
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint.check.context import coordinates
from weightprint.errors import UnsupportedFormatError, UsageError

rng = np.random.default_rng(3)


def weights(*shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def found(report, code):
    return [finding for finding in report.findings if finding.code == code]


def only(report, code):
    (finding,) = found(report, code)
    return finding


def test_a_sound_model(save):
    report = weightprint.check(save("m.safetensors", {"w": weights(40, 50), "b": weights(50)}))
    assert report.sound
    assert report.exit_code == 0
    assert report.findings == ()
    assert report.scan.n_tensors == 2
    assert report.to_dict()["digest"] == report.scan.digest
    assert "sound" in repr(report)


def test_nan_and_infinity_with_coordinates(save):
    half, c = weights(3, 20, 30, dtype=ml_dtypes.bfloat16), np.ones((4, 5), np.complex64)
    half[1, 2, 3] = half[2, 0, 0] = np.nan
    half[0, 19, 29] = -np.inf
    c[2, 3] = complex(0, np.nan)
    report = weightprint.check(save("m.safetensors", {"half": half, "c": c}))
    nans = {finding.tensor: finding for finding in found(report, "nan")}
    assert "2 of 1,800 values are NaN, the first at [1, 2, 3]" in nans["half"].message
    assert "the first at [2, 3].imag" in nans["c"].message
    assert {finding.severity for finding in nans.values()} == {"error"}
    infinity = only(report, "infinity")
    assert "0 +Inf and 1 -Inf" in infinity.message
    assert "[0, 19, 29]" in infinity.message
    assert infinity.severity == "warning"
    assert report.exit_code == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_outliers(save, dtype):
    values = weights(200, 100, dtype=dtype)
    values[17, 4], values[199, 99] = 5000, -6000
    calm = weights(200, 100, dtype=dtype)
    calm[0, 0] = 50  # far out, but within 100 × the quantile
    report = weightprint.check(save("m.safetensors", {"w": values, "calm": calm}))
    finding = only(report, "outlier")
    assert (finding.tensor, finding.severity) == ("w", "warning")
    assert "2 value(s)" in finding.message
    assert "at [17, 4]" in finding.message
    assert "at [199, 99]" in finding.message


def test_few_of_many_outliers_are_listed(save):
    values = np.zeros((1000, 1000), np.float32)
    values[:20, 0] = 1
    finding = only(weightprint.check(save("m.safetensors", {"w": values})), "almost_all_zero")
    assert "and 10 more" in finding.message
    assert "1 at [9, 0]" in finding.message
    assert "[10, 0]" not in finding.message


def test_constants(save):
    tensors = {
        "layers.0.up_proj.weight": np.zeros((20, 30), np.float32),
        "layers.0.gate_proj.weight": np.full((20, 30), 2, np.float32),
        "layers.0.norm.weight": np.ones(30, np.float32),
        "layers.0.up_proj.bias": np.zeros(30, np.float32),
        "steps": np.array([7], np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    report = weightprint.check(save("m.safetensors", tensors))
    seen = {(finding.tensor, finding.code, finding.severity) for finding in report.findings}
    assert seen == {
        ("layers.0.up_proj.weight", "all_zero", "warning"),
        ("layers.0.gate_proj.weight", "constant", "warning"),
        ("layers.0.norm.weight", "constant", "note"),
        ("layers.0.up_proj.bias", "all_zero", "note"),
        ("none", "empty", "note"),
    }
    assert [finding.severity for finding in report.findings] == ["warning"] * 2 + ["note"] * 3


def test_dead_rows(save):
    up, embedding, kernel = weights(20, 30), weights(20, 30), weights(8, 8, 3)
    up[[3, 19]] = 0
    embedding[0] = 0
    kernel[0, 0] = 0
    experts = weights(2, 5, 16)
    experts[1, 4] = 0
    tensors = {"up_proj.weight": up, "embed_tokens.weight": embedding, "conv.weight": kernel, "experts": experts}
    report = weightprint.check(save("m.safetensors", tensors))
    dead = {finding.tensor: finding for finding in found(report, "dead_rows")}
    assert "2 of 20 rows are zero: [3], [19]" in dead["up_proj.weight"].message
    assert dead["up_proj.weight"].severity == "warning"
    assert dead["embed_tokens.weight"].severity == "note"
    assert "[1, 4]" in dead["experts"].message
    assert set(dead) == {"up_proj.weight", "embed_tokens.weight", "experts"}


def test_duplicates(save):
    same, ones = weights(10, 10), np.ones((10, 10), np.float32)
    tensors = {"a": same, "b": same.copy(), "c": weights(10, 10), "d": ones, "e": ones, "f": same.reshape(20, 5)}
    finding = only(weightprint.check(save("m.safetensors", tensors)), "duplicate_values")
    assert finding.severity == "note"
    assert "3 tensors hold the same 400 bytes: a, b, f" in finding.message


def test_a_missing_block(save):
    tensors = {f"model.layers.{k}.{part}.weight": weights(4, 4) for k in (0, 1, 4, 5, 9) for part in ("up", "down")}
    tensors |= {f"head.{k}.weight": weights(2, 2) for k in (0, 2, 4)}  # a Sequential with activations between
    path = save("m.safetensors", tensors)
    assert (
        "model.layers has 5 blocks numbered up to 9, without 2–3, 6–8"
        in only(weightprint.check(path), "layer_gap").message
    )
    assert len(found(weightprint.check(path, include="*.up.*"), "layer_gap")) == 1
    assert not found(weightprint.check(path, include="*.0.up.*", exclude="x"), "nan")


def test_a_missing_expert(save):
    tensors = {f"layers.{k}.mlp.experts.{e}.up.weight": weights(2, 2) for k in range(3) for e in range(4)}
    del tensors["layers.1.mlp.experts.2.up.weight"]
    finding = only(weightprint.check(save("m.safetensors", tensors)), "layer_gap")
    assert "layers.1.mlp.experts has 3 blocks numbered up to 3, without 2" in finding.message


def test_a_huge_layer_number_costs_nothing(save):
    tensors = {f"layers.{k}.a.w": weights(2, 2) for k in (0, 1, 10**17)}
    assert "layers" in only(weightprint.check(save("m.safetensors", tensors)), "layer_gap").message


def test_missing_shards_and_what_went_with_them(save_sharded):
    folder = save_sharded("m", [{"a": weights(3, 3)}, {"b": weights(3, 3), "c": weights(2)}, {"d": weights(5)}])
    os.unlink(folder / "model-00002-of-00003.safetensors")
    report = weightprint.check(folder)
    assert "model-00002-of-00003" in only(report, "shard_missing").message
    lost = only(report, "tensor_lost")
    assert "b, c" in lost.message
    assert report.scan.names() == ["a", "d"]
    assert report.exit_code == 1


def test_a_short_shard(save_sharded):
    folder = save_sharded("m", [{"a": weights(3, 3)}, {"b": weights(300, 3), "c": weights(20)}])
    path = folder / "model-00002-of-00002.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    report = weightprint.check(folder)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    short = next(finding for finding in errors if finding.path == str(path))
    assert "100" in short.message
    assert report.scan.names() == ["a"]
    assert "b, c" in only(report, "tensor_lost").message


def test_nothing_can_be_opened(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 10**9) + b"{}")
    report = weightprint.check(path)
    assert report.scan is None
    assert report.exit_code == 1
    assert report.findings[0].severity == "error"
    assert "No value could be read" in report._repr_html_()
    (tmp_path / "x.bin").write_bytes(b"PK")
    with pytest.raises(UnsupportedFormatError):
        weightprint.check(tmp_path / "x.bin")
    with pytest.raises(FileNotFoundError):
        weightprint.check(tmp_path / "absent.safetensors")


def test_the_index_is_checked_too(save, save_sharded):
    folder = save_sharded("m", [{"a": weights(3, 3), "c": weights(5)}, {"b": weights(4)}], total_size=1)
    assert [finding.code for finding in weightprint.check(folder).findings] == ["total_size"]
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["a"] = "model-00002-of-00002.safetensors"
    data["metadata"]["total_size"] = 36 + 20 + 16
    index.write_text(json.dumps(data))
    report = weightprint.check(folder)
    assert only(report, "tensor_in_wrong_shard").severity == "error"
    assert report.scan.n_tensors == 3


def test_hostile_names_are_shown_safely(save):
    name = "\x1b[31m<b>|=HYPERLINK()\u202e"
    report = weightprint.check(save("m.safetensors", {name: np.full((3, 3), np.nan, np.float32)}))
    finding = only(report, "nan")
    assert finding.tensor == name
    assert finding.message.isprintable()
    assert "<b>" not in report._repr_html_()
    json.dumps(report.to_dict())


def test_a_report_pickles(save):
    report = weightprint.check(save("m.safetensors", {"w": np.zeros((5, 5), np.float32)}))
    copy = pickle.loads(pickle.dumps(report))
    assert copy.to_dict() == report.to_dict()


@pytest.mark.parametrize(
    ("flat", "shape", "components", "text"),
    [(0, (), 1, "[]"), (7, (2, 3, 4), 1, "[0, 1, 3]"), (5, (4,), 2, "[2].imag"), (23, (2, 3, 4), 1, "[1, 2, 3]")],
)
def test_coordinates(flat, shape, components, text):
    assert coordinates(flat, shape, components) == text


def test_a_manifest_needs_the_whole(save):
    path = save("m.safetensors", {"w": weights(2, 2)})
    report = weightprint.check(path)
    manifest = weightprint.Manifest.of(report.scan, report.files)
    with pytest.raises(UsageError):
        weightprint.check(path, include="w", manifest=manifest)
