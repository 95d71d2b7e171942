"""Dense to Mixture of Experts and back: upcycling by copy, by split, experts duplicated, shuffled, taken out.

Copies behind any router whose weights are normalised over the chosen experts compute what the dense FFN did (sparse
upcycling, arXiv 2212.05055); a share of units drawn anew lets experts grow apart (Drop-Upcycling, arXiv 2502.19261).
Split experts each take a range of the units, with their output scaled up by the number of parts, since the router's
weights average what the dense FFN summed (DeepSeekMoE's fine-grained experts, arXiv 2401.06066, and LLaMA-MoE,
arXiv 2406.16554).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ffn import set_width
from .spelling import layer_of
from .work import Array, Work, operation, partly_shuffled

_PARTS = ("gate_proj", "up_proj", "down_proj")


@operation(
    forms=("llama", "qwen2"),
    preserves=True,
    strengths=({"fresh": 0.0}, {"fresh": 0.25}, {"fresh": 0.5, "experts": 8}),
)
def moe_upcycling(work: Work, experts: int = 4, used: int = 2, fresh: float = 0.0, router_sd: float = 0.02) -> None:
    """Every expert a copy of the block's FFN in which a share `fresh` of the units is drawn anew; a new router."""
    for ffn in work.ffns():
        width = work.width(ffn)
        _router(work, ffn, experts, router_sd)
        for e in range(experts):
            units = np.arange(width)
            units[work.rng.choice(width, round(fresh * width), replace=False)] = -1
            for part in _PARTS:
                x = work.tensors[f"{ffn}.{part}.weight"]
                new = work.rng.normal(0, x.std(), x.shape) if fresh else x
                mask = (units < 0) if part == "down_proj" else (units < 0)[:, None]
                work.tensors[f"{ffn}.experts.{e}.{part}.weight"] = np.where(mask, new, x).astype(np.float32)
            work.experts[f"{ffn}.experts.{e}"] = (_layer(ffn), None)
            work.units[f"{ffn}.experts.{e}"] = units if fresh else None
        _remove(work, ffn)
    _sparse_config(work, experts, used)


@operation(
    forms=("llama", "qwen2"),
    preserves=True,
    strengths=({"parts": 2, "used": 2}, {"parts": 4, "used": 4}, {"parts": 4, "copies": 2, "used": 4}),
)
def expert_split(
    work: Work, parts: int = 4, copies: int = 1, used: int = 2, router_sd: float = 0.0, scaled: bool = True
) -> None:
    """Experts that take a range of the units each: `parts` of them, all of it `copies` times over."""
    for ffn in work.ffns():
        width = work.width(ffn)
        if width % parts:
            raise ValueError(f"{width} units do not split into {parts} experts")
        _router(work, ffn, parts * copies, router_sd)
        for e in range(parts * copies):
            units = np.arange(width).reshape(parts, -1)[e % parts]
            for part in _PARTS:
                x = work.tensors[f"{ffn}.{part}.weight"]
                x = x[:, units] * np.float32(parts if scaled else 1) if part == "down_proj" else x[units]
                work.tensors[f"{ffn}.experts.{e}.{part}.weight"] = np.ascontiguousarray(x)
            work.experts[f"{ffn}.experts.{e}"] = (_layer(ffn), None)
            work.units[f"{ffn}.experts.{e}"] = units
        _remove(work, ffn)
    _sparse_config(work, parts * copies, used)


def _layer(ffn: str) -> int:
    layer = layer_of(ffn + ".")
    assert layer is not None
    return layer


def _router(work: Work, ffn: str, experts: int, sd: float) -> None:
    work.tensors[f"{ffn}.gate.weight"] = (sd * work.rng.standard_normal((experts, work.hidden))).astype(np.float32)


def _remove(work: Work, ffn: str) -> None:
    for part in _PARTS:
        del work.tensors[f"{ffn}.{part}.weight"]


def _sparse_config(work: Work, experts: int, used: int) -> None:
    """What a loader of DeepSeek's first MoE expects."""
    width = work.width(work.ffns()[0])
    work.config |= {
        "architectures": ["DeepseekForCausalLM"], "model_type": "deepseek", "moe_intermediate_size": width,
        "n_routed_experts": experts, "num_experts_per_tok": used, "n_shared_experts": None, "norm_topk_prob": True,
        "scoring_func": "softmax", "first_k_dense_replace": 0, "moe_layer_freq": 1,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in work.tensors,
    }  # fmt: skip
    work.form = "moe"


@operation(forms=("moe",), preserves=True, strengths=({"times": 2}, {"times": 2, "noise": 0.05}))
def expert_duplication(work: Work, times: int = 2, noise: float = 0.0) -> None:
    """Every expert `times` times, one set after the other, its row of the router too; twice as many are used.

    `noise` is added to the copies after the first, relative to each matrix's spread.
    """
    for i in range(work.depth):
        ffns = work.ffns(i)
        router = f"model.layers.{i}.mlp.gate.weight"
        work.tensors[router] = np.tile(work.tensors[router], (times, 1))
        for copy in range(times):
            for e, ffn in enumerate(ffns):
                name = f"model.layers.{i}.mlp.experts.{copy * len(ffns) + e}"
                for part in _PARTS:
                    x = work.tensors[f"{ffn}.{part}.weight"]
                    drawn = noise * x.std() * work.rng.standard_normal(x.shape) if noise and copy else 0
                    work.tensors[f"{name}.{part}.weight"] = (x + drawn).astype(np.float32)
                work.experts[name] = (i, e)
    work.set("experts", times * int(work.get("experts")))
    work.set("used", times * int(work.get("used")))


