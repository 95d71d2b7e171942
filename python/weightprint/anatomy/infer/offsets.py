"""Offsets and biases of the residual length in a heap: which is o's, down's or a norm's, and in which block.

Shape and size don't tell them apart. What does is that gradient descent ties a bias to its matrix: dL/d(beta) =
W^T dL/d(b) for an offset beta that W reads, and the same sum of gradients moves a matrix and the bias beside it. So,
with matrices as (units x channels) and u the vector scaled to length one:

==============  =====================================================  =================================
role            its block's matrices show it by                        cue
==============  =====================================================  =================================
attn_norm_bias  |W_qkv u|^2, r(u, W_v^T b_v)                           what is read, and read off
o_bias          |W_o^T u|^2                                            what is written
ffn_norm_bias   |W_up u|^2, r(u, W_up^T b_up)
down_bias       |W_down^T u|^2, r(u, W_down 1)                         GELU's mean isn't zero
==============  =====================================================  =================================

Every cue is a table (vectors x blocks), levelled (row and column means out, in sd): what a vector shares with all
blocks, and a block with all vectors, says nothing. Beside it stand how vectors go with each other: b_down of block l
and b_o of block l+1 see almost one gradient (r .8 in tiny GPT-2s), other pairs otherwise. How a pair of roles goes
together, and the sign of each cue, differ from model to model (b_o = -W_o b_v in Whisper), so both are learned from
the assignment and the assignment made again, until it stays (hard EM; an assignment for each step by Hungarian
method).

What all vectors share hides what differs. It is taken out in several ways (:data:`_VIEWS`), and a place is claimed
where all of them give it; the rest stays unmapped. Nothing at all is claimed unless the
assigned cues exceed those of every one of :data:`_PERMUTED` copies with the channels of the vectors permuted
(p <= 1 / (1 + copies): an exact test of "the vectors have nothing to do with these matrices").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer.join import assign, likeness

__all__ = ["OFFSETS", "End", "Relatives", "Vote", "place_offsets"]

F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

#: The roles in question; slot r * blocks + b is role r in block b.
OFFSETS = ("attn_norm_bias", "o_bias", "ffn_norm_bias", "down_bias")
_CUES = ("qkv", "o", "up", "down", "v bias", "up bias", "down mean", "q bias", "o of v bias")
#: Weight of every cue for every role before anything is learned from the model at hand.
_PRIOR = np.array(
    [
        [1, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 1, 0, 0],
    ],
    np.float64,
)
_ROUNDS = 12
_PERMUTED = 49
#: (views whose cues are averaged, view whose correlations pair the vectors, weight of the pairs)
_VIEWS: tuple[tuple[tuple[str, ...], str, float], ...] = (
    (("whole", "first out", "white"), "whole", 0.5),
    (("whole", "first out", "white"), "first out", 0.3),
    (("white",), "first out", 0.3),
    (("white",), "capped", 0.3),
    (("first out", "white"), "whole", 0.5),
    (("capped", "white"), "whole", 0.5),
)


@dataclass(frozen=True)
class Relatives:
    """A block's matrices, all (units x channels), and the biases whose length tells whose they are."""

    q: F64
    k: F64
    v: F64
    o: F64
    up: F64
    down: F64
    q_bias: F64
    v_bias: F64
    up_bias: F64


@dataclass(frozen=True)
class End:
    """What the final norm's offset goes with: its gain, and rows of the head (or of the embedding tied to it)."""

    gain: F64 | None = None
    head: F64 | None = None


@dataclass(frozen=True)
class Vote:
    """One vector's place: a role of :data:`OFFSETS` and a block, or ("final_norm_bias", None)."""

    vector: int
    role: str
    block: int | None


