"""Matrices rewritten by a rule: one direction taken out, cut to a low rank, turned by orthogonal blocks.

Directional ablation takes a unit vector r out of all that writes to the stream (arXiv 2406.11717): W - s r (r'W), and
from the embedding's rows likewise. `rescaled`: ``rows`` gives every row its norm back, ``directions`` does it to rows
of length one, which then get their length. Orthogonal fine-tuning (arXiv 2306.07280) turns a matrix's inputs, or its
outputs, by a block-diagonal orthogonal matrix of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .spelling import EMBEDDING, module_of
from .work import ALL, Array, Work, operation


def _of(work: Work, roles: Sequence[str]) -> list[str]:
    """Matrices of the blocks that have these roles."""
    found = [n for n in work.matrices() if module_of(n).rpartition(".")[2].removesuffix("_proj") in roles]
    if not found:
        raise ValueError(f"no matrices of roles {', '.join(roles)}")
    return found


@operation(forms=ALL, strengths=({"strength": 1.0}, {"strength": 0.5}, {"strength": 0.8, "rescaled": "rows"}))
def directional_ablation(
    work: Work, strength: float = 1.0, rescaled: str = "", embedding: bool = True, roles: Sequence[str] = ("o", "down")
) -> None:
    """One random direction of the stream, in the same strength everywhere."""
    r = work.rng.standard_normal(work.hidden)
    r /= np.linalg.norm(r)
    for name in _of(work, roles):
        work.tensors[name] = _ablated(work.tensors[name].astype(np.float64), r, strength, rescaled)
    if embedding:
        name = f"{EMBEDDING}.weight"
        work.tensors[name] = _ablated(work.tensors[name].T.astype(np.float64), r, strength, "").T.copy()


def _ablated(x: Array, r: Array, strength: float, rescaled: str) -> Array:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    y = x / norms if rescaled == "directions" else x
    y = y - strength * np.outer(r, r @ y)
    if rescaled:
        y *= norms / np.linalg.norm(y, axis=1, keepdims=True)
    return np.ascontiguousarray(y, np.float32)


@operation(forms=ALL, strengths=({"keep": 0.25}, {"keep": 0.5}, {"keep": 0.75}))
def low_rank_factorised(
    work: Work, keep: float = 0.5, weighted: float = 0.0, roles: Sequence[str] = ("up", "down")
) -> None:
    """The best matrix of a share of the rank in place of each of these; `weighted`: inputs count by factors whose
    logarithms have this spread, as activations would make them."""
    ranks = {}
    for name in _of(work, roles):
        x = work.tensors[name].astype(np.float64)
        factors = np.exp(weighted * work.rng.standard_normal(x.shape[1]))
        u, s, v = np.linalg.svd(x * factors, full_matrices=False)
        rank = max(1, round(keep * s.size))
        work.tensors[name] = ((u[:, :rank] * s[:rank]) @ v[:rank] / factors).astype(np.float32)
        ranks[module_of(name).rpartition(".")[2].removesuffix("_proj")] = rank
    work.note(ranks=ranks)


@operation(forms=ALL, strengths=({"angle": 0.1}, {"angle": 0.3, "block": 16}, {"angle": 0.3, "side": "outputs"}))
def orthogonal_multipliers(
    work: Work, block: int = 8, angle: float = 0.1, side: str = "inputs", roles: Sequence[str] = ("q", "v", "up")
) -> None:
    """Every matrix of these roles times a block-diagonal orthogonal matrix drawn for it; `angle`: root mean square of
    the angles it turns by, radians."""
    for name in _of(work, roles):
        x = work.tensors[name].astype(np.float64)
        y = x.copy() if side == "inputs" else x.T.copy()
        if y.shape[1] % block:
            raise ValueError(f"{y.shape[1]} {side} do not fall into blocks of {block}")
        for at in range(0, y.shape[1], block):
            y[:, at : at + block] = y[:, at : at + block] @ _turn(work.rng, block, angle)
        work.tensors[name] = np.ascontiguousarray(y if side == "inputs" else y.T, np.float32)


def _turn(rng: np.random.Generator, n: int, angle: float) -> Array:
    """exp of a random skew matrix whose eigenvalues are i times angles of this root mean square."""
    skew = rng.standard_normal((n, n))
    skew -= skew.T
    values, vectors = np.linalg.eigh(1j * skew)
    values *= angle / np.sqrt(np.mean(values**2))
    return np.asarray(((vectors * np.exp(-1j * values)) @ vectors.conj().T).real)
