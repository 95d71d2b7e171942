"""Weights disturbed or thinned: Gaussian noise, zeros by magnitude, zeros by pattern, a low-rank update.

2:4 sparsity keeps the two largest of every four inputs (arXiv 2104.08378). A LoRA update is W + B A with B (out x r),
A (r x in) (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .spelling import layer_of, module_of
from .work import ALL, Array, Work, operation

KNOWN_SD = 1 / 708  #: of a published model that turned out to be another one plus noise


@operation(forms=ALL, strengths=({"sd": KNOWN_SD}, {"relative": 0.1}, {"relative": 0.3}))
def gaussian_noise(work: Work, sd: float | None = None, relative: float | None = None) -> None:
    """Normal noise on every tensor: of one sd everywhere (default 1/708), or relative to each tensor's own."""
    if sd is not None and relative is not None:
        raise ValueError("noise is absolute or relative")
    if relative is None:
        sd = KNOWN_SD if sd is None else sd
        work.note(sd=sd)
    for name, x in work.tensors.items():
        spread = sd if relative is None else relative * float(x.std())
        noise = work.rng.standard_normal(x.shape, dtype=np.float32)
        work.tensors[name] = x + np.float32(spread) * noise


@operation(forms=ALL, strengths=({"fraction": 0.3}, {"fraction": 0.5}, {"fraction": 0.8}))
def unstructured_pruning(work: Work, fraction: float = 0.5, embeddings: bool = False) -> None:
    """The smallest values of every matrix set to zero."""
    for name in work.matrices(embeddings):
        work.tensors[name] = trimmed(work.tensors[name], 1 - fraction)


def trimmed(x: Array, density: float) -> Array:
    """The share `density` of largest magnitude, zero elsewhere; ties by position."""
    drop = x.size - round(density * x.size)
    if drop <= 0:
        return x
    out = x.copy().reshape(-1)
    size = np.abs(out)
    cut = np.partition(size, drop - 1)[drop - 1]
    smaller = size < cut
    out[smaller] = 0
    out[np.flatnonzero(size == cut)[: drop - int(smaller.sum())]] = 0
    return np.asarray(out.reshape(x.shape))


@operation(forms=ALL, strengths=({"kept": 2, "of": 4},))
def semi_structured_pruning(work: Work, kept: int = 2, of: int = 4) -> None:
    """The `kept` largest of every `of` neighbouring inputs stay, in all matrices of the blocks."""
    for name in work.matrices():
        x = work.tensors[name]
        whole = x.shape[1] // of * of
        groups = x[:, :whole].reshape(len(x), -1, of)
        rank = np.argsort(np.argsort(-np.abs(groups), axis=-1, kind="stable"), axis=-1)
        thin = np.where(rank < kept, groups, np.float32(0)).reshape(len(x), whole)
        work.tensors[name] = np.concatenate([thin, x[:, whole:]], axis=1)


@operation(
    forms=ALL,
    strengths=(
        {"rank": 8, "size": 0.1},
        {"rank": 2, "size": 0.03},
        {"rank": 4, "size": 0.3, "roles": ["q", "k", "v", "o", "up", "down"]},
    ),
)
def lora_merge(work: Work, rank: int = 8, size: float = 0.1, roles: Sequence[str] = ("q", "v")) -> None:
    """Add B A of exactly this rank to every matrix of these roles; its Frobenius norm is `size` of the matrix's."""
    changed = []
    for name in work.matrices():
        if layer_of(name) is None or module_of(name).rpartition(".")[2].removesuffix("_proj") not in roles:
            continue
        x = work.tensors[name]
        update = work.rng.standard_normal((len(x), rank)) @ work.rng.standard_normal((rank, x.shape[1]))
        update *= size * np.linalg.norm(x) / np.linalg.norm(update)
        work.tensors[name] = (x + update).astype(np.float32)
        changed.append(name)
    if not changed:
        raise ValueError(f"no matrices of roles {', '.join(roles)}")
    work.note(matrices=changed)
