"""Statistics of canonical tensors: those of an F32 file that holds the canonical arrays, bit for bit."""

from __future__ import annotations

import json
import threading

import ml_dtypes
import numpy as np
import pytest
import weightprint
from weightprint.anatomy.place import Place, View
from weightprint.errors import UsageError
from weightprint.scan.canonical import _run_rows

rng = np.random.default_rng(21)
EVERYTHING = {"exact": True, "rows": True, "columns": True, "digest": True}
HIDDEN, HEADS, SIZE = 32, 4, 8


def draw(*shape):
    return rng.normal(scale=0.05, size=shape).astype(np.float32)


class Made:
    """A checkpoint, and the canonical arrays that it holds by the names of their places."""

    def __init__(self, config):
        self.config, self.tensors, self.canonical = config, {}, {}

    def put(self, name, role, block=None, values=None, shape=None, turned=False):
        values = draw(*shape) if values is None else values
        self.canonical[str(Place("decoder", block, role))] = values
        self.tensors[name] = values.T if turned else values

    def save(self, save, folder):
        path = save(f"{folder}/model.safetensors", self.tensors)
        (path.parent / "config.json").write_text(json.dumps(self.config))
        return str(path.parent)

    def twin(self, save):
        """One float32 tensor per canonical one, under its place's name."""
        return str(save("twin.safetensors", {k: np.ascontiguousarray(v) for k, v in self.canonical.items()}))


def gpt2():
    """q, k and v in one turned tensor, and a head that is the embedding."""
    made = Made({"model_type": "gpt2", "n_head": HEADS, "n_embd": HIDDEN})
    made.put("wte.weight", "embedding", shape=(50, HIDDEN))
    made.put("wpe.weight", "position", shape=(9, HIDDEN))
    for b in range(2):
        made.put(f"h.{b}.ln_1.weight", "attn_norm", b, shape=(HIDDEN,))
        parts = [draw(HIDDEN, HIDDEN) for _ in range(3)]
        biases = [draw(HIDDEN) for _ in range(3)]
        made.tensors[f"h.{b}.attn.c_attn.weight"] = np.concatenate(parts).T
        made.tensors[f"h.{b}.attn.c_attn.bias"] = np.concatenate(biases)
        for role, weight, bias in zip("qkv", parts, biases, strict=True):
            made.canonical |= {f"decoder.{b}.{role}": weight, f"decoder.{b}.{role}_bias": bias}
        made.put(f"h.{b}.attn.c_proj.weight", "o", b, shape=(HIDDEN, HIDDEN), turned=True)
        made.put(f"h.{b}.ln_2.weight", "ffn_norm", b, shape=(HIDDEN,))
        made.put(f"h.{b}.mlp.c_fc.weight", "up", b, shape=(4 * HIDDEN, HIDDEN), turned=True)
        made.put(f"h.{b}.mlp.c_proj.weight", "down", b, shape=(HIDDEN, 4 * HIDDEN), turned=True)
    made.put("ln_f.weight", "final_norm", shape=(HIDDEN,))
    made.canonical["decoder.head"] = made.canonical["decoder.embedding"]
    return made


def neox():
    """Per head its q, its k, its v."""
    made = Made({"model_type": "gpt_neox", "num_attention_heads": HEADS, "hidden_size": HIDDEN})
    made.put("gpt_neox.embed_in.weight", "embedding", shape=(50, HIDDEN))
    for b in range(2):
        parts = [draw(HIDDEN, HIDDEN) for _ in range(3)]
        heads = np.stack([part.reshape(HEADS, SIZE, HIDDEN) for part in parts], axis=1)
        made.tensors[f"gpt_neox.layers.{b}.attention.query_key_value.weight"] = heads.reshape(3 * HIDDEN, HIDDEN)
        made.canonical |= {f"decoder.{b}.{role}": part for role, part in zip("qkv", parts, strict=True)}
        made.put(f"gpt_neox.layers.{b}.attention.dense.weight", "o", b, shape=(HIDDEN, HIDDEN))
        made.put(f"gpt_neox.layers.{b}.mlp.dense_h_to_4h.weight", "up", b, shape=(4 * HIDDEN, HIDDEN))
        made.put(f"gpt_neox.layers.{b}.mlp.dense_4h_to_h.weight", "down", b, shape=(HIDDEN, 4 * HIDDEN))
    made.put("gpt_neox.final_layer_norm.weight", "final_norm", shape=(HIDDEN,))
    made.put("embed_out.weight", "head", shape=(50, HIDDEN))
    return made


