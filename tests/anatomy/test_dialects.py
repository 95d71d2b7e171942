"""Adapters in every dialect: what is recognised, and merged values against updates written out in numpy."""

from __future__ import annotations

import itertools
import json
import runpy
from dataclasses import dataclass, field, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import weightprint
from miniature import collect
from weightprint.anatomy.adapters.adapters import is_adapter, is_adapter_alone
from weightprint.anatomy.adapters.dialects import factors_of
from weightprint.anatomy.adapters.merged import merge_adapter
from weightprint.anatomy.adapters.opened import base_and_adapter, opened
from weightprint.anatomy.anatomy import anatomy
from weightprint.anatomy.place import Place
from weightprint.errors import FormatError, UsageError

LLAMA = next(mini for mini in collect() if mini.name == "llama")
RANK, ALPHA = 3, 6.0
#: Role → module of block 1.
MODULES = {
    "q": "model.layers.1.self_attn.q_proj",
    "k": "model.layers.1.self_attn.k_proj",
    "o": "model.layers.1.self_attn.o_proj",
    "gate": "model.layers.1.mlp.gate_proj",
    "down": "model.layers.1.mlp.down_proj",
}


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@dataclass
class Written:
    """An adapter of one module as a dialect writes it, and what it makes of the module's weight W (out x in)."""

    tensors: dict[str, np.ndarray]
    merged: np.ndarray
    config: dict = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    rank: int | None = RANK
    kind: str = "LoRA"


def _factors(w, seed):
    return draw(RANK, w.shape[1], seed=seed), draw(w.shape[0], RANK, seed=seed + 1)


def _lora(names, scale, *, turned=False, alpha=None, **more):
    """A LoRA that calls its factors so; `alpha` is the name of a scalar beside them."""

    def write(module, w, seed):
        a, b = _factors(w, seed)
        flat = module.replace(".", "_")
        first, second = (name.format(m=module, f=flat) for name in names)
        tensors = {first: a.T if turned else a, second: b.T if turned else b}
        if alpha:
            tensors[alpha.format(m=module, f=flat)] = np.float32(ALPHA)
        return Written(tensors, w + scale * (b.astype(np.float64) @ a), **more)

    return write


def _loha(stem, scale, **more):
    def write(module, w, seed):
        parts = [draw(*shape, seed=seed + k) for k, shape in enumerate([(w.shape[0], RANK), (RANK, w.shape[1])] * 2)]
        w1a, w1b, w2a, w2b = (x.astype(np.float64) for x in parts)
        at = stem.format(m=module, f=module.replace(".", "_"))
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        tensors = {f"{at}.{name}": x for name, x in zip(names, parts, strict=True)}
        if "config" not in more:
            tensors[at + ".alpha"] = np.float32(ALPHA)
        return Written(tensors, w + scale * (w1a @ w1b) * (w2a @ w2b), kind="LoHa", **more)

    return write


def _lokr(stem, scale, split, **more):
    def write(module, w, seed):
        w1 = draw(2, 4, seed=seed)
        rows, columns = w.shape[0] // 2, w.shape[1] // 4
        at = stem.format(m=module, f=module.replace(".", "_"))
        tensors = {at + ".lokr_w1": w1}
        if split:
            a, b = draw(rows, RANK, seed=seed + 1), draw(RANK, columns, seed=seed + 2)
            tensors |= {at + ".lokr_w2_a": a, at + ".lokr_w2_b": b}
            w2 = a.astype(np.float64) @ b
        else:
            tensors[at + ".lokr_w2"] = w2 = draw(rows, columns, seed=seed + 1)
        if "config" not in more:
            tensors[at + ".alpha"] = np.float32(ALPHA)
        return Written(tensors, w + scale * np.kron(w1, w2), kind="LoKr", rank=RANK if split else None, **more)

    return write


def _ia3_peft(module, w, seed):
    forward = ".mlp." in module
    scale = draw(1, w.shape[1], seed=seed) if forward else draw(w.shape[0], 1, seed=seed)
    tensors = {f"base_model.model.{module}.ia3_l": scale}
    return Written(tensors, w * scale.astype(np.float64), {"peft_type": "IA3"}, rank=None, kind="IA3")


