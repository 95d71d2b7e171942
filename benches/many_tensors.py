"""What many small tensors cost: ``python -m benches.many_tensors [--tensors 100000] [--layouts …] [--verbs …]``.

Writes two F16 models of each layout (half of B's values are A's) to a temporary folder, runs the command on them, and
prints CPU seconds (user and system) and the peak resident memory of each run as Markdown. Layouts:

    flat        layers.0.weight …, one value each: the smallest header per tensor (8 MB for 100,000)
    words       made-up names of words and random digits, eight shapes; nothing can be told from names
    experts     a mixture of experts: blocks of 256 experts with three matrices each
    blocks      a Llama of very many tiny blocks
    lora        PEFT's pairs of factors
    scalars     scalars under unrelated names
    shards      `blocks` in 100 files with an index

Measured once each on a 2-core machine under a load of 8 to 12, with predecessors of these layouts in single files
(CPU s / MB, before → after scans stopped keeping room for sketches and results):

    100,000 flat     inspect 3.8 / 191 → 2.7 / 149, stats 7.0 / 666 → 5.9 / 308, check 17.9 / 671 → 16.9 / 275,
                     diff 12.8 / 447 → 13.9 / 447, fingerprint 10.7 / 689 → 10.8 / 488, compare 21.0 / 615 after
    100,000 words    inspect 7.3 / 202 → 7.7 / 230
    100,000 experts  inspect 3.0 / 171 → 3.6 / 171
    990,000 flat     inspect 32.5 / 953 after
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

Layout = list[tuple[str, tuple[int, ...]]]
_WORDS = ("kernel", "bias", "weight", "scale", "proj", "attn", "norm", "embed", "conv", "gate", "query", "key", "dense")


def _flat(n: int) -> Layout:
    return [(f"layers.{i}.weight", (1,)) for i in range(n)]


def _words(n: int) -> Layout:
    rng = np.random.default_rng(0)
    shapes = [(2, 2), (3,), (4, 8), (1,), (8, 4), (2, 3, 2), (8,), ()]
    found: dict[str, tuple[int, ...]] = {}
    while len(found) < n:
        words = "".join(_WORDS[i] + ".-_"[rng.integers(3)] for i in rng.integers(0, len(_WORDS), rng.integers(2, 6)))
        found[f"{words}{rng.integers(1 << 30):x}"] = shapes[rng.integers(len(shapes))]
    return list(found.items())


def _attention(block: str, d: int) -> Layout:
    norms = [(f"{block}{norm}_layernorm.weight", (d,)) for norm in ("input", "post_attention")]
    return norms + [(f"{block}self_attn.{q}_proj.weight", (d, d)) for q in "qkvo"]


def _ffn(front: str, d: int, f: int) -> Layout:
    return [(f"{front}{role}_proj.weight", (d, f) if role == "down" else (f, d)) for role in ("gate", "up", "down")]


def _model(n: int, block: Callable[[str], Layout], d: int) -> Layout:
    inside = block("")
    blocks = range(max(2, n // len(inside)))
    ends: Layout = [("model.embed_tokens.weight", (32, d)), ("model.norm.weight", (d,)), ("lm_head.weight", (32, d))]
    return ends + [(f"model.layers.{b}.{name}", shape) for b in blocks for name, shape in inside]


def _experts(n: int) -> Layout:
    def block(front: str) -> Layout:
        router: Layout = [(f"{front}mlp.gate.weight", (256, 8))]
        return router + _attention(front, 8) + [t for e in range(256) for t in _ffn(f"{front}mlp.experts.{e}.", 8, 4)]

    return _model(n, block, 8)


def _blocks(n: int) -> Layout:
    return _model(n, lambda front: _attention(front, 4) + _ffn(f"{front}mlp.", 4, 8), 4)


def _lora(n: int) -> Layout:
    front = "base_model.model.model.layers"
    targets = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
    modules = (f"{front}.{b}.{target}" for b in range(n) for target in targets)
    return [
        t for m in islice(modules, n // 2) for t in ((f"{m}.lora_A.weight", (2, 4)), (f"{m}.lora_B.weight", (4, 2)))
    ]


def _scalars(n: int) -> Layout:
    rng = np.random.default_rng(0)
    return [(f"{_WORDS[i % len(_WORDS)]}_{rng.integers(1 << 40):x}_{i}", ()) for i in range(n)]


#: Name → tensors of about that many, and how many files they are written to.
LAYOUTS: dict[str, tuple[Callable[[int], Layout], int]] = {
    "flat": (_flat, 1),
    "words": (_words, 1),
    "experts": (_experts, 1),
    "blocks": (_blocks, 1),
    "lora": (_lora, 1),
    "scalars": (_scalars, 1),
    "shards": (_blocks, 100),
}
VERBS = ("inspect", "stats", "check", "fingerprint", "diff", "compare")


def write(folder: Path, layout: Layout, files: int, seed: int) -> None:
    """A model of that layout; half of the values are those of every other seed."""
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for k in range(files):
        tensors = layout[k::files]
        name = "model.safetensors" if files == 1 else f"model-{k + 1:05}-of-{files:05}.safetensors"
        sizes = [2 * prod(shape) for _, shape in tensors]
        ends = np.cumsum(sizes).tolist()
        header = {
            tensor: {"dtype": "F16", "shape": shape, "data_offsets": [end - size, end]}
            for (tensor, shape), size, end in zip(tensors, sizes, ends, strict=True)
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        ours, all_the_same = (
            0.02 * np.random.default_rng([s, k]).standard_normal(sum(sizes) // 2).astype(np.float16) for s in (seed, 0)
        )
        values = np.where(np.random.default_rng([seed, k, 1]).random(ours.size) < 0.5, ours, all_the_same)
        text += b" " * (-len(text) % 8)
        (folder / name).write_bytes(len(text).to_bytes(8, "little") + text + values.astype("<f2").tobytes())
        weight_map |= dict.fromkeys((tensor for tensor, _ in tensors), name)
    if files > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def run(arguments: Sequence[str]) -> tuple[float, float, int]:
    """CPU seconds, peak MB of resident memory, and exit status of one command; its output is thrown away."""
    command = [sys.executable, "-m", "weightprint", *arguments]
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=silent)
    _, status, used = os.wait4(child, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=100_000)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    chosen = parser.parse_args()
    print(f"{chosen.tensors:,} tensors: CPU seconds / peak MB\n")
    print("| layout | " + " | ".join(chosen.verbs) + " |\n|:---|" + "---:|" * len(chosen.verbs))
    for name in chosen.layouts:
        make, files = LAYOUTS[name]
        with tempfile.TemporaryDirectory() as scratch:
            a, b = Path(scratch) / "a", Path(scratch) / "b"
            layout = make(chosen.tensors)
            write(a, layout, files, 1)
            write(b, layout, files, 2)
            cells = []
            for verb in chosen.verbs:
                more = {"diff": [str(b)], "compare": [str(b)], "fingerprint": ["-o", f"{scratch}/kept.fp"]}
                seconds, mb, status = run([verb, str(a), *more.get(verb, [])])
                cells.append(f"{seconds:.1f} / {mb:.0f}" + f" (exit {status})" * (status not in (0, 1)))
                print(f"{name} {verb}: {cells[-1]}", file=sys.stderr)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
