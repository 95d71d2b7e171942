"""Parts that are named alone, saves that left something of another behind, and folders that hold a model twice."""

from __future__ import annotations

import json
import os

import ml_dtypes
import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from weightprint.cli import cli
from weightprint.errors import FormatError

rng = np.random.default_rng(8)


def model(n=6, seed=0):
    rng = np.random.default_rng(seed)
    w = {f"model.layers.{k}.mlp.up_proj.weight": rng.normal(size=(12, 8)).astype(np.float32) for k in range(n)}
    return w | {"model.embed_tokens.weight": rng.normal(size=(40, 8)).astype(np.float32)}


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def codes(path):
    return {finding.code: finding for finding in weightprint.check(path).findings}


def parts(w, n):
    names = list(w)
    return [{name: w[name] for name in names[k::n]} for k in range(n)]


def test_a_shard_that_is_named_alone_says_so_in_every_verb(save_sharded):
    folder = save_sharded("m", parts(model(), 2))
    shard = folder / "model-00002-of-00002.safetensors"
    assert "number 2" in codes(shard)["part_of_set"].message
    assert "name the folder" in codes(shard)["part_of_set"].message
    assert run("check", shard).exit_code == 1
    assert "part_of_set" in run("inspect", shard).stdout
    assert "one file of a set of 2" in run("stats", shard).stderr
    os.unlink(folder / "model-00001-of-00002.safetensors")
    assert "1 of them are here" in codes(shard)["part_of_set"].message
    alone = save_sharded("one", [model()]) / "model-00001-of-00001.safetensors"
    assert "part_of_set" not in codes(alone)


def test_null_metadata_is_read_with_a_note_by_every_verb(save, tmp_path):
    data = save("m.safetensors", model()).read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = b'{"__metadata__":null,' + data[9 : 8 + n].lstrip()
    path = tmp_path / "null.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + n :])
    assert codes(path)["metadata_not_object"].severity == "note"
    for args in (["check", path], ["inspect", path], ["stats", path], ["diff", path, path], ["compare", path, path]):
        assert run(*args).exit_code == 0, args
    path.write_bytes(
        path.read_bytes()
        .replace(b":null,", b':"ab",')
        .replace(len(header).to_bytes(8, "little"), len(header).to_bytes(8, "little"))
    )
    with pytest.raises(FormatError):
        weightprint.open(path)


@pytest.mark.parametrize("complete", [True, False])
def test_the_index_of_another_save(save_sharded, complete):
    folder = save_sharded("m", parts(model(), 3))
    index = folder / "model.safetensors.index.json"
    names = [*model(), *([] if complete else ["lm_head.weight"])]
    index.write_text(
        json.dumps({"weight_map": {n: f"model-{k:05}-of-00030.safetensors" for k, n in enumerate(names, 1)}})
    )
    found = codes(folder)
    assert "complete set" in found["stale_index"].message
    assert ("stale_index_complete" in found, "tensor_lost" in found) == (complete, not complete)
    assert weightprint.check(folder).scan.n_tensors == len(model())
    assert "stale_index" in run("inspect", folder).stdout
    os.unlink(folder / "model-00002-of-00003.safetensors")  # neither set is whole now
    assert "shard_missing" in codes(folder)


def rounded(w, dtype):
    return {name: x.astype(dtype) for name, x in w.items()}


def renamed(w):
    return {name.replace("model.layers.", "layers.").replace("up_proj", "w3"): x for name, x in w.items()}


def tuned(w):
    return {name: x + np.float32(1e-3) * rng.normal(size=x.shape).astype(np.float32) for name, x in w.items()}


def packed(w):
    return {name: np.ones((x.shape[0], x.shape[1] // 4), np.uint32) for name, x in w.items()}


@pytest.mark.parametrize(
    ("other", "code"),
    [
        (lambda w: w, "second_copy"),
        (lambda w: rounded(w, np.float16), "second_copy"),
        (lambda w: rounded(w, ml_dtypes.bfloat16), "second_copy"),
        (lambda w: rounded(w, ml_dtypes.float8_e4m3fn), "second_copy"),
        (renamed, "second_copy"),
        (lambda w: renamed(rounded(w, ml_dtypes.bfloat16)), "second_copy"),
        (lambda w: model(seed=1), "another_model"),
        (tuned, "another_model"),
        (lambda w: rounded(tuned(w), np.float16), "another_model"),
        (lambda w: renamed(model(seed=1)), "another_model"),
        (packed, "another_model"),
        (lambda w: {"vae.weight": np.ones((3, 4), np.float32)}, "other_files"),
    ],
)
@pytest.mark.parametrize("layout", ["single", "index"])
def test_what_else_lies_in_the_folder(save, save_sharded, tmp_path, other, code, layout):
    w = model()
    if layout == "index":
        save_sharded("m", parts(w, 2))
    else:
        save("m/model.safetensors", w)
    save("m/consolidated.safetensors", other(w))
    report = weightprint.check(tmp_path / "m")
    assert [finding.code for finding in report.findings] == [code]
    assert report.sound == (code == "second_copy")
    assert "consolidated.safetensors" in report.findings[0].message


@pytest.mark.parametrize("names", ["model-rank-{}-part-0", "consolidated.0{}", "mp_rank_0{}_model_states"])
def test_tensor_parallel_ranks(save, tmp_path, names):
    for rank in range(2):
        half = {name: x[: x.shape[0] // 2] for name, x in model(seed=rank).items()}
        save(f"m/{names.format(rank)}.safetensors", half)
    found = codes(tmp_path / "m")
    assert set(found) == {"tensor_parallel_ranks"}
    assert "2 tensor-parallel ranks" in found["tensor_parallel_ranks"].message
    assert "compatible" not in run("inspect", tmp_path / "m").stderr


def test_blocks_before_the_first_are_counted_by_inspect(save):
    w = model(7)
    late = {name: x for name, x in w.items() if name.split(".")[2] in "456"}
    late |= {name.replace("up", "gate"): x.copy() for name, x in late.items()}
    late |= {name.replace("up_proj", "down_proj"): x.T.copy() for name, x in late.items() if "up_proj" in name}
    assert "no tensor of blocks 0–3" in run("inspect", save("m.safetensors", late)).stdout


def test_alike_findings_are_one_line(save):
    w = model()
    for name in w:
        w[name] = np.full_like(w[name], np.nan)
    text = run("check", save("m.safetensors", w)).stdout
    assert text.count(" nan ") == 2
    assert "5 more: model.layers.{1-5}.mlp.up_proj.weight" in text
    assert "7 errors" in text
    everything = run("check", save("m.safetensors", w), "--all").stdout
    assert everything.count(" nan ") == 7
