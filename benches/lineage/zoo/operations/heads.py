"""Attention heads: pruned, or their keys and values pooled into fewer (GQA from MHA, arXiv 2305.13245)."""

from __future__ import annotations

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
