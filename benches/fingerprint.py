"""What fingerprints cost and what they see: ``python -m benches.fingerprint sizes | overlap | power | zoo | …``.

    sizes     bytes per model, from shapes alone
    overlap   units chosen by content in copies, against the cosine of the units
    power     verdicts from fingerprints and from weights, under noise and pruning, and after training
    zoo       pairs of the lineage benchmark again, from stored fingerprints alone
    speed     a fingerprint against a scan with digests of one model, in CPU seconds and wall time, and its peak memory
    kept      two stored fingerprints of 8B shapes, drawn without a model, compared: seconds

Every table is Markdown and stands in docs/fingerprint.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import weightprint
from weightprint.fingerprint.plan import Plan
from weightprint.fingerprint.units import content

from .kept_shapes import drawn

F32Map = dict[str, np.ndarray]
PAIRS = Path(__file__).parent / "lineage" / "results" / "pairs.json.gz"
#: From the strongest verdict to the weakest.
ORDER = ("identical", "re_encoded", "shared_origin", "partly_shared", "shared_initialisation", "no_evidence",
         "inconclusive")  # fmt: skip


# Sizes


@dataclass(frozen=True)
class Shape:
    """A decoder by its sizes; ``experts`` in each of ``moe`` blocks."""

    name: str
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    experts: int = 0
    moe: int = 0
    expert_ffn: int = 0
    latent: bool = False

    @property
    def ffns(self) -> list[int]:
        """Units of every FFN and expert."""
        return [self.ffn] * (self.layers - self.moe) + [self.expert_ffn] * (self.moe * self.experts)


SHAPES = (
    Shape("0.5B", 24, 896, 4864, 14, 2, 64, 151_936),
    Shape("8B", 32, 4096, 14_336, 32, 8, 128, 128_256),
    Shape("70B", 80, 8192, 28_672, 64, 8, 128, 128_256),
    Shape("671B-MoE", 61, 7168, 18_432, 128, 128, 128, 129_280, 257, 58, 2048, latent=True),
)
_TOLD = 75  # bytes per tensor of deflated JSON: name, digest, shape, place
_ENTRY = 95  # bytes of header per array


def planned(shape: Shape, plan: Plan | None = None) -> dict[str, int]:
    """Part → bytes that a fingerprint of a model of these sizes takes."""
    plan = plan or Plan()
    k = plan.stream_channels(shape.width).size
    ffns = shape.ffns if len(shape.ffns) <= plan.ffns else [shape.expert_ffn] * plan.ffns
    each = max(plan.least_units, min(plan.units, plan.unit_values // (3 * k * len(ffns))))
    angles = [min(h, plan.angles) for h in ffns]
    n = plan.between(shape.width).size
    attention = shape.layers
    matrices = 3 * len(shape.ffns) + 4 * shape.layers + 2
    tensors = matrices + 2 * shape.layers + 1
    other = 2 * shape.layers + 2 + (2 if shape.latent else 4) * shape.layers
    arrays = 8 * len(ffns) + 2 * len(ffns) + 5 * attention + 2 * other
    return {
        "units": sum(3 * min(each, h) * (k + 4) + 4 * min(each, h) + 4 for h in ffns),
        "angles": sum(2 * a * (a - 1) for a in angles),
        "heads": attention * (2 * shape.heads * (n * n + 4 * n) + 4),
        "tokens": 2 * plan.token_rows(shape.vocabulary).size * k * 4,
        "rows": 4 * shape.layers * (plan.rows * k + 4 * max(plan.rows, k)),
        "vectors": 2 * (2 * shape.layers + 1) * shape.width,
        "sketches": 4 * matrices * plan.buckets(matrices),
        "tensors and header": tensors * (_TOLD + 9 * 8 + 4) + arrays * _ENTRY,
    }


def sizes(args: argparse.Namespace) -> None:
    """A row per shape."""
    made = {shape.name: planned(shape) for shape in SHAPES}
    parts = list(next(iter(made.values())))
    _table(
        ("model", *parts, "all"),
        ([name, *map(_mb, row.values()), _mb(sum(row.values()))] for name, row in made.items()),
    )


def _mb(n: float) -> str:
    return f"{n / 1e6:.2f} MB"


# Units by content


def overlap(args: argparse.Namespace) -> None:
    """The top quarter of each FFN's units in copies of the demo's parent; chance is .25."""
    parent, rows = _weights(args.demo / "parent"), list[list[str]]()
    for name, other in _copies(parent, _weights(args.demo / "finetune")):
        shares, cosines = [], []
        for i in range(_depth(parent)):
            a, b = _units(parent, i), _units(other, i)
            top = [set(np.argsort(-content(x, None))[: len(x["up"]) // 4].tolist()) for x in (a, b)]
            shares.append(len(top[0] & top[1]) / len(top[0]))
            cosines.append(np.mean([_cosine(a[role], b[role]) for role in a]))
        rows.append([name, f"{np.mean(cosines):.2f}", f"{np.mean(shares):.2f}"])
    _table(("copy", "cosine of units", "share of units in common (chance .25)"), rows)


def _copies(weights: F32Map, tuned: F32Map) -> Iterator[tuple[str, F32Map]]:
    """Copies with units at their numbers, so that the choices can be held against each other."""
    rng = np.random.default_rng(0)
    yield "trained on (demo)", tuned
    for share in (0.1, 0.3, 0.5, 1.0):
        yield f"noise, {share:g} of a matrix' length", _noised(weights, share, rng)
    flipped, scaled = dict(weights), dict(weights)
    for i in range(_depth(weights)):
        up, down = (f"model.layers.{i}.mlp.{name}_proj.weight" for name in ("up", "down"))
        sign = rng.choice([-1.0, 1.0], len(weights[up])).astype(np.float32)
        size = rng.uniform(0.2, 5, len(weights[up])).astype(np.float32)
        flipped |= {up: weights[up] * sign[:, None], down: weights[down] * sign}
        scaled |= {up: weights[up] * size[:, None], down: weights[down] / size}
    yield "signs flipped", flipped
    yield "units scaled", scaled
    turn, _ = np.linalg.qr(rng.standard_normal((weights["model.norm.weight"].size,) * 2))
    yield "stream rotated", {n: _rotated(n, x, turn.astype(np.float32)) for n, x in weights.items()}
    yield "a stranger", _weights_of_stranger(weights, rng)


def _rotated(name: str, x: np.ndarray, turn: np.ndarray) -> np.ndarray:
    if ".mlp.down" in name:
        return np.asarray(turn.T @ x)
    return np.asarray(x @ turn) if ".mlp." in name else x


def _weights_of_stranger(weights: F32Map, rng: np.random.Generator) -> F32Map:
    return {n: rng.permuted(rng.permuted(x, axis=-1), axis=0) for n, x in weights.items()}


def _units(weights: F32Map, i: int) -> F32Map:
    at = f"model.layers.{i}.mlp."
    found = {role: weights[f"{at}{role}_proj.weight"] for role in ("gate", "up", "down")}
    return found | {"down": np.ascontiguousarray(found["down"].T)}


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.abs(np.einsum("ij,ij->i", a, b)) / np.maximum(lengths, 1e-30)))


# Power


def power(args: argparse.Namespace) -> None:
    """The demo's parent against what was made of it."""
    parent, rng, rows = _weights(args.demo / "parent"), np.random.default_rng(1), list[list[str]]()
    made: list[tuple[str, F32Map | Path]] = [
        ("trained on (demo)", args.demo / "finetune"),
        ("4 experts, trained on (demo)", args.demo / "moe"),
    ]
    made += [(f"noise, {share:g}", _noised(parent, share, rng)) for share in (0.3, 1.0, 2.0, 4.0)]
    made += [(f"pruned to {1 - share:.0%}", _pruned(parent, share)) for share in (0.5, 0.9)]
    made += [("a stranger (demo)", args.demo / "stranger")]
    with tempfile.TemporaryDirectory() as folder:
        for name, model in made:
            path = (
                model
                if isinstance(model, Path)
                else _written(Path(folder) / str(len(rows)), model, args.demo / "parent")
            )
            one, other = weightprint.fingerprint(args.demo / "parent"), weightprint.fingerprint(path)
            kept, live = weightprint.compare(one, other), weightprint.compare(args.demo / "parent", path)
            rows.append([name, kept.verdict, f"{kept.log10_p or 0:.0f}", live.verdict, f"{live.log10_p or 0:.0f}"])
    _table(("B", "from fingerprints", "log10 p", "from weights", "log10 p"), rows)


