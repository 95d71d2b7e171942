"""A fingerprint as a file: the same bytes for the same model, whole or refused, and version 1 for ever."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import weightprint
from llama import CONFIG, draw, write
from weightprint.errors import FormatError, UnsupportedFormatError, UsageError
from weightprint.fingerprint.file import FORMAT, is_fingerprint, unpacked
from weightprint.fingerprint.file import read as read_file
from weightprint.fingerprint.file import write as write_file
from weightprint.fingerprint.fingerprint import Fingerprint

VERSION_1 = Path(__file__).parent / "version_1.fp"


@pytest.fixture
def model(save):
    return write("model", draw(1), save)


@pytest.fixture
def kept(model, tmp_path):
    path = tmp_path / "model.fp"
    weightprint.fingerprint(model).save(path)
    return path


def test_the_same_model_gives_the_same_bytes(model, kept, tmp_path):
    for threads, io in ((1, "mmap"), (2, "pread"), (5, "auto")):
        weightprint.fingerprint(model, threads=threads, io=io).save(tmp_path / "again.fp")
        assert (tmp_path / "again.fp").read_bytes() == kept.read_bytes()
    weightprint.fingerprint(model, seed=1).save(tmp_path / "other.fp")
    assert (tmp_path / "other.fp").read_bytes() != kept.read_bytes()


def test_what_was_saved_is_read_again(model, kept):
    made, read = weightprint.fingerprint(model), weightprint.Fingerprint.load(kept)
    assert read.plan == made.plan
    assert read.summary == json.loads(json.dumps(made.summary))
    assert read.tensors == made.tensors
    assert read.arrays.keys() == made.arrays.keys()
    assert all(np.array_equal(read.arrays[name], array) for name, array in made.arrays.items())
    assert pickle.loads(pickle.dumps(made)).tensors == made.tensors
    assert "fingerprint of" in str(read)
    assert "fingerprint of" in read._repr_html_()
    assert json.loads(read.to_json())["plan"]["version"] == 1


def test_other_readers_of_safetensors_read_it(kept):
    """It is an ordinary file: the reference reader's and ours agree on it."""
    reference = pytest.importorskip("safetensors.numpy").load_file(kept)
    arrays = {**weightprint.Fingerprint.load(kept).arrays}
    assert set(reference) == {*arrays, "tensors"}
    with weightprint.open(kept) as file:
        assert len(file.tensors) == len(reference)


@pytest.mark.parametrize("damage", ["cut", "cut in the header", "flipped", "longer"])
def test_damage_is_refused(kept, damage):
    data = bytearray(kept.read_bytes())
    if damage == "flipped":
        data[-100] ^= 1
    data = {"cut": data[:-1], "cut in the header": data[:2000], "flipped": data, "longer": data + b"x"}[damage]
    kept.write_bytes(data)
    with pytest.raises(FormatError) as error:
        weightprint.Fingerprint.load(kept)
    assert error.value.code == "fingerprint_damaged"
    assert error.value.path == str(kept)


def test_other_versions_other_files_and_other_plans_are_refused(model, kept, tmp_path, save):
    arrays, metadata = read_file(kept)
    data = kept.read_bytes().replace(b'"version":"1"', b'"version":"9"')
    (tmp_path / "nine.fp").write_bytes(data)
    with pytest.raises(UnsupportedFormatError) as error:
        weightprint.Fingerprint.load(tmp_path / "nine.fp")
    assert error.value.code == "fingerprint_version"
    with pytest.raises(UnsupportedFormatError) as error:
        weightprint.Fingerprint.load(Path(model) / "model.safetensors")
    assert error.value.code == "not_a_fingerprint"
    weightprint.fingerprint(model, seed=3).save(tmp_path / "three.fp")
    for verb in (weightprint.compare, weightprint.diff):
        with pytest.raises(UsageError) as usage:
            verb(kept, tmp_path / "three.fp")
        assert usage.value.code == "other_plan"
    del metadata["plan"]
    write_file(tmp_path / "no_plan.fp", arrays, {"summary": metadata["summary"]})
    with pytest.raises(FormatError) as damaged:
        weightprint.Fingerprint.load(tmp_path / "no_plan.fp")
    assert damaged.value.code == "fingerprint_damaged"


def test_it_is_known_by_its_metadata_not_by_its_name(kept, model, tmp_path, save):
    renamed = tmp_path / "weights.safetensors"
    renamed.write_bytes(kept.read_bytes())
    assert is_fingerprint(renamed)
    assert weightprint.compare(renamed, model).verdict == "identical"
    os.mkfifo(tmp_path / "pipe")
    impostor = save("impostor.fp", {"model.norm.weight": np.ones(4, np.float32)}, {"note": FORMAT})
    for path in (impostor, tmp_path, tmp_path / "missing", tmp_path / "pipe", Path(model) / "model.safetensors"):
        assert not is_fingerprint(path)


def _told_otherwise(arrays, metadata, change):
    """The metadata and the list of tensors after `change(summary, plan, rows)`."""
    summary, plan, rows = json.loads(metadata["summary"]), json.loads(metadata["plan"]), unpacked(arrays["tensors"])
    change(summary, plan, rows, arrays)
    arrays["tensors"] = np.frombuffer(zlib.compress(json.dumps(rows).encode()), np.uint8)
    return {"summary": json.dumps(summary), "plan": json.dumps(plan)}


