"""The five forms: forward pass against another one, names against anatomy, training against algebra."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import weightprint

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
pytest.importorskip("jax")
from tiny_models import TOKENS, logits, tiny  # noqa: E402

from benches.lineage.commands import build  # noqa: E402
from benches.lineage.demo_trainer import gpt2, model  # noqa: E402  (after the skip)
from benches.lineage.zoo import data, forms, forms_runtime, forms_train  # noqa: E402
from benches.lineage.zoo.forms import FORMS, Shape, Stacked  # noqa: E402
from benches.lineage.zoo.forms_forward import forward  # noqa: E402
from benches.lineage.zoo.forms_train import Recipe, Teacher  # noqa: E402
from benches.lineage.zoo.model_folder import Truth, ZooModel, save  # noqa: E402
from benches.lineage.zoo.operations.table import OPERATIONS  # noqa: E402

del sys.path[:2]

forms_runtime.prepare()
SMALL = {form: forms.shape(form, hidden=16, layers=2, ffn=24) for form in FORMS}


def ours(made: ZooModel) -> np.ndarray:
    s = forms.shape_of(made.tensors, made.config)
    return np.asarray(forward(forms.stack(made.tensors, s), s, TOKENS)[0])


@pytest.mark.slow_but_first
@pytest.mark.parametrize("form", FORMS)
def test_forward_is_the_checkpoints_own(form: str) -> None:
    made = tiny(form, 3)
    assert np.abs(ours(made) - logits(made)).max() < 2e-4


@pytest.mark.slow_but_first
@pytest.mark.parametrize(
    ("form", "operation"),
    [("gpt2", "layernorm_to_rmsnorm"), ("gpt2", "learned_positions_to_rope"), ("gpt2", "drop_biases"),
     ("qwen2", "drop_biases"), ("qwen2", "moe_upcycling"), ("llama", "heads_to_gqa"), ("gemma", "rotation"),
     ("llama", "hidden_pruning"), ("moe", "moe_to_dense"), ("moe", "expert_duplication"), ("llama", "depth_upscaling")],
)  # fmt: skip
def test_an_edited_model_is_understood_from_its_tensors(form: str, operation: str) -> None:
    made = OPERATIONS[operation]([tiny(form, 4)], 1)
    assert np.abs(ours(made) - logits(made)).max() < 5e-4


@pytest.mark.slow
def test_another_forward_pass_agrees() -> None:
    s = replace(SMALL["moe"], experts=3)
    params = model.init(s, 1)
    mine, imbalance = forward(forms.stack({k: np.asarray(v) for k, v in params.items()}, s), s, TOKENS)
    theirs, uneven = model.forward(params, s, TOKENS)
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert float(imbalance) == pytest.approx(float(uneven), rel=1e-5)

    s = SMALL["gpt2"]
    weights = gpt2.init(s, 2)
    mine, _ = forward(forms.stack({k: np.asarray(v) for k, v in weights.items()}, s), s, TOKENS)
    np.testing.assert_allclose(mine, gpt2.forward(weights, s, TOKENS), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_names_and_shapes_survive_both_ways(form: str) -> None:
    s = SMALL[form]
    stacked = forms.init(s, 5)
    tensors = forms.flatten(stacked, s)
    assert forms.shape_of(tensors, forms.to_hf(s)) == s
    again = forms.stack(tensors, s)
    assert {role: x.shape for role, x in again.items()} == forms.roles(s)
    assert all(np.array_equal(again[role], x) for role, x in stacked.items())
    assert list(forms.flatten(again, s)) == list(tensors)


@pytest.mark.parametrize("form", FORMS)
def test_anatomy_maps_every_tensor_by_its_table(form: str, tmp_path: Path) -> None:
    s = SMALL[form]
    tensors = build._rounded(forms.flatten(forms.init(s, 6), s))
    folder = save(tmp_path / form, ZooModel(tensors, forms.to_hf(s), Truth(form, "root", form, (form,))))
    found = weightprint.anatomy(folder)
    assert found.unmapped == ()
    assert {a.source for a in found.assignments} == {"table"}
    assert {a.view.weight for a in found.assignments} == set(tensors)
    size = found.geometry["decoder"]
    assert (size.hidden, size.blocks, size.heads, size.kv_heads) == (s.hidden, s.layers, s.heads, s.kv_heads)
    assert found.families["decoder"].norm_offset == (form == "gemma")


def test_a_gain_starts_as_one_whatever_is_stored() -> None:
    assert not forms.init(SMALL["gemma"], 1)["block.attn_norm"].any()
    assert (forms.init(SMALL["llama"], 1)["block.attn_norm"] == 1).all()


def trained(s: Shape, recipe: Recipe, start: Stacked | None = None, teacher: Teacher | None = None) -> Stacked:
    return forms_train.train(forms.init(s, 1) if start is None else start, s, recipe, teacher=teacher)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "optimiser", "rate"), [("llama", "adamw", 1e-2), ("gpt2", "sgd", 0.3)])
def test_training_learns(form: str, optimiser: str, rate: float) -> None:
    s = SMALL[form]
    after = trained(s, Recipe("docs", 60, 2, rate, optimiser, warmup=5))
    before = forms_train.evaluate(forms.init(s, 1), s, "docs")
    assert forms_train.evaluate(after, s, "docs") < before - 1


@pytest.mark.slow
def test_one_step_of_each_optimiser_is_its_formula() -> None:
    s = SMALL["llama"]
    start = forms.init(s, 1)
    recipe = Recipe("docs", 1, 3, 0.01, warmup=1)
    moved = {role: trained(s, recipe)[role] - x for role, x in start.items()}
    # Adam's first step is the gradient's sign (where it is not tiny), and the decay on matrices alone.
    assert np.abs(np.abs(moved["block.attn_norm"]) - 0.01).max() < 1e-4
    step = moved["block.up"] + 0.01 * forms_train.DECAY * start["block.up"]
    assert np.median(np.abs(np.abs(step) - 0.01)) < 1e-4
    plain = trained(s, replace(recipe, optimiser="sgd", rate=1.0))
    size = np.sqrt(sum(float(((plain[role] - x).astype(np.float64) ** 2).sum()) for role, x in start.items()))
    assert size == pytest.approx(1, rel=1e-3)  # the gradient, clipped to norm 1


@pytest.mark.slow
@pytest.mark.parametrize("ffn", [False, True])
def test_a_merged_adapter_has_its_rank_and_touches_nothing_else(ffn: bool) -> None:
    s = SMALL["llama"]
    start = forms.init(s, 1)
    after = trained(s, Recipe("docs", 8, 4, 1e-2, lora=3, lora_ffn=ffn, warmup=2), start)
    roles = {f"block.{r}" for r in ("q", "k", "v", "o", *(("gate", "up", "down") if ffn else ()))}
    assert {role for role, x in start.items() if not np.array_equal(x, after[role])} == roles
    for role in roles:
        for layer in range(s.layers):
            values = np.linalg.svd((after[role] - start[role])[layer].astype(np.float64), compute_uv=False)
            assert values[2] > 1e3 * values[3]


@pytest.mark.slow
def test_a_student_learns_its_teacher_and_not_the_text() -> None:
    s = SMALL["llama"]
    teacher = {role: 0.0 * x for role, x in forms.init(s, 1).items()}
    teacher["final_norm"] += 1
    taught = trained(s, Recipe("docs", 40, 5, 1e-2, warmup=5), forms.init(s, 2), Teacher(s, teacher))
    # A teacher that says nothing leaves a student that says nothing: 8 bits for 256 bytes.
    assert forms_train.evaluate(taught, s, "docs") == pytest.approx(8, abs=0.2)


def test_vocabularies_hold_the_same_text() -> None:
    text = data.load("docs")
    shuffled = data.tokens("docs", "shuffled-3")
    table = np.zeros(256, np.uint8)
    table[shuffled.train] = text.train
    assert np.array_equal(table[shuffled.train], text.train)
    assert len(np.unique(shuffled.train)) == len(np.unique(text.train))
    assert not np.array_equal(shuffled.train, text.train)

    pairs = data.tokens("docs", "pairs-300")
    spelled = {t: bytes([t]) for t in range(256)}
    spelled |= {int(t): bytes(divmod(int(p), 256)) for p, t in enumerate(data._frequent_pairs(44)) if t >= 0}
    assert b"".join(spelled[int(t)] for t in pairs.held_out) == text.held_out.tobytes()
    assert len(spelled) == pairs.vocabulary == 300
    assert pairs.bytes_per_token == pytest.approx(text.held_out.size / pairs.held_out.size)
    assert pairs.bytes_per_token > 1.1
