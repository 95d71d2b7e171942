"""GGUF files: opened, scanned and decoded like any other, held against the `gguf` package's reader and decoders."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint import _core
from weightprint.checkpoint.info import TensorInfo
from weightprint.errors import ShardMissingError, UnsupportedFormatError, UsageError
from weightprint.quant.weights import Weights

from tests.quant.opening import find

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

#: Types that the package can write, so that decoding runs on realistic blocks.
WRITABLE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0", "MXFP4")
#: Types that it can only read: their blocks are random bytes, which is every pattern that a file may hold.
READ_ONLY = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
    "IQ4_NL", "IQ4_XS",
)  # fmt: skip


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def random_blocks(kind, n_rows, n_columns):
    """Random bytes; every block's float16 fields are kept finite by clearing one exponent bit of every odd byte."""
    block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = np.random.default_rng(1).integers(0, 256, (n_rows, n_columns // block * nbytes), np.uint8)
    data[:, 1::2] &= 0xBF
    return data


def same_bits(a, b):
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "int16", "int32", "int64"])
def test_plain_tensors_are_what_was_written(write, dtype):
    values = (normal(6, 10) * 20).astype(dtype)
    path = write("m.gguf", {"a": values, "b": values[0], "c": normal(2, 3, 4)})
    checkpoint = weightprint.open(path)
    assert checkpoint.names() == ["a", "b", "c"]
    assert [info.shape for info in checkpoint.tensors] == [(6, 10), (10,), (2, 3, 4)]
    np.testing.assert_array_equal(checkpoint.read("a"), values.astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("a", 2, 4), values[2:4].astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("c"), normal(2, 3, 4))
    assert checkpoint.read_raw("b") == values[0].tobytes()
    assert dict(checkpoint.ggml_types) == {}
    scan = weightprint.scan(checkpoint)
    # The bound of float32 lanes; tests/scan holds the statistics themselves.
    assert scan["a"]["mean"] == pytest.approx(values.astype(np.float64).mean(), rel=1e-6)


def test_bfloat16(write):
    values = normal(4, 6).astype(ml_dtypes.bfloat16)
    # The writer takes the bytes of bfloat16 and reads their width off the last axis.
    path = write("m.gguf", {"a": (values.view(np.uint8), gguf.GGMLQuantizationType.BF16)})
    info = weightprint.open(path).find("a")
    assert (info.dtype, info.shape) == ("BF16", (4, 6))
    same_bits(weightprint.open(path).read("a"), values.astype(np.float32))


@pytest.mark.parametrize("kind", [*WRITABLE, *READ_ONLY])
def test_blocks_decode_like_the_package_whole_and_in_part(write, pack, kind):
    n_rows, n_columns = 7, 1024
    number = gguf.GGMLQuantizationType[kind]
    data = pack(normal(n_rows, n_columns), kind)[0] if kind in WRITABLE else random_blocks(kind, n_rows, n_columns)
    path = write("m.gguf", {"norm": normal(5), "w": (data, number)})
    checkpoint = weightprint.open(path)
    (blocks,) = find(checkpoint)
    assert (blocks.name, blocks.shape, blocks.dtype, blocks.scheme) == ("w", (n_rows, n_columns), kind, "gguf")
    info = checkpoint.find("w")
    assert (info.dtype, info.shape) == ("U8", data.shape)
    assert checkpoint.ggml_types["w"].shape == (n_rows, n_columns)
    assert checkpoint.read_raw("w") == data.tobytes()
    wanted = np.asarray(quants.dequantize(data, number), np.float32)
    assert wanted.shape == (n_rows, n_columns)
    assert np.unique(wanted).size > 2
    same_bits(blocks.read(checkpoint, slice(0, n_rows), slice(0, n_columns), None), wanted)
    for rows in (slice(0, 1), slice(3, 6), slice(2, 2)):
        for columns in (slice(0, 1), slice(31, 33), slice(255, 770), slice(1023, 1024), slice(5, 5)):
            same_bits(blocks.read(checkpoint, rows, columns, None), wanted[rows, columns])