def place_offsets(vectors: Sequence[F64], blocks: Sequence[Relatives], end: End, seed: int = 0) -> list[Vote]:
    """Places for 4L or 4L + 1 vectors of length d beside L blocks; 4L + 1 where the final norm has an offset too.

    Args:
        vectors: the candidates, finite and not constant.
        blocks: from first to last (or last to first: pairs of neighbours count, not their direction).
        end: of the final norm.
        seed: of the permuted copies.

    Returns:
        What all votes agree on; empty where nothing stands above the permuted copies.
    """
    n, table = len(blocks), np.array(vectors, np.float64)
    if n < 3 or len(table) not in (4 * n, 4 * n + 1) or not bool((table.std(1) > 0).all()):
        return []
    tables = _Tables(blocks)
    views = {name: _view(table, name) for name in ("whole", "first out", "white", "capped")}
    rng = np.random.default_rng(seed)
    found = _prior_fit(tables.cues(views["white"]))
    for _ in range(_PERMUTED):
        if _prior_fit(tables.cues(views["white"][:, rng.permutation(table.shape[1])])) >= found:
            return []
    cues = {name: tables.cues(view) for name, view in views.items()}
    last = _final(table, views["white"], end) if len(table) > 4 * n else np.zeros((0, len(table)))
    votes: list[Counter[int]] = [Counter() for _ in table]
    for names, pairs, weight in _VIEWS:
        mean = np.mean([cues[name] for name in names], axis=0)
        for slot, vector in enumerate(_settle(mean, last, views[pairs] @ views[pairs].T, weight)):
            votes[int(vector)][slot] += 1
    out = []
    for i, vote in enumerate(votes):
        ((place, count),) = vote.most_common(1)
        if count == len(_VIEWS):
            role, block = (OFFSETS[place // n], place % n) if place < 4 * n else ("final_norm_bias", None)
            out.append(Vote(i, role, block))
    return out


def _final(vectors: F64, u: F64, end: End) -> F64:
    """(1 x vectors): how a vector fits the final norm, in sd over all of them, summed over what is known.

    It is large (log of its norm), large where its gain is (r(|v|, gain)), and the head reads it (log of |E u|^2:
    it sets the tokens' log frequencies).
    """
    cues = [np.log(np.sqrt((vectors * vectors).sum(1)))]
    if end.gain is not None:
        cues.append(likeness(np.abs(vectors), end.gain[None])[:, 0])
    if end.head is not None:
        cues.append(np.log(((u @ end.head.T) ** 2).mean(1) + 1e-12))
    return np.asarray(sum((c - c.mean()) / (c.std() + 1e-12) for c in cues))[None]


class _Tables:
    """The cues of L blocks, ready for any vectors of their channels."""

    def __init__(self, blocks: Sequence[Relatives]) -> None:
        self._moments: list[list[F64]] = []
        self._lines: list[list[F64]] = []
        for b in blocks:
            qkv = np.concatenate([b.q, b.k, b.v])
            self._moments.append([_moment(m) for m in (qkv, b.o, b.up, b.down)])
            lines = (b.v.T @ b.v_bias, b.up.T @ b.up_bias, b.down.sum(0), b.q.T @ b.q_bias, b.o.T @ b.v_bias)
            self._lines.append([np.asarray(line) for line in lines])

    def cues(self, u: F64) -> F64:
        """(vectors x blocks x cues), each cue levelled."""
        columns = []
        for moments, lines in zip(self._moments, self._lines, strict=True):
            energy = [np.log(np.einsum("ij,ij->i", u @ m, u) + 1e-12) for m in moments]
            columns.append(np.array([*energy, *(likeness(u, line[None])[:, 0] for line in lines)]).T)
        table = np.array(columns).swapaxes(0, 1)
        table = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean((0, 1))
        return np.asarray(table / (table.std((0, 1)) + 1e-12))


def _moment(m: F64) -> F64:
    s = m.T @ m
    return np.asarray(s / (np.trace(s) + 1e-30) * len(s))


def _view(vectors: F64, name: str) -> F64:
    """Centred vectors of length one, with what they share left in, taken out, made equal or capped."""
    u = _unit(vectors - vectors.mean(1, keepdims=True))
    if name == "whole":
        return u
    left, size, right = np.linalg.svd(u, full_matrices=False)
    if name == "first out":
        size = np.concatenate([[0.0], size[1:]])
    elif name == "white":
        size = (size > 1e-6 * size[0]).astype(np.float64)
    elif name == "capped":
        size = np.minimum(size, 1.5 * np.median(size))
    return _unit((left * size) @ right)


def _unit(rows: npt.NDArray[Any]) -> F64:
    return np.asarray(rows / (np.sqrt((rows * rows).sum(1, keepdims=True)) + 1e-30))


def _scores(cues: F64, weights: F64) -> F64:
    """(slots x vectors)."""
    return np.asarray(np.einsum("vlf,sf->slv", cues, weights)).reshape(-1, len(cues))


def _prior_fit(cues: F64) -> float:
    score = _scores(cues, _PRIOR)
    return float(score[np.arange(len(score)), assign(score)].sum())


def _settle(cues: F64, last: F64, together: F64, weight: float) -> Places:
    """For every slot its vector: assign, learn how cues and pairs show the roles, assign again."""
    n = cues.shape[1]
    where = assign(np.concatenate([_scores(cues, _PRIOR), last]))
    blocks = np.arange(n)
    for _ in range(_ROUNDS):
        own = np.array([cues[where[r * n + blocks], blocks].mean(0) for r in range(4)])
        score = _scores(cues, 0.5 * _PRIOR + 0.5 * own * n / (n + 2))
        again = assign(np.concatenate([score + weight * _pairs(where, together, n), last]))
        if bool((again == where).all()):
            break
        where = again
    return where


def _pairs(where: Places, together: F64, n: int) -> F64:
    """(slots x vectors): how a vector goes with those that now stand in the slots beside, as other blocks have it.

    For roles r, t and blocks l, l + s (s = -1, 0, 1) the mean over the other blocks' correlations, shrunk by two
    blocks, times this vector's; both in sd over all pairs.
    """
    off = together[~np.eye(len(together), dtype=bool)]
    z = (together - off.mean()) / (off.std() + 1e-12)
    score = np.zeros((4 * n, len(together)))
    for r in range(4):
        for t in range(4):
            for step in (-1, 0, 1):
                here = [b for b in range(n) if 0 <= b + step < n]
                if r == t and step == 0:
                    continue
                pairs = [(where[r * n + b], where[t * n + b + step]) for b in here]
                values = np.array([z[i, j] for i, j in pairs])
                for value, b, (_, j) in zip(values, here, pairs, strict=True):
                    expected = (values.sum() - value) / (len(here) + 1)
                    score[r * n + b] += expected * z[:, j]
    return score
