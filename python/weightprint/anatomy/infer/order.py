"""Blocks from file order: where each block starts, what the known orders of roles say, and how blocks are numbered.

A file keeps either the order of modules or that of the alphabet, and random names put in their place leave it. The
table lists, for the families that others copied, the roles of a block's matrices and norms in both orders (biases left
out). When a block's sequence of shapes can be read as one of them, that order speaks for its roles with log odds 3;
orders that contradict each other cancel. Blocks repeat with a period, so the first one's start is known up to what
follows the last: a start is chosen for which most orders fit.

In alphabetical files block 10 stands before block 2. Beyond ten blocks the two numberings are compared by the mean
correlation of neighbours' norm gains, which drift from block to block (*measured* on SmolLM2's 30: .73 and .91 for its
two norms, .31 and .49 between any two blocks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from weightprint.anatomy.infer.blocks import BlockTensor, RepeatedBlocks, periodic
from weightprint.anatomy.infer.shapes import Choice, Reading
from weightprint.anatomy.infer.value_probes import Probe, correlation

Shape = tuple[int, ...]
_ORDER = 3.0

#: Roles of a block in the order of a file; fused ones joined by "+". Behind each: whose it is.
ORDERS: tuple[tuple[str, str], ...] = (
    ("Llama, modules", "q k v o gate up down attn_norm ffn_norm"),
    ("Llama, alphabet", "attn_norm down gate up ffn_norm k o q v"),
    ("Llama, computation", "attn_norm q k v o ffn_norm gate up down"),
    ("Llama fused, computation", "attn_norm q+k+v o ffn_norm gate up down"),
    ("plain FFN, computation", "attn_norm q k v o ffn_norm up down"),
    ("Mixtral, computation", "attn_norm q k v o ffn_norm router gate up down"),
    ("Qwen3, modules", "q k v o q_norm k_norm gate up down attn_norm ffn_norm"),
    ("Qwen3, alphabet", "attn_norm down gate up ffn_norm k_norm k o q_norm q v"),
    ("Meta, modules", "q k v o gate down up attn_norm ffn_norm"),
    ("Meta, alphabet", "k o q v attn_norm gate down up ffn_norm"),
    ("GGUF, alphabet", "k attn_norm o q v down gate ffn_norm up"),
    ("InternLM2, modules", "q+k+v o gate up down attn_norm ffn_norm"),
    ("InternLM2, alphabet", "o q+k+v attn_norm gate down up ffn_norm"),
    ("Phi-3, modules", "o q+k+v gate+up down attn_norm ffn_norm"),
    ("Phi-3, alphabet", "attn_norm down gate+up ffn_norm o q+k+v"),
    ("Mixtral, modules", "q k v o router gate down up attn_norm ffn_norm"),
    ("Mixtral, alphabet", "gate down up router attn_norm ffn_norm k o q v"),
    ("Qwen MoE, modules", "q k v o router gate up down attn_norm ffn_norm"),
    ("Qwen MoE, alphabet", "attn_norm down gate up router ffn_norm k o q v"),
    ("DeepSeek MoE, alphabet", "attn_norm router down gate up ffn_norm k o q v"),
    ("GPT-2, modules", "attn_norm q+k+v o ffn_norm up down"),
    ("GPT-2, alphabet", "q+k+v o attn_norm ffn_norm up down"),
    ("GPT-NeoX, modules", "attn_norm ffn_norm q+k+v o up down"),
    ("GPT-NeoX, alphabet", "o q+k+v attn_norm down up ffn_norm"),
    ("OPT, modules", "k v q o attn_norm up down ffn_norm"),
    ("OPT, alphabet", "up down ffn_norm k o q v attn_norm"),
    ("BERT, modules", "q k v o attn_post_norm up down ffn_post_norm"),
    ("BERT, alphabet", "attn_post_norm o k q v up ffn_post_norm down"),
    ("torch encoder layer, modules", "q+k+v o up down attn_norm ffn_norm"),
    ("torch encoder layer, alphabet", "up down attn_norm ffn_norm q+k+v o"),
    ("ViT, modules", "q k v o up down attn_norm ffn_norm"),
    ("ViT, alphabet", "k q v o up attn_norm ffn_norm down"),
    ("CLIP, alphabet", "attn_norm ffn_norm up down k o q v"),
    ("T5, modules", "q k v o attn_norm gate up down ffn_norm"),
    ("T5, alphabet", "k o q v attn_norm gate up down ffn_norm"),
    ("T5 plain, modules", "q k v o attn_norm up down ffn_norm"),
    ("T5 plain, alphabet", "k o q v attn_norm up down ffn_norm"),
)


def repeats_by_order(names: Sequence[str], shapes: Sequence[Shape], offset: int = 0) -> RepeatedBlocks | None:
    """The stack that the period of shapes shows, its first block starting `offset` tensors behind the earliest start.

    Runs of equal small groups inside a block (gate, up, down; gate, up, down; …) are its experts.
    """
    found = periodic(shapes)
    if found is None:
        return None
    start, period, length = found
    if length % period < offset:
        return None
    start += offset
    n = (length - offset) // period
    where = _expert_groups(shapes[start : start + period])
    count = Counter(where)
    tensors: dict[int, BlockTensor] = {}
    for i, key in enumerate(where):
        tensors.setdefault(key, BlockTensor("", i, shapes[start + i]))
    for block in range(n):
        seen: dict[int, int] = {}
        for i, key in enumerate(where):
            many = count[key] > 1
            expert = seen.get(key, 0)
            seen[key] = expert + 1
            tensors[key].names[block, expert if many else None] = names[start + block * period + i]
    return RepeatedBlocks("", [list(tensors.values())], list(range(n)))


def starts(shapes: Sequence[Shape]) -> int:
    """How many starts the periodic run leaves open; only a few are looked at, as few tensors follow the last block."""
    found = periodic(shapes)
    return 0 if found is None else min(found[2] % found[1], 4) + 1


def _expert_groups(unit: Sequence[Shape]) -> list[int]:
    """For every tensor of a block a key that is shared by the same tensor of all its experts."""
    keys = list(range(len(unit)))
    for p in (3, 2, 6, 4):
        best, at, streak = 1, 0, 0
        for i in range(len(unit) - p - 1, -1, -1):
            streak = streak + 1 if unit[i] == unit[i + p] else 0
            if streak // p + 1 >= best:
                best, at = streak // p + 1, i
        group = unit[at : at + p]
        transposed = any(len(a) == 2 and a[0] != a[1] and (a[1], a[0]) in group for a in group)
        if best >= 2 and transposed:
            for j in range(best * p):
                keys[at + j] = at + j % p
            break
    return keys


def by_known_orders(tensors: Sequence[BlockTensor], reading: Reading, norms: Choice | None) -> list[str]:
    """Let every known order that the block can be read as speak for its roles; gives the orders' names.

    `tensors`: all but biases.
    """
    choices = [*reading.choices, *([norms] if norms else [])]
    settled = {id(claim.tensor): "+".join(claim.roles) for claim in reading.claims}
    owner = {id(tensor): (choice, i) for choice in choices for i, tensor in enumerate(choice.tensors)}
    sequence = [
        tensor for tensor in sorted(tensors, key=lambda s: s.place) if id(tensor) in settled or id(tensor) in owner
    ]
    votes: dict[int, list[int]] = {id(choice): [] for choice in choices}
    fitting: list[str] = []
    for name, text in ORDERS:
        roles = text.split()
        if len(roles) != len(sequence):
            continue
        found = _fits(roles, sequence, settled, owner, choices)
        if found is not None:
            fitting.append(name)
            for choice, option in zip(choices, found, strict=True):
                votes[id(choice)].append(option)
    for choice in choices:
        voted = votes[id(choice)]
        if voted:
            share = np.bincount(voted, minlength=len(choice.options)) / len(voted)
            choice.odds += _ORDER * share
            choice.cues.append(f"order of {', '.join(fitting[:2])}")
    return fitting


def _fits(
    roles: Sequence[str],
    sequence: Sequence[BlockTensor],
    settled: dict[int, str],
    owner: dict[int, tuple[Choice, int]],
    choices: Sequence[Choice],
) -> list[int] | None:
    """The options that this order means, one per choice; None if it contradicts the shapes."""
    given: dict[int, dict[int, str]] = {id(choice): {} for choice in choices}
    for role, tensor in zip(roles, sequence, strict=True):
        if id(tensor) in settled:
            if settled[id(tensor)] != role:
                return None
        else:
            choice, i = owner[id(tensor)]
            given[id(choice)][i] = role
    found = []
    for choice in choices:
        way = tuple(given[id(choice)].get(i, "") for i in range(len(choice.tensors)))
        if way not in choice.options:
            return None
        found.append(choice.options.index(way))
    return found


def numbering(repeat: RepeatedBlocks, gains: Sequence[BlockTensor], probe: Probe) -> tuple[dict[int, int], str, float]:
    """(number in file order -> block number, why, confidence) of a run without names."""
    n = len(repeat.blocks)
    plain = {i: i for i in range(n)}
    if n <= 10:
        return plain, "numbered in file order", 0.9
    lexical = dict(enumerate(int(text) for text in sorted(map(str, range(n)))))
    score = []
    for way in (plain, lexical):
        back = {number: i for i, number in way.items()}
        values = []
        for tensor in gains:
            vectors = [probe.vector(tensor.names[back[b], None]) for b in range(n) if (back[b], None) in tensor.names]
            values += [correlation(a, b) for a, b in pairwise(vectors)]
        known = [r for r in values if r is not None]
        score.append(float(np.mean(known)) if known else 0.0)
    if score[1] > score[0] + 0.02:
        return lexical, "numbered in order of the alphabet (1, 10, 11, 2), as neighbours' gains agree better so", 0.85
    sure = 0.9 if score[0] > score[1] + 0.02 else 0.6
    return plain, "numbered in file order", sure
