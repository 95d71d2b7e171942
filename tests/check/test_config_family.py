"""Every family under its own config is sound, and under another's it is told apart, where the tensors prove it."""

from __future__ import annotations

import numpy as np
import pytest
import weightprint
from miniature import collect
from small_models import BERT, CONFIG, bert, experts, llama, normal, put
from weightprint.check.context import CheckContext
from weightprint.check.rules.config_family import attention_parts, family, unfitting

MINIATURES = {mini.name: mini for mini in collect()}


def findings(folder, w, config):
    w = {name: np.asarray(x, order="C") for name, x in w.items()}
    with weightprint.open(put(folder, w, config)) as checkpoint:
        context = CheckContext(checkpoint, None, None)  # no values are asked for
        return [*family(context), *attention_parts(context), *unfitting(context)]


@pytest.mark.parametrize("name", MINIATURES)
def test_its_own_config(tmp_path, name):
    mini = MINIATURES[name]
    assert not findings(tmp_path / "m", mini.tensors, mini.config)


def biased(**more):
    w = llama()
    for name in list(w):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            w[name.replace("weight", "bias")] = normal(len(w[name]))
    return w | more


def with_norms():
    w = llama()
    return w | {f"model.layers.{k}.self_attn.{x}_norm.weight": 1 + normal(8) for k in range(4) for x in "qk"}


OTHERS = {
    "qwen2 without biases": (llama, CONFIG | {"model_type": "qwen2"}),
    "llama with qwen2's biases": (biased, CONFIG),
    "mistral with qwen2's biases": (biased, CONFIG | {"model_type": "mistral"}),
    "llama with qwen3's norms": (with_norms, CONFIG),
    "qwen3 without norms": (llama, CONFIG | {"model_type": "qwen3"}),
    "mixtral, dense": (llama, CONFIG | {"model_type": "mixtral"}),
    "llama, experts": (experts, CONFIG),
    "llama, BERT": (bert, BERT | {"model_type": "llama"}),
    "gpt2, BERT": (bert, BERT | {"model_type": "gpt2"}),
    "bert, Llama": (llama, CONFIG | {"model_type": "bert"}),
    "gpt2, Llama": (llama, CONFIG | {"model_type": "gpt2"}),
    "phi3, Llama": (llama, CONFIG | {"model_type": "phi3"}),
    "t5, Llama": (llama, CONFIG | {"model_type": "t5"}),
    "falcon, GPT-2": (lambda: MINIATURES["gpt2"].tensors, MINIATURES["gpt2"].config | {"model_type": "falcon"}),
}
SOUND = {
    "llama": (llama, CONFIG),
    "mistral": (llama, CONFIG | {"model_type": "mistral"}),
    "qwen2": (biased, CONFIG | {"model_type": "qwen2"}),
    "nobody's": (biased, CONFIG | {"model_type": "something_new"}),
    "no type": (llama, {key: value for key, value in CONFIG.items() if key != "model_type"}),
    "a composite's": (llama, {"model_type": "qwen2_vl", **{k: v for k, v in CONFIG.items() if k != "model_type"}}),
    "roberta": (bert, BERT | {"model_type": "roberta"}),
}


def rank(w):
    """One rank's rows of every tensor."""
    return {name: x[: len(x) // 2] for name, x in w.items()}


def wrong_axis(w):
    """The halves of down's columns, one under the other."""
    return {n: np.concatenate(np.split(x, 2, axis=1)) if "down" in n else x for n, x in w.items()}


@pytest.mark.parametrize("spoil", [rank, wrong_axis])
def test_shapes_that_are_not_the_familys(tmp_path, spoil):
    (found,) = findings(tmp_path / "m", spoil(llama()), CONFIG)
    assert found.code == "config_unfit"
    assert "_proj.weight" in found.message


@pytest.mark.parametrize("name", OTHERS)
def test_another_config(tmp_path, name):
    make, config = OTHERS[name]
    (found,) = findings(tmp_path / "m", make(), config)
    assert config["model_type"] in found.message


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound(tmp_path, name):
    make, config = SOUND[name]
    assert not findings(tmp_path / "m", make(), config)