def test_weights_hold_the_numbers(write, pack):
    values = normal(6, 64)
    weights = Weights(weightprint.open(write("m.gguf", {"a": pack(values, "Q8_0"), "b": normal(3)})))
    assert [(w.name, w.shape, w.dtype, w.scheme) for w in weights.values()] == [
        ("a", (6, 64), "Q8_0", "gguf"),
        ("b", (3,), "F32", None),
    ]
    assert weights["a"].nbytes == 6 * 68
    assert weights["a"].parameters["bits"] == 8.5
    q8 = gguf.GGMLQuantizationType.Q8_0
    same_bits(
        weights.read("a", slice(2, 4), slice(7, 50)), quants.dequantize(quants.quantize(values, q8), q8)[2:4, 7:50]
    )


@pytest.mark.parametrize("kind", WRITABLE + READ_ONLY)
def test_levels_are_those_of_the_values(write, pack, kind):
    """Evenly spaced ones lie on multiples of one step in every run; a lattice of several values has no levels."""
    if kind in WRITABLE:
        data = pack(normal(24, 512), kind)
    else:
        data = random_blocks(kind, 24, 512), gguf.GGMLQuantizationType[kind]
    checkpoint = weightprint.open(write("a.gguf", {"w": data}))
    (weight,) = find(checkpoint)
    assert (weight.levels is None) == kind.startswith(("IQ1", "IQ2", "IQ3"))
    if weight.levels is None:
        return
    values = weight.read(checkpoint, slice(None), slice(None))
    run, even = weight.levels
    assert even == (not kind.startswith(("IQ4", "MXFP4")))
    groups, fit, *_ = _core.cells(values, values, run, even=even, precision=0.0)
    assert groups > 40
    assert fit >= 0.99 * groups  # random offsets may be so large beside a step that float32 blurs it


def test_a_type_that_the_package_can_not_decode(write):
    kind = gguf.GGMLQuantizationType.Q8_1
    checkpoint = weightprint.open(write("m.gguf", {"a": (np.zeros((2, 40), np.uint8), kind)}))
    assert weightprint.scan(checkpoint, digest=True).n_tensors == 1
    with pytest.raises(UnsupportedFormatError, match="Q8_1") as caught:
        Weights(checkpoint).read("a")
    assert (caught.value.code, caught.value.tensor) == ("gguf_undecodable", "a")


def test_stacks_vectors_and_long_tensors(write, pack):
    experts, vector, tall = normal(3, 4, 64), normal(96), normal(3000, 512)
    path = write("m.gguf", {"e": pack(experts, "Q8_0"), "v": pack(vector, "Q8_0"), "t": pack(tall, "Q4_0")})
    checkpoint = weightprint.open(path)
    found = {blocks.name: blocks for blocks in find(checkpoint)}
    q8 = gguf.GGMLQuantizationType.Q8_0
    wanted = quants.dequantize(quants.quantize(experts, q8), q8)
    same_bits(found["e"].read(checkpoint, slice(1, 4), slice(3, 40), 2), wanted[2, 1:4, 3:40])
    same_bits(found["e"].read(checkpoint, slice(1, 3), slice(0, 1), None), wanted[1:3])
    wanted = quants.dequantize(quants.quantize(vector, q8), q8)
    same_bits(found["v"].read(checkpoint, slice(30, 70), slice(0, 1), None), wanted[30:70])
    q4 = gguf.GGMLQuantizationType.Q4_0
    wanted = quants.dequantize(quants.quantize(tall, q4), q4)
    same_bits(found["t"].read(checkpoint, slice(1, 2999), slice(1, 511), None), wanted[1:2999, 1:511])


