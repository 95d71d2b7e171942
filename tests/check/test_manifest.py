"""A manifest proves a copy intact, and names every tensor that is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import weightprint
from weightprint.check.manifest import Manifest
from weightprint.errors import FormatError, UsageError

rng = np.random.default_rng(4)
TENSORS = {f"t{k}": rng.normal(size=(8, 9)).astype(np.float32) for k in range(4)}


def manifest_of(path):
    report = weightprint.check(path)
    return Manifest.of(report.scan, report.files)


def differences(path, manifest):
    report = weightprint.check(path, manifest=manifest)
    return {(f.code, f.severity, f.tensor) for f in report.findings if f.code.startswith("manifest")}


def test_round_trip(save, tmp_path):
    manifest = manifest_of(save("m.safetensors", TENSORS))
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert list(data) == [
        "weightprint_manifest",
        "tool",
        "source",
        "digest",
        "n_tensors",
        "n_bytes",
        "files",
        "tensors",
    ]
    assert data["n_bytes"] == 4 * 8 * 9 * 4
    assert len(data["tensors"][0]["blake3"]) == 64


def test_an_intact_copy_verifies_whatever_its_shards(save, save_sharded):
    path = save("m.safetensors", TENSORS)
    manifest = manifest_of(path)
    assert differences(path, manifest) == set()
    halves = [dict(list(TENSORS.items())[:2]), dict(list(TENSORS.items())[2:])]
    sharded = save_sharded("copy", halves)
    assert differences(sharded, manifest) == {("manifest_files", "note", None)}
    assert weightprint.check(sharded, manifest=manifest).sound


def test_one_flipped_bit_is_found(save):
    path = save("m.safetensors", TENSORS)
    manifest = manifest_of(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert differences(path, manifest) == {("manifest_changed", "error", "t3")}


def test_missing_extra_and_changed(save):
    manifest = manifest_of(save("m.safetensors", TENSORS))
    other = {
        "t0": TENSORS["t0"].astype(np.float16),
        "t1": TENSORS["t1"].reshape(9, 8),
        "renamed": TENSORS["t2"],
        "new": np.ones(3, np.int8),
    }
    report = weightprint.check(save("n.safetensors", other), manifest=manifest)
    messages = {f.tensor: f.message for f in report.findings if f.code.startswith("manifest_")}
    assert "dtype F16 instead of F32" in messages["t0"]
    assert "shape [9, 8] instead of [8, 9]" in messages["t1"]
    assert "its bytes are now in renamed" in messages["t2"]
    assert "not here" in messages["t3"]
    assert "not in the manifest" in messages["new"]
    assert report.exit_code == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"weightprint_manifest": 1}', "[" * 100_000, '{"weightprint_manifest": 2}', "\xff"],
)
def test_what_is_not_a_manifest(tmp_path, text):
    (tmp_path / "m.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError):
        Manifest.load(tmp_path / "m.json")


def test_it_needs_digests(save):
    scan = weightprint.scan(save("m.safetensors", TENSORS))
    with pytest.raises(UsageError, match="digest"):
        Manifest.of(scan, [])
