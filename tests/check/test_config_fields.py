"""config.json against tensors, field by field, and configs that only seem to contradict them."""

from __future__ import annotations

import json

import pytest
import weightprint
from miniature import collect
from small_models import BERT, bert, llama, put, said

FIELDS = {
    "positions": (bert, BERT | {"max_position_embeddings": 128}, "config_shape"),
    "token types": (bert, BERT | {"type_vocab_size": 3}, "config_shape"),
    "layer types": (llama, said(layer_types=["full_attention"] * 3), "config_blocks"),
    "biases": (llama, said(mlp_bias=True), "config_bias"),
    "key-value heads": (llama, said(num_key_value_heads=4), "config_heads"),
    "diffusers' layers": (
        lambda: {f"transformer_blocks.{name[13:]}": x for name, x in llama().items() if "layers" in name},
        {"_class_name": "Transformer", "num_layers": 5},
        "config_blocks",
    ),
}


@pytest.mark.parametrize("field", FIELDS)
def test_fields(tmp_path, field):
    make, config, code = FIELDS[field]
    (found,) = weightprint.check(put(tmp_path / "m", make(), config), select=["config_shape", code]).findings
    assert (found.code, found.severity) == (code, "warning")


@pytest.mark.parametrize("name", ["qwen", "albert", "falcon-7b", "falcon-40b", "bert", "clip", "llama"])
def test_configs_that_only_seem_to_contradict(tmp_path, name):
    """Of gate and up together, of blocks that run twice, of heads that multi_query overrides."""
    folder = next(mini for mini in collect() if mini.name == name).write(tmp_path / "m")
    found = weightprint.check(folder).findings
    assert not [f for f in found if f.code.startswith("config_") and f.severity != "note"], found


def test_stacks_of_different_depth(tmp_path):
    """A distilled Whisper's num_hidden_layers is that of its encoder."""
    folder = next(mini for mini in collect() if mini.name == "whisper").write(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    places = [a.place for a in weightprint.anatomy(folder).assignments if a.place.block is not None]
    blocks = {stack: len({p.block for p in places if p.stack == stack}) for stack in ("audio", "decoder")}
    told = {"encoder_layers": blocks["audio"], "decoder_layers": blocks["decoder"], "num_hidden_layers": 9}
    (folder / "config.json").write_text(json.dumps(config | told))
    assert not weightprint.check(folder, select=["config_blocks"]).findings
    (folder / "config.json").write_text(json.dumps(config | told | {"encoder_layers": 9}))
    assert [f.severity for f in weightprint.check(folder, select=["config_blocks"]).findings] == ["error"]
