"""Hidden units: pruned, widened. The unit map is the truth.

Copied units split their output among the copies, so that the function stays (Net2WiderNet, arXiv 1511.05641).
"""

from __future__ import annotations

import numpy as np

from .work import ALL, Array, Index, Work, operation


@operation(forms=ALL, strengths=({"keep": 0.9}, {"keep": 0.7}, {"keep": 0.4}))
def ffn_pruning(work: Work, keep: float = 0.7, by: str = "norm") -> None:
    """Keep a share of every FFN's units, in order: those with the largest weights (`norm`), or any (`random`)."""
    for ffn in work.ffns():
        width = work.width(ffn)
        n = max(1, round(keep * width))
        chosen = strongest(_importance(work, ffn), n) if by == "norm" else _any(work, width, n)
        work.take("unit", chosen, under=ffn)
        work.units[ffn] = chosen
    set_width(work)


def _importance(work: Work, ffn: str) -> Array:
    inputs = sum((work.tensors[f"{ffn}.{p}_proj.weight"] ** 2).sum(1) for p in ("gate", "up") if _has(work, ffn, p))
    return np.asarray(np.sqrt(inputs * (work.tensors[f"{ffn}.down_proj.weight"] ** 2).sum(0)))


def _has(work: Work, ffn: str, part: str) -> bool:
    return f"{ffn}.{part}_proj.weight" in work.tensors


def strongest(score: Array, n: int) -> Index:
    """Indices of the n largest, in their old order."""
    return np.sort(np.argsort(-score, kind="stable")[:n])


def _any(work: Work, width: int, n: int) -> Index:
    return np.sort(work.rng.choice(width, n, replace=False))


def set_width(work: Work) -> None:
    """Write the width of FFNs or experts into the config."""
    ffns = work.ffns()
    key = "expert_ffn" if ".experts." in ffns[0] else "ffn"
    work.set(key, work.width(ffns[0]))


@operation(
    forms=ALL,
    preserves=True,
    strengths=({"factor": 1.33, "new": "zero"}, {"factor": 1.33, "new": "copied"}, {"factor": 2.0, "new": "zero"}),
)
def ffn_widening(work: Work, factor: float = 1.33, new: str = "random", mixed: bool = False) -> None:
    """Add units to every FFN, at the end or mixed among the old ones.

    `random` draws them with the spread of the matrix, `zero` does so for the inputs and leaves the outputs zero,
    `copied` copies units and shares their output out; the latter two keep the function.
    """
    for ffn in work.ffns():
        width = work.width(ffn)
        extra = round((factor - 1) * width)
        source = np.concatenate([np.arange(width), np.full(extra, -1)])
        if new == "copied":
            source[width:] = work.rng.choice(width, extra, replace=extra > width)
            work.take("unit", source, under=ffn)
            copies = np.bincount(source, minlength=width)[source]
            down = f"{ffn}.down_proj.weight"
            work.tensors[down] = (work.tensors[down] / copies).astype(np.float32)
        elif new in ("random", "zero"):
            work.pad("unit", extra, lambda name, shape, old: _drawn(work, name, shape, old, new), under=ffn)
        else:
            raise ValueError(f"new units are random, zero or copied, not {new!r}")
        if mixed:
            order = work.rng.permutation(len(source))
            work.take("unit", order, under=ffn)
            source = source[order]
        work.units[ffn] = source
    set_width(work)


def _drawn(work: Work, name: str, shape: tuple[int, ...], old: Array, new: str) -> Array:
    if name.endswith(".bias") or (new == "zero" and "down_proj" in name):
        return np.zeros(shape)
    return np.asarray(work.rng.normal(0, old.std(), shape))
