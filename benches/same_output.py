"""Shows that a refactoring changed nothing that users' programs read: what the command line prints, byte for byte.

    python -m benches.same_output record DIR    # before: every output becomes a file of DIR
    python -m benches.same_output check DIR     # after: exit 1 and the first lines that differ, if any do

Inputs are the demo's models, the small zoo (``python -m benches.lineage build --small``), quantised copies and GGUF
files made here from the demo's parent and from a wider random model, one with broken values and one cut in half. Every
run is ``weightprint.cli:main`` in a worker process, in a folder of copies, so that all paths are relative. Besides
stdout, exit codes are kept, whatever came on stderr, and the inputs' digests: if those differ, so may all else.

Left out is what no two runs share: seconds, peak memory, rates; and weightprint's version. Values are compared to the
last digit, so record and check on one machine, with the same numpy: other instruction sets and BLAS libraries round
differently. BLAS has one thread unless OMP_NUM_THREADS says otherwise. `check` says which weightprint it ran.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import weightprint
from gguf import quants
from safetensors.numpy import load_file
from weightprint.cli import main as weightprint_main

from benches.lineage.score.pairs import Want, choose
from benches.lineage.zoo.ground_truth import FamilyTree
from tests.cases import makers
from tests.cases.makers import BF16, Array, Arrays
from tests.checkpoint.gguf.gguf_files import LLAMA, write_gguf
from tests.conftest import encode
from tests.quant.stored_layout import words

ZOO = Path(__file__).resolve().parents[1] / "target" / "zoo-small"
DEMO = ("parent", "finetune", "moe", "stranger")
#: All kin of the small zoo, and so many strangers.
WANT = Want(unrelated=10, hard=0)
#: Of a demo pair's efforts, `full` takes seconds; these are enough for it.
FULL = (("demo/parent", "demo/finetune"), ("demo/parent", "demo/moe"), ("demo/parent", "demo/stranger"))
TEXT = "text/"
SHOWN = 12  # outputs whose differences are printed
WINDOW = 30  # lines of each from the first that differs

Pairs = list[tuple[str, str]]
Outputs = dict[str, bytes]


# What is left out

_S = rb"(?:\d+ min )?[\d.]+ s"
_NOISE_JSON = (
    (rb'("(?:seconds|gemm_seconds|peak_rss_bytes)": )[^,\s]+', rb"\g<1>0"),
    (rb'("name": "weightprint",\s+"version": )"[^"]*"', rb'\g<1>"-"'),
    (rb',\n  "weighed_from": .*', b""),  # its content is what a verdict is weighed from: other keys say what came of it
)
_NOISE_TEXT = (
    (rb"^" + _S + rb"(?=,| \()", b"0 s"),  # compare's last line
    (rb"\(" + _S + rb"(?= of it products)", b"(0 s"),
    (rb"  \(" + _S + rb"\)$", b"  (0 s)"),  # compare -v: of one test
    (rb"(?<=   \()" + _S + rb"(?=, [\d.]+ \w+ read\)$)", b"0 s"),  # compare -v: the line before the tests
    (rb"(?<= in )" + _S + rb"(?=\.$| \()", b"0 s"),  # check, stats
    (rb"\([\d.]+ \w+/s\)", b"(0 B/s)"),
    (rb"(?<=peak memory )[\d.]+ \w+", b"0 B"),
)


def without_noise(output: bytes, here: bytes, is_text: bool) -> bytes:
    """What any two runs print alike, wherever the models lie."""
    for pattern, instead in _NOISE_TEXT if is_text else _NOISE_JSON:
        output = re.sub(pattern, instead, output, flags=re.MULTILINE)
    return output.replace(here + b"/", b"").replace(here, b".")


# Running


@dataclass(frozen=True)
class Run:
    """One command and the name of its output."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """What came of it, noise left out."""

    name: str
    code: int
    stdout: bytes
    stderr: bytes


def _enter(folder: str) -> None:
    """In each worker: models are named from `folder`. Imports to come must not depend on where we are."""
    sys.path[:] = [os.path.abspath(path) for path in sys.path]
    os.chdir(folder)


def call(arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
    """The command line with these arguments: exit code, stdout, stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: object = None
    before, sys.argv = sys.argv, ["weightprint", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            weightprint_main()
    except SystemExit as left:
        code = left.code
    finally:
        sys.argv = before
    out.flush()
    err.flush()
    return int(str(code or 0)), out.buffer.getvalue(), err.buffer.getvalue()


def ran(run: Run) -> Ran:
    """In a worker: run it."""
    code, out, err = call(run.arguments)
    here = os.fsencode(os.getcwd())
    return Ran(run.name, code, without_noise(out, here, run.name.startswith(TEXT)), without_noise(err, here, True))


def all_outputs(zoo: Path, jobs: int, with_text: bool) -> Outputs:
    """Make the inputs, run everything, and give what DIR holds: name → bytes."""
    for name in ("FORCE_COLOR", "WEIGHTPRINT_DEBUG"):
        os.environ.pop(name, None)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"COLUMNS": "160", "NO_COLOR": "1"}  # wide enough that no line breaks where a number of seconds ends
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        plan = [run for run in runs(folder, models(folder, zoo)) if with_text or not run.name.startswith(TEXT)]
        before = digests(folder)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_enter, initargs=(str(folder),)) as pool:
            done = list(pool.map(ran, plan))
    return {"inputs.txt": before} | collected(done)


