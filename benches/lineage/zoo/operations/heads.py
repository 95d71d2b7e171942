"""Attention heads: pruned, keys and values pooled into fewer (GQA from MHA, arXiv 2305.13245), or all replaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .ffn import strongest
from .reparameterisation import take_heads
from .work import GATED, Array, Work, operation


@operation(forms=GATED, strengths=({"keep": 0.75}, {"keep": 0.5}))
def head_pruning(work: Work, keep: float = 0.5, by: str = "norm") -> None:
    """Keep a share of the k/v heads of every block, each with its query heads, in order."""
    width, count, group = work.head_dim, work.kv_heads, work.heads // work.kv_heads
    n = max(1, round(keep * count))
    kept = []
    for i in range(work.depth):
        if by == "norm":
            x = work.tensors[f"model.layers.{i}.self_attn.o_proj.weight"]
            chosen = strongest((x**2).reshape(len(x), count, -1).sum((0, 2)), n)
        else:
            chosen = np.sort(work.rng.choice(count, n, replace=False))
        kept.append(chosen.tolist())
        take_heads(work, i, (chosen[:, None] * group + np.arange(group)).ravel(), chosen, width)
    work.set("heads", n * group)
    work.set("kv_heads", n)
    work.config["head_dim"] = width
    work.note(kept_kv_heads=kept)


@operation(forms=GATED, strengths=({},))
def heads_to_gqa(work: Work, kv_heads: int | None = None) -> None:
    """Fewer k/v heads: neighbours averaged. Default: half of them."""
    width, old = work.head_dim, work.kv_heads
    new = old // 2 if kv_heads is None else kv_heads
    if new < 1 or old % new:
        raise ValueError(f"{old} k/v heads do not pool into {new}")

    def pooled(x: Array, _: int) -> Array:
        return np.asarray(x.reshape(new, old // new, width, *x.shape[1:]).mean(1).reshape(new * width, *x.shape[1:]))

    work.along("key", pooled)
    work.along("value", pooled)
    work.set("kv_heads", new)
    work.note(kv_heads=new)


@operation(forms=("llama",), strengths=({}, {"form": "latent", "kept": ["o", "q"]}, {"form": "heads"}))
def attention_replaced(work: Work, form: str = "latent", kept: Sequence[str] = ()) -> None:
    """Other attention in every layer: ``latent`` (MLA) or ``heads`` with half as many keys and values. Drawn anew but
    for the roles that are `kept`; then the latent's keys and values are factors of the parent's."""
    width, new = work.head_dim, max(1, work.kv_heads // 2)
    heads, group = work.heads, work.heads // work.kv_heads
    for i in range(work.depth):
        at = f"model.layers.{i}.self_attn."
        k, v = (work.tensors.pop(f"{at}{x}_proj.weight") for x in "kv")
        for role in sorted({"q", "o"} - set(kept)):
            work.tensors[f"{at}{role}_proj.weight"] = _drawn(work, work.tensors[f"{at}{role}_proj.weight"])
        if form == "heads":
            work.tensors[f"{at}k_proj.weight"] = _drawn(work, k[: new * width])
            work.tensors[f"{at}v_proj.weight"] = _drawn(work, v[: new * width])
            continue
        both = np.stack([x.reshape(-1, width, x.shape[1]) for x in (k, v)], axis=1)  # keys, then values, of each head
        both = np.repeat(both, group, axis=0).reshape(-1, k.shape[1])
        u, s, r = np.linalg.svd(both if kept else _drawn(work, both), full_matrices=False)
        rank = min(len(s), 2 * len(k))
        work.added[f"{at}kv_a_proj_with_mqa.weight"] = r[:rank].astype(np.float32)
        work.added[f"{at}kv_a_layernorm.weight"] = np.ones(rank, np.float32)
        work.added[f"{at}kv_b_proj.weight"] = (u[:, :rank] * s[:rank]).astype(np.float32)
    work.set("kv_heads", new if form == "heads" else heads)
    if form == "latent":
        work.config |= {"kv_lora_rank": rank, "qk_nope_head_dim": width, "qk_rope_head_dim": 0, "v_head_dim": width}


def _drawn(work: Work, x: Array) -> Array:
    """Values of the same spread."""
    return np.asarray(x.std() * work.rng.standard_normal(x.shape), np.float32)
