"""Synthetic models at the shapes of Qwen2.5-14B, Pangu Pro MoE and DeepSeek-V3, to measure time and memory on.

    python -m benches.lineage big-shapes DIR --shape qwen2.5-14b --layers 2 --kind root
    python -m benches.lineage big-shapes DIR --shape pangu-pro-moe --layers 2 --kind upcycled

Roots have what makes strangers look alike: a common trend of spread over depth, heavy tails, rows that are correlated,
columns with means of their own, a few outlier channels that are the same in all blocks. Value (r, c) of a matrix is

    .02 (1 + depth) · b_c · (n s + .7 Σ_k u_rk v_ck + .5 |m_c|)      n, u, v, m normal, s log-normal; b = 8 on outliers

drawn in blocks of 128 rows from (seed, tensor, block), so any rows of any tensor can be drawn again alone. Nothing
larger than one matrix is ever held: shards are written row block by row block. Children are drawn the same way: the
root's rows, taken in another order or by ranges, plus noise of sd `noise` · .02 (1 + depth).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..zoo.model_folder import Truth
from ..zoo.operations.encoding import fp8_blocks

Array = NDArray[Any]
ROWS = 128  #: rows drawn together; the block of DeepSeek's FP8 too
CHUNK = 16  #: row blocks held at once
#: 256 quantiles of a log-normal factor: a scale mixture of normals has heavy tails.
_HEAVY = np.exp([0.4 * NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]).astype(np.float32)
KINDS = ("root", "noised", "permuted", "upcycled")


@dataclass(frozen=True)
class Shape:
    """A model's shape. `latent` is MLA's (q rank, kv rank, nope, rope, value) widths."""

    model_type: str
    hidden: int
    depth: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    experts: int = 0
    shared: int = 0
    used: int = 8
    biases: bool = False
    latent: tuple[int, int, int, int, int] | None = None
    fp8: bool = False


SHAPES = {
    "qwen2.5-14b": Shape("qwen2", 5120, 48, 40, 8, 13824, 152064, biases=True),
    "pangu-pro-moe": Shape(
        "PanguProMoE", 5120, 48, 40, 8, 1344, 153376, experts=64, shared=5376, biases=True
    ),
    "deepseek-v3": Shape(
        "deepseek_v3", 7168, 61, 128, 128, 2048, 129280, experts=256, shared=2048, latent=(1536, 512, 128, 64, 128),
        fp8=True,
    ),
    # Llama-3.2-3B's widths, with 32 layers and a head of its own: 4.0e9 parameters, 8.0 GB.
    "llama-8gb": Shape("llama", 3072, 32, 24, 8, 8192, 128256),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One model to write: `layers` and `experts` say how many of the shape's are made."""

    shape: Shape
    layers: int = 2
    experts: int = 0
    vocabulary: int = 0
    kind: str = "root"
    seed: int = 0
    noise: float = 0.05

    @property
    def routed(self) -> int:
        return min(self.experts or self.shape.experts, self.shape.experts)

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return min(self.vocabulary or self.shape.vocabulary, self.shape.vocabulary)


@dataclass(frozen=True)
class Entry:
    """A tensor: its shape, its depth from 0 to 1, and which axis the residual channels run along, if any.

    ``source`` is the tensor of the root that it is drawn like; ``take`` and ``across`` its rows and columns there.
    """

    shape: tuple[int, ...]
    depth: float
    channel: int | None
    source: str
    take: Array | None = None
    across: Array | None = None


def entries(plan: Plan) -> dict[str, Entry]:
    """Every tensor of the plan in the order of the computation."""
    s = plan.shape
    out: dict[str, Entry] = {}

    def put(name: str, shape: tuple[int, ...], depth: float, channel: int | None) -> None:
        out[name] = Entry(shape, depth, channel, name)

    put("model.embed_tokens.weight", (plan.rows, s.hidden), 0, 1)
    for i in range(plan.layers):
        depth, at = i / s.depth, f"model.layers.{i}"
        put(f"{at}.input_layernorm.weight", (s.hidden,), depth, 0)
        for name, size, channel in _attention(s):
            put(f"{at}.self_attn.{name}", size, depth, channel)
        put(f"{at}.post_attention_layernorm.weight", (s.hidden,), depth, 0)
        if s.experts:
            put(f"{at}.mlp.gate.weight", (plan.routed, s.hidden), depth, 1)
        if s.model_type == "deepseek_v3":
            put(f"{at}.mlp.gate.e_score_correction_bias", (plan.routed,), depth, None)
        shared = "shared_experts" if s.model_type == "deepseek_v3" else "shared_expert"
        ffns = [(f"{at}.mlp.experts.{e}", s.ffn) for e in range(plan.routed)] if s.experts else [(f"{at}.mlp", s.ffn)]
        for ffn, width in [*ffns, *([(f"{at}.mlp.{shared}", s.shared)] if s.shared else [])]:
            put(f"{ffn}.gate_proj.weight", (width, s.hidden), depth, 1)
            put(f"{ffn}.up_proj.weight", (width, s.hidden), depth, 1)
            put(f"{ffn}.down_proj.weight", (s.hidden, width), depth, 0)
    put("model.norm.weight", (s.hidden,), 1, 0)
    put("lm_head.weight", (plan.rows, s.hidden), 1, 1)
    return out


