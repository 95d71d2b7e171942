"""What is made by training on: from a root as it is, from one that an operation changed first, and chains of these.

Lengths are in units of the root's own training. "Washed" is the same length, or three times it,
on other data and at the root's full rate: everything that data and recipe can overwrite is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .forms_train import Recipe
from .plans import Plan, Plans
from .plans_roots import LLAMA, PAIRS, STEPS, WIDE, recipe

OTHER = {"modules": "packages", "packages": "modules"}
FINE_TUNES = ((30, 1e-3), (80, 2e-3), (160, 2e-3))
CONTINUED = ((0.2, 3e-3), (0.5, 3e-3), (1.0, 3e-3))


def _on(plans: Plans, name: str, parent: str, seed: int, step: str, steps: int, **unusual: Any) -> Plan:
    """`parent` trained on: other text than before unless told, the parent's vocabulary, rate 2e-3 unless told."""
    last = _recipe_of(plans, parent)
    how = {"text": OTHER.get(last.text, "modules"), "rate": 2e-3, "vocabulary": last.vocabulary, **unusual}
    return Plan(name, "descendant", plans[parent].split, 0, parents=(parent,), step=step,
                recipe=Recipe(steps=steps, batch_seed=seed, **how))  # fmt: skip


def _recipe_of(plans: Plans, name: str) -> Recipe:
    """The recipe of the model, or of the nearest ancestor that was trained."""
    plan = plans[name]
    return plan.recipe or _recipe_of(plans, plan.parents[0])


def shared_initialisations(plans: Plans) -> Iterator[Plan]:
    """Same random weights as a root: on other data, or on the same data in another order."""
    for i, (root, how) in enumerate(
        [("llama-1", "data"), ("llama-1", "order"), ("llama-3", "data"), ("llama-3", "order"),
         ("gpt2-3", "data"), ("gpt2-1", "order"), ("qwen2-3", "order"), ("gemma-1", "data")]
    ):  # fmt: skip
        plan = plans[root]
        assert plan.shape is not None
        assert plan.recipe is not None
        text = plan.recipe.text if how == "order" else OTHER[plan.recipe.text]
        run = replace(plan.recipe, text=text, batch_seed=2000 + i)
        yield replace(plan, name=f"{root}-same-init-{how}", kind="shared_init", recipe=run, init_of=root)


def students(plans: Plans) -> Iterator[Plan]:
    """Trained from their own random weights on a teacher's distribution, on the teacher's text."""
    for i, (teacher, shape, form) in enumerate(
        [("llama-1", LLAMA, "llama"), ("llama-3", LLAMA, "llama"), ("llama-3", WIDE, "wide"),
         ("qwen2-3", None, "qwen2"), ("gpt2-1", None, "gpt2"), ("long-3", LLAMA, "llama")]
    ):  # fmt: skip
        plan = plans[teacher]
        s = shape or plan.shape
        assert s is not None
        assert plan.recipe is not None
        run = recipe(s.form, plan.recipe.text, 2100 + i, plan.recipe.steps)
        yield Plan(f"{teacher}-student-{form}", "distilled", plan.split, 60 + i, s, recipe=run, teacher=teacher)


def fine_tunes(plans: Plans) -> Iterator[Plan]:
    """On prose, gently, three strengths; two of the middle one where a merge needs siblings."""
    tuned = ("llama-1", "llama-3", "qwen2-1", "qwen2-3", "gpt2-1", "gpt2-3", "gemma-1", "gemma-3", "moe-2",
             "long-1", "long-3")  # fmt: skip
    for i, root in enumerate(tuned):
        seed = 2200 + 10 * i
        for n, (steps, rate) in enumerate(FINE_TUNES):
            yield _on(plans, f"{root}-tuned-{n + 1}", root, seed + n, "fine_tune", steps, rate=rate, text="docs")
        if root in ("llama-1", "llama-3", "qwen2-3", "gpt2-1"):
            yield _on(plans, f"{root}-tuned-other", root, seed + 5, "fine_tune", 80)


def adapters(plans: Plans) -> Iterator[Plan]:
    """LoRA, trained and merged: the change has exactly the rank r in the matrices named, and is zero elsewhere."""
    for i, (root, rank, ffn) in enumerate(
        [("llama-1", 4, False), ("llama-3", 8, True), ("qwen2-3", 2, False), ("gemma-3", 8, False),
         ("wide-1", 16, True)]
    ):  # fmt: skip
        more = {"text": "docs", "rate": 5e-3, "lora": rank, "lora_ffn": ffn}
        yield _on(plans, f"{root}-lora-{rank}", root, 2400 + i, "lora_merge", 60, **more)


