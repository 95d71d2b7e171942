"""NaN, Inf and values at the ends of a format's range: a verdict from the rest, and no word of numpy's."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from weightprint.cli import cli

WIDTH, FFN, BLOCKS, VOCABULARY = 32, 64, 3, 80


def decoder(seed):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, WIDTH)}
    for k in range(BLOCKS):
        block = f"model.layers.{k}."
        tensors[block + "input_layernorm.weight"] = 1 + normal(WIDTH)
        for role in "qkvo":
            tensors[f"{block}self_attn.{role}_proj.weight"] = normal(WIDTH, WIDTH)
        tensors[block + "post_attention_layernorm.weight"] = 1 + normal(WIDTH)
        tensors[block + "mlp.gate_proj.weight"] = normal(FFN, WIDTH)
        tensors[block + "mlp.up_proj.weight"] = normal(FFN, WIDTH)
        tensors[block + "mlp.down_proj.weight"] = normal(WIDTH, FFN)
    return tensors | {"model.norm.weight": 1 + normal(WIDTH), "lm_head.weight": normal(VOCABULARY, WIDTH)}


def a_nan(x):
    x.flat[7] = np.nan
    return x


def a_column_of_nan(x):
    x[..., 0] = np.nan
    x.flat[3] = -np.inf
    return x


def nothing_but_nan(x):
    return np.full_like(x, np.nan)


def huge(x):
    x.flat[::7], x.flat[1::7] = 1e38, -3e38
    return x


def huge_doubles(x):
    x = x.astype(np.float64)
    x.flat[::5], x.flat[1::5] = 1e308, -1.7e308
    return x


def tiny(x):
    return x * np.float32(1e-42)


ODD = [a_nan, a_column_of_nan, nothing_but_nan, huge, huge_doubles, tiny]


def run(*args):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.mark.parametrize("change", ODD)
@pytest.mark.parametrize("role", ["mlp", "norm"])
def test_no_verb_fails_or_warns(save, role, change):
    a, b = decoder(1), decoder(1)
    for name, values in b.items():
        b[name] = values + np.float32(1e-3) * np.random.default_rng(2).standard_normal(values.shape, np.float32)
        if role in name:
            b[name] = change(b[name])
    a, b = save("a.safetensors", a), save("b.safetensors", b)
    for args in (["diff", a, b], ["diff", b, a], ["stats", b, "--canonical", "--by", "role"], ["inspect", b]):
        result = run(*args)
        assert result.exit_code in (0, 1), (args, result.output, result.exception)
    if change in (a_nan, a_column_of_nan, nothing_but_nan):
        assert run("check", b).exit_code == 1
    result = run("compare", a, b, "--effort", "full", "--json")
    assert result.exit_code == 1, (result.output, result.exception)
    if change is a_nan:  # the rest says enough
        assert json.loads(result.stdout)["verdict"] == "shared_origin"


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_strangers_stay_strangers(save, effort):
    a, b = decoder(1), decoder(2)
    for name in a:
        if "mlp" in name:
            a[name], b[name] = a_column_of_nan(a[name]), a_column_of_nan(b[name])
    result = run("compare", save("a.safetensors", a), save("b.safetensors", b), "--effort", effort, "--json")
    assert result.exit_code == 1, (result.output, result.exception)
    assert json.loads(result.stdout)["verdict"] in ("no_evidence", "inconclusive")


def test_a_nan_is_no_zero(save):
    """Equality reads values as they are: a BF16 copy whose zeros became NaN is no encoding of the original."""
    import ml_dtypes

    a = {name: values.astype(ml_dtypes.bfloat16) for name, values in decoder(1).items()}
    a["model.layers.0.mlp.down_proj.weight"][3] = 0
    b = {name: values.astype(np.float32) for name, values in a.items()}
    b["model.layers.0.mlp.down_proj.weight"][3] = np.nan
    for pair in (("a", "b"), ("b", "a")):
        paths = {"a": save("a.safetensors", a), "b": save("b.safetensors", b)}
        result = run("compare", *(paths[side] for side in pair), "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["verdict"] not in ("identical", "re_encoded", "re-encoded")


def test_values_at_the_end_of_the_range_are_still_outliers(save):
    values = np.full((200, 100), 1.0)
    values.flat[::3] = -1.0
    values[3, 4] = 1.5e308
    result = run("check", save("m.safetensors", {"w": values}))
    assert "outlier" in result.stdout
    assert "[3, 4]" in result.stdout