def _attention(s: Shape) -> Iterator[tuple[str, tuple[int, ...], int | None]]:
    if s.latent is not None:
        q, kv, nope, rope, value = s.latent
        yield "q_a_proj.weight", (q, s.hidden), 1
        yield "q_a_layernorm.weight", (q,), None
        yield "q_b_proj.weight", (s.heads * (nope + rope), q), None
        yield "kv_a_proj_with_mqa.weight", (kv + rope, s.hidden), 1
        yield "kv_a_layernorm.weight", (kv,), None
        yield "kv_b_proj.weight", (s.heads * (nope + value), kv), None
        yield "o_proj.weight", (s.hidden, s.heads * value), 0
        return
    head = s.hidden // s.heads
    for part, heads in (("q", s.heads), ("k", s.kv_heads), ("v", s.kv_heads)):
        yield f"{part}_proj.weight", (heads * head, s.hidden), 1
        if s.biases:
            yield f"{part}_proj.bias", (heads * head,), None
    yield "o_proj.weight", (s.hidden, s.heads * head), 0


def drawn(seed: int, name: str, entry: Entry, start: int, stop: int) -> Array:
    """Rows start to stop of a root's tensor, float32; vectors are drawn whole."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    size = entry.shape[entry.channel] if entry.channel is not None else 0
    boost = np.ones(size, np.float32)
    boost[np.random.default_rng([seed, size]).choice(size, 3, replace=False) if size else []] = 8
    if len(entry.shape) == 1:
        trend = 0.4 + entry.depth if "norm" in name else 0.0
        vector = trend + 0.1 * rng.standard_normal(entry.shape)
        return (vector * boost**0.66 if entry.channel is not None else vector).astype(np.float32)
    columns = entry.shape[1]
    common = rng.standard_normal((2, columns), dtype=np.float32)
    means = 0.5 * np.abs(rng.standard_normal(columns, dtype=np.float32))
    blocks = []
    for block in range(start // ROWS, -(-stop // ROWS)):
        own = np.random.default_rng([seed, zlib.crc32(name.encode()), block])
        n = min(ROWS, entry.shape[0] - block * ROWS)
        x = own.standard_normal((n, columns), dtype=np.float32)
        x *= _HEAVY[own.integers(0, 256, (n, columns), np.uint8)]
        x += np.float32(0.7) * own.standard_normal((n, 2), dtype=np.float32) @ common + means
        blocks.append(x)
    first = start // ROWS * ROWS
    out = np.concatenate(blocks)[start - first : stop - first]
    out *= np.float32(0.02 * (1 + entry.depth))
    if entry.channel is not None:
        out *= boost if entry.channel == 1 else boost[start:stop, None]
    return out


def child_of(plan: Plan) -> tuple[dict[str, Entry], dict[str, Entry], dict[str, Any]]:
    """(the child's tensors, the root's tensors, fields of the truth)."""
    mine = entries(plan)
    if plan.kind in ("root", "noised"):
        return mine, mine, {}
    rng = np.random.default_rng([plan.seed, 5])
    if plan.kind == "permuted":
        maps: dict[str, Any] = {"unit_map": {}, "expert_map": []}
        for name in [n for n in mine if n.endswith(".up_proj.weight")]:
            ffn = name.removesuffix(".up_proj.weight")
            order = rng.permutation(mine[name].shape[0])
            for part in ("gate", "up"):
                at = f"{ffn}.{part}_proj.weight"
                mine[at] = Entry(mine[at].shape, mine[at].depth, mine[at].channel, at, take=order)
            at = f"{ffn}.down_proj.weight"
            mine[at] = Entry(mine[at].shape, mine[at].depth, mine[at].channel, at, across=order)
            layer, last = int(ffn.split(".")[2]), ffn.rpartition(".")[2]
            if last == "mlp":
                maps["unit_map"][str(layer)] = order.tolist()
            elif last.isdigit():
                maps["expert_map"].append([layer, int(last), layer, order.tolist(), int(last)])
        return mine, entries(Plan(**{**plan.__dict__, "kind": "root"})), maps
    return _upcycled(plan, mine, rng)


def _upcycled(
    plan: Plan, mine: dict[str, Entry], rng: np.random.Generator
) -> tuple[dict[str, Entry], dict[str, Entry], dict[str, Any]]:
    """Pangu's shape out of a dense root of Qwen's: every expert a random range of its block's units."""
    s = plan.shape
    dense = Shape("qwen2", s.hidden, s.depth, s.heads, s.kv_heads, 10 * s.ffn + 384, s.vocabulary, biases=s.biases)
    dense = SHAPES["qwen2.5-14b"] if s == SHAPES["pangu-pro-moe"] else dense
    root = entries(Plan(dense, plan.layers, vocabulary=plan.rows))
    expert_map: list[list[Any]] = []
    shared: list[list[int]] = []  # first unit and the one after the last, block by block
    for name, entry in list(mine.items()):
        if ".mlp." not in name or not name.endswith("_proj.weight"):
            continue
        ffn, _, part = name.removesuffix(".weight").rpartition(".")
        layer = int(name.split(".")[2])
        source = f"model.layers.{layer}.mlp.{part}.weight"
        width = entry.shape[0 if part != "down_proj" else 1]
        if part == "gate_proj":  # the first of an expert's three: its range holds for all
            start = int(rng.integers(dense.ffn - width))
            units = np.arange(start, start + width)
            if ffn.rpartition(".")[2].isdigit():
                expert_map.append([layer, int(ffn.rpartition(".")[2]), layer, units.tolist(), None])
            else:
                shared.append([start, start + width])
        take, across = (None, units) if part == "down_proj" else (units, None)
        mine[name] = Entry(entry.shape, entry.depth, entry.channel, source, take, across)
    return mine, root, {"expert_map": expert_map, "shared": shared}


