"""Other depths: blocks dropped, ranges stacked, blocks inserted, blocks shuffled. The layer map is the truth.

Up-scaling by stacked ranges is SOLAR's (arXiv 2312.15166); inserted blocks whose writers are zero are LLaMA Pro's
(arXiv 2401.02415) and leave the function alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .spelling import layer_of
from .work import ALL, Array, Work, operation, partly_shuffled


@operation(forms=ALL, strengths=({"count": 1}, {"share": 0.25}, {"share": 0.5}))
def depth_drop(work: Work, layers: Sequence[int] | None = None, count: int | None = None, share: float = 0.25) -> None:
    """Drop the blocks given, or `count`, or a share of all, at random from all but the first and the last."""
    if layers is None:
        inner = np.arange(1, work.depth - 1)
        n = min(round(share * work.depth) if count is None else count, len(inner))
        layers = sorted(work.rng.choice(inner, n, replace=False).tolist())
    work.note(layers=list(layers))
    work.relayer([i for i in range(work.depth) if i not in set(layers)])


@operation(forms=ALL, strengths=({},))
def depth_upscaling(work: Work, ranges: Sequence[Sequence[int]] | None = None) -> None:
    """Stack ranges of blocks, first and last inclusive: [[0, 23], [8, 31]] → 48. Default: three quarters twice."""
    if ranges is None:
        quarter = work.depth // 4
        ranges = [[0, work.depth - 1 - quarter], [quarter, work.depth - 1]]
    work.note(ranges=[list(r) for r in ranges])
    work.relayer([i for first, last in ranges for i in range(first, last + 1)])


@operation(forms=ALL, preserves=True, strengths=({"count": 1}, {"count": 2}, {"count": 2, "copy": True}))
def layer_insertion(
    work: Work, at: Sequence[int] | None = None, count: int = 2, copy: bool = False, zero_output: bool = True
) -> None:
    """Insert blocks: `at` are their numbers in the child. Copies of the block before them, or drawn anew.

    With `zero_output` their writers (o, down and their biases) are zero: the same function.
    """
    if at is None:
        at = np.sort(work.rng.choice(np.arange(1, work.depth + count), count, replace=False)).tolist()
    sources: list[int | None] = []
    old = iter(range(work.depth))
    for i in range(work.depth + len(at)):
        before = next((s for s in reversed(sources) if s is not None), 0)
        sources.append((before if copy else None) if i in set(at) else next(old))
    work.note(at=list(at))
    work.relayer(sources)
    for i in at:
        if not copy:
            _fresh_block(work, i, like=next(k for k in range(work.depth) if k not in set(at)))
        if zero_output:
            for name, x in work.tensors.items():
                if layer_of(name) == i and ("o_proj" in name or "down_proj" in name):
                    work.tensors[name] = np.zeros_like(x)


def _fresh_block(work: Work, layer: int, like: int) -> None:
    """A block as drawn before training: matrices normal with the other block's spread, gains one, offsets zero."""
    at = f"model.layers.{like}."
    for name, x in list(work.tensors.items()):
        if name.startswith(at):
            work.tensors[f"model.layers.{layer}.{name.removeprefix(at)}"] = fresh(work, name, x.shape, x)


def fresh(work: Work, name: str, shape: tuple[int, ...], like: Array) -> Array:
    """An untrained tensor in place of a trained one: normal of its spread, a gain of one, a bias of zero."""
    if len(shape) == 2:
        return work.rng.normal(0, like.std(), shape).astype(np.float32)
    return np.full(shape, 1 - work.offset if "norm" in name and name.endswith("weight") else 0, np.float32)


@operation(forms=ALL, strengths=({"share": 0.3}, {"share": 1.0}))
def layer_shuffle(work: Work, order: Sequence[int] | None = None, share: float = 1.0) -> None:
    """Put a share of the blocks in another order."""
    if order is None:
        order = partly_shuffled(work.rng, work.depth, share).tolist()
    work.note(order=list(order))
    work.relayer(list(order))
