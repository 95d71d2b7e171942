"""Other widths of the residual stream. Heads keep theirs, so config.json names `head_dim`.

A wider stream whose new channels stay zero is the same function if gains pay for the larger mean under RMSNorm's root:
with d → d', γ' = γ √(d/d') (and Gemma's embedding, which is multiplied by √d', is divided by as much).
"""

from __future__ import annotations

import numpy as np

from .depth import fresh
from .ffn import strongest
from .spelling import AXES, EMBEDDING, NORM, axes_of, module_of
from .work import GATED, Array, Work, operation


@operation(forms=GATED, strengths=({"keep": 0.75}, {"keep": 0.5}))
def hidden_pruning(work: Work, keep: float = 0.75, by: str = "norm") -> None:
    """Keep a share of the residual channels, in order: those that are written and read most, or any (`random`)."""
    n = round(keep * work.hidden)
    if by == "norm":
        score = sum(
            (work.tensors[name].astype(np.float64) ** 2).mean(1 - axes_of(name).index("channel"))
            for name in work.matrices(embeddings=True)
            if "channel" in axes_of(name)
        )
        chosen = strongest(np.asarray(score), n)
    else:
        chosen = np.sort(work.rng.choice(work.hidden, n, replace=False))
    width = work.head_dim
    work.take("channel", chosen)
    work.set("hidden", n)
    work.config["head_dim"] = width
    work.note(kept_channels=chosen)


@operation(
    forms=GATED,
    preserves=True,
    strengths=({"factor": 1.25, "new": "zero"}, {"factor": 1.25, "new": "zero", "mixed": True}),
)
def hidden_widening(work: Work, factor: float = 1.25, new: str = "random", mixed: bool = False) -> None:
    """Add channels, at the end or mixed among the old ones.

    `zero`: nothing writes to them, what reads them is drawn; gains are scaled so that the function stays. `random`:
    everything about them is drawn with the spread of the matrix.
    """
    if new not in ("zero", "random"):
        raise ValueError(f"new channels are random or zero, not {new!r}")
    old, width = work.hidden, work.head_dim
    extra = round((factor - 1) * old)
    gains = {norm: work.gain(norm) for norm in work.norms()}

    def fill(name: str, shape: tuple[int, ...], x: Array) -> Array:
        module = module_of(name)
        written = module == EMBEDDING or AXES[module][0] == "channel"
        return np.zeros(shape) if new == "zero" and written and x.ndim == 2 else fresh(work, name, shape, x)

    work.pad("channel", extra, fill)
    if new == "zero":
        shrink = (old / (old + extra)) ** 0.5
        for norm, gain in gains.items():
            factor_here = 1.0 if norm == NORM and work.tied and work.offset else shrink
            work.set_gain(norm, factor_here * np.concatenate([gain, np.ones(extra)]))
        if work.offset:
            work.tensors[f"{EMBEDDING}.weight"] = (work.tensors[f"{EMBEDDING}.weight"] * shrink).astype(np.float32)
    source = np.concatenate([np.arange(old), np.full(extra, -1)])
    if mixed:
        order = work.rng.permutation(len(source))
        work.take("channel", order)
        source = source[order]
    work.set("hidden", old + extra)
    work.config["head_dim"] = width
    work.note(channels=source)