def chunks(plan: Plan, name: str, mine: Entry, root: Mapping[str, Entry]) -> Iterator[Array]:
    """A tensor's rows, float32, in order; a permuted matrix is drawn whole first."""
    source = root.get(mine.source)
    rng = np.random.default_rng([plan.seed, 6, zlib.crc32(name.encode())])
    if source is None:  # a router: new in the child
        source = mine
    if len(mine.shape) == 1:
        yield _noised(plan, source, rng, drawn(plan.seed, mine.source, source, 0, mine.shape[0]))
        return
    first = 0 if mine.take is None else int(mine.take[0])
    ordered = mine.take is None or bool((np.diff(mine.take) == 1).all())
    whole = None if ordered else drawn(plan.seed, mine.source, source, 0, source.shape[0])
    for start in range(0, mine.shape[0], ROWS * CHUNK):
        stop = min(start + ROWS * CHUNK, mine.shape[0])
        if whole is not None and mine.take is not None:
            x = whole[mine.take[start:stop]]
        else:
            x = drawn(plan.seed, mine.source, source, first + start, first + stop)
        yield _noised(plan, source, rng, x if mine.across is None else x[:, mine.across])


def _noised(plan: Plan, entry: Entry, rng: np.random.Generator, x: Array) -> Array:
    if plan.kind == "root" or not plan.noise:
        return x
    sd = np.float32(plan.noise * (0.1 if x.ndim == 1 else 0.02 * (1 + entry.depth)))
    return np.asarray(x + sd * rng.standard_normal(x.shape, dtype=np.float32))


def write(folder: Path, plan: Plan, shard_bytes: int = 2 << 30) -> Path:
    """Write a model in shards with its index, config and truth; a folder that is there is left alone."""
    if folder.exists():
        return folder
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    mine, root, maps = child_of(plan)
    stored = {name: _stored(plan, name, entry) for name, entry in mine.items()}
    shards: list[list[str]] = [[]]
    for name, fields in stored.items():
        if shards[-1] and sum(n for f in shards[-1] for _, _, _, n in stored[f]) + fields[0][3] > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    weight_map: dict[str, str] = {}
    for k, names in enumerate(shards):
        file = f"model-{k + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(part / file, plan, {n: mine[n] for n in names}, root, {n: stored[n] for n in names})
        weight_map |= {field[0]: file for n in names for field in stored[n]}
    total = sum(field[3] for fields in stored.values() for field in fields)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (part / "model.safetensors.index.json").write_text(json.dumps(index))
    (part / "config.json").write_text(json.dumps(config(plan), indent=1))
    (part / "truth.json").write_text(json.dumps(asdict(_truth(folder.name, plan, maps))))
    part.rename(folder)
    return folder


