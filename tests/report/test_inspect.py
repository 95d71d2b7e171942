"""`weightprint inspect` on files: a fused, turned checkpoint, a strange one, a broken one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import weightprint
from click.testing import CliRunner
from weightprint.anatomy.anatomy import Anatomy
from weightprint.cli import cli
from weightprint.report.inspect import inspect_dict, lines
from weightprint.report.pen import Pen

rng = np.random.default_rng(3)
HIDDEN, BLOCKS = 24, 3


def draw(*shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.fixture
def gpt2(save):
    """A GPT-2: q, k and v in one turned tensor, a tied head, masks."""
    tensors = {"wte.weight": draw(50, HIDDEN), "wpe.weight": draw(16, HIDDEN)}
    for b in range(BLOCKS):
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"h.{b}.{norm}.weight": draw(HIDDEN), f"h.{b}.{norm}.bias": draw(HIDDEN)}
        tensors[f"h.{b}.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.float32))
        for name, rows, columns in (
            ("attn.c_attn", HIDDEN, 3 * HIDDEN),
            ("attn.c_proj", HIDDEN, HIDDEN),
            ("mlp.c_fc", HIDDEN, 4 * HIDDEN),
            ("mlp.c_proj", 4 * HIDDEN, HIDDEN),
        ):
            tensors |= {f"h.{b}.{name}.weight": draw(rows, columns), f"h.{b}.{name}.bias": draw(columns)}
    tensors |= {"ln_f.weight": draw(HIDDEN), "ln_f.bias": draw(HIDDEN), "strange\x1b.thing": draw(5, 4, 3)}
    path = save("gpt2/model.safetensors", tensors)
    config = {"model_type": "gpt2", "n_head": 4, "n_embd": HIDDEN, "n_layer": BLOCKS, "vocab_size": 50}
    (path.parent / "config.json").write_text(json.dumps(config))
    return str(path.parent)


def run(*args, code=0, **env):
    result = CliRunner().invoke(cli, list(args), env=env)
    assert result.exit_code == code, result.output
    return result.stdout


def test_drawing_and_parts(gpt2):
    text = run("inspect", gpt2, COLUMNS="100")
    lines = [" ".join(line.lstrip(" │").split()) for line in text.splitlines()]
    assert "q, k, v +bias 24×24 F32 attn.c_attn fused, turned" in lines
    assert "down +bias 24×96 F32 mlp.c_proj turned" in lines
    assert "head 50×24 F32 wte tied" in lines
    assert "  ┌ blocks 0–2  h.{b}.  " in text
    assert "1 weight has no place in this map:" in text
    assert "strange\\u{1b}.thing" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[1:])) <= 100  # the first line is the path


def test_json_says_everything(gpt2):
    data = json.loads(run("inspect", gpt2, "--json"))
    anatomy = data["anatomy"]
    with weightprint.open(gpt2) as checkpoint:
        known = Anatomy(checkpoint)
        total = sum(weight.numel for weight in known.weights.values())
        assert data == json.loads(json.dumps(inspect_dict(checkpoint, known)))
    assert anatomy["unmapped"] == ["strange\x1b.thing"]
    assert sum(part["n_parameters"] for part in anatomy["parts"]) == total
    assert {t["role"] for t in anatomy["tensors"]} >= {"q", "k_bias", "up", "position", "head", "fixed"}
    (run_,) = anatomy["drawing"]["decoder"]["runs"]
    assert run_["blocks"] == [0, 1, 2]
    assert run_["prefix"] == "h.{b}."
    assert {"roles": ["q", "k", "v"], "fused": ["q", "k", "v"]}.items() <= run_["lines"][1].items()
    assert {(s["kind"], s["bits_per_parameter"]) for s in anatomy["stored"]} == {("F32", 32.0)}
    # The keys of the first version are still there.
    assert {"schema_version", "source", "files", "dtypes", "layout", "tensors", "metadata", "findings"} <= data.keys()


def test_every_tensor_is_listed(gpt2):
    text = run("inspect", gpt2, "--tensors", COLUMNS="200")
    with weightprint.open(gpt2) as checkpoint:
        known = Anatomy(checkpoint)
    for a in known.assignments:
        assert sum(line.startswith(f"{a.place} ") for line in text.splitlines()) == 1, a.place
    (line,) = [line for line in text.splitlines() if line.startswith("decoder.1.k ")]
    assert line.split()[1:5] == ["24×24", "F32", "h.1.attn.c_attn.weight", "fused,"]
    assert "table" in line
    assert any(line.startswith("- ") and "strange\\u{1b}.thing" in line for line in text.splitlines())


def test_ascii(gpt2):
    with weightprint.open(gpt2) as checkpoint:
        known = Anatomy(checkpoint)
        pieces = [
            piece
            for tensors in (False, True)
            for piece in lines(checkpoint, known, everything=True, tensors=tensors, pen=Pen(80, True))
        ]
    assert len(pieces) > 100
    for piece in pieces:
        str(piece).encode("ascii")


def test_components_that_make_no_sense_leave_the_rest(save):
    """Files can be looked at even where quantised weights can't be put together."""
    tensors = {
        "model.layers.0.mlp.up_proj.qweight": np.zeros((8, 64), np.int32),
        "model.layers.0.mlp.up_proj.scales": np.ones((3, 7), np.float16),
        "model.layers.0.mlp.up_proj.qzeros": np.zeros((1, 8), np.int32),
    }
    model = str(save("bad.safetensors", tensors))
    text = run("inspect", model)
    assert "up_proj.{qweight" in text or "up_proj.qweight" in text
    data = json.loads(run("inspect", model, "--json"))
    assert data["n_tensors"] == 3
    if data["anatomy"] is None:
        assert [f["severity"] for f in data["findings"]] == ["error"]
        assert "error" in text


def test_notebooks_get_a_table(gpt2):
    with weightprint.open(gpt2) as checkpoint:
        html = Anatomy(checkpoint)._repr_html_()
    assert html.count("<table>") == 1
    assert "attn.c_attn" in html
    assert "strange\\u{1b}.thing" in html
