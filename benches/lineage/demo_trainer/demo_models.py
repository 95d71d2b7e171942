"""The four checkpoints inside the package (`weightprint demo`), and a few more of the kind that are not shipped.

    parent      trained from init 1 on the library's modules
    finetune    the parent, trained on for 15 % of its steps on the documentation's prose
    moe         the parent, upcycled to four experts (a quarter of each expert's units redrawn), trained on
    stranger    the parent's architecture, data and recipe; another seed for the weights and for the batches

The others are for whoever calibrates a test: more strangers, and models that share *only* the parent's initial weights
(other data; same data in another order).

Saved in bf16 as model.safetensors + config.json. The file's metadata tells how the model was made, for the reader;
weightprint never looks at it for evidence.
"""

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ..zoo import data
from . import model, train

DENSE = model.Config()
EXPERTS, REDRAWN = 4, 0.25
BUDGET = 2_000_000
SHIPPED = ("parent", "finetune", "moe", "stranger")


@dataclass(frozen=True)
class Plan:
    """How one model comes to be: from a seed or from another model, then a training run."""

    recipe: train.Recipe
    init_seed: int
    made_from: str | None = None
    upcycled: bool = False
    note: str = ""


def _root(seed: int, text: str = "modules", batch_seed: int | None = None, note: str = "") -> Plan:
    recipe = train.Recipe(text, steps=2000, batch_seed=100 + seed if batch_seed is None else batch_seed)
    return Plan(recipe, init_seed=seed, note=note)


PLANS: dict[str, Plan] = {
    "parent": _root(1),
    "finetune": Plan(train.Recipe("docs", steps=300, batch_seed=201, rate=5e-4), 0, "parent", note="further training"),
    "moe": Plan(train.Recipe("modules", steps=500, batch_seed=202, rate=2e-3), 7, "parent", True, "upcycled"),
    "stranger": _root(2),
    "shared-init": _root(1, "packages", 301, "only the parent's initial weights"),
    "shared-init-docs": _root(1, "docs", 302, "only the parent's initial weights"),
    "shared-init-order": _root(1, "modules", 303, "only the parent's initial weights; same data, other batches"),
    **{f"stranger-{seed}": _root(seed) for seed in range(3, 8)},
    "stranger-packages": _root(8, "packages"),
}


def build(names: list[str], output: Path) -> None:
    """Train the named plans (and whatever they are made from, if `output` lacks it) and save them under `output`.

    A model is trained on from its *saved* bf16 form, as a fine-tuner who downloads it would.
    """
    for name in names:
        plan = PLANS[name]
        if plan.made_from and not (output / plan.made_from / "model.safetensors").exists():
            build([plan.made_from], output)
        params, config = _start(plan, output)
        params = train.train(params, config, plan.recipe, label=name)
        _save(name, plan, params, config, output)


def _start(plan: Plan, output: Path) -> tuple[model.Params, model.Config]:
    if plan.made_from is None:
        return model.init(DENSE, plan.init_seed), DENSE
    params = load(output / plan.made_from)
    if plan.upcycled:
        return model.upcycle(params, DENSE, EXPERTS, REDRAWN, plan.init_seed)
    return params, DENSE


def load(folder: Path) -> model.Params:
    """A saved model as float32 parameters."""
    from safetensors.flax import load_file

    return {name: value.astype(jnp.float32) for name, value in load_file(folder / "model.safetensors").items()}


def _save(name: str, plan: Plan, params: model.Params, config: model.Config, output: Path) -> None:
    rounded = {key: value.astype(jnp.bfloat16) for key, value in params.items()}
    as_saved = {key: value.astype(jnp.float32) for key, value in rounded.items()}
    text = data.load(plan.recipe.text)
    home = data.load("modules")
    about = {
        "format": "pt",
        "name": name,
        "parents": plan.made_from or "",
        "made": plan.note or "trained from its own random weights",
        "init_seed": str(plan.init_seed),
        "batch_seed": str(plan.recipe.batch_seed),
        "training_tokens": str(plan.recipe.tokens),
        "training_text": text.origin,
        "held_out_bits_per_byte": f"{train.evaluate(as_saved, config, text.name):.3f}",
        "held_out_unigram_bits_per_byte": f"{text.unigram_bits:.3f}",
        "modules_bits_per_byte": f"{train.evaluate(as_saved, config, home.name):.3f}",
        "modules_unigram_bits_per_byte": f"{home.unigram_bits:.3f}",
        "jax": version("jax"),
    }
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(_safetensors(rounded, about))
    (folder / "config.json").write_text(json.dumps(config.to_hf(), indent=2) + "\n")
    bits, unigram = about["held_out_bits_per_byte"], about["held_out_unigram_bits_per_byte"]
    print(f"{name}: {bits} bits per byte of held-out {text.name}; unigram {unigram}")


def _safetensors(params: model.Params, metadata: dict[str, str]) -> bytes:
    """The file's bytes. Written here because the package's writer puts metadata in a different order every time."""
    header: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for name, value in params.items():
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [begin, begin + value.nbytes]}
        begin += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(np.asarray(value).tobytes() for value in params.values())


def install(built: Path, package: Path) -> None:
    """Copy the four shipped models into the package, or refuse if they would be too much for a wheel."""
    files = [file for name in SHIPPED for file in sorted((built / name).iterdir())]
    total = sum(file.stat().st_size for file in files)
    if total > BUDGET:
        raise SystemExit(f"{total} bytes are more than the {BUDGET} that the four models may take together")
    for file in files:
        target = package / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    print(f"{len(files)} files, {total} bytes → {package}")
