"""The roles of one kind of block's tensors, from shapes, name hints, file order and values together.

``confidence`` of a role is base x chance: the base is how well the whole block can be read (.9: every matrix found its
place; less where some are left over or there is no attention), the chance what the cues give the option taken. A
matching name hint leaves doubt × 0.6, a contradicting one confidence × 0.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.infer.blocks import BlockTensor
from weightprint.anatomy.infer.log_odds import by_name_hints, by_order, by_values, fused_layout
from weightprint.anatomy.infer.name_hints import FUSED, hint
from weightprint.anatomy.infer.order import by_known_orders
from weightprint.anatomy.infer.shapes import Choice, Reading, read_matrices
from weightprint.anatomy.infer.value_probes import Probe
from weightprint.anatomy.infer.vectors import beside, by_biases, is_gain, name_prefix, norm_choice, paired_by_prefix
from weightprint.anatomy.place import Rows
from weightprint.anatomy.roles import ROLES, bias_of, matrix_of


@dataclass
class TensorRole:
    """The roles of one tensor (several where it is fused), its storage, confidence and reason."""

    tensor: BlockTensor
    roles: tuple[str, ...]
    transposed: bool
    confidence: float
    because: str
    expert: str | None = None
    rows: tuple[Rows, ...] | None = None


def read_block(
    tensors: Sequence[BlockTensor],
    d: int,
    probe: Probe,
    *,
    ordered: bool,
    known_order: bool,
    final: bool,
    fitting: list[str] | None = None,
) -> list[TensorRole]:
    """Everything that can be said about one kind of block."""
    reading = read_matrices(tensors, d)
    for choice in reading.choices:
        by_name_hints(choice)
        if ordered:
            by_order(choice)
        _storage(choice, reading)
    by_values(reading, probe)
    for choice in reading.choices:
        _storage(choice, reading)
    matrices = [s for s in tensors if len(s.shape) > 1 and min(s.shape) > 1]
    vectors = [s for s in tensors if s not in matrices]
    pairs = paired_by_prefix(vectors, matrices)
    flat = [v for v in vectors if len(v.shape) == 1]
    gain = {id(v): is_gain(v, probe) for v in flat if id(v) not in pairs}
    if ordered and not any(tensor.rest for tensor in tensors):
        loose = [v for v in flat if id(v) not in pairs and not gain[id(v)]]
        found = beside(loose, matrices, {id(m): set(m.shape[-2:]) for m in matrices})
        if any(gain[id(v)] is False for v in loose) or len(found) == len(matrices):
            pairs |= found  # unread vectors may be gains: believed where every matrix gets one
    for choice in reading.choices:
        by_biases(choice, pairs, flat, probe)
    free = [v for v in flat if v.shape == (d,) and id(v) not in pairs]
    norms, offsets = _norm_pairs(free, gain, _bias_side(matrices, vectors, pairs))
    readers = {
        part: [s for owner in _owners(reading, roles) for s in owner]
        for part, roles in (("attn", {"q", "k", "v"}), ("ffn", {"gate", "up"}))
    }
    choice_of_norms = norm_choice(norms, readers, probe, outside=final, ordered=ordered) if norms else None
    if known_order:
        names = by_known_orders([*matrices, *norms], reading, choice_of_norms)
        if fitting is not None:
            fitting += names
    base = 0.9 if not reading.rest else 0.8
    if not any("o" in "+".join(r) for r in _all_roles(reading)):
        base -= 0.1
    out = _matrix_roles(reading, probe, base)
    out += _bias_roles(out, pairs, vectors)
    if choice_of_norms is not None:
        out += _choice_roles(choice_of_norms, False, base, "vectors of the hidden size beside the matrices")
        for role in list(out):
            offset = offsets.get(id(role.tensor))
            if offset is not None:
                why = "offset beside the gain of " + role.roles[0]
                out.append(TensorRole(offset, (bias_of(role.roles[0]),), False, 0.9 * role.confidence, why))
    out += _lone_biases(out, flat, reading)
    out += by_name_hints_only(tensors, out, d)
    return out


def _storage(choice: Choice, reading: Reading) -> None:
    """A plain FFN is stored as the block's other projections are."""
    if (
        reading.transposed is not None
        and len(set(choice.transposed)) == 2
        and not any("stored" in c for c in choice.cues)
    ):
        choice.odds += [5.0 if transposed == reading.transposed else 0.0 for transposed in choice.transposed]
        choice.cues.append(f"stored {'turned ' if reading.transposed else ''}like the other projections")


