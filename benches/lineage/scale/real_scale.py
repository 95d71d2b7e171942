"""SmolLM2-135M's real weights put through everything that can be done without training.

    python -m benches.lineage real-scale DIR [--only 'smollm2-*merge*']
    python -m benches.lineage real-scale DIR --score [--write]

The parent is the published instruct model (its GGUF dequantised; see tests/real/zoo.py), under Hugging Face's names.
GGUF interleaves the rows of q and k inside a head; here they are put back (with them back, the model's loss on a
sentence about capitals is 1.45 and it goes on with Rome; without, 2.40 and "the"). Where an operation needs relatives,
they are stand-ins made without training: fine-tunes are the parent plus a low-rank and a small dense change, the other
root of a merge has the same shapes and per-tensor spreads but its own draws.

Models are made one at a time: a few hundred megabytes each. Folders that are there are left alone. With `--score` every
model is compared with the parent as soon as it is made, and deleted; what was found is a line in DIR/rows.jsonl, and a
second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from weightprint.evidence.tests import PUBLISHED

from ..score import methods, pair_table, pairs, runner
from ..score.records import Records
from ..zoo.ground_truth import FamilyTree
from ..zoo.model_folder import Tensors, Truth, ZooModel, save
from ..zoo.operations.chain import chain
from ..zoo.operations.table import OPERATIONS
from ..zoo.operations.work import Operation, named

RESULTS = Path(__file__).resolve().parents[1] / "results"
ROOT = "smollm2"
LAYERS, HEADS, KV_HEADS, HEAD = 30, 9, 3, 64
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
    "vocab_size": 49152, "tie_word_embeddings": True, "rope_theta": 100000.0, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "attention_bias": False, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
}  # fmt: skip

_MODULES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens", "output_norm": "model.norm",
}  # fmt: skip

Step = tuple[str, Mapping[str, Any]]

#: Chains of two and three steps: name → steps; the merges take the two stand-ins for fine-tunes.
CHAINS: dict[str, tuple[Step, ...]] = {
    "chain-permute-rotate": (("unit_permutation", {}), ("channel_permutation", {}), ("rotation", {"gain_spread": 0.3})),
    "chain-all-gauges": (
        ("unit_permutation", {}), ("head_permutation", {}), ("sign_flips", {}), ("per_head_maps", {}),
        ("scale_folding", {}), ("rotation", {"gain_spread": 0.3}),
    ),
    "chain-merge-prune": (("task_arithmetic", {"weights": [0.6, 0.4]}), ("ffn_pruning", {"keep": 0.7})),
    "chain-drop-prune-permute": (
        ("depth_drop", {"share": 0.25}), ("ffn_pruning", {"keep": 0.5}), ("unit_permutation", {}),
    ),
    "chain-upcycle-vocabulary-quantise": (
        ("moe_upcycling", {"fresh": 0.25}), ("vocabulary_swap", {}), ("quantise", {"method": "int4"}),
    ),
    "chain-upscale-noise-decoy": (("depth_upscaling", {}), ("gaussian_noise", {"relative": 0.1}), ("decoy_stack", {})),
}  # fmt: skip

_ENCODED = ("rename", "random_names", "re_dtype", "quantise")
_TWO_ROOTS = ("linear_merge", "slerp_merge", "vocabulary_stitching")


def smollm2() -> ZooModel:
    """The parent in float32, 135 million parameters."""
    beside = str(Path(__file__).resolve().parents[3] / "tests" / "real")
    sys.path.insert(0, beside)
    try:
        zoo = importlib.import_module("zoo")
    finally:
        sys.path.remove(beside)
    stored: Tensors = zoo.load(zoo.smollm2())
    return ZooModel(respelled(stored), CONFIG, Truth(ROOT, "root", "llama", (ROOT,)))


def respelled(stored: Mapping[str, Any]) -> Tensors:
    """GGUF's names and row order → Hugging Face's, in the order of the computation."""
    out: Tensors = {}
    for module in ("token_embd",):
        out[f"{_MODULES[module]}.weight"] = stored[f"{module}.weight"]
    for i in range(LAYERS):
        for module, name in list(_MODULES.items())[:9]:
            x = stored[f"blk.{i}.{module}.weight"]
            if module in ("attn_q", "attn_k"):
                x = x.reshape(-1, HEAD // 2, 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
            out[f"model.layers.{i}.{name}.weight"] = np.ascontiguousarray(x)
    out["model.norm.weight"] = stored["output_norm.weight"]
    return out


def stand_in(parent: ZooModel, name: str, seed: int) -> ZooModel:
    """A fine-tune that nobody trained: rank 16 on all matrices (4 %) and dense noise (1 %)."""
    roles = ["q", "k", "v", "o", "gate", "up", "down"]
    steps: list[tuple[Operation, Mapping[str, Any]]] = [
        (OPERATIONS["lora_merge"], {"rank": 16, "size": 0.04, "roles": roles}),
        (OPERATIONS["gaussian_noise"], {"relative": 0.01}),
    ]
    return chain([parent], steps, seed, name)


def other_root(parent: ZooModel, seed: int) -> ZooModel:
    """A stranger of the parent's shapes and per-tensor means and spreads."""
    rng = np.random.default_rng([seed, 41])
    drawn = {
        name: (x.mean() + x.std() * rng.standard_normal(x.shape, dtype=np.float32)).astype(np.float32)
        for name, x in parent.tensors.items()
    }
    return ZooModel(drawn, parent.config, Truth("drawn", "root", parent.truth.form, ("drawn",)))