def fp8():
    """A Llama in FP8, with one scale per 128 x 128 block."""
    made = Made({"model_type": "llama", "num_attention_heads": HEADS, "hidden_size": 256})
    made.put("model.embed_tokens.weight", "embedding", shape=(50, 256))
    for role, name, rows, columns in (
        ("q", "self_attn.q_proj", 256, 256),
        ("k", "self_attn.k_proj", 256, 256),
        ("v", "self_attn.v_proj", 256, 256),
        ("o", "self_attn.o_proj", 256, 256),
        ("gate", "mlp.gate_proj", 384, 256),
        ("up", "mlp.up_proj", 384, 256),
        ("down", "mlp.down_proj", 256, 384),
    ):
        codes = draw(rows, columns).astype(ml_dtypes.float8_e4m3fn)
        scales = rng.uniform(0.5, 2, size=(rows // 128, columns // 128)).astype(np.float32)
        made.tensors[f"model.layers.0.{name}.weight"] = codes
        made.tensors[f"model.layers.0.{name}.weight_scale_inv"] = scales
        grid = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)
        made.canonical[f"decoder.0.{role}"] = codes.astype(np.float32) * grid
    for role, name in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
        made.put(f"model.layers.0.{name}.weight", role, 0, shape=(256,))
    made.put("model.norm.weight", "final_norm", shape=(256,))
    made.put("lm_head.weight", "head", shape=(50, 256))
    return made


# What says where the values lie in files, not what they are.
STORAGE = {
    "name",
    "dtype",
    "nbytes",
    "file",
    "stack",
    "block",
    "part",
    "role",
    "expert",
    "component",
    "weight",
    "scheme",
}


@pytest.mark.parametrize("maker", [gpt2, neox, fp8])
@pytest.mark.parametrize("threads", [1, 3])
def test_bits_of_a_file_of_canonical_tensors(save, maker, threads):
    made = maker()
    scan = weightprint.scan(made.save(save, "model"), of="canonical", threads=threads, **EVERYTHING)
    twin = weightprint.scan(made.twin(save), **EVERYTHING)
    assert set(scan.names()) == set(made.canonical)
    for name in scan.names():
        mine, theirs = scan[name], twin[name]
        assert mine.keys() - STORAGE == theirs.keys() - STORAGE
        for key in theirs.keys() - STORAGE:
            assert mine[key] == theirs[key] or (mine[key] != mine[key] and theirs[key] != theirs[key]), (name, key)
        if len(mine["shape"]) == 2:
            for axis in ("rows", "columns"):
                a, b = getattr(scan, axis)(name), getattr(twin, axis)(name)
                assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("mean", "std", "l2"))
    assert scan.digest == twin.digest


def test_what_is_stored_plainly_is_scanned_as_it_is(save):
    """Without a digest the core's scan of files takes bf16 as bf16: the same numbers as a plain scan."""
    made = neox()
    made.tensors = {name: values.astype(ml_dtypes.bfloat16) for name, values in made.tensors.items()}
    model = made.save(save, "model")
    scan, plain = weightprint.scan(model, of="canonical", exact=True), weightprint.scan(model, exact=True)
    for row in scan.table.rows():
        if row["role"] not in "qkv":
            stored = plain[row["weight"]]
            assert {k: v for k, v in row.items() if k not in STORAGE} == {
                k: v for k, v in stored.items() if k not in STORAGE
            }
            assert (row["dtype"], row["nbytes"]) == ("BF16", stored["nbytes"])
    assert scan.bytes_read == plain.bytes_read
    assert scan.n_parameters == plain.n_parameters