def _owners(reading: Reading, roles: set[str]) -> Iterable[list[BlockTensor]]:
    for claim in reading.claims:
        if set(claim.roles) & roles and not claim.tensor.experts:
            yield [claim.tensor]
    for choice in reading.choices:
        picked = choice.options[choice.best]
        yield [
            s for s, role in zip(choice.tensors, picked, strict=True) if roles & set(role.split("+")) and not s.experts
        ]


def _all_roles(reading: Reading) -> Iterable[tuple[str, ...]]:
    yield from (claim.roles for claim in reading.claims)
    yield from (choice.options[0] for choice in reading.choices)


def _norm_pairs(
    free: Sequence[BlockTensor], gain: Mapping[int, bool | None], side: int
) -> tuple[list[BlockTensor], dict[int, BlockTensor]]:
    """The gains among the vectors of the hidden size, and id(gain) -> its offset, by name prefix or by place.

    Vectors that could not be read, in a block whose matrices all have biases, are taken as gain and offset in turn,
    the offset on the `side` (1: behind, -1: before) on which biases stand.
    """
    if side and free and len(free) % 2 == 0 and not free[0].rest and all(gain[id(v)] is None for v in free):
        ordered = sorted(free, key=lambda v: v.place)
        first, second = ordered[::2], ordered[1::2]
        found, others = (first, second) if side > 0 else (second, first)
        return found, {id(g): v for g, v in zip(found, others, strict=True)}
    gains = [v for v in free if gain[id(v)] is not False]
    rest = [v for v in free if gain[id(v)] is False]
    offsets: dict[int, BlockTensor] = {}
    for g in gains:
        same = [v for v in rest if v.rest and g.rest and name_prefix(v.rest) == name_prefix(g.rest)]
        if len(same) == 1:
            offsets[id(g)] = same[0]
    if not offsets and rest and not any(v.rest for v in rest):
        for step in (1, -1):
            near = {id(g): v for g in gains for v in rest if v.place - g.place == step}
            if len(near) == len(gains):
                offsets = near
                break
    return gains, offsets


def _bias_side(
    matrices: Sequence[BlockTensor], vectors: Sequence[BlockTensor], pairs: Mapping[int, BlockTensor]
) -> int:
    """1 or -1 where every matrix has its bias behind or before it; else 0."""
    place = {id(pairs[id(v)]): v.place for v in vectors if id(v) in pairs}
    sides = {int(np.sign(place[id(m)] - m.place)) if id(m) in place else 0 for m in matrices}
    return sides.pop() if len(sides) == 1 else 0


def _matrix_roles(reading: Reading, probe: Probe, base: float) -> list[TensorRole]:
    out: list[TensorRole] = []
    block = f"shapes of a block of width {reading.hidden}"
    for claim in reading.claims:
        transposed = claim.transposed if claim.transposed is not None else bool(reading.transposed)
        sure, words = _agreement(claim.tensor, "+".join(claim.roles), base)
        role = TensorRole(claim.tensor, claim.roles, transposed, sure, block + words, claim.expert)
        if claim.roles == ("q", "k", "v"):
            o = next((c.tensor for c in reading.claims if c.roles == ("o",)), None)
            role.rows, chance, why = fused_layout(claim.tensor, o, transposed, reading, probe)
            role.confidence *= chance
            role.because += f"; {why}"
        out.append(role)
    for choice in reading.choices:
        out += _choice_roles(choice, bool(reading.transposed), base, block)
    return out