def test_header_agrees_with_the_packages_reader(write, pack):
    pairs = {
        "llama.block_count": ("uint32", 2),
        "llama.attention.head_count_kv": ("array", [4, 4]),
        "tokenizer.ggml.tokens": ("array", [f"t{k}" * (k % 50) for k in range(20_000)]),
        "tokenizer.ggml.scores": ("array", [float(k) for k in range(20_000)]),
        "general.languages": ("array", ["en"]),
        "x.u8": ("uint8", 255), "x.i8": ("int8", -1), "x.u16": ("uint16", 65535), "x.i16": ("int16", -2),
        "x.i32": ("int32", -3), "x.u64": ("uint64", 2**63), "x.i64": ("int64", -(2**62)), "x.f32": ("float32", 0.1),
        "x.f64": ("float64", 0.1), "x.bool": ("bool", True), "x.text": ("string", "päivää"),
        "tokenizer.chat_template": ("string", "x" * 70_000),
    }  # fmt: skip
    path = write("m.gguf", {"a": normal(3, 5), "b": pack(normal(3, 64), "Q8_0"), "c": normal(1)}, pairs=pairs)
    from weightprint.checkpoint.gguf.header import parse

    with path.open("rb", buffering=0) as file:
        header = parse(file)
    reader = gguf.GGUFReader(path)
    assert header.data_start == reader.data_offset
    theirs = {t.name: (t.tensor_type.name, tuple(reversed(t.shape.tolist())), t.data_offset) for t in reader.tensors}
    assert {t.name: (t.type.name, t.shape, t.begin) for t in header.tensors} == theirs
    assert [t.end - t.begin for t in header.tensors] == [t.n_bytes for t in reader.tensors]
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    kept = dict(header.values)
    left_out = set(fields) - set(kept)
    assert left_out == {
        "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "general.languages", "tokenizer.chat_template"
    }  # fmt: skip
    assert kept == {key: fields[key] for key in kept}
    assert header.lengths == {key: len(value) for key, value in fields.items() if isinstance(value, list)}


def test_config_reads_like_hugging_faces(write):
    pairs = {
        "llama.block_count": ("uint32", 2), "llama.embedding_length": ("uint32", 64),
        "llama.feed_forward_length": ("array", [96, 128]), "llama.attention.head_count": ("uint32", 8),
        "llama.attention.head_count_kv": ("array", [4, 4]), "llama.attention.key_length": ("uint32", 8),
        "llama.expert_count": ("uint32", 4), "llama.rope.freq_base": ("float32", 10000.0),
        "tokenizer.ggml.tokens": ("array", ["a", "b", "c"]), "general.name": ("string", "Tiny"),
    }  # fmt: skip
    checkpoint = weightprint.open(write("m.gguf", {"a": normal(2)}, pairs=pairs))
    assert dict(checkpoint.config) == {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": [96, 128],
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "num_local_experts": 4,
        "rope_theta": 10000.0, "vocab_size": 3, "_name_or_path": "Tiny",
    }  # fmt: skip
    assert checkpoint.metadata["llama.block_count"] == "2"
    assert checkpoint.metadata["tokenizer.ggml.tokens"] == "[3 values]"


def test_config_of_latent_attention_and_of_a_vision_tower(write):
    pairs = {
        "deepseek2.attention.head_count": ("uint32", 16), "deepseek2.attention.head_count_kv": ("uint32", 1),
        "deepseek2.attention.kv_lora_rank": ("uint32", 512), "deepseek2.rope.dimension_count": ("uint32", 64),
        "deepseek2.attention.key_length": ("uint32", 576), "deepseek2.attention.value_length": ("uint32", 512),
        "deepseek2.attention.key_length_mla": ("uint32", 192), "deepseek2.attention.value_length_mla": ("uint32", 128),
    }  # fmt: skip
    config = weightprint.open(write("m.gguf", {"a": normal(2)}, "deepseek2", pairs=pairs)).config
    wanted = {
        "model_type": "deepseek2", "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512,
        "head_dim": 192, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    }  # fmt: skip
    assert dict(config) == wanted
    pairs = {"clip.vision.embedding_length": ("uint32", 1152), "clip.vision.block_count": ("uint32", 27)}
    config = weightprint.open(write("v.gguf", {"a": normal(2)}, "clip", pairs=pairs)).config
    assert config["vision_config"] == {"hidden_size": 1152, "num_hidden_layers": 27}


@pytest.mark.parametrize("alignment", [8, 4096])
def test_other_alignments(write, alignment):
    tensors = {"a": normal(3), "b": normal(5)}
    path = write("m.gguf", tensors, alignment=alignment)
    checkpoint = weightprint.open(path)
    assert checkpoint.metadata["general.alignment"] == str(alignment)
    assert [info.begin % alignment for info in checkpoint.tensors] == [0, 0]
    for name, values in tensors.items():
        same_bits(checkpoint.read(name), values)