def _stored(plan: Plan, name: str, entry: Entry) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, dtype, shape, bytes) of what a tensor is stored as: FP8 has its scales beside it."""
    count = int(np.prod(entry.shape))
    if plan.shape.fp8 and name.endswith(("_proj.weight", "_mqa.weight")):
        scales = tuple(-(-n // ROWS) for n in entry.shape)
        size = 4 * int(np.prod(scales))
        return [(name, "F8_E4M3", entry.shape, count), (f"{name}_scale_inv", "F32", scales, size)]
    return [(name, "BF16", entry.shape, 2 * count)]


def _write_shard(
    path: Path,
    plan: Plan,
    mine: Mapping[str, Entry],
    root: Mapping[str, Entry],
    stored: Mapping[str, list[tuple[str, str, tuple[int, ...], int]]],
) -> None:
    header: dict[str, Any] = {}
    at = 0
    for fields in stored.values():
        for name, dtype, shape, size in fields:
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in mine.items():
            scales = []
            for x in chunks(plan, name, entry, root):
                if len(stored[name]) == 2:
                    values, scale = fp8_blocks(x, ROWS)
                    scales.append(scale)
                    file.write(values.tobytes())
                else:
                    file.write(x.astype(ml_dtypes.bfloat16).tobytes())
            for scale in scales:
                file.write(scale.tobytes())


def config(plan: Plan) -> dict[str, Any]:
    """What a loader would expect beside the weights."""
    s = plan.shape
    out: dict[str, Any] = {
        "model_type": s.model_type, "hidden_size": s.hidden, "num_hidden_layers": plan.layers,
        "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads, "vocab_size": plan.rows,
        "intermediate_size": s.ffn, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu",
    }  # fmt: skip
    if s.experts:
        out |= {"moe_intermediate_size": s.ffn, "num_experts_per_tok": s.used}
        out |= {"n_routed_experts" if s.latent else "num_experts": plan.routed, "first_k_dense_replace": 0}
        out |= {"n_shared_experts": 1} if s.latent else {"shared_expert_intermediate_size": s.shared}
    if s.latent is not None:
        words = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        out |= dict(zip(words, s.latent, strict=True))
    if s.fp8:
        out["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [ROWS, ROWS]}
    return out


def _truth(name: str, plan: Plan, maps: Mapping[str, Any]) -> Truth:
    form = "moe" if plan.shape.experts else "qwen2"
    root = f"synthetic-{plan.seed}"
    if plan.kind == "root":
        return Truth(name, "root", form, (root,))
    done: list[dict[str, Any]] = [{"name": "gaussian_noise", "parameters": {"relative": plan.noise, "seed": plan.seed}}]
    first = {"permuted": "unit_permutation", "upcycled": "expert_split"}.get(plan.kind)
    if first:
        shared = {"shared_units": maps["shared"]} if "shared" in maps else {}
        done.insert(0, {"name": first, "parameters": {"seed": plan.seed, **shared}})
    kept = {key: value for key, value in maps.items() if key != "shared"}
    return Truth(name, "descendant", form, (root,), (root,), tuple(done), **kept)


def add_command(commands: Any) -> None:
    """The command line of this module, under `python -m benches.lineage`."""
    parser = commands.add_parser("big-shapes", help="synthetic models at the shapes of Qwen2.5-14B, Pangu and DeepSeek")
    parser.add_argument("output", type=Path, help="the model's folder")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-14b")
    parser.add_argument("--kind", choices=KINDS, default="root")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", type=int, default=8, help="of each block (%(default)s)")
    parser.add_argument("--vocabulary", type=int, default=32000, help="rows of the embedding at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="children of a root have its seed")
    parser.add_argument("--noise", type=float, default=0.05, help="of children, relative (%(default)s)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    plan = Plan(SHAPES[args.shape], args.layers, args.experts, args.vocabulary, args.kind, args.seed, args.noise)
    if plan.kind == "upcycled" and not plan.shape.experts:
        raise SystemExit("only a Mixture of Experts can be upcycled")
    write(args.output, plan)
