"""Biases and norm offsets of hidden size among unordered vectors: which is o's, down's or a norm's, in which block.

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

Every cue is a table (vectors x blocks), double_centred (row and column means out, in sd): what a vector shares with all
blocks, and a block with all vectors, says nothing. :mod:`.stream_order` settles all vectors at once, with how they go
with each other along the residual stream.

What all vectors share hides what differs. It is taken out in several ways (:data:`_VIEWS`), each of which gives an
assignment; the one that most agree with is said, and how sure it is follows from how many agree (:data:`_ROLE`,
:data:`_PLACE`). Nothing at all is said unless the assigned cues exceed those of every one of :data:`_PERMUTED` copies
with the channels of the vectors permuted (p <= 1 / (1 + copies): an exact test of "the vectors have nothing to do with
these matrices").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.infer.pairing import assign, likeness
from weightprint.anatomy.infer.stream_order import Places, Scene, scores, settle_all
from weightprint.util.arrays import F64
from weightprint.util.linear_algebra import svd, unit_rows

#: The roles in question; position r * blocks + b is role r in block b.
OFFSETS = ("attn_norm_bias", "o_bias", "ffn_norm_bias", "down_bias")
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
#: Chance that a role, or a place, is right that 0, 1, ... all views agree on; below what was measured where they do.
_ROLE = (0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.96)
_PLACE = (0.1, 0.1, 0.1, 0.4, 0.5, 0.7, 0.93)


@dataclass(frozen=True)
class BlockMatrices:
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
class FinalNorm:
    """What the final norm's offset goes with: its gain, and rows of the head (or of the embedding tied to it)."""

    gain: F64 | None = None
    head: F64 | None = None


@dataclass(frozen=True)
class Vote:
    """One vector's place: a role of :data:`OFFSETS` and a block, or ("final_norm_bias", None)."""

    vector: int
    role: str
    block: int | None
    role_sure: float  # chance of the role
    sure: float  # chance of role and block, where the blocks' matrices are right


def place_offsets(vectors: Sequence[F64], blocks: Sequence[BlockMatrices], end: FinalNorm, seed: int = 0) -> list[Vote]:
    """Places for 4L or 4L + 1 vectors of length d beside L blocks; 4L + 1 where the final norm has an offset too.

    Args:
        vectors: the candidates, finite and not constant.
        blocks: from first to last (or last to first: attention's steps are then no cue, see :mod:`.stream_order`).
        end: of the final norm.
        seed: of the permuted copies and of the search.

    Returns:
        One for every vector; none where nothing stands above the permuted copies.
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
    scenes = [
        Scene(np.mean([cues[name] for name in names], axis=0), _PRIOR, last, views[pairs] @ views[pairs].T, weight)
        for names, pairs, weight in _VIEWS
    ]
    return _agreed(settle_all(scenes, rng), n)


def _agreed(found: Sequence[Places], n: int) -> list[Vote]:
    """The assignment that most agree with, in role and in block."""
    positions = np.arange(len(found[0]))
    places = np.array([where[:, None] == positions for where in found]).sum(0)  # positions x vectors
    kind = positions // n  # 4: the final norm
    roles = np.array([places[kind == k].sum(0) for k in kind])
    out = []
    for position, vector in enumerate(assign((places + roles).astype(np.float64))):
        role, block = (OFFSETS[position // n], position % n) if position < 4 * n else ("final_norm_bias", None)
        sure = float(_PLACE[places[position, vector]]), float(_ROLE[roles[position, vector]])
        out.append(Vote(int(vector), role, block, max(sure), min(sure)))
    return out


def _final(vectors: F64, u: F64, end: FinalNorm) -> F64:
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

    def __init__(self, blocks: Sequence[BlockMatrices]) -> None:
        self._moments: list[list[F64]] = []
        self._lines: list[list[F64]] = []
        for b in blocks:
            qkv = np.concatenate([b.q, b.k, b.v])
            self._moments.append([_moment(m) for m in (qkv, b.o, b.up, b.down)])
            lines = (b.v.T @ b.v_bias, b.up.T @ b.up_bias, b.down.sum(0), b.q.T @ b.q_bias, b.o.T @ b.v_bias)
            self._lines.append([np.asarray(line) for line in lines])

    def cues(self, u: F64) -> F64:
        """(vectors x blocks x cues), each cue double_centred."""
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
    u: F64 = unit_rows(vectors - vectors.mean(1, keepdims=True))
    if name == "whole":
        return u
    left, size, right = svd(u)
    if name == "first out":
        size = np.concatenate([[0.0], size[1:]])
    elif name == "white":
        size = (size > 1e-6 * size[0]).astype(np.float64)
    elif name == "capped":
        size = np.minimum(size, 1.5 * np.median(size))
    return unit_rows((left * size) @ right)


def _prior_fit(cues: F64) -> float:
    score = scores(cues, _PRIOR)
    return float(score[np.arange(len(score)), assign(score)].sum())