def collected(done: Iterable[Ran]) -> Outputs:
    """Each stdout is a file, and each stderr that isn't empty; exit codes share one."""
    found: Outputs = {}
    for one in done:
        found[one.name] = one.stdout
        codes = f"{TEXT if one.name.startswith(TEXT) else ''}exit-codes.txt"
        found[codes] = found.get(codes, b"") + f"{one.code} {one.name}\n".encode()
        if one.stderr:
            found[f"{TEXT}stderr/{one.name.removeprefix(TEXT)}"] = one.stderr
    return found


# What is run


def runs(folder: Path, pairs: Pairs) -> Iterator[Run]:
    """Every run: pairs in both orders, and each model by itself."""
    for a, b in (order for pair in pairs for order in (pair, pair[::-1])):
        yield from _of_pair(a, b, {a, b} <= {f"demo/{name}" for name in DEMO})
    for model in sorted({name for pair in pairs for name in pair} | {"made/unsound"}):
        yield from _of_model(model, model.startswith(("demo/", "made/unsound")))
    yield Run("check/made.cut.safetensors.json", ("check", "made/cut.safetensors", "--json"))
    yield Run("text/check/made.cut.safetensors.txt", ("check", "made/cut.safetensors"))
    yield Run("text/demo.txt", ("demo", "-o", "demo-again"))


def _of_pair(a: str, b: str, demo: bool) -> Iterator[Run]:
    name = f"{_flat(a)}--{_flat(b)}"
    yield Run(f"compare/{name}.json", ("compare", a, b, "--json"))
    yield Run(f"diff/{name}.json", ("diff", a, b, "--json"))
    if demo:
        yield Run(f"compare-quick/{name}.json", ("compare", a, b, "--json", "--effort", "quick"))
        yield Run(f"text/compare/{name}.txt", ("compare", a, b))
        yield Run(f"text/compare-verbose/{name}.txt", ("compare", a, b, "-v"))
        yield Run(f"text/diff/{name}.txt", ("diff", a, b))
    if (a, b) in FULL or (b, a) in FULL:
        yield Run(f"compare-full/{name}.json", ("compare", a, b, "--json", "--effort", "full"))


def _of_model(model: str, with_text: bool) -> Iterator[Run]:
    name, everything = _flat(model), ("--exact", "--rows", "--columns", "--digest")
    yield Run(f"check/{name}.json", ("check", model, "--json"))
    yield Run(f"inspect/{name}.json", ("inspect", model, "--json"))
    yield Run(f"stats/{name}.csv", ("stats", model, "--format", "csv", *everything))
    yield Run(f"stats-canonical/{name}.csv", ("stats", model, "--format", "csv", "--canonical"))
    if with_text:
        for verb in ("check", "inspect", "stats"):
            yield Run(f"text/{verb}/{name}.txt", (verb, model))


def _flat(model: str) -> str:
    return model.replace("/", ".")


# The inputs


def models(folder: Path, zoo: Path) -> Pairs:
    """Put every model into `folder`; the pairs to be compared, by their names there."""
    code, _, said = call(["demo", "-o", str(folder / "demo")])
    if code:
        raise SystemExit(f"weightprint demo: {said.decode()}")
    demo = [(f"demo/{a}", f"demo/{b}") for a, b in itertools.combinations(DEMO, 2)]
    return demo + zoo_models(folder / "zoo", zoo) + _parents_copies(folder) + _wide_copies(folder / "made")


