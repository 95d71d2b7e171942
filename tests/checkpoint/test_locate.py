"""MODEL → files: directories, indexes, the hub cache, links, and errors that say what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import weightprint
from weightprint.checkpoint.locate import hub_cache, locate
from weightprint.errors import FormatError, ShardMissingError, UnsupportedFormatError, UsageError

ONE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
TWO = {"v": np.ones(4, np.float16)}


def names(path):
    return [Path(file).name for file in locate(path).files]


def test_a_file_a_folder_and_an_index(save, save_sharded):
    path = save("a/model.safetensors", ONE)
    assert locate(path).kind == "file"
    assert names(path) == names(path.parent) == ["model.safetensors"]
    folder = save_sharded("b", [ONE, TWO])
    wanted = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert names(folder) == names(folder / "model.safetensors.index.json") == wanted


def test_model_safetensors_wins_and_says_so(save, save_sharded):
    folder = save_sharded("m", [ONE, TWO])
    save("m/model.safetensors", ONE)
    location = locate(folder)
    assert [Path(file).name for file in location.files] == ["model.safetensors"]
    (finding,) = location.findings
    assert (finding.code, finding.severity) == ("other_files", "note")
    assert "index.json" in finding.message


def test_shards_beside_a_consolidated_file(save):
    save("m/model-00001-of-00002.safetensors", ONE)
    save("m/model-00002-of-00002.safetensors", TWO)
    path = save("m/consolidated.safetensors", {**ONE, **TWO})
    location = locate(path.parent)
    assert [Path(file).name for file in location.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert "consolidated.safetensors" in location.findings[0].message


def test_unnumbered_files_come_in_natural_order(save):
    for k in (10, 9, 1):
        save(f"m/part{k}.safetensors", {f"t{k}": np.zeros(1, np.float32)})
    folder = save("m/part2.safetensors", TWO).parent
    assert names(folder) == ["part1.safetensors", "part2.safetensors", "part9.safetensors", "part10.safetensors"]
    assert weightprint.open(folder).n_tensors == 4


@pytest.mark.parametrize(
    ("files", "mentions"),
    [
        (["a-00001-of-00001.safetensors", "b-00001-of-00001.safetensors"], ["a", "b"]),
        (["a.safetensors.index.json", "b.safetensors.index.json", "x.safetensors"], ["a.safetensors.index.json"]),
    ],
)
def test_a_choice_that_is_not_ours_names_the_candidates(tmp_path, files, mentions):
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        locate(tmp_path)
    assert caught.value.code == "ambiguous_folder"
    assert all(mention in str(caught.value) for mention in mentions)


def test_two_indexes_with_the_usual_one(save_sharded):
    folder = save_sharded("m", [ONE, TWO])
    (folder / "model.fp16.safetensors.index.json").write_text("{}")
    location = locate(folder)
    assert location.index.endswith("/model.safetensors.index.json")
    assert "fp16" in location.findings[0].message


def test_missing_shards_are_all_named(save_sharded):
    folder = save_sharded("m", [ONE, TWO, {"u": np.ones(2, np.int8)}])
    for number in (1, 3):
        os.unlink(folder / f"model-0000{number}-of-00003.safetensors")
    for index in (True, False):
        if not index:
            os.unlink(folder / "model.safetensors.index.json")
        with pytest.raises(ShardMissingError) as caught:
            weightprint.open(folder)
        assert isinstance(caught.value, FileNotFoundError)
        assert "model-00001-of-00003" in str(caught.value)
        assert "model-00003-of-00003" in str(caught.value)
        assert "2 of 3" in str(caught.value)


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "onnx", "h5", "npz"])
def test_other_formats_say_how_to_convert(tmp_path, suffix):
    path = tmp_path / f"pytorch_model.{suffix}"
    path.write_bytes(b"PK\x03\x04")
    for model in (path, tmp_path):
        with pytest.raises(UnsupportedFormatError, match="save_file"):
            weightprint.open(model)


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError) as caught:
        weightprint.open(tmp_path / "no.safetensors")
    assert caught.value.errno == 2
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="No such file"):
        weightprint.open("folder/model.safetensors")
    with pytest.raises(ShardMissingError, match=r"hf download org/name --revision v1"):
        weightprint.open("org/name@v1")
    with pytest.raises(UsageError, match="copy"):
        weightprint.open("s3://bucket/model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no"):
        weightprint.open(tmp_path / "empty")
    with pytest.raises(UsageError):
        weightprint.open("")


def test_the_hub_cache(hub, encoded, save_sharded):
    hub("org/name", "a" * 40, {"model.safetensors": encoded(ONE)})
    hub("org/name", "b" * 40, {"model.safetensors": encoded(TWO)}, main=False)
    assert weightprint.open("org/name").names() == ["w"]
    assert weightprint.open("hf://org/name").names() == ["w"]
    assert weightprint.open(f"org/name@{'b' * 40}").names() == ["v"]
    assert weightprint.open("org/name@bbbbbbbb").names() == ["v"]
    with pytest.raises(ShardMissingError):
        weightprint.open("org/name@ccccccc")
    with pytest.raises(UsageError):
        weightprint.open("hf://org/name@../../x")


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(variables, cache, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_cache() == Path(cache)


def test_a_cached_model_without_main(hub, encoded):
    hub("gpt2", "a" * 40, {"model.safetensors": encoded(ONE)}, main=False)
    checkpoint = weightprint.open("hf://gpt2")
    assert [finding.code for finding in checkpoint.findings] == ["no_main_reference"]
    hub("gpt2", "b" * 40, {"model.safetensors": encoded(ONE)}, main=False)
    with pytest.raises(UsageError, match="aaaa"):
        weightprint.open("hf://gpt2")


def test_a_half_downloaded_model_says_so(hub, encoded):
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": encoded(ONE),
    }
    hub("org/name", "a" * 40, files)
    with pytest.raises(ShardMissingError, match=r"model-00002-of-00002.*hf download org/name"):
        weightprint.open("org/name")


def test_links_stay_in_their_folder(save, tmp_path, hub, encoded):
    secret = save("elsewhere/secret.safetensors", ONE)
    folder = tmp_path / "m"
    folder.mkdir()
    os.symlink(secret, folder / "model.safetensors")
    with pytest.raises(FormatError) as caught:
        weightprint.open(folder)
    assert caught.value.code == "link_outside"
    # The user who names the link means its target, and a link within the folder is harmless.
    assert weightprint.open(folder / "model.safetensors").names() == ["w"]
    os.unlink(folder / "model.safetensors")
    save("m/real.safetensors", TWO)
    os.symlink("real.safetensors", folder / "model.safetensors")
    assert weightprint.open(folder).names() == ["v"]
    # In a cache, a link may go to the model's own blobs but no further.
    snapshot = hub("org/evil", "a" * 40, {"other": b""})
    os.symlink(secret, snapshot / "model.safetensors")
    with pytest.raises(FormatError, match="link"):
        weightprint.open("org/evil")


def test_an_index_cannot_name_paths(save, tmp_path):
    save("m/x.safetensors", ONE)
    for shard in ("../x.safetensors", "/etc/passwd", "a/b.safetensors", ".."):
        (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
        with pytest.raises(FormatError):
            weightprint.open(tmp_path / "m")


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors.index.json")
    with pytest.raises(FormatError):
        weightprint.open(tmp_path)
    with pytest.raises(FormatError):
        weightprint.open(tmp_path / "model.safetensors.index.json")


def test_what_cannot_be_opened_says_what_could(hub, tmp_path, encoded, monkeypatch):
    hub("org/m", "0123456789abcdef", {"model.safetensors": encoded({"w": np.ones(3, np.float32)})})
    hub("gpt2", "fedcba9876543210", {"model.safetensors": encoded({"w": np.ones(3, np.float32)})})
    with pytest.raises(FileNotFoundError, match=r"Cached are the revisions 0123456789abcdef, main"):
        locate("org/m@dev")
    with pytest.raises(UsageError, match="hf download org/m"):
        locate("https://huggingface.co/org/m/tree/main")
    monkeypatch.chdir(tmp_path)
    assert locate("gpt2").kind == "hub"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match="did you mean its folder"):
        locate(tmp_path / "config.json")