@operation(forms=("moe",), preserves=True, strengths=({"share": 1.0}, {"share": 0.5}))
def expert_shuffle(work: Work, share: float = 1.0) -> None:
    """Reorder the experts of every block, and the rows of its router."""
    old = dict(work.tensors)
    for i in range(work.depth):
        order = partly_shuffled(work.rng, len(work.ffns(i)), share)
        work.take("expert", order, under=f"model.layers.{i}.mlp")
        for e, source in enumerate(order.tolist()):
            at = f"model.layers.{i}.mlp.experts"
            for part in _PARTS:
                work.tensors[f"{at}.{e}.{part}.weight"] = old[f"{at}.{source}.{part}.weight"]
            work.experts[f"{at}.{e}"] = (i, source)


@operation(forms=("moe",), strengths=({"groups": 2}, {"groups": 2, "weighted": True}, {"groups": 3}))
def experts_merged(work: Work, groups: int = 2, weighted: bool = False) -> None:
    """The experts of every block drawn into so many groups, each of which becomes its mean, or a mean weighted at
    random; the router's rows likewise."""
    made = []
    for i in range(work.depth):
        ffns, at = work.ffns(i), f"model.layers.{i}.mlp"
        order = work.rng.permutation(len(ffns))
        sets = [np.sort(order[g::groups]) for g in range(groups)]
        shares = [work.rng.uniform(0.5, 1.5, len(s)) if weighted else np.ones(len(s)) for s in sets]
        mix = np.zeros((groups, len(ffns)))
        for g, (members, share) in enumerate(zip(sets, shares, strict=True)):
            mix[g, members] = share / share.sum()
        old = {part: np.stack([work.tensors[f"{f}.{part}.weight"] for f in ffns]) for part in _PARTS}
        for f in ffns:
            _remove(work, f)
        for part, stack in old.items():
            for g, x in enumerate(np.tensordot(mix, stack.astype(np.float64), axes=1).astype(np.float32)):
                work.tensors[f"{at}.experts.{g}.{part}.weight"] = x
        work.tensors[f"{at}.gate.weight"] = (mix @ work.tensors[f"{at}.gate.weight"]).astype(np.float32)
        work.gathered += [[i, g, i, None, int(e)] for g, members in enumerate(sets) for e in members]
        made.append([i, [{str(e): float(row[e]) for e in np.flatnonzero(row)} for row in mix]])
    work.note(made=made)
    work.set("experts", groups)
    work.set("used", min(groups, int(work.get("used"))))


@operation(
    forms=("moe",),
    strengths=({"method": "one"}, {"method": "mean"}, {"method": "concatenation"}),
)
def moe_to_dense(
    work: Work, method: str = "one", experts: Sequence[int] | None = None, weights: Sequence[float] | None = None
) -> None:
    """A dense FFN out of a block's experts: `one` of them, their `mean` (with weights), or their `concatenation`.

    In a concatenation every expert's output is multiplied by its weight, as the router would have done on average.
    """
    count = len(work.ffns(0))
    if experts is None:
        experts = [int(work.rng.integers(count))] if method == "one" else list(range(count))
    share = np.full(len(experts), 1 / len(experts)) if weights is None else np.asarray(weights, np.float64)
    if method not in ("one", "mean", "concatenation") or (method == "one" and len(experts) != 1):
        raise ValueError("method is one (with one expert), mean or concatenation")
    work.note(experts=list(experts), weights=share)
    for i in range(work.depth):
        at = f"model.layers.{i}.mlp"
        for part in _PARTS:
            stack = [work.tensors[f"{at}.experts.{e}.{part}.weight"] for e in experts]
            work.tensors[f"{at}.{part}.weight"] = _joined(method, part, stack, share).astype(np.float32)
        for name in [n for n in work.tensors if n.startswith((f"{at}.experts.", f"{at}.gate."))]:
            del work.tensors[name]
        work.gathered += [[i, None, i, None, e] for e in experts]
    for key in [k for k in work.config if "expert" in k or k.startswith(("moe_", "first_k", "norm_topk", "scoring"))]:
        del work.config[key]
    work.config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    work.form = "qwen2" if work.config.get("attention_bias") else "llama"
    set_width(work)


def _joined(method: str, part: str, stack: Sequence[Array], share: Array) -> Array:
    if method != "concatenation":
        return np.asarray(sum(w * x.astype(np.float64) for w, x in zip(share, stack, strict=True)))
    if part == "down_proj":
        return np.concatenate([w * x for w, x in zip(share, stack, strict=True)], axis=1)
    return np.concatenate(stack)