def zoo_models(to: Path, zoo: Path) -> Pairs:
    """Copies of the zoo's models that are in a pair."""
    if not (zoo / "PLAN.json").exists():
        raise SystemExit(f"no zoo in {zoo}: python -m benches.lineage build --small --output target/zoo-small")
    pairs = [(f"zoo/{pair.a}", f"zoo/{pair.b}") for pair in choose(FamilyTree.read(zoo), WANT)]
    for name in {Path(model).name for pair in pairs for model in pair}:
        (to / name).mkdir(parents=True)
        for file in (*(zoo / name).glob("*.safetensors"), zoo / name / "config.json"):
            shutil.copy(file, to / name)
    return pairs


def _parents_copies(folder: Path) -> Pairs:
    """The demo's parent quantised, in GGUF, with broken values, and cut; in pairs with it, a stranger, each other."""
    parent, made = folder / "demo" / "parent", folder / "made"
    tensors = {name: x.astype(np.float32) for name, x in load_file(parent / "model.safetensors").items()}
    config = json.loads((parent / "config.json").read_text())
    said = {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": False, "sym": True}
    stored_model(made / "parent-fp8", tensors, makers.fp8_rows, **config)
    stored_model(made / "parent-int8", tensors, makers.int8_rows, **config)
    stored_model(made / "parent-gptq", tensors, gptq, **config, quantization_config=said)
    stored_model(made / "unsound", broken(tensors), makers.plain(BF16), **config)
    for kind in ("F16", "Q8_0"):
        gguf_model(made / f"parent-{kind.lower()}.gguf", tensors, kind)
    whole = (parent / "model.safetensors").read_bytes()
    (made / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    copies = ["parent-fp8", "parent-int8", "parent-gptq", "parent-f16.gguf", "parent-q8_0.gguf"]
    others = [("demo/stranger", "made/parent-gptq"), ("demo/finetune", "made/parent-f16.gguf")]
    others += [("made/parent-fp8", "made/parent-gptq"), ("demo/parent", "made/unsound")]
    return [("demo/parent", f"made/{name}") for name in copies] + others


def _wide_copies(made: Path) -> Pairs:
    """A random model whose rows are whole blocks of 32, as GGUF's codes and MX formats need, and its copies."""
    tensors = makers.llama()
    stored_model(made / "wide", tensors, makers.plain(BF16))
    stored_model(made / "wide-int4", tensors, makers.int4_groups)
    stored_model(made / "wide-mxfp4", tensors, makers.mxfp4)
    for kind in ("F16", "Q8_0", "Q4_0"):
        gguf_model(made / f"wide-{kind.lower()}.gguf", tensors, kind)
    copies = ["wide-int4", "wide-mxfp4", "wide-f16.gguf", "wide-q8_0.gguf", "wide-q4_0.gguf"]
    return [("made/wide", f"made/{name}") for name in copies] + [("made/wide-int4", "made/wide-q4_0.gguf")]


def stored_model(at: Path, tensors: Arrays, how: Callable[[str, Array], Arrays], **config: object) -> None:
    """A folder whose blocks' matrices are stored in some way, and the rest in bfloat16."""
    stored: Arrays = {}
    for name, x in tensors.items():
        stored |= how(name, x) if "_proj" in name else {name: x.astype(BF16)}
    makers.folder(at, encode, stored, **config)


_GROUP = 16


def gptq(name: str, x: Array) -> Arrays:
    """GPTQ's layout, symmetric: four bits along the inputs in words, a scale per group of inputs and output."""
    groups = x.T.reshape(-1, _GROUP, len(x))
    scales = (np.abs(groups).max(1) / 7).astype(np.float16)
    codes = np.clip(np.rint(groups / scales[:, None].astype(np.float32)) + 8, 0, 15).reshape(-1, len(x))
    module = name.removesuffix(".weight")
    return {
        f"{module}.qweight": np.ascontiguousarray(words(codes.T, 4).T),
        f"{module}.qzeros": words(np.full(scales.shape, 7), 4),
        f"{module}.scales": scales,
        f"{module}.g_idx": (np.arange(len(codes)) // _GROUP).astype(np.int32),
    }


def broken(tensors: Arrays) -> Arrays:
    """NaN, infinity, an outlier, rows of zeros, and one tensor under two names."""
    out = {name: x.copy() for name, x in tensors.items()}
    block = "model.layers.{}.{}.weight".format
    out[block(0, "self_attn.q_proj")][3, 5] = np.nan
    out[block(0, "self_attn.o_proj")][7, 1] = -np.inf
    out[block(1, "mlp.down_proj")][2, 2] = 1e4
    out[block(2, "mlp.up_proj")][10:20] = 0
    out[block(3, "self_attn.v_proj")] = out[block(3, "self_attn.k_proj")]
    return out


def gguf_model(at: Path, tensors: Arrays, kind: str) -> None:
    """As llama.cpp's converter writes it: rows of q and k by rotary pairs; no whole blocks, no codes."""
    theirs = {ours: name for name, ours in LLAMA.items()}
    outside = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    out: dict[str, object] = {}
    for name, x in tensors.items():
        path = name.removeprefix("model.").removesuffix(".weight").split(".")
        heads = {"q_proj": 4, "k_proj": 2}.get(path[-1])
        if heads:
            x = np.ascontiguousarray(x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape))
        to = f"blk.{path[1]}.{theirs['.'.join(path[2:])]}" if path[0] == "layers" else outside[path[0]]
        out[f"{to}.weight"] = _in_blocks(x, kind)
    sizes = {
        "block_count": sum(name.endswith("up_proj.weight") for name in tensors),
        "embedding_length": tensors["model.norm.weight"].size,
        "feed_forward_length": len(tensors["model.layers.0.mlp.up_proj.weight"]),
        "head_count": 4,
        "head_count_kv": 2,
    }
    write_gguf(at, out, sizes=sizes)


def _in_blocks(x: Array, kind: str) -> object:
    if x.ndim == 1:
        return x
    if kind == "F16" or x.shape[1] % 32:
        return x.astype(np.float16)
    number = gguf.GGMLQuantizationType[kind]
    return quants.quantize(x, number), number


def digests(folder: Path) -> bytes:
    """One line per file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()} {f.relative_to(folder).as_posix()}\n" for f in files]
    return "".join(lines).encode()


# Record and check


def stored(folder: Path, with_text: bool) -> Outputs:
    """What was recorded."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if "inputs.txt" not in files:
        raise SystemExit(f"nothing was recorded in {folder}")
    return {name: path.read_bytes() for name, path in files.items() if with_text or not name.startswith(TEXT)}


def record(folder: Path, outputs: Mapping[str, bytes]) -> None:
    """One file per output."""
    for name, output in outputs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(output)


def differing(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[str]:
    """Names of what is not the same; the inputs first, since they explain the rest."""
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    return sorted(names, key=lambda name: (name != "inputs.txt", name))


def first_lines(name: str, before: bytes | None, now: bytes | None) -> str:
    """A unified diff that begins a little above the first line that differs."""
    if before is None or now is None:
        return f"{name}: {'not recorded' if before is None else 'recorded, and not there now'}\n"
    old, new = (output.decode("utf-8", "backslashreplace").splitlines() for output in (before, now))
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, alike - 3)
    window = slice(start, alike + WINDOW)
    lines = list(difflib.unified_diff(old[window], new[window], "recorded", "now", lineterm=""))[3:]
    shown = lines or ["only ends of lines differ"]
    return "\n".join([f"{name}, from line {start + 1} (-recorded, +now):", *shown, ""])


def table(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> str:
    """Of each kind of output how many there are and how many differ."""
    kinds, wrong = (
        Counter(name.rpartition("/")[0] or name for name in names)
        for names in (before.keys() | now.keys(), differing(before, now))
    )
    rows = [(kind, kinds[kind], wrong[kind]) for kind in sorted(kinds)]
    rows.append(("all", sum(kinds.values()), sum(wrong.values())))
    return "\n".join([f"{'':24} outputs  differ", *(f"{kind:24} {n:7}  {k:6}" for kind, n, k in rows)])


def check(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> int:
    """Print what differs and the table; 1 if anything does."""
    wrong = differing(before, now)
    for name in wrong[:SHOWN]:
        print(first_lines(name, before.get(name), now.get(name)))
    for name in wrong[SHOWN:]:
        print(f"{name}: differs too")
    print(table(before, now))
    return 1 if wrong else 0


def main() -> int:
    """Record, or check against what was recorded."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.same_output", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["record", "check"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="the small zoo (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--json-only", action="store_true", help="leave out texts for people, stderr among them")
    args = parser.parse_args()
    if args.command == "record" and args.folder.exists() and any(args.folder.iterdir()):
        raise SystemExit(f"{args.folder} holds something: record into a new folder")
    before = stored(args.folder, not args.json_only) if args.command == "check" else {}
    started = time.perf_counter()
    now = all_outputs(args.zoo, args.jobs, not args.json_only)
    said = f"{len(now)} outputs of {Path(weightprint.__file__).parent} in {time.perf_counter() - started:.0f} s"
    if args.command == "check":
        code = check(before, now)
        print(said)
        return code
    record(args.folder, now)
    print(f"{said}, recorded in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