def continued(plans: Plans) -> Iterator[Plan]:
    """Continued pre-training on other data, at a moderate rate, for a fifth, a half and the whole of the root's own."""
    for i, root in enumerate(["llama-3", "gpt2-3", "llama-1", "qwen2-3", "gemma-3", "moe-1"]):
        for n, (share, rate) in enumerate(CONTINUED):
            steps = round(share * _recipe_of(plans, root).steps)
            name = f"{root}-continued-{n + 1}"
            yield _on(plans, name, root, 2500 + 10 * i + n, "continued_pretraining", steps, rate=rate)


def washed(plans: Plans) -> Iterator[Plan]:
    """The root's full rate on other data, for once and for three times the length of the root's own training."""
    for i, (root, times) in enumerate(
        [("llama-3", 1), ("gpt2-3", 1), ("qwen2-3", 1), ("llama-1", 1), ("llama-3", 3), ("gpt2-3", 3), ("llama-1", 3),
         ("qwen2-3", 3), ("gemma-3", 1), ("moe-2", 1), ("long-3", 1)]
    ):  # fmt: skip
        own = _recipe_of(plans, root)
        yield _on(plans, f"{root}-washed-{times}x", root, 2600 + i, "wash", times * own.steps, rate=own.rate)


#: name, parent, operation, parameters, steps, what is unusual in the recipe. The step is further_training.
_CHANGED: tuple[tuple[str, str, str, Mapping[str, Any], int, Mapping[str, Any]], ...] = (
    ("upcycled-trained", "llama-3", "moe_upcycling", {"fresh": 0.25}, 120, {}),
    ("split-trained", "llama-3", "expert_split", {"parts": 4, "used": 2, "router_sd": 0.02}, 120, {}),
    ("split-trained", "qwen2-1", "expert_split", {"parts": 4, "used": 2, "router_sd": 0.02}, 120, {}),
    ("upcycled-trained", "qwen2-4", "moe_upcycling", {"fresh": 0.0}, 120, {}),
    ("dropped-trained", "llama-3", "depth_drop", {"share": 0.25}, 100, {}),
    ("dropped-trained", "gpt2-3", "depth_drop", {"share": 0.5}, 100, {}),
    ("upscaled-trained", "llama-3", "depth_upscaling", {}, 100, {}),
    ("upscaled-trained", "qwen2-1", "depth_upscaling", {}, 100, {}),
    ("inserted-trained", "llama-3", "layer_insertion", {"count": 2}, 100, {}),
    ("inserted-trained", "gemma-3", "layer_insertion", {"count": 2, "copy": True}, 100, {}),
    ("widened-trained", "llama-4", "ffn_widening", {"factor": 1.33, "new": "random", "mixed": True}, 100, {}),
    ("widened-trained", "gpt2-1", "ffn_widening", {"factor": 1.33, "new": "copied"}, 100, {}),
    ("pruned-trained", "llama-4", "ffn_pruning", {"keep": 0.6}, 100, {}),
    ("pruned-trained", "gemma-1", "ffn_pruning", {"keep": 0.6}, 100, {}),
    ("thinned-trained", "llama-4", "unstructured_pruning", {"fraction": 0.5}, 60, {}),
    ("hidden-pruned-trained", "wide-2", "hidden_pruning", {"keep": 0.75}, 120, {}),
    ("heads-pruned-trained", "llama-4", "head_pruning", {"keep": 0.5}, 80, {}),
    ("new-vocabulary", "llama-3", "vocabulary_swap", {"factor": 1.0}, 150, {"vocabulary": "shuffled-7"}),
    ("new-vocabulary", "gpt2-1", "vocabulary_swap", {"factor": PAIRS / 256}, 150, {"vocabulary": f"pairs-{PAIRS}"}),
    ("new-vocabulary", "qwen2-4", "vocabulary_swap", {"factor": PAIRS / 256}, 150, {"vocabulary": f"pairs-{PAIRS}"}),
    ("shuffled-trained", "llama-2", "layer_shuffle", {"share": 1.0}, 100, {}),
    ("dense-trained", "moe-2", "moe_to_dense", {"method": "one"}, 100, {}),
    ("dense-trained", "moe-1", "moe_to_dense", {"method": "mean"}, 100, {}),
    ("biasless-trained", "qwen2-4", "drop_biases", {}, 80, {}),
    ("rms-trained", "gpt2-4", "layernorm_to_rmsnorm", {}, 80, {}),
    ("rope-trained", "gpt2-4", "learned_positions_to_rope", {}, 100, {}),
    ("gqa-trained", "gemma-4", "heads_to_gqa", {}, 80, {}),
    ("noisy-trained", "deep-1", "gaussian_noise", {"relative": 0.3}, 80, {}),
    ("upcycled-trained", "long-3", "moe_upcycling", {"fresh": 0.5}, 250, {}),
    ("upcycled-trained", "long-1", "moe_upcycling", {"fresh": 0.25}, 250, {}),
    ("dropped-trained", "long-4", "depth_drop", {"share": 0.5}, 250, {}),
    ("widened-trained", "long-2", "ffn_widening", {"factor": 1.33, "new": "random"}, 250, {}),
    ("pruned-trained", "llama-packages-1", "ffn_pruning", {"keep": 0.5}, 100, {}),
    ("new-vocabulary", "llama-1", "vocabulary_swap", {"factor": PAIRS / 256}, 150, {"vocabulary": f"pairs-{PAIRS}"}),
)


