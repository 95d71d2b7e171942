"""Statistics pooled by role, part and block against f64 over the concatenated values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from weightprint.anatomy.anatomy import Anatomy
from weightprint.anatomy.roles import role_of
from weightprint.cli import cli
from weightprint.errors import UsageError

rng = np.random.default_rng(9)
HIDDEN = 16
ROLES = {
    "input_layernorm": ("attn_norm", (HIDDEN,)),
    "self_attn.q_proj": ("q", (HIDDEN, HIDDEN)),
    "self_attn.k_proj": ("k", (8, HIDDEN)),
    "self_attn.v_proj": ("v", (8, HIDDEN)),
    "self_attn.o_proj": ("o", (HIDDEN, HIDDEN)),
    "post_attention_layernorm": ("ffn_norm", (HIDDEN,)),
    "mlp.gate_proj": ("gate", (40, HIDDEN)),
    "mlp.up_proj": ("up", (40, HIDDEN)),
    "mlp.down_proj": ("down", (HIDDEN, 40)),
}


def moments(values):
    """Two-pass moments in f64: the oracle."""
    finite = values[np.isfinite(values)].astype(np.float64)
    mean = math.fsum(finite) / len(finite)
    m2, m3, m4 = (math.fsum((finite - mean) ** k) / len(finite) for k in (2, 3, 4))
    return {
        "mean": mean,
        "std": math.sqrt(m2),
        "rms": math.sqrt(math.fsum(finite**2) / len(finite)),
        "l1": math.fsum(np.abs(finite)),
        "l2": math.sqrt(math.fsum(finite**2)),
        "skewness": m3 / m2**1.5 if m2 else math.nan,
        "kurtosis": m4 / m2**2 if m2 else math.nan,
    }


@pytest.fixture
def llama(save):
    """(path, tensors, name → role, name → block): float64, blocks of very different scales, special values."""
    tensors, role, block = {}, {}, {}

    def add(name, its_role, its_block, values):
        tensors[name], role[name], block[name] = values, its_role, its_block

    add("model.embed_tokens.weight", "embedding", None, rng.normal(size=(30, HIDDEN)))
    for b, (scale, shift) in enumerate([(1e-3, 0.0), (1.0, 5.0), (30.0, -2.0)]):
        for module, (its_role, shape) in ROLES.items():
            values = rng.normal(shift, scale, size=shape) ** (3 if its_role == "up" else 1)
            add(f"model.layers.{b}.{module}.weight", its_role, b, values)
    tensors["model.layers.1.mlp.up_proj.weight"][0, :5] = np.nan, np.inf, -np.inf, 0.0, -0.0
    tensors["model.layers.2.self_attn.q_proj.weight"][:] = 7.0  # a constant has no skewness
    tensors["model.layers.0.self_attn.v_proj.weight"][:] = np.nan
    add("model.norm.weight", "final_norm", None, rng.normal(size=HIDDEN))
    add("lm_head.weight", "head", None, rng.normal(size=(30, HIDDEN)))
    path = save("llama/model.safetensors", tensors)
    return path, tensors, role, block


def check(row, arrays, names):
    values = np.concatenate([arrays[name].ravel() for name in names])
    finite = values[np.isfinite(values)]
    assert row["n_tensors"] == len(names)
    assert (row["n"], row["n_finite"]) == (values.size, finite.size)
    assert row["n_zero"] == np.count_nonzero(finite == 0)
    assert row["sparsity"] == np.count_nonzero(finite == 0) / values.size
    assert row["n_nan"] == np.isnan(values).sum()
    assert (row["n_posinf"], row["n_neginf"]) == ((values == np.inf).sum(), (values == -np.inf).sum())
    assert (row["min"], row["max"], row["abs_max"]) == (finite.min(), finite.max(), np.abs(finite).max())
    wanted = moments(values)
    absolute = {"mean": wanted["rms"], "skewness": wanted["kurtosis"]}
    for key, value in wanted.items():
        # Sums of f64 on both sides; std, skewness and kurtosis of a tensor lose a few roundings each on the way back.
        assert abs(row[key] - value) <= 1e-12 * max(abs(value), absolute.get(key, 0.0), 1e-300), key


def test_by_role_part_and_block(llama):
    path, arrays, role, block = llama
    scan = weightprint.scan(weightprint.anatomy(path))
    for group, of in (
        ("role", role),
        ("part", {name: role_of(r).part for name, r in role.items()}),
        ("block", block),
    ):
        table = scan.by(group)
        assert len(table) == len(set(of.values()))
        assert sum(table["n_tensors"]) == len(arrays)
        for row in table.rows():
            assert row["stack"] == "decoder"
            check(row, arrays, [name for name in arrays if of[name] == row[group]])
    assert list(scan.by("role")["role"]) == ["embedding", *(r for r, _ in ROLES.values()), "final_norm", "head"]
    both = scan.by("block", "role")
    assert len(both) == len(arrays)
    assert set(scan.by("role")["blocks"]) == {None, "0-2"}
    assert len(scan.by()) == 1


def test_values_beyond_fourth_powers(save):
    """Moments of values near the ends of f64's range, pooled without overflow or loss."""
    for scale in (1e200, 1e-200):
        arrays = {f"model.layers.{b}.mlp.{m}_proj.weight": rng.normal(b, 1, (9, 9)) for b in (0, 1) for m in ("up",)}
        arrays |= {f"model.layers.{b}.mlp.down_proj.weight": rng.normal(size=(9, 9)) for b in (0, 1)}
        scaled = {name: values * scale for name, values in arrays.items()}
        scan = weightprint.scan(weightprint.anatomy(save(f"{scale}.safetensors", scaled)))
        values = np.concatenate([arrays[f"model.layers.{b}.mlp.up_proj.weight"].ravel() for b in (0, 1)])
        wanted = moments(values)
        (row,) = [row for row in scan.by("role").rows() if row["role"] == "up"]
        assert row["std"] == pytest.approx(wanted["std"] * scale, rel=1e-12)
        assert row["kurtosis"] == pytest.approx(wanted["kurtosis"], rel=1e-12)
        assert row["skewness"] == pytest.approx(wanted["skewness"], rel=1e-10, abs=1e-12)


