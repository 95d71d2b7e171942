"""Merges: linear, spherical, task arithmetic, TIES, DARE. Weights and masks are drawn or given, and recorded.

x_i parents, x_0 the common base where there is one, δ_i = x_i − x_0:

    linear           Σ w_i x_i                                                   arXiv 2203.05482
    slerp            sin((1−t)Ω)/sin Ω · x_1 + sin(tΩ)/sin Ω · x_2               Shoemake 1985; per tensor, Ω its angle
    task arithmetic  x_0 + Σ w_i δ_i                                             arXiv 2212.04089
    TIES             x_0 + λ · mean of the trimmed δ_i that have the elected sign  arXiv 2306.01708
    DARE             x_0 + Σ w_i δ_i m_i / (1 − p), m_i ~ Bernoulli(1 − p)       arXiv 2311.03099
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .noise import trimmed
from .spelling import layer_of
from .work import ALL, Array, Work, operation


def _together(work: Work, combine: Callable[[str, Array, list[Array]], Array]) -> None:
    """Replace every tensor by `combine(name, first parent's, the others')`, computed in float64."""
    for other in work.others:
        if {n: x.shape for n, x in other.tensors.items()} != {n: x.shape for n, x in work.tensors.items()}:
            raise ValueError(f"{other.name} and {work.name} differ in shape")
    for name, x in work.tensors.items():
        others = [other.tensors[name].astype(np.float64) for other in work.others]
        work.tensors[name] = combine(name, x.astype(np.float64), others).astype(np.float32)


def _weights(weights: Sequence[float] | None, n: int, default: float) -> list[float]:
    if weights is not None and len(weights) != n:
        raise ValueError(f"{n} weights are needed")
    return [default] * n if weights is None else list(weights)


@operation(forms=ALL, takes=2, strengths=({"weights": [0.5, 0.5]}, {"weights": [0.7, 0.3]}, {"weights": [0.9, 0.1]}))
def linear_merge(work: Work, weights: Sequence[float] | None = None) -> None:
    """Weighted sum of two or more models; default an even mean."""
    n = 1 + len(work.others)
    w = _weights(weights, n, 1 / n)
    work.note(weights=w)
    _together(work, lambda _, x, others: np.asarray(sum(a * y for a, y in zip(w, [x, *others], strict=True))))


@operation(forms=ALL, takes=2, strengths=({"first": 0.5, "last": 0.5}, {"first": 0.2, "last": 0.8}))
def slerp_merge(work: Work, first: float = 0.5, last: float = 0.5, t: Sequence[float] | None = None) -> None:
    """Spherical interpolation, tensor by tensor; `t` per block, else straight from `first` to `last`."""
    ts = list(t) if t is not None else np.linspace(first, last, work.depth).tolist()
    outside = float(np.mean(ts))
    work.note(t=ts, t_outside=outside)

    def combine(name: str, x: Array, others: list[Array]) -> Array:
        layer = layer_of(name)
        return slerp(x, others[0], outside if layer is None else ts[layer])

    _together(work, combine)


def slerp(x: Array, y: Array, t: float) -> Array:
    """From x (t = 0) to y (t = 1) along the arc between their directions; straight where they are parallel."""
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    cosine = float(np.vdot(x, y)) / norms if norms else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * x + t * y
    angle = np.arccos(cosine)
    return np.asarray((np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle))


@operation(forms=ALL, takes=3, strengths=({}, {"weights": [0.3, 0.3]}, {"weights": [0.8, 0.6]}))
def task_arithmetic(work: Work, weights: Sequence[float] | None = None) -> None:
    """Base (the first parent) and its fine-tunes: differences added with weights, by default 1/n each."""
    w = _fine_tunes(work, weights)
    _together(work, lambda _, x, others: x + sum(a * (y - x) for a, y in zip(w, others, strict=True)))


@operation(forms=ALL, takes=3, strengths=({"density": 0.5}, {"density": 0.2}, {"density": 0.2, "scale": 0.5}))
def ties_merge(work: Work, density: float = 0.2, scale: float = 1.0) -> None:
    """Base and its fine-tunes: differences trimmed, signs elected by their sum, those that agree averaged."""

    def combine(_: str, x: Array, others: list[Array]) -> Array:
        deltas = np.stack([trimmed(y - x, density) for y in others])
        agrees = (deltas * np.sign(deltas.sum(0))) > 0
        return np.asarray(x + scale * (deltas * agrees).sum(0) / np.maximum(agrees.sum(0), 1))

    _together(work, combine)


@operation(forms=ALL, takes=3, strengths=({"drop": 0.5}, {"drop": 0.9}, {"drop": 0.9, "rescale": False}))
def dare_merge(work: Work, drop: float = 0.9, weights: Sequence[float] | None = None, rescale: bool = True) -> None:
    """Base and its fine-tunes: each difference kept with probability 1 − drop and divided by it."""
    w = _fine_tunes(work, weights)
    factor = 1 / (1 - drop) if rescale else 1.0
    work.note(factor=factor)

    def combine(_: str, x: Array, others: list[Array]) -> Array:
        kept = [(y - x) * (work.rng.random(x.shape) >= drop) for y in others]
        return x + factor * sum(a * delta for a, delta in zip(w, kept, strict=True))

    _together(work, combine)


def _fine_tunes(work: Work, weights: Sequence[float] | None) -> list[float]:
    n = len(work.others)
    w = _weights(weights, n, 1 / n)
    work.note(weights=w)
    return w