def names() -> list[str]:
    """All models that `descendants` makes, in its order."""
    return [ROOT, *(name for name, _, _ in _plans())]


def _plans() -> Iterator[tuple[str, str, Sequence[Step]]]:
    """(name, parents, steps). Parents: `one`, `relatives` (and two stand-ins), `roots` (and a stranger), `moe`."""
    for operation in OPERATIONS.values():
        if "llama" in operation.forms:
            parents = "one" if operation.parents == 1 else "roots" if operation.name in _TWO_ROOTS else "relatives"
        elif "moe" in operation.forms:
            parents = "moe"
        else:
            continue
        for k, strength in enumerate(operation.strengths):
            yield f"{ROOT}-{operation.name}-{k}", parents, ((operation.name, _bounded(strength)),)
    for name in ("embedding_replaced", "decoy_stack"):
        yield f"{ROOT}-{name}-donor", "roots", ((name, {}),)
    for name, steps in CHAINS.items():
        yield f"{ROOT}-{name}", "relatives" if OPERATIONS[steps[0][0]].parents > 1 else "one", steps


def _bounded(strength: Mapping[str, Any]) -> Mapping[str, Any]:
    """Four experts at most: eight would be a gigabyte of one model."""
    return {**strength, "experts": 4} if strength.get("experts", 0) > 4 else strength


def descendants(
    only: str = "*", seed: int = 0, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, ZooModel]]:
    """The parent, then its descendants, one at a time: those whose names match `only` and are `wanted`.

    In bfloat16, unless an encoding is their last step. A model depends on its name and the seed alone.
    """
    chosen = [name for name in names() if fnmatch(name, only) and wanted(name)]
    if not chosen:
        return
    root = smollm2()

    @cache
    def parents(kind: str) -> tuple[ZooModel, ...]:
        _, one, other, drawn = _parents(root) if kind in ("relatives", "roots") else (root,) * 4
        return {"relatives": (root, one, other), "roots": (root, drawn)}.get(kind, (root,))

    if ROOT in chosen:
        yield ROOT, rounded(root)
    for name, kind, steps in _plans():
        if name not in chosen:
            continue
        if kind == "moe":  # told from the dense root, with the upcycling as the first step
            steps = (("moe_upcycling", {"fresh": 0.25}), *steps)
        draws = zlib.crc32(f"{name} {seed}".encode())
        if len(steps) == 1:
            made = named(OPERATIONS[steps[0][0]](parents(kind), draws, **steps[0][1]), name)
        else:
            made = chain(parents(kind), [(OPERATIONS[step], given) for step, given in steps], draws, name)
        yield name, made if steps[-1][0] in _ENCODED else rounded(made)


def _parents(root: ZooModel) -> Iterator[ZooModel]:
    """The parent, two stand-ins for its fine-tunes, and a stranger."""
    yield root
    yield stand_in(root, f"{ROOT}-tuned-a", 1)
    yield stand_in(root, f"{ROOT}-tuned-b", 2)
    yield other_root(root, 3)


def rounded(made: ZooModel) -> ZooModel:
    """In bfloat16, as such models are published."""
    return replace(made, tensors={name: x.astype(ml_dtypes.bfloat16) for name, x in made.tensors.items()})


def build(folder: Path, only: str = "*", seed: int = 0) -> None:
    """Write the models that aren't there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in descendants(only, seed, lambda name: not (folder / name).exists()):
        save(folder / name, made)
        print(name, f"{sum(x.nbytes for x in made.tensors.values()) / 1e6:.0f} MB", flush=True)


def score(folder: Path, only: str = "*", seed: int = 0) -> list[dict[str, Any]]:
    """Every descendant compared with the parent, rows as :func:`.pair_table.build` makes them; models are not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "rows.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {name for row in known for name in (row["a"], row["b"])}
    for made in _parents(smollm2()):  # a family tree needs all parents
        if not (folder / made.truth.name).exists():
            save(folder / made.truth.name, rounded(made))
    records = Records(folder / "scores")
    for name, made in descendants(only, seed, lambda name: name != ROOT and name not in done):
        save(folder / name, made)
        del made
        tree = FamilyTree.read(folder)
        pair = next(p for p in pairs.every_pair(tree) if {p.a, p.b} == {ROOT, name})
        chosen = (methods.with_published(),)
        cases = [(pair.key, tree[pair.a].folder, tree[pair.b].folder)]
        runner.run(runner.due(cases, chosen, records), records, 1, (), name)
        row = pair_table.build(tree, [pair], {"weightprint": records.read("weightprint")}, [t.name for t in PUBLISHED])[
            0
        ]
        known.append(row)
        whole = log.with_suffix(".part")  # a kill leaves the old file, never half a line
        whole.write_text("".join(json.dumps(each) + "\n" for each in known))
        whole.replace(log)
        shutil.rmtree(folder / name)
        told = row.get("weightprint", {})
        print(f"{name}: {told.get('verdict', 'error')}", flush=True)
    return known


def add_command(commands: Any) -> None:
    """The command line of this module, under `python -m benches.lineage`."""
    parser = commands.add_parser("real-scale", help="SmolLM2-135M through every training-free operation")
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names to build (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--score", action="store_true", help="compare each with the parent, and delete it")
    parser.add_argument("--write", action="store_true", help="keep the scores in benches/lineage/results/real.json.gz")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    if args.list:
        print("\n".join(names()))
    elif args.score:
        found = score(args.output, args.only, args.seed)
        if args.write:
            pair_table.save(RESULTS / "real.json.gz", found)
    else:
        build(args.output, args.only, args.seed)