def _ia3_kohya(module, w, seed):
    on_input = ".mlp." in module
    scale = draw(w.shape[1 if on_input else 0], seed=seed)
    at = "lycoris_" + module.replace(".", "_")
    tensors = {at + ".weight": scale, at + ".on_input": np.array(on_input)}
    by = 1 + scale.astype(np.float64)
    return Written(tensors, w * (by if on_input else by[:, None]), rank=None, kind="IA3")


def _difference(stem):
    def write(module, w, seed):
        d = draw(*w.shape, seed=seed)
        at = stem.format(m=module, f=module.replace(".", "_"))
        return Written({at + ".diff": d}, w + d.astype(np.float64), rank=None, kind="full difference")

    return write


def _dora_mlx(module, w, seed):
    a, b = _factors(w, seed)
    m = np.abs(draw(w.shape[0], seed=seed + 2)) + 1
    v = w + 10 * (b.astype(np.float64) @ a)
    tensors = {f"{module}.lora_a": a.T, f"{module}.lora_b": b.T, f"{module}.m": m}
    return Written(tensors, v * (m / np.linalg.norm(v, axis=1))[:, None], MLX)


S = ALPHA / RANK
PEFT = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}
MLX = {"fine_tune_type": "lora", "lora_parameters": {"rank": RANK, "scale": 10.0, "dropout": 0.0}}
GGUF_LIKE = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": "6.0"}
DIFFUSERS = {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": ALPHA})}
P = "base_model.model.{m}"
DIALECTS = {
    "PEFT": _lora((P + ".lora_A.weight", P + ".lora_B.weight"), S, config=PEFT),
    "PEFT, named default": _lora((P + ".lora_A.default.weight", P + ".lora_B.default.weight"), S, config=PEFT),
    "PEFT, named otherwise": _lora((P + ".lora_A.mine.weight", P + ".lora_B.mine.weight"), S, config=PEFT),
    "PEFT LoHa": _loha(P, S, config={"peft_type": "LOHA", "r": RANK, "alpha": ALPHA}),
    "PEFT LoKr": _lokr(P, S, True, config={"peft_type": "LOKR", "r": RANK, "alpha": ALPHA}),
    "PEFT LoKr, w2 whole": _lokr(P, S, False, config={"peft_type": "LOKR", "r": RANK, "alpha": ALPHA}),
    "PEFT IA3": _ia3_peft,
    "kohya": _lora(("lora_unet_{f}.lora_down.weight", "lora_unet_{f}.lora_up.weight"), S, alpha="lora_unet_{f}.alpha"),
    "kohya, no alpha": _lora(("lora_te1_{f}.lora_down.weight", "lora_te1_{f}.lora_up.weight"), 1.0),
    "LyCORIS LoHa": _loha("lycoris_{f}", S),
    "LyCORIS LoKr": _lokr("lora_unet_{f}", S, True),
    "LyCORIS LoKr, whole": _lokr("lora_unet_{f}", 1.0, False),
    "LyCORIS LoKr, dotted": _lokr("diffusion_model.{m}", S, True),
    "LyCORIS IA3": _ia3_kohya,
    "LyCORIS full": _difference("lora_unet_{f}"),
    "Wan": _lora(("diffusion_model.{m}.lora_down.weight", "diffusion_model.{m}.lora_up.weight"), 1.0),
    "Wan, alpha": _lora(
        ("diffusion_model.{m}.lora_A.weight", "diffusion_model.{m}.lora_B.weight"), S, alpha="diffusion_model.{m}.alpha"
    ),
    "Wan diff": _difference("diffusion_model.{m}"),
    "diffusers": _lora(("transformer.{m}.lora_A.weight", "transformer.{m}.lora_B.weight"), S, metadata=DIFFUSERS),
    "diffusers, no alpha": _lora(("transformer.{m}.lora_A.weight", "transformer.{m}.lora_B.weight"), 1.0),
    "diffusers, old": _lora(("unet.{m}.lora.down.weight", "unet.{m}.lora.up.weight"), 1.0),
    "diffusers, older": _lora(("unet.{m}_lora.down.weight", "unet.{m}_lora.up.weight"), 1.0),
    "diffusers, text": _lora(
        ("text_encoder.{m}.lora_linear_layer.down.weight", "text_encoder.{m}.lora_linear_layer.up.weight"), 1.0
    ),
    "mlx": _lora(("{m}.lora_a", "{m}.lora_b"), 10.0, turned=True, config=MLX),
    "mlx DoRA": _dora_mlx,
    "GGUF names": _lora(("{m}.weight.lora_a", "{m}.weight.lora_b"), S, metadata=GGUF_LIKE),
    "GGUF names, no alpha": _lora(("{m}.weight.lora_a", "{m}.weight.lora_b"), 1.0),
}


def save(folder: Path, written: Written, name="adapter_model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: np.ascontiguousarray(x) for key, x in written.tensors.items()}
    safetensors.numpy.save_file(tensors, folder / name, written.metadata or None)
    if written.config:
        (folder / "adapter_config.json").write_text(json.dumps(written.config))
    return folder


def of_modules(dialect: str, roles=tuple(MODULES)) -> tuple[Written, dict[str, np.ndarray]]:
    """One adapter of several modules, and weight → what it becomes."""
    whole, wanted = None, {}
    for k, role in enumerate(roles):
        name = MODULES[role] + ".weight"
        one = DIALECTS[dialect](MODULES[role], LLAMA.tensors[name].astype(np.float64), 10 * k)
        wanted[name] = one.merged
        if whole is None:
            whole = one
        else:
            whole.tensors |= one.tensors
    assert whole is not None
    return whole, wanted


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return LLAMA.write(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_is_recognised(tmp_path, dialect):
    written, _ = of_modules(dialect)
    found = anatomy(save(tmp_path / "a", written))
    (adapter,) = found.adapters
    assert adapter.kinds == {written.kind: len(MODULES)}
    assert adapter.ranks == (() if written.rank is None else (written.rank,))
    assert sum(adapter.targets.values()) == len(MODULES)
    assert all(any(role in target for target in adapter.targets) for role in MODULES)
    assert found.unmapped == ()
    # Whatever has a place is a factor of what stands there: no model is made of factors.
    assert all("." in a.place.role for a in found.assignments)
    assert not any(a.source == "inferred" for a in found.assignments)
    assert set(found.parameters()) == {"adapter"}
    assert found.weights.findings == []
    assert is_adapter_alone(list(found.weights))
    codes = {f.code for f in weightprint.check(tmp_path / "a").findings if f.severity != "note"}
    assert codes <= {"outlier", "constant", "dead_rows"}


@pytest.mark.parametrize(("dialect", "role"), list(itertools.product(DIALECTS, MODULES)))
def test_merges_as_the_formula_says(tmp_path, base, dialect, role):
    written, wanted = of_modules(dialect, [role])
    merged = merge_adapter(base, save(tmp_path / "a", written))
    ((name, expected),) = wanted.items()
    assert merged.weights.touched == {name}
    got = merged.tensor(1, role)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    assert not np.allclose(got, LLAMA.tensors[name], atol=1e-2)
    part = merged.tensor(1, role, rows=slice(3, 9), columns=slice(2, 7))
    np.testing.assert_allclose(part, expected[3:9, 2:7], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(merged.tensor(0, role), LLAMA.canonical[Place("decoder", 0, role)])


def rounded(tensors, dtype):
    """Floats as `dtype` holds them, stored so, and in F32."""
    small = {name: x.astype(dtype) if x.dtype == np.float32 else x for name, x in tensors.items()}
    return small, {name: x.astype(np.float32) if x.dtype == dtype else x for name, x in small.items()}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_factors_and_base_are_stored_in_changes_nothing(tmp_path, dialect, dtype):
    """The formula holds in F32; of the same values in 16 bits it must give the same numbers."""
    written, _ = of_modules(dialect, ["q", "down"])
    got = []
    for k, (base, factors) in enumerate(
        zip(rounded(LLAMA.tensors, dtype), rounded(written.tensors, dtype), strict=True)
    ):
        (tmp_path / str(k)).mkdir()
        safetensors.numpy.save_file(base, tmp_path / str(k) / "model.safetensors")
        (tmp_path / str(k) / "config.json").write_text(json.dumps(LLAMA.config))
        adapter = save(tmp_path / f"a{k}", replace(written, tensors=factors))
        merged = merge_adapter(tmp_path / str(k), adapter)
        got.append([merged.tensor(1, role) for role in ("q", "down")])
    for a, b in zip(*got, strict=True):
        np.testing.assert_array_equal(a, b)


#: Dialects that write the same factors.
_SAME = ("PEFT", "kohya", "Wan", "diffusers", "diffusers, old", "mlx", "GGUF names")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(_SAME, 2)))
def test_two_dialects_are_paired_by_module(tmp_path, one, other):
    a, b = (save(tmp_path / str(k), of_modules(dialect)[0]) for k, dialect in enumerate((one, other)))
    found = weightprint.diff(a, b)
    assert found.counts.pop("same") == 2 * len(MODULES)
    assert not {"changed", "reshaped"} & set(found.counts)
    left = [name for name, s in zip(found.table["name"], found.table["status"], strict=True) if s.startswith("only")]
    assert all(name.endswith(".alpha") for name in left)


def test_a_convolution_and_a_bias(tmp_path):
    conv, bias, d = draw(6, 4, 3, 3), draw(6), draw(6, seed=3)
    safetensors.numpy.save_file({"conv_in.weight": conv, "conv_in.bias": bias}, tmp_path / "base.safetensors")
    down, up = draw(2, 4, 3, 3, seed=1), draw(6, 2, 1, 1, seed=2)
    at = "lora_unet_conv_in"
    tensors = {at + ".lora_down.weight": down, at + ".lora_up.weight": up, at + ".diff_b": d}
    save(tmp_path, Written(tensors | {at + ".alpha": np.float32(1)}, conv), "a.safetensors")
    merged = merge_adapter(tmp_path / "base.safetensors", tmp_path / "a.safetensors")
    wanted = conv + 0.5 * np.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    np.testing.assert_allclose(merged.weights.read("conv_in.weight"), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merged.weights.read("conv_in.weight", slice(1, 3)), wanted[1:3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merged.weights.read("conv_in.bias"), bias + d, rtol=1e-6)


def test_several_adapters_inside_one_model(tmp_path):
    tensors = {}
    for name, x in LLAMA.tensors.items():
        module = name.removesuffix(".weight")
        if not module.endswith(("q_proj", "down_proj")):
            tensors[name] = x
            continue
        tensors[module + ".base_layer.weight"] = x
        for adapter, rank in (("speech", 4), ("vision", 2)):
            tensors[f"{module}.lora_A.{adapter}.weight"] = draw(rank, x.shape[1], seed=rank)
            tensors[f"{module}.lora_B.{adapter}.weight"] = draw(x.shape[0], rank, seed=rank)
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.numpy.save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LLAMA.config | {"speech_lora": {"r": 4, "lora_alpha": 8}}))
    found = anatomy(folder)
    assert [(a.name, a.ranks, a.alphas) for a in found.adapters] == [("speech", (4,), (8.0,)), ("vision", (2,), ())]
    assert all(a.targets == {"q": 2, "down": 2} for a in found.adapters)
    assert found.family == "llama"
    assert found.unmapped == ()
    assert not is_adapter_alone(list(found.weights))
    np.testing.assert_array_equal(found.tensor(1, "q"), LLAMA.canonical[Place("decoder", 1, "q")])
    assert found.tensor(1, "q.lora_a.vision").shape == (2, 20)
    assert not [f for f in found.findings if "lora" in f.message]
    assert weightprint.check(folder).counts["error"] == 0


@pytest.mark.parametrize(
    "names",
    [
        ["model.layers.0.self_attn.q_proj.weight", "act.alpha", "x.m"],
        ["decoder.snake.alpha", "decoder.conv.weight"],
        ["model.layers.0.q_a_proj.weight", "blk.0.attn_q_a.weight"],
        ["color.weight", "explorer.m", "lora.weight"],
        ["a.diff", "b.weight", "c.weight"],
    ],
)
def test_models_are_no_adapters(names):
    assert not is_adapter(names)
    assert factors_of(names) == {}


@pytest.mark.parametrize(
    ("dialect", "change"),
    [
        ("kohya", lambda t: t.pop(next(n for n in t if "lora_up" in n))),
        ("LyCORIS LoHa", lambda t: t.pop(next(n for n in t if "w2_b" in n))),
        ("LyCORIS LoKr", lambda t: t.pop(next(n for n in t if "w1" in n))),
        ("LyCORIS LoHa", lambda t: t.update({next(n for n in t if "w2_b" in n): draw(RANK + 1, 20)})),
        ("mlx", lambda t: t.update({next(n for n in t if "lora_b" in n): draw(RANK + 1, 24)})),
    ],
)
def test_check_names_factors_that_make_no_update(tmp_path, dialect, change):
    written, _ = of_modules(dialect)
    change(written.tensors)
    found = weightprint.check(save(tmp_path / "a", written))
    assert "adapter_factors" in {f.code for f in found.findings if f.severity == "error"}


@pytest.mark.parametrize(
    ("dialect", "config"),
    [("PEFT", {"r": 64}), ("PEFT LoHa", {"r": 64}), ("mlx", {"lora_parameters": {"rank": 64, "scale": 1.0}})],
)
def test_check_holds_the_config_against_the_factors(tmp_path, dialect, config):
    written, _ = of_modules(dialect)
    written.config = written.config | config
    found = weightprint.check(save(tmp_path / "a", written))
    assert [(f.code, "64" in f.message) for f in found.findings if f.severity == "error"] == [("adapter_config", True)]


def test_mlx_folder(tmp_path, base):
    written, wanted = of_modules("mlx")
    save(tmp_path / "a", written, "adapters.safetensors")
    safetensors.numpy.save_file({"x": draw(3)}, tmp_path / "a" / "0000100_adapters.safetensors")
    merged = merge_adapter(base, tmp_path / "a")
    for name, expected in wanted.items():
        np.testing.assert_allclose(merged.weights.read(name), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("embeddings", ["mlx", "GGUF"])
def test_updates_of_embeddings(tmp_path, base, embeddings):
    """mlx looks tokens up in A (vocabulary x r); GGUF stores A so, and B (hidden x r)."""
    table = LLAMA.tensors["model.embed_tokens.weight"]
    a, b = draw(len(table), RANK), draw(RANK, table.shape[1])
    if embeddings == "mlx":
        written = Written({"model.embed_tokens.lora_a": a, "model.embed_tokens.lora_b": b}, table + 10 * a @ b, MLX)
    else:
        at = "model.embed_tokens.weight."
        written = Written({at + "lora_a": a, at + "lora_b": b.T}, table + S * a @ b, metadata=GGUF_LIKE)
    found = anatomy(save(tmp_path / "a", written))
    assert [(a.ranks, dict(a.targets)) for a in found.adapters] == [((RANK,), {"model.embed_tokens": 1})]
    got = merge_adapter(base, tmp_path / "a").tensor(None, "embedding")
    np.testing.assert_allclose(got, written.merged, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("names", ["GGUF", "hub"])
def test_a_gguf_adapter(tmp_path, names):
    """llama.cpp's adapter files on a GGUF base, and the hub's names on it: q and k lie in pairs there."""
    pytest.importorskip("gguf")
    path = Path(__file__).parents[1] / "checkpoint" / "gguf" / "gguf_files.py"
    mini = next(mini for mini in collect() if mini.name == "gguf-llama")
    base = mini.write(tmp_path / "base")
    module = {"GGUF": "blk.1.attn_q", "hub": "model.layers.1.self_attn.q_proj"}[names]
    w = anatomy(base).tensor(1, "q")
    a, b = _factors(w, 5)
    if names == "GGUF":
        write = runpy.run_path(str(path))["write_gguf"]
        pairs = {key: ("string", value) for key, value in GGUF_LIKE.items() if key != "adapter.lora.alpha"}
        pairs = {key: value for key, value in pairs.items() if key != "general.type"}
        pairs |= {"adapter.lora.alpha": ("float32", ALPHA)}
        adapter = write(tmp_path / "a.gguf", {module + ".weight.lora_a": a, module + ".weight.lora_b": b}, pairs=pairs)
        (said,) = anatomy(adapter).adapters
        assert (said.ranks, said.alphas, said.dialects, said.targets) == ((RANK,), (ALPHA,), ("GGUF",), {"q": 1})
        stored = anatomy(base).weights.read(module + ".weight").astype(np.float64)
        merged = merge_adapter(base, adapter)
        got = merged.weights.read(module + ".weight")
        np.testing.assert_allclose(got, stored + S * b.astype(np.float64) @ a, rtol=2e-5, atol=2e-5)
    else:
        written = _lora((P + ".lora_A.weight", P + ".lora_B.weight"), S, config=PEFT)(module, w.astype(np.float64), 5)
        merged = merge_adapter(base, save(tmp_path / "a", written))
        np.testing.assert_allclose(merged.tensor(1, "q"), written.merged, rtol=2e-5, atol=2e-5)


# base+adapter


def test_a_plus_in_a_name_is_a_name(tmp_path, base):
    written, _ = of_modules("PEFT")
    odd = save(tmp_path / "a+b", written)
    assert base_and_adapter(odd) is None
    assert base_and_adapter(f"{base}+{odd}") == (str(base), str(odd))
    assert base_and_adapter(f"{tmp_path}/none+{odd}") is None
    with opened(f"{base}+{odd}") as merged:
        assert merged.source == f"{base}+{odd}"
        files = merged.checkpoints
    assert all(checkpoint.closed for checkpoint in files)


@pytest.mark.parametrize("dialect", ["PEFT", "kohya", "mlx", "LyCORIS LoKr", "LyCORIS LoHa"])
def test_verbs_take_base_and_adapter(tmp_path, base, dialect):
    written, wanted = of_modules(dialect)
    both = f"{base}+{save(tmp_path / 'a', written)}"
    folder = tmp_path / "merged"
    folder.mkdir()
    done = LLAMA.tensors | {name: x.astype(np.float32) for name, x in wanted.items()}
    done = {name: np.ascontiguousarray(x) for name, x in done.items()}
    safetensors.numpy.save_file(done, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LLAMA.config))
    found = weightprint.diff(both, folder)
    rows = dict(zip(found.table["name"], found.table["relative"], strict=True))
    assert set(found.counts) <= {"same", "changed"}
    assert all(value < 1e-6 for value in rows.values())
    assert {
        name
        for name, r in zip(found.table["name"], weightprint.diff(both, base).table["relative"], strict=True)
        if r > 0.01
    } == set(wanted)
    assert weightprint.check(both).counts["error"] == 0
    comparison = weightprint.compare(both, folder)
    assert comparison.a.source == both
    assert comparison.a.digest is None
    assert not comparison.same or comparison.verdict == "re_encoded"
    assert weightprint.compare(both, both).verdict == "identical"
    assert weightprint.compare(base, both).verdict != "identical"


def test_compare_says_that_one_is_an_adapter(tmp_path, base):
    adapter = save(tmp_path / "a", of_modules("PEFT")[0])
    for pair, which in (((base, adapter), "B"), ((adapter, base), "A")):
        with pytest.raises(UsageError, match=rf"{which} is an adapter.*rank 3.*q 1.*BASE\+") as caught:
            weightprint.compare(*pair)
        assert caught.value.code == "adapter_alone"
    assert weightprint.compare(adapter, adapter).verdict == "identical"


def test_check_says_that_adapter_and_base_do_not_go_together(tmp_path, base):
    a, b = draw(3, 22), draw(24, 3)
    at = "base_model.model.model.layers.0.self_attn.q_proj."
    adapter = save(tmp_path / "a", Written({at + "lora_A.weight": a, at + "lora_B.weight": b}, a, PEFT))
    assert weightprint.check(adapter).sound
    assert "adapter_base" in {f.code for f in weightprint.check(f"{base}+{adapter}").findings}
    with pytest.raises(FormatError):
        weightprint.diff(f"{base}+{adapter}", base)