def test_rows_columns_and_order(save):
    made = gpt2()
    scan = weightprint.scan(made.save(save, "model"), of="canonical", exact=True)
    names = scan.names()
    assert names[:3] == ["decoder.embedding", "decoder.position", "decoder.0.attn_norm"]
    assert names[-2:] == ["decoder.final_norm", "decoder.head"]
    row = scan["decoder.1.k"]
    assert (row["stack"], row["block"], row["part"], row["role"], row["expert"]) == (
        "decoder",
        1,
        "attention",
        "k",
        None,
    )
    assert (row["weight"], row["shape"], row["nbytes"]) == ("h.1.attn.c_attn.weight", (HIDDEN, HIDDEN), 4 * HIDDEN**2)
    # The tied head has the embedding's numbers, and is not counted twice.
    keys = scan["decoder.head"].keys() - {"name", "part", "role"}
    assert {k: scan["decoder.head"][k] for k in keys} == {k: scan["decoder.embedding"][k] for k in keys}
    assert scan.n_parameters == sum(values.size for values in made.tensors.values())
    assert set(scan.by("role")["role"]) == {name.rpartition(".")[2] for name in made.canonical}


def test_weights_without_a_place_keep_their_names(save):
    made = neox()
    made.tensors |= {"strange.thing": draw(5, 4, 3), "strange.codes": np.arange(12, dtype=np.complex64)}
    scan = weightprint.scan(made.save(save, "model"), of="canonical", digest=True)
    assert scan.names()[-2:] == ["strange.thing", "strange.codes"]
    assert scan["strange.thing"]["role"] is None
    assert scan["strange.codes"]["n"] == 24
    assert scan.by("role")["role"][-1] is None


def test_globs_are_on_places(save):
    model = gpt2().save(save, "model")
    scan = weightprint.scan(model, of="canonical", include="decoder.*.up", exclude="*.0.*")
    assert scan.names() == ["decoder.1.up"]
    with pytest.raises(UsageError, match=r"matches none of \d+ tensors"):
        weightprint.scan(model, of="canonical", include="h.0.*")
    with pytest.raises(UsageError, match="threads, not by an executor"):
        weightprint.scan(model, of="canonical", executor=object())


def test_progress_and_what_it_raises(save):
    model = neox().save(save, "model")
    calls = []
    scan = weightprint.scan(model, of="canonical", progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (scan.bytes_read, scan.bytes_read)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weightprint.scan(model, of="canonical", include="*.q", progress=interrupt)
    assert not [t for t in threading.enumerate() if t.name.startswith("weightprint")]


def test_long_tensors_are_read_in_runs(save):
    """A fused, turned tensor of several runs and units: cut like the file, whatever the runs."""
    made = Made({"model_type": "gpt2", "n_head": 4, "n_embd": 1024})
    parts = [draw(1024, 1024) for _ in range(3)]
    made.put("wte.weight", "embedding", shape=(8, 1024))
    made.tensors["h.0.attn.c_attn.weight"] = np.concatenate(parts).T
    made.canonical |= {f"decoder.0.{role}": part for role, part in zip("qkv", parts, strict=True)}
    for name, role, rows, columns in (
        ("attn.c_proj", "o", 1024, 1024),
        ("mlp.c_fc", "up", 4096, 1024),
        ("mlp.c_proj", "down", 1024, 4096),
    ):
        made.put(f"h.0.{name}.weight", role, 0, shape=(rows, columns), turned=True)
    scan = weightprint.scan(made.save(save, "model"), of="canonical", include=["*.q", "*.down"], rows=True, digest=True)
    twin = weightprint.scan(made.twin(save), include=["*.q", "*.down"], rows=True, digest=True)
    assert scan.digest == twin.digest
    for name in twin.names():
        assert (scan[name]["std"], scan[name]["abs_max_index"]) == (twin[name]["std"], twin[name]["abs_max_index"])
        assert np.array_equal(scan.rows(name).l2, twin.rows(name).l2)


def test_runs_are_bounded():
    for shape in [(), (7,), (10**9,), (3, 10**9), (10**6, 10**4), (5, 4, 3)]:
        assert _run_rows(View("w", shape)) * max(1, int(np.prod(shape[1:]))) <= max(1 << 20, int(np.prod(shape[1:])))
    # Runs of a turned tensor are long enough that what is read of every stored row is worth a read.
    assert _run_rows(View("w", (50_000, 12_288), transposed=True)) == 256
    assert _run_rows(View("w", (50_000, 1 << 22), transposed=True)) == 4