def _noised(weights: F32Map, share: float, rng: np.random.Generator) -> F32Map:
    return {
        n: (x + share * x.std() * rng.standard_normal(x.shape)).astype(np.float32) if x.ndim == 2 else x
        for n, x in weights.items()
    }


def _pruned(weights: F32Map, share: float) -> F32Map:
    return {
        n: np.where(np.abs(x) < np.quantile(np.abs(x), share), 0, x).astype(np.float32) if "proj" in n else x
        for n, x in weights.items()
    }


# Pairs of the zoo


def zoo(args: argparse.Namespace) -> None:
    """Verdicts of sampled pairs from fingerprints alone, against those that the weights gave when last scored."""
    with gzip.open(PAIRS, "rt") as lines:
        pairs = [row for row in map(json.loads, lines) if all((args.zoo / row[x]).is_dir() for x in "ab")]
    random.Random(args.seed).shuffle(pairs)
    kept: dict[str, weightprint.Fingerprint] = {}
    seen: Counter[tuple[str, ...]] = Counter()
    wanted = {"related": args.related, "unrelated": args.strangers, "shared_init": 60}
    for row in pairs:
        if seen[row["relation"],] >= wanted[row["relation"]]:
            continue
        for name in (row["a"], row["b"]):
            kept[name] = kept.get(name) or weightprint.fingerprint(args.zoo / name)
        verdict, before = weightprint.compare(kept[row["a"]], kept[row["b"]]).verdict, row["weightprint"]["verdict"]
        how = (ORDER.index(verdict) > ORDER.index(before)) - (ORDER.index(verdict) < ORDER.index(before))
        seen[row["relation"],] += 1
        seen[row["relation"], ("same", "weaker", "stronger")[how]] += 1
        seen[row["relation"], "found"] += ORDER.index(verdict) < ORDER.index("no_evidence")
    columns = ("same", "weaker", "stronger", "found")
    _table(("pairs", "n", *columns), ([r, seen[r,], *(seen[r, c] for c in columns)] for r in wanted))