def changed(plans: Plans) -> Iterator[Plan]:
    """An operation on a root, then training that makes the result work."""
    for i, (name, root, operation, parameters, steps, more) in enumerate(_CHANGED):
        run = _on(plans, f"{root}-{name}", root, 2700 + i, "further_training", steps, **{"rate": 3e-3, **more})
        yield replace(run, seed=270 + i, operation=operation, parameters=parameters)


def chains(plans: Plans) -> Iterator[Plan]:
    """Two and three steps: every step is a model of its own, so that each distance is in the zoo."""
    grown: Plans = dict(plans)

    def add(plan: Plan) -> Plan:
        grown[plan.name] = plan
        return plan

    def edit(name: str, parents: tuple[str, ...], operation: str, seed: int, **parameters: Any) -> Plan:
        first = grown[parents[0]]
        return add(Plan(name, "descendant", first.split, seed, None, parents, operation, parameters))

    def train(name: str, parent: str, seed: int, step: str, steps: int, **more: Any) -> Plan:
        return add(_on(grown, name, parent, seed, step, steps, **more))

    def swap(name: str, parent: str, seed: int, vocabulary: str, factor: float) -> Plan:
        run = _on(grown, name, parent, seed, "further_training", 150, rate=3e-3, vocabulary=vocabulary)
        return add(replace(run, seed=seed, operation="vocabulary_swap", parameters={"factor": factor}))

    # upcycle → long training → new vocabulary → quantise
    for root, seed in (("llama-4", 3000), ("qwen2-2", 3010)):
        name = f"{root}-upcycled"
        yield edit(name, (root,), "moe_upcycling", seed, fresh=0.25)
        yield train(f"{name}-long", name, seed + 1, "continued_pretraining", STEPS // 2, rate=3e-3)
        yield swap(f"{name}-long-new", f"{name}-long", seed + 2, "shuffled-9", 1.0)
        yield edit(f"{name}-long-new-int8", (f"{name}-long-new",), "quantise", seed + 3, method="int8")
    # merge → prune → fine-tune, and merges then fine-tuned: of siblings, and of two roots
    for a, b, seed in (
        ("llama-1-tuned-2", "llama-1-tuned-other", 3020),
        ("llama-3-tuned-2", "llama-3-tuned-other", 3030),
        ("llama-3", "llama-4", 3040),
        ("gpt2-1-tuned-2", "gpt2-1-tuned-other", 3050),
    ):
        name = f"{a}-and-{b}"
        yield edit(name, (a, b), "linear_merge", seed, weights=[0.6, 0.4])
        yield train(f"{name}-tuned", name, seed + 1, "fine_tune", 80, text="docs")
        yield edit(f"{name}-pruned", (name,), "ffn_pruning", seed + 2, keep=0.7)
        yield train(f"{name}-pruned-tuned", f"{name}-pruned", seed + 3, "fine_tune", 80, text="docs")
    # permute → rotate → continue
    for root, seed in (("llama-4", 3060), ("qwen2-2", 3070), ("llama-packages-2", 3080)):
        name = f"{root}-permuted"
        yield edit(name, (root,), "unit_permutation", seed)
        yield edit(f"{name}-rotated", (name,), "rotation", seed + 1)
        yield train(f"{name}-rotated-on", f"{name}-rotated", seed + 2, "continued_pretraining", 150, rate=3e-3)
    # drop → widen → train → 4 bits; insert → channels permuted → train
    yield edit("llama-2-dropped", ("llama-2",), "depth_drop", 3090, share=0.25)
    yield edit("llama-2-dropped-widened", ("llama-2-dropped",), "ffn_widening", 3091, factor=1.33, new="random")
    yield train("llama-2-dropped-widened-on", "llama-2-dropped-widened", 3092, "further_training", 150, rate=3e-3)
    yield edit("llama-2-dropped-widened-on-int4", ("llama-2-dropped-widened-on",), "quantise", 3093, method="int4")
    yield edit("gemma-4-inserted", ("gemma-4",), "layer_insertion", 3094, count=2)
    yield edit("gemma-4-inserted-permuted", ("gemma-4-inserted",), "channel_permutation", 3095)
    yield train("gemma-4-inserted-permuted-on", "gemma-4-inserted-permuted", 3096, "further_training", 150, rate=3e-3)
