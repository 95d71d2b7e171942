"""Vectors of a block: which are gains of norms, which are biases, and of what.

A vector belongs to a matrix when their names have one prefix (``q_proj.weight``, ``q_proj.bias``) and its
length is that matrix' output; where names say nothing, when it stands beside the matrix in the file, always behind
(order of modules) or always before it (order of the alphabet), whichever explains more. What is left of length d are
norms.

A gain is positive nearly everywhere (1 before training); a norm's offset and a bias are about as often negative.
*Measured* on SmolLM2, MiniLM, four SCEPTRs, six tiny Llamas and four tiny GPT-2s: the share of positive elements was at
least .9 for 254 of 256 gains, and below .9 for 304 of 304 offsets and biases. Gemma stores gain - 1: its gains look
like offsets, and go unmapped without words.

How many gains there are says which norms: one: before attention (and FFN, in parallel); two: before either, or behind
either; three beside cross-attention: the one between; four: before and behind either. Before or behind can't be seen
from shapes: behind is likelier where no norm stands outside the blocks, as BERT's final norm is its last block's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from weightprint.anatomy.infer.blocks import BlockTensor
from weightprint.anatomy.infer.log_odds import by_name_hints, by_order, samples
from weightprint.anatomy.infer.name_hints import hint
from weightprint.anatomy.infer.shapes import Choice
from weightprint.anatomy.infer.value_probes import Matrix, Probe, correlation

_SEPARATOR = re.compile(r"[._/\-]")
_PATTERNS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("attn_norm",),),
    2: (("attn_norm", "ffn_norm"), ("attn_post_norm", "ffn_post_norm")),
    3: (("attn_norm", "cross_norm", "ffn_norm"), ("attn_post_norm", "cross_post_norm", "ffn_post_norm")),
    4: (("attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm"),),
}


def name_prefix(rest: str) -> str:
    """The name without its last word: what a matrix and its bias have in common."""
    cut = [m.start() for m in _SEPARATOR.finditer(rest)]
    return rest[: cut[-1]] if cut and cut[-1] > 0 else rest


def paired_by_prefix(vectors: Sequence[BlockTensor], matrices: Sequence[BlockTensor]) -> dict[int, BlockTensor]:
    """id(vector) -> the one matrix of the same name prefix that it fits."""
    by_prefix: dict[str, list[BlockTensor]] = defaultdict(list)
    for matrix in matrices:
        by_prefix[name_prefix(matrix.rest)].append(matrix)
    out: dict[int, BlockTensor] = {}
    for vector in vectors:
        found = by_prefix.get(name_prefix(vector.rest), []) if vector.rest else []
        if len(found) == 1 and vector.shape[-1] in found[0].shape[-2:] and _siblings(vector, found[0]):
            out[id(vector)] = found[0]
    return out


def _siblings(a: BlockTensor, b: BlockTensor) -> bool:
    return a.rest != b.rest and bool(a.experts) == bool(b.experts)


def is_gain(tensor: BlockTensor, probe: Probe) -> bool | None:
    """Positive nearly everywhere; None where no value could be read."""
    shares = []
    for where in samples([tensor]):
        value = probe.vector(tensor.names[where])
        if value is not None:
            shares.append(float((value > 0).mean()))
    return None if not shares else float(np.median(shares)) >= 0.9


def beside(
    vectors: Sequence[BlockTensor], matrices: Sequence[BlockTensor], outputs: Mapping[int, set[int]]
) -> dict[int, BlockTensor]:
    """id(vector) -> the matrix that it stands beside in the file and whose output length it has.

    `vectors` should hold no gains. `outputs`: id(matrix) -> lengths that its bias may have. Behind or before is one
    convention for the whole block: the one that pairs more.
    """
    found: list[dict[int, BlockTensor]] = []
    for step in (1, -1):
        by_place = {matrix.place: matrix for matrix in matrices}
        pairs: dict[int, BlockTensor] = {}
        for vector in vectors:
            matrix = by_place.get(vector.place - step)
            if matrix is not None and vector.shape[0] in outputs[id(matrix)]:
                pairs[id(vector)] = matrix
        found.append(pairs)
    behind, before = found
    return behind if len(behind) >= len(before) else before


def norm_choice(
    gains: Sequence[BlockTensor],
    readers: Mapping[str, Sequence[BlockTensor]],
    probe: Probe,
    *,
    outside: bool,
    ordered: bool,
) -> Choice | None:
    """Share out the norms' roles among the gains; None where their number says nothing.

    `readers`: "attn" and "ffn" -> matrices that read the residual stream, stored (out x in) or transposed; a gain goes
    with the column norms of what reads it (correlation of logarithms). *Measured*: which of a block's two norms stands
    before attention, right in all blocks of the tiny Llamas and GPT-2s and wrong in SmolLM2's, so it counts for little.
    """
    patterns = _PATTERNS.get(len(gains))
    if patterns is None:
        return None
    options = [way for pattern in patterns for way in permutations(pattern)]
    choice = Choice(list(gains), options, [None] * len(options))
    likely = np.log(0.8 / 0.2)
    for n, option in enumerate(options):
        behind = all("post" in role for role in option)
        choice.odds[n] += 0.0 if len(patterns) == 1 else (-likely if behind == outside else 0.0)
    by_name_hints(choice)
    _loose_hints(choice)
    if ordered:
        by_order(choice)
    if len(gains) == 2:
        _by_profile(choice, readers, probe)
    return choice


def by_biases(choice: Choice, pairs: Mapping[int, BlockTensor], vectors: Sequence[BlockTensor], probe: Probe) -> None:
    """Softmax doesn't see k's bias, so training leaves it where it began: q's is six times as large or more.

    Adds log odds 3.5 to the options that say so. *Measured*: so in all blocks of seven of nine models with biases
    (MiniLM, two SCEPTRs, four tiny GPT-2s; ratios 7 to 500), in the other two SCEPTRs by less or the other way round.
    """
    sizes: dict[int, float] = {}
    for vector in vectors:
        matrix = pairs.get(id(vector))
        found = [i for i, tensor in enumerate(choice.tensors) if tensor is matrix]
        values = [probe.vector(vector.names[where]) for where in samples([vector])] if found else []
        norms = [float(np.sqrt((v * v).sum())) for v in values if v is not None]
        if norms and max(norms) > 0:
            sizes[found[0]] = float(np.median(norms)) + 1e-9
    agree = [
        "q" in way
        and "k" in way
        and way.index("q") in sizes
        and way.index("k") in sizes
        and sizes[way.index("q")] > 6 * sizes[way.index("k")]
        for way in choice.options
    ]
    if any(agree):
        choice.odds += [3.5 if yes else 0.0 for yes in agree]
        choice.cues.append("biases: softmax doesn't see k's, so it stays small")


def _loose_hints(choice: Choice) -> None:
    """``final_layer_norm`` in a block is the FFN's (OPT); words for attention or FFN fit norms before or behind it."""
    for i, tensor in enumerate(choice.tensors):
        word = hint(tensor.rest) if tensor.rest else None
        if word == "final_norm":
            choice.odds += [2.0 if "ffn" in option[i] else 0.0 for option in choice.options]
        elif word in ("attn_norm", "ffn_norm", "attn_post_norm", "ffn_post_norm"):
            part = word.split("_")[0]
            choice.odds += [1.0 if option[i].startswith(part) else 0.0 for option in choice.options]