@pytest.mark.parametrize(
    "change",
    [
        lambda summary, plan, rows, arrays: plan.update(units=10**9),
        lambda summary, plan, rows, arrays: plan.update(seed=float("inf")),
        lambda summary, plan, rows, arrays: summary.pop("geometry"),
        lambda summary, plan, rows, arrays: summary.update(n_parameters=None),
        lambda summary, plan, rows, arrays: rows[0].__setitem__(2, [2, 2]),
        lambda summary, plan, rows, arrays: rows[0].__setitem__(8, ["decoder", 0, "no such role", None]),
        lambda summary, plan, rows, arrays: rows.pop(),
        lambda summary, plan, rows, arrays: arrays.update(gains=arrays["gains"] + 10**6),
        lambda summary, plan, rows, arrays: arrays.update(statistics=arrays["statistics"][:-1]),
        lambda summary, plan, rows, arrays: arrays.pop("units/decoder.0/up_scale"),
        lambda summary, plan, rows, arrays: arrays.update({"rows/other/rows": np.ones((4, 4), np.int8)}),
        lambda summary, plan, rows, arrays: arrays.update({"heads/decoder.0/groups": np.array([10**8], np.int32)}),
        lambda summary, plan, rows, arrays: arrays["angles/decoder.0/up"].__setitem__(0, np.nan),
    ],
)
def test_what_no_model_can_have_is_refused_though_the_digest_fits(kept, tmp_path, change):
    arrays, metadata = read_file(kept)
    arrays = {name: array.copy() for name, array in arrays.items()}
    write_file(tmp_path / "forged.fp", arrays | {}, _told_otherwise(arrays, metadata, lambda *_: None))
    Fingerprint.load(tmp_path / "forged.fp")
    told = _told_otherwise(arrays, metadata, change)
    write_file(tmp_path / "forged.fp", arrays, told)
    with pytest.raises(FormatError) as error:
        Fingerprint.load(tmp_path / "forged.fp")
    assert error.value.code == "fingerprint_damaged"


def test_a_list_of_tensors_that_never_ends_is_refused(kept, tmp_path):
    arrays, metadata = read_file(kept)
    squeezed = zlib.compressobj(9)
    text = b"".join(squeezed.compress(b" " * (1 << 20)) for _ in range(600)) + squeezed.flush()
    arrays["tensors"] = np.frombuffer(text, np.uint8)
    write_file(tmp_path / "bomb.fp", arrays, {key: metadata[key] for key in ("plan", "summary")})
    with pytest.raises(FormatError, match="longer than any model"):
        Fingerprint.load(tmp_path / "bomb.fp")


def test_values_that_are_no_numbers_are_left_out_of_it(save, tmp_path):
    weights = draw(3)
    weights["model.layers.0.mlp.up_proj.weight"][3, 5] = np.nan
    weights["model.layers.1.self_attn.q_proj.weight"][0, 0] = np.inf
    model = write("holes", weights, save)
    weightprint.fingerprint(model).save(tmp_path / "holes.fp")
    told = weightprint.compare(tmp_path / "holes.fp", write("whole", draw(3), save))
    assert told.verdict in ("identical", "shared_origin")


def test_nothing_is_left_of_one_that_could_not_be_written(model, tmp_path):
    made = weightprint.fingerprint(model)
    (tmp_path / "out").mkdir()
    with pytest.raises((UsageError, OSError)):
        made.save(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_version_1_is_still_read(save, tmp_path):
    """The committed file is a fingerprint of `draw(7)` with one layer, made when version 1 was new."""
    old = weightprint.Fingerprint.load(VERSION_1)
    config = {**CONFIG, "num_hidden_layers": 1}
    weights = {n: x.astype(np.float16) for n, x in draw(7, layers=1).items()}
    live = write("seven", weights, save, np.float16, config)
    assert old.plan.to_dict()["version"] == 1
    assert weightprint.compare(old, live).verdict == "identical"
    new = weightprint.fingerprint(live)
    assert new.tensors == old.tensors
    for name, array in old.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(new.arrays[name].astype(float), array.astype(float), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tensors", [{}, {"norm.weight": np.ones(5, np.float32), "none": np.zeros((0, 4), np.float32)}])
def test_a_model_without_a_matrix_has_a_fingerprint(save, tmp_path, tensors):
    model = save("model.safetensors", tensors)
    made = weightprint.fingerprint(model)
    made.save(tmp_path / "it.fp")
    assert sorted(Fingerprint.load(tmp_path / "it.fp").tensors) == sorted(tensors)
    assert weightprint.compare(tmp_path / "it.fp", model).verdict in ("identical", "inconclusive")


def test_nan_and_infinities_are_counted_in_a_stored_one_too(save, tmp_path):
    weights = draw(1)
    x = weights["model.layers.0.mlp.up_proj.weight"].copy()
    x[0, :5], x[1, :3], x[2, 0] = np.nan, np.inf, -np.inf
    made = weightprint.fingerprint(write("holes", {**weights, "model.layers.0.mlp.up_proj.weight": x}, save))
    made.save(tmp_path / "holes.fp")
    found = weightprint.Fingerprint.load(tmp_path / "holes.fp")
    holes = found.tensors["model.layers.0.mlp.up_proj.weight"]
    assert (holes.n_nan, holes.n_infinite) == (5, 4)
    assert found.tensors == made.tensors
    assert sum(t.n_nan + t.n_infinite for t in found.tensors.values()) == 9
