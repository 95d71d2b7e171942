"""The four checkpoints inside the package (`weightprint demo`).

    parent      trained from init 1 on the library's modules
    finetune    the parent, trained on for 15 % of its steps on the documentation's prose
    moe         the parent, upcycled to four experts (a quarter of each expert's units redrawn), trained on
    stranger    the parent's architecture, data and recipe; another seed for the weights and for the batches

Saved in bf16 as model.safetensors + config.json. The file's metadata tells how the model was made, for the reader;
weightprint never looks at it for evidence. The files in the package came from an older loop over the same recipes,
batches and first weights: what is trained here differs from them by rounding.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..zoo import data, forms, forms_train
from ..zoo.forms import Shape
from ..zoo.forms_train import Recipe
from ..zoo.model_folder import Tensors, read_safetensors, write_safetensors
from . import model

DENSE = forms.shape("llama", hidden=48, layers=5, ffn=128)
EXPERTS, REDRAWN = 4, 0.25
BUDGET = 2_000_000
CONTEXT = 128

_recipe = partial(Recipe, warmup=50, rows=16, context=CONTEXT)


@dataclass(frozen=True)
class Plan:
    """How one model comes to be: from a seed or from another model, then a training run."""

    recipe: Recipe
    init_seed: int
    made_from: str | None = None
    upcycled: bool = False
    note: str = "trained from its own random weights"


PLANS: dict[str, Plan] = {
    "parent": Plan(_recipe("modules", 2000, 101, 4e-3), 1),
    "finetune": Plan(_recipe("docs", 300, 201, 5e-4), 0, "parent", note="further training"),
    "moe": Plan(_recipe("modules", 500, 202, 2e-3), 7, "parent", True, "upcycled"),
    "stranger": Plan(_recipe("modules", 2000, 102, 4e-3), 2),
}


def build(names: list[str], output: Path) -> None:
    """Train the named plans (and whatever they are made from, if `output` lacks it) and save them under `output`.

    A model is trained on from its *saved* bf16 form, as a fine-tuner who downloads it would.
    """
    for name in names:
        plan = PLANS[name]
        if plan.made_from and not (output / plan.made_from / "model.safetensors").exists():
            build([plan.made_from], output)
        start, shape = _start(plan, output)
        _save(name, plan, trained(start, shape, plan.recipe, name), shape, output)


def trained(tensors: Mapping[str, NDArray[Any]], shape: Shape, recipe: Recipe, label: str) -> Tensors:
    """A run of the zoo's trainer on tensors under the hub's names. Progress goes to stderr."""

    def progress(step: int, bits: float) -> None:
        print(f"{label:>16} step {step:5d}  {bits:.3f} bits/byte", file=sys.stderr)

    return forms.flatten(forms_train.train(forms.stack(tensors, shape), shape, recipe, progress), shape)


def _start(plan: Plan, output: Path) -> tuple[Tensors, Shape]:
    if plan.made_from is None:
        params, shape = model.init(DENSE, plan.init_seed), DENSE
    else:
        read = read_safetensors(output / plan.made_from / "model.safetensors")
        params, shape = {name: jnp.asarray(x) for name, x in read.items()}, DENSE
    if plan.upcycled:
        params, shape = model.upcycle(params, shape, EXPERTS, REDRAWN, plan.init_seed)
    return {name: np.asarray(x) for name, x in params.items()}, shape


def _save(name: str, plan: Plan, tensors: Tensors, shape: Shape, output: Path) -> None:
    rounded = {key: x.astype(ml_dtypes.bfloat16) for key, x in sorted(tensors.items())}
    as_saved = forms.stack(rounded, shape)
    about = {
        "format": "pt",
        "name": name,
        "parents": plan.made_from or "",
        "made": plan.note,
        "init_seed": str(plan.init_seed),
        "batch_seed": str(plan.recipe.batch_seed),
        "training_tokens": str(plan.recipe.tokens),
        "training_text": data.load(plan.recipe.text).origin,
    }
    for prefix, text in (("held_out", plan.recipe.text), ("modules", "modules")):
        bits = forms_train.evaluate(as_saved, shape, text, rows=256, context=CONTEXT)
        about[f"{prefix}_bits_per_byte"] = f"{bits:.3f}"
        about[f"{prefix}_unigram_bits_per_byte"] = f"{data.load(text).unigram_bits:.3f}"
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", rounded, about | {"jax": version("jax")})
    (folder / "config.json").write_text(json.dumps(forms.to_hf(shape), indent=2) + "\n")
    reached, unigram = about["held_out_bits_per_byte"], about["held_out_unigram_bits_per_byte"]
    print(f"{name}: {reached} bits per byte of held-out {plan.recipe.text}; unigram {unigram}")


def install(built: Path, package: Path) -> None:
    """Copy the four shipped models into the package, or refuse if they would be too much for a wheel."""
    files = [file for name in PLANS for file in sorted((built / name).iterdir())]
    total = sum(file.stat().st_size for file in files)
    if total > BUDGET:
        raise SystemExit(f"{total} bytes are more than the {BUDGET} that the four models may take together")
    for file in files:
        target = package / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    print(f"{len(files)} files, {total} bytes → {package}")
