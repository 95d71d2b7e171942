"""An open checkpoint: what it lists, reads and finds, held against numpy."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import weightprint
import weightprint.checkpoint.info
from weightprint.errors import FileChangedError, FormatError, TensorNotFoundError, UsageError

rng = np.random.default_rng(1)
A = {"a.weight": rng.normal(size=(4, 6)).astype(np.float32), "a.bias": np.arange(4, dtype=np.int64)}
B = {"b.weight": rng.normal(size=(2, 3, 5)).astype(np.float16)}


def test_what_it_lists(save):
    path = save("model.safetensors", {**A, **B}, {"format": "pt"})
    checkpoint = weightprint.open(path)
    assert checkpoint.names() == [*A, *B]
    assert [info.name for info in checkpoint.tensors] == checkpoint.names()
    assert (checkpoint.n_tensors, checkpoint.n_parameters, checkpoint.n_bytes) == (3, 24 + 4 + 30, 96 + 32 + 60)
    assert checkpoint.metadata == {"format": "pt"}
    info = checkpoint["b.weight"]
    assert (info.dtype, info.shape, info.numel, info.nbytes, info.matrix_shape) == ("F16", (2, 3, 5), 30, 60, (6, 5))
    assert info == checkpoint.tensors[-1] == checkpoint.tensors[1:][1]
    assert checkpoint.tensors[0].matrix_shape == (4, 6)
    assert "a.bias" in checkpoint
    assert "x" not in checkpoint
    with pytest.raises(IndexError):
        checkpoint.tensors[3]


def test_reading_every_dtype(save, numpy_dtypes):
    raw = np.frombuffer(rng.bytes(8 * 24), np.uint8)
    tensors = {}
    for name, dtype in numpy_dtypes.items():
        values = raw[: 24 * np.dtype(dtype).itemsize].copy().view(dtype)
        if name == "BOOL":
            values = raw[:24] % 2 == 1
        tensors[name] = values.reshape(4, 6)
    checkpoint = weightprint.open(save("m.safetensors", tensors))
    for name, array in tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = array if name == "C64" else array.astype(np.float32)
        np.testing.assert_array_equal(checkpoint.read(name), wanted, err_msg=name)
        np.testing.assert_array_equal(checkpoint.read(name, 1, 3), wanted[1:3], err_msg=name)
        assert checkpoint.read_raw(name) == array.tobytes()
    assert checkpoint.read("F32", -1).shape == (1, 6)
    assert checkpoint.read("F32", 3, 1).shape == (0, 6)
    assert checkpoint.read("F32", 2, 99).shape == (2, 6)


def test_scalars_and_empty_tensors(save):
    tensors = {
        "scalar": np.array(3.5, np.float32),
        "none": np.zeros((0, 5), np.float32),
        "vector": np.ones(3, np.float32),
    }
    checkpoint = weightprint.open(save("m.safetensors", tensors))
    assert checkpoint.read("scalar").shape == ()
    assert checkpoint.read("scalar") == 3.5
    assert checkpoint.read("none").shape == (0, 5)
    assert checkpoint["none"].numel == 0
    assert checkpoint["scalar"].matrix_shape == (1, 1)
    assert checkpoint["vector"].matrix_shape == (1, 3)


def test_it_is_frozen_closes_and_pickles(save, tmp_path, monkeypatch):
    path = save("m.safetensors", A)
    monkeypatch.chdir(tmp_path)
    with weightprint.open("m.safetensors") as checkpoint:
        with pytest.raises(AttributeError):
            checkpoint.source = "other"
        monkeypatch.chdir("/")
        copy = pickle.loads(pickle.dumps(checkpoint))
        assert copy.names() == checkpoint.names()
        assert repr(copy) == repr(checkpoint)
    assert "closed" in repr(checkpoint)
    with pytest.raises(UsageError, match="closed"):
        checkpoint.read("a.bias")
    data = pickle.dumps(copy)
    os.utime(path, ns=(1, 1))
    with pytest.raises(FileChangedError):
        pickle.loads(data)
    with pytest.raises(FileChangedError):
        copy.check_unchanged()


def test_a_missing_name_suggests_close_ones(save):
    checkpoint = weightprint.open(save("m.safetensors", A))
    with pytest.raises(TensorNotFoundError, match=r"a\.weight") as caught:
        checkpoint.read("a.wieght")
    assert isinstance(caught.value, KeyError)
    assert not str(caught.value).startswith(("'", '"'))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.tensor, copy.code, str(copy)) == ("a.wieght", "tensor_not_found", str(caught.value))


def test_shards_are_one_collection(save_sharded):
    folder = save_sharded("m", [A, B])
    checkpoint = weightprint.open(folder)
    assert checkpoint.names() == [*A, *B]
    assert not checkpoint.findings
    assert [info.file for info in checkpoint.tensors] == [0, 0, 1]
    np.testing.assert_array_equal(checkpoint.read("b.weight"), B["b.weight"].astype(np.float32))
    assert checkpoint.find("a.bias").file == 0
    with pytest.raises(TensorNotFoundError):
        checkpoint.find("c")


def codes(checkpoint):
    return [(finding.code, finding.severity) for finding in checkpoint.findings]


def test_index_with_a_wrong_total_size(save_sharded):
    assert codes(weightprint.open(save_sharded("m", [A, B], total_size=7))) == [("total_size", "warning")]


def test_index_that_names_the_wrong_shard(save_sharded):
    folder = save_sharded("m", [A, B], weight_map={"a.bias": "model-00002-of-00002.safetensors"})
    with pytest.raises(FormatError, match="model-00001") as caught:
        weightprint.open(folder)
    assert caught.value.code == "tensor_in_wrong_shard"
    checkpoint = weightprint.open(folder, mode="compatible")
    assert codes(checkpoint) == [("tensor_in_wrong_shard", "error")]
    assert checkpoint.read("a.bias").tolist() == [0, 1, 2, 3]


def test_index_that_names_a_tensor_nobody_has(save_sharded):
    folder = save_sharded("m", [A, B], weight_map={"c": "model-00002-of-00002.safetensors"})
    with pytest.raises(FormatError) as caught:
        weightprint.open(folder)
    assert (caught.value.code, caught.value.tensor) == ("tensor_missing", "c")
    assert codes(weightprint.open(folder, mode="compatible")) == [("tensor_missing", "error")]


def test_what_the_index_ignores(save, save_sharded):
    folder = save_sharded("m", [A, B])
    save("m/model-00002-of-00002.safetensors", {**B, "extra": np.ones(2, np.float32)})
    save("m/leftover.safetensors", A)
    checkpoint = weightprint.open(folder)
    assert codes(checkpoint) == [("shard_not_in_index", "warning"), ("tensor_not_in_index", "warning")]
    assert "leftover" in checkpoint.findings[0].message
    assert checkpoint.findings[1].tensor == "extra"
    assert checkpoint.read("extra").tolist() == [1, 1]


def test_the_same_tensor_in_two_shards(save, save_sharded):
    other = {"a.bias": np.full(4, 9, np.int64)}
    folder = save_sharded("m", [A, {**B, **other}])
    checkpoint = weightprint.open(folder)  # the index names the last one
    assert codes(checkpoint)[0] == ("duplicate_tensor", "warning")
    assert checkpoint.read("a.bias").tolist() == [9] * 4
    assert checkpoint.n_tensors == 3
    os.unlink(folder / "model.safetensors.index.json")
    with pytest.raises(FormatError) as caught:
        weightprint.open(folder)
    assert (caught.value.code, caught.value.tensor) == ("duplicate_tensor", "a.bias")
    assert weightprint.open(folder, mode="compatible").read("a.bias").tolist() == [0, 1, 2, 3]


def test_opening_makes_no_list_of_tensors(save, monkeypatch):
    made = []
    original = weightprint.checkpoint.info.TensorInfo.__init__
    monkeypatch.setattr(
        weightprint.checkpoint.info.TensorInfo, "__init__", lambda self, *args: made.append(1) or original(self, *args)
    )
    checkpoint = weightprint.open(save("m.safetensors", {f"t{k}": np.zeros(1, np.int8) for k in range(1000)}))
    assert checkpoint.find("t7").name == "t7"
    assert checkpoint.tensors[3].name == "t3"
    assert len(made) == 2
    assert len(checkpoint.names()) == 1000
    assert len(made) == 2


def test_errors_are_builtins_too_and_pickle():
    from weightprint import errors

    pairs = {
        "FormatError": ValueError,
        "LimitError": errors.FormatError,
        "UnsupportedFormatError": errors.FormatError,
        "TensorNotFoundError": KeyError,
        "ShardMissingError": FileNotFoundError,
        "FileChangedError": RuntimeError,
        "UsageError": ValueError,
        "InternalError": RuntimeError,
    }
    for name, builtin in pairs.items():
        error = getattr(errors, name)("no good", path="/p/\x1b[31m", tensor="t", offset=7, code="c")
        assert isinstance(error, builtin)
        assert isinstance(error, weightprint.WeightprintError)
        assert str(error) == "no good [tensor t] [byte 7] [/p/\\u{1b}[31m]"
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.path, copy.offset) == (type(error), str(error), error.path, 7)


def test_the_verbs_stay_functions():
    import weightprint.check.check
    import weightprint.scan.scan

    assert weightprint.scan.__name__ == "scan"
    assert callable(weightprint.scan)
    assert callable(weightprint.check)
    with pytest.raises(AttributeError):
        _ = weightprint.nothing