def _choice_roles(choice: Choice, transposed: bool, base: float, block: str) -> list[TensorRole]:
    out = []
    option = choice.options[choice.best]
    stored = choice.transposed[choice.best]
    for i, tensor in enumerate(choice.tensors):
        roles = tuple(option[i].split("+"))
        chance = choice.chance_of(i)
        rivals = sorted({way[i] for way in choice.options} - {option[i]})
        sure, words = _agreement(tensor, option[i], base * chance)
        why = block + words
        if chance < 0.6 and rivals:
            by = "the cues" if choice.cues else "shapes"
            why += f"; {option[i]} and {' or '.join(rivals)} can't be told apart by {by}"
        elif choice.cues:
            why += "; " + ", ".join(dict.fromkeys(choice.cues))
        out.append(TensorRole(tensor, roles, transposed if stored is None else stored, sure, why, choice.expert))
    return out


def _agreement(tensor: BlockTensor, role: str, sure: float) -> tuple[float, str]:
    """Confidence and a remark once the name's words are heard."""
    word = hint(tensor.rest) if tensor.rest else None
    if word is None or word in ("norm", "gate"):
        return sure, ""
    word = "+".join(FUSED[word]) if word in FUSED else word
    if word == role:
        return 1 - (1 - sure) * 0.4, "; its name agrees"
    return sure * 0.6, f"; its name speaks of {word}"


def _bias_roles(
    roles: Sequence[TensorRole], pairs: Mapping[int, BlockTensor], vectors: Sequence[BlockTensor]
) -> list[TensorRole]:
    """The biases of matrices that have a role, cut as the matrix is."""
    by_tensor = {id(role.tensor): role for role in roles}
    out = []
    for vector in vectors:
        matrix = pairs.get(id(vector))
        role = by_tensor.get(id(matrix)) if matrix is not None else None
        if role is None or matrix is None:
            continue
        rows = matrix.shape[-1] if role.transposed else matrix.shape[-2]
        flat = len(vector.shape) == (2 if role.expert == "axis" else 1)
        if vector.shape[-1] == rows and flat:
            why = f"bias of {'+'.join(role.roles)}, by stem or place and by length"
            biases = tuple(bias_of(r) for r in role.roles)
            out.append(TensorRole(vector, biases, False, 0.95 * role.confidence, why, role.expert, role.rows))
    return out


def _lone_biases(roles: Sequence[TensorRole], vectors: Sequence[BlockTensor], reading: Reading) -> list[TensorRole]:
    """A vector whose length only one matrix of the block puts out is its bias."""
    used = {id(role.tensor) for role in roles}
    out = []
    for vector in vectors:
        if id(vector) in used or vector.shape == (reading.hidden,) or (vector.rest and hint(vector.rest) is not None):
            continue
        fits = [r for r in roles if len(r.tensor.shape) == 2 and (r.tensor.shape[r.transposed] == vector.shape[0])]
        same = [v for v in vectors if v.shape == vector.shape]
        if len(fits) == 1 and len(same) == 1 and bool(fits[0].tensor.experts) == bool(vector.experts):
            biases = tuple(bias_of(role) for role in fits[0].roles)
            why = f"the only vector as long as the output of {'+'.join(fits[0].roles)}"
            out.append(TensorRole(vector, biases, False, 0.8 * fits[0].confidence, why, fits[0].expert, fits[0].rows))
    return out


def by_name_hints_only(tensors: Sequence[BlockTensor], roles: Sequence[TensorRole], d: int) -> list[TensorRole]:
    """What is left and whose name has a word for it that its shape doesn't contradict; little confidence."""
    used = {id(role.tensor) for role in roles}
    given = {role for r in roles for role in r.roles}
    out = []
    for tensor in tensors:
        word = hint(tensor.rest) if tensor.rest and id(tensor) not in used and not tensor.experts else None
        if word is None or word in given or matrix_of(word) not in ROLES:
            continue
        row = ROLES[matrix_of(word)]
        vector = len(tensor.shape) == 1
        if vector != (row.part == "norm" or word.endswith("_bias")) or len(tensor.shape) > 2:
            continue
        transposed = row.axis == "reads" and not vector and tensor.shape[0] == d != tensor.shape[-1]
        reads = row.axis != "reads" or vector or d in tensor.shape
        writes = row.axis != "writes" or vector or tensor.shape[0] == d
        channels = row.axis != "channels" or tensor.shape == (d,)
        if reads and writes and channels:
            given.add(word)
            out.append(TensorRole(tensor, (word,), transposed, 0.5, f"only the words in its name say {word}"))
    return out