def _by_profile(choice: Choice, readers: Mapping[str, Sequence[BlockTensor]], probe: Probe) -> None:
    d = choice.tensors[0].shape[0]
    total = 0.0
    for where in samples(choice.tensors):
        profile = {}
        for part, tensors in readers.items():
            rows = []
            for tensor in tensors:
                if where in tensor.names and len(tensor.shape) == 2 and d in tensor.shape:
                    a, b = tensor.shape
                    norms = probe.norms(Matrix(tensor.names[where], (a, b) if b == d else (b, a), b != d), 1)
                    if norms is not None:
                        rows.append((norms - norms.mean()) / (norms.std() + 1e-9))
            if rows:
                profile[part] = np.mean(rows, axis=0)
        gains = [probe.vector(tensor.names[where]) for tensor in choice.tensors]
        if len(profile) == 2 and gains[0] is not None and gains[1] is not None:
            logs = [np.log(np.abs(g) + 1e-3) for g in gains if g is not None]
            r = [[correlation(g, profile[part]) or 0.0 for part in ("attn", "ffn")] for g in logs]
            total += 2.0 * (r[0][0] + r[1][1] - r[0][1] - r[1][0])
    total = float(np.clip(total, -2, 2))
    if abs(total) > 1:
        choice.odds += [total / 2 if option[0].startswith("attn") else -total / 2 for option in choice.options]
        choice.cues.append("gains against the column norms of what reads them")