# Speed


def speed(args: argparse.Namespace) -> None:
    """Best of several runs, taken by turns."""
    how: Mapping[str, Callable[[], object]] = {
        "scan with digests": lambda: weightprint.scan(args.model, digest=True, threads=args.threads),
        "fingerprint": lambda: weightprint.fingerprint(args.model, threads=args.threads),
    }
    wall, cpu = ({name: float("inf") for name in how} for _ in range(2))
    for _ in range(args.runs):
        for name, run in how.items():
            began, spent = time.perf_counter(), time.process_time()
            run()
            wall[name], cpu[name] = (
                min(wall[name], time.perf_counter() - began),
                min(cpu[name], time.process_time() - spent),
            )
    rows: list[Sequence[object]] = [(name, f"{wall[name]:.2f} s", f"{cpu[name]:.2f} s") for name in how]
    first, second = how
    rows.append(("ratio", f"{wall[second] / wall[first]:.2f}", f"{cpu[second] / cpu[first]:.2f}"))
    _table((f"{args.threads} threads", "wall", "CPU"), rows)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def kept(args: argparse.Namespace) -> None:
    """Stored fingerprints of an 8B's shapes against one of them; no model is written."""
    s = next(shape for shape in SHAPES if shape.name == "8B")
    of = {"layers": s.layers, "width": s.width, "ffn": s.ffn, "heads": s.heads, "kv_heads": s.kv_heads}
    with tempfile.TemporaryDirectory() as folder:
        root, rows = Path(folder) / "0.fp", list[Sequence[object]]()
        drawn(Path(folder) / "8b", {**of, "vocabulary": s.vocabulary}, 0).save(root)
        kinds: Mapping[str, tuple[int, str, float]] = {
            "a stranger": (1, "root", 0.0),
            "fine-tuned": (0, "root", 0.05),
            "fine-tuned, units permuted": (0, "permuted", 0.05),
        }
        for number, (name, how) in enumerate(kinds.items(), 1):
            other = Path(folder) / f"{number}.fp"
            drawn(Path(folder) / "8b", {**of, "vocabulary": s.vocabulary}, *how).save(other)
            weightprint.compare(root, other)  # imports, and pages of the files
            began, spent = time.perf_counter(), time.process_time()
            found = weightprint.compare(root, other)
            wall, cpu = time.perf_counter() - began, time.process_time() - spent
            rows.append((name, found.verdict, f"{wall:.2f} s", f"{cpu:.2f} s"))
    _table(("B", "verdict", "wall", "CPU"), rows)


# Files


def _weights(folder: Path) -> F32Map:
    with weightprint.open(folder) as model:
        return {info.name: model.read(info.name).astype(np.float32) for info in model.tensors}


def _written(folder: Path, weights: F32Map, like: Path) -> Path:
    """A model folder with float32 weights and another's config."""
    entries, end = {}, 0
    for name, x in weights.items():
        entries[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [end, end := end + x.nbytes]}
    header = json.dumps(entries).encode()
    folder.mkdir()
    data = b"".join(np.ascontiguousarray(x, "<f4").tobytes() for x in weights.values())
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (folder / "config.json").write_bytes((like / "config.json").read_bytes())
    return folder


def _depth(weights: F32Map) -> int:
    return sum(name.endswith("mlp.up_proj.weight") for name in weights)


def _table(header: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> None:
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser("python -m benches.fingerprint", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    demo = {"default": Path("weightprint-demo"), "help": "written by `weightprint demo`", "type": Path}
    for run in (sizes, overlap, power, zoo, speed, kept):
        command = commands.add_parser(run.__name__, help=(run.__doc__ or "").strip())
        command.set_defaults(run=run)
        if run in (overlap, power):
            command.add_argument("--demo", **demo)  # type: ignore[arg-type]
        if run is zoo:
            command.add_argument("--zoo", type=Path, default=Path("target/zoo"))
            command.add_argument("--related", type=int, default=200)
            command.add_argument("--strangers", type=int, default=400)
            command.add_argument("--seed", type=int, default=0)
        if run is speed:
            command.add_argument("model", type=Path)
            command.add_argument("--threads", type=int, default=2)
            command.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