def test_place_columns(llama):
    path, _, role, block = llama
    table = weightprint.scan(weightprint.anatomy(path)).table
    for row in table.rows():
        assert (row["role"], row["block"]) == (role[row["name"]], block[row["name"]])
        assert row["part"] == role_of(row["role"]).part
        assert (row["stack"], row["expert"], row["component"]) == ("decoder", None, None)
    assert "role" not in weightprint.scan(path).table.names
    with weightprint.open(path) as checkpoint:
        given = weightprint.scan(Anatomy(checkpoint, values=False))
    assert given.table["role"] == table["role"]


def test_without_places(llama):
    with pytest.raises(UsageError, match=r"scan\(anatomy\(model\)\)"):
        weightprint.scan(llama[0]).by("role")
    with pytest.raises(UsageError, match="can't group by colour; there are stack"):
        weightprint.scan(weightprint.anatomy(llama[0])).by("colour")


def test_fused_tensors_are_pooled_as_they_are_stored(save):
    tensors = {"transformer.wte.weight": rng.normal(size=(30, 8))}
    for b in range(2):
        for name, shape in (("attn.c_attn", (8, 24)), ("attn.c_proj", (8, 8)), ("mlp.c_fc", (8, 32))):
            tensors[f"transformer.h.{b}.{name}.weight"] = rng.normal(size=shape)
        tensors[f"transformer.h.{b}.mlp.c_proj.weight"] = rng.normal(size=(32, 8))
    path = save("model.safetensors", tensors)
    (path.parent / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_head": 2, "n_embd": 8}))
    table = weightprint.scan(weightprint.anatomy(path)).by("role")
    assert list(table["role"]) == ["embedding", "q+k+v", "o", "up", "down"]
    fused = np.concatenate([tensors[f"transformer.h.{b}.attn.c_attn.weight"].ravel() for b in range(2)])
    assert table["std"][1] == pytest.approx(fused.std(), rel=1e-12)


def test_command(llama, tmp_path):
    path = str(llama[0])

    def run(*args):
        result = CliRunner().invoke(cli, ["stats", path, *args], env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output
        return result

    text = run("--by", "role").stdout
    assert text.split()[:3] == ["stack", "role", "blocks"]
    assert [line.split()[1] for line in text.splitlines()[1:]][:3] == ["embedding", "attn_norm", "q"]
    rows = json.loads(run("--by", "part", "--format", "json").stdout)
    assert {row["part"] for row in rows} == {"embedding", "norm", "attention", "ffn", "head"}
    # Data forms always say where every tensor sits; the table on a screen does not.
    rows = json.loads(run("--format", "json").stdout)
    assert {row["name"]: row["role"] for row in rows} == llama[2]
    assert "role" not in run().stdout.splitlines()[0].split()
    assert run("--by", "block", "-o", str(tmp_path / "b.csv")).stdout == ""
    assert (tmp_path / "b.csv").read_text().splitlines()[0].startswith("stack,block,n_tensors")
