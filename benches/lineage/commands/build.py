"""Build a zoo from its plan: parents first, a finished folder is never built again, progress on stderr.

A model is made from its parents' *saved* form, as anybody would who downloaded them, and is saved in bf16 (an encoding
in whatever it encodes to). `PLAN.json` beside the folders says for every model on which side of the split it stands.

The same machine gives the same bytes: XLA runs on one thread, and nothing depends on the order of building.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..zoo import data, forms, forms_runtime, forms_train
from ..zoo.forms import Shape, Stacked
from ..zoo.forms_train import Recipe, Teacher
from ..zoo.model_folder import Tensors, Truth, ZooModel, load, save, truth_of
from ..zoo.operations.table import OPERATIONS
from ..zoo.plans import Plan, Plans

#: Operations whose result has the types that it is meant to have.
ENCODINGS = ("re_dtype", "quantise", "rename", "random_names")
#: What one model costs beside its training, in tokens of training: loading, compiling, writing.
FIXED_COST = 8_000


def chosen(plans: Plans, only: str = "*") -> Plans:
    """The plans whose names match, and all that they need, in the table's order.

    Raises:
        ValueError: nothing matches.
    """
    wanted = {name for name in plans if fnmatchcase(name, only)}
    if not wanted:
        raise ValueError(f"no model is called {only!r}")
    for name in reversed(list(plans)):
        if name in wanted:
            wanted.update(plans[name].needs)
    return {name: plan for name, plan in plans.items() if name in wanted}


def build(plans: Plans, output: Path, jobs: int = 1) -> None:
    """Build what is missing under `output`, `jobs` models at a time, each on one thread."""
    forms_runtime.prepare()
    output.mkdir(parents=True, exist_ok=True)
    write_plan(plans, output)
    missing = {name: plan for name, plan in plans.items() if not is_built(output / name)}
    progress = _Progress(missing, len(plans))
    if jobs == 1:
        for plan in missing.values():
            progress.finished(plan, _make_in(output, plan, progress))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=forms_runtime.prepare) as pool:
        waiting, running = dict(missing), dict[Future[str], Plan]()
        while waiting or running:
            ready = [p for p in waiting.values() if not any(n in missing and not is_built(output / n) for n in p.needs)]
            for plan in ready[: 2 * jobs - len(running)]:
                running[pool.submit(_make_in, output, waiting.pop(plan.name))] = plan
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                progress.finished(running.pop(future), future.result())


def is_built(folder: Path) -> bool:
    """Whether a model is there, whole: folders are renamed into place when they are."""
    return (folder / "truth.json").exists()


def write_plan(plans: Plans, output: Path) -> None:
    """PLAN.json: name → split, kind, form, parents, operation, training; merged with what an earlier build wrote."""
    path = output / "PLAN.json"
    old: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    new = {
        name: {key: value for key, value in asdict(plan).items() if key != "name" and value not in (None, "", (), {})}
        for name, plan in plans.items()
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(old | new, indent=1, sort_keys=True) + "\n")
    part.rename(path)


class _Progress:
    """Lines on stderr: what is done, how well it learnt, how long the rest will take at this pace."""

    def __init__(self, missing: Plans, planned: int) -> None:
        self.left = sum(map(_cost, missing.values()))
        self.count, self.planned, self.done = planned - len(missing), planned, 0.0
        self.began = time.monotonic()

    def step(self, plan: Plan, steps: int, bits: float) -> None:
        print(f"{plan.name:>32} step {steps:5d}  {bits:.3f} bits/token  {self._left()}", file=sys.stderr)

    def finished(self, plan: Plan, line: str) -> None:
        self.count += 1
        self.done += _cost(plan)
        self.left -= _cost(plan)
        print(f"[{self.count}/{self.planned}] {line}  {self._left()}", file=sys.stderr, flush=True)

    def _left(self) -> str:
        if not self.done:
            return ""
        minutes = (time.monotonic() - self.began) / self.done * self.left / 60
        return f"{minutes:.0f} min left"


def _cost(plan: Plan) -> float:
    return FIXED_COST + (plan.recipe.tokens if plan.recipe else 0)


def _make_in(output: Path, plan: Plan, progress: _Progress | None = None) -> str:
    began = time.monotonic()
    made = make(plan, output, progress)
    save(output / plan.name, made)
    truth = made.truth
    learnt = f"{truth.bits:.3f} of {truth.unigram_bits:.3f} bits" if truth.bits and truth.unigram_bits else ""
    return f"{plan.name}  {learnt}  {time.monotonic() - began:.1f} s"


def make(plan: Plan, output: Path, progress: _Progress | None = None) -> ZooModel:
    """The model of one plan; its parents are read from `output`."""
    if plan.shape is not None:
        tensors = forms.flatten(forms.init(plan.shape, plan.seed), plan.shape)
        roots = (plan.name,)
        truth = Truth(plan.name, plan.kind, plan.shape.form, roots, operations=_origin(plan), init_seed=plan.seed)
        made = ZooModel(tensors, forms.to_hf(plan.shape), truth)
    else:
        parents = [load(output / name) for name in plan.parents]
        made = OPERATIONS[plan.operation](parents, plan.seed, **plan.parameters) if plan.operation else _same(parents)
        made = replace(made, truth=replace(made.truth, name=plan.name, kind=plan.kind, init_seed=plan.seed or None))
    if plan.recipe is not None:
        made = _trained(made, plan, output, progress)
    return made if plan.operation in ENCODINGS and not plan.recipe else replace(made, tensors=_rounded(made.tensors))


def _origin(plan: Plan) -> tuple[dict[str, Any], ...]:
    if plan.init_of:
        return ({"name": "shared_initialisation", "parameters": {"of": plan.init_of}},)
    if plan.teacher:
        return ({"name": "distillation", "parameters": {"teacher": plan.teacher}},)
    return ()


def _same(parents: list[ZooModel]) -> ZooModel:
    """The first parent as the start of its child."""
    (parent,) = parents
    truth = Truth("", "descendant", parent.truth.form, parent.truth.roots, (parent.truth.name,))
    return ZooModel(parent.tensors, parent.config, replace(truth, total_tokens=parent.truth.total_tokens))


def _trained(made: ZooModel, plan: Plan, output: Path, progress: _Progress | None) -> ZooModel:
    recipe = plan.recipe
    assert recipe is not None
    s = forms.shape_of(made.tensors, made.config)
    weights = forms.stack(made.tensors, s)
    teacher = None
    if plan.teacher:
        model = load(output / plan.teacher)
        teacher_shape = forms.shape_of(model.tensors, model.config)
        teacher = Teacher(teacher_shape, forms.stack(model.tensors, teacher_shape))
    report = (lambda steps, bits: progress.step(plan, steps, bits)) if progress else None
    weights = forms_train.train(weights, s, recipe, report, teacher)
    tensors = _rounded(forms.flatten(weights, s))
    operations = made.truth.operations
    if plan.step:
        operations = (*operations, {"name": plan.step, "parameters": _told(recipe)})
    truth = replace(
        made.truth,
        operations=operations,
        batch_seed=recipe.batch_seed,
        text=data.load(recipe.text).origin,
        tokens=recipe.tokens,
        total_tokens=made.truth.total_tokens + recipe.tokens,
        bits=_bits(tensors, s, recipe),
        unigram_bits=data.load(recipe.text).unigram_bits,
    )
    return ZooModel(tensors, made.config, truth)


def _told(recipe: Recipe) -> dict[str, Any]:
    told = {key: getattr(recipe, key) for key in ("text", "steps", "tokens", "rate", "optimiser", "vocabulary")}
    return told | ({"rank": recipe.lora, "ffn": recipe.lora_ffn} if recipe.lora else {})


def _bits(tensors: Tensors, s: Shape, recipe: Recipe) -> float:
    """Of the model as it is saved."""
    weights: Stacked = forms.stack(tensors, s)
    return round(forms_train.evaluate(weights, s, recipe.text, recipe.vocabulary), 4)


def _rounded(tensors: Tensors) -> Tensors:
    """float32 → bf16; other types as they are."""
    return {n: x.astype(ml_dtypes.bfloat16) if x.dtype == np.float32 else x for n, x in tensors.items()}


def table(names: Iterable[str], output: Path) -> str:
    """The roots among `names`, what they learnt, and how many models of each kind there are."""
    truths = [truth_of(output / name) for name in names]
    lines = [f"{'root':24}{'form':8}{'tokens':>10}{'bits':>8}{'unigram':>9}"]
    for t in truths:
        if t.kind == "root":
            lines.append(f"{t.name:24}{t.form:8}{t.tokens:10,}{t.bits or 0:8.3f}{t.unigram_bits or 0:9.3f}")
    kinds = {kind: sum(t.kind == kind for t in truths) for kind in dict.fromkeys(t.kind for t in truths)}
    return "\n".join([*lines, ", ".join(f"{count} {kind}" for kind, count in kinds.items())])


def add_command(commands: Any) -> None:
    """`build`, for the command line's subparsers."""
    parser = commands.add_parser("build", help="build the zoo (an hour on one core), or what is missing of it")
    parser.add_argument("--small", action="store_true", help="the small zoo (minutes)")
    parser.add_argument("--output", type=Path, default=Path("target/zoo"), help="where to build it (%(default)s)")
    parser.add_argument("--only", default="*", metavar="GLOB", help="these models and what they are made from")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="models at a time, one thread each")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..zoo.zoos import FULL, SMALL

    try:
        plans = chosen(SMALL if args.small else FULL, args.only)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    build(plans, args.output, args.jobs)
    print(table(plans, args.output))