def test_shards_as_a_folder_and_by_the_first(write, pack, tmp_path):
    tensors = {f"t{k}": normal(4, 32, seed=k) for k in range(5)} | {"q": pack(normal(2, 32), "Q8_0")}
    write("s/m.gguf", tensors, split_max_tensors=2, pairs={"llama.block_count": ("uint32", 3)})
    names = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == names
    for model in (tmp_path / "s", tmp_path / "s" / names[0]):
        checkpoint = weightprint.open(model)
        assert [file.name for file in checkpoint.files] == names
        assert set(checkpoint.names()) == set(tensors)
        np.testing.assert_array_equal(checkpoint.read("t4"), normal(4, 32, seed=4))
        assert checkpoint.config["num_hidden_layers"] == 3
        assert set(checkpoint.ggml_types) == {"q"}
        assert weightprint.scan(checkpoint).n_tensors == 6
    assert weightprint.open(tmp_path / "s" / names[1]).n_tensors == 2
    # Another precision beside it: the folder leaves a choice, the first shard does not.
    write("s/other.gguf", tensors)
    with pytest.raises(UsageError, match=r"other\.gguf"):
        weightprint.open(tmp_path / "s")
    assert weightprint.open(tmp_path / "s" / names[0]).n_tensors == 6
    (tmp_path / "s" / names[2]).unlink()
    with pytest.raises(ShardMissingError, match="00003-of-00003"):
        weightprint.open(tmp_path / "s" / names[0])


def test_a_folder_with_one_gguf(write, save):
    path = write("m/model.Q8_0.gguf", {"a": normal(3, 4)})
    assert weightprint.open(path.parent).names() == ["a"]
    save("m/model.safetensors", {"b": normal(2)})
    assert weightprint.open(path.parent).names() == ["b"]


def test_digests_are_those_of_the_same_tensors_in_safetensors(write, save):
    tensors = {"a": normal(3, 4), "b": normal(7).astype(np.float16)}
    ours = weightprint.scan(write("m.gguf", tensors), digest=True)
    assert ours.digest == weightprint.scan(save("m.safetensors", tensors), digest=True).digest


def test_pickles_and_scans_in_other_processes(write, pack):
    path = write("m.gguf", {"a": normal(30, 40), "b": pack(normal(30, 64), "Q8_0")})
    checkpoint = weightprint.open(path)
    again = pickle.loads(pickle.dumps(checkpoint))
    assert dict(again.config) == dict(checkpoint.config)
    assert dict(again.ggml_types) == dict(checkpoint.ggml_types)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        far = weightprint.scan(checkpoint, executor=pool, digest=True)
    near = weightprint.scan(checkpoint, digest=True)
    assert far.digest == near.digest
    assert weightprint.check(path).sound


def test_without_the_package_it_says_what_to_install(write, monkeypatch):
    path = write("m.gguf", {"a": normal(3)})
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UnsupportedFormatError, match=r"pip install 'weightprint\[gguf\]'") as caught:
        weightprint.open(path)
    assert (caught.value.code, caught.value.path) == ("gguf_not_installed", str(path))


def test_gguf_under_another_name_says_what_to_do(write):
    path = write("m.gguf", {"a": normal(3)})
    other = path.rename(path.with_name("weights.safetensors"))
    with pytest.raises(UnsupportedFormatError, match=r"\.gguf"):
        weightprint.open(other)


def test_tensor_info_of_blocks_counts_bytes(write, pack):
    checkpoint = weightprint.open(write("m.gguf", {"a": pack(normal(4, 64), "Q8_0"), "b": normal(3)}))
    info = checkpoint.find("a")
    assert isinstance(info, TensorInfo)
    assert (info.numel, info.nbytes, checkpoint.elements_of(info)) == (4 * 68, 4 * 68, 4 * 64)
    assert checkpoint.n_parameters == weightprint.scan(checkpoint).n_parameters == 4 * 64 + 3
