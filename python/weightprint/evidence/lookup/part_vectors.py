"""The vectors of one part of a model over the stream: an FFN's units, attention's projections, a table's rows.

The units of a part are (gate,) up and down of an FFN; row i of v with column i of o, and row i of q with row i of k, of
attention, summed over heads that share keys and values; a token's row in the embedding or in the head. Where gate and
up are one stored tensor, halves and every other row are both read: nothing in the file says which it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weightprint.anatomy.place import Expert
from weightprint.evidence.alignment.unit_signatures import Moments
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import ModelPair
from weightprint.fingerprint.attentions import attentions
from weightprint.fingerprint.ffns import ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_columns, sampled_rows
from weightprint.util.arrays import F32, Indices
from weightprint.util.linear_algebra import product

Kind = Literal["ffn", "attention", "embedding", "head"]

TABLES: tuple[Kind, ...] = ("embedding", "head")

_ATTENTION = ("q", "k", "v", "o")

_TOKENS = 1 << 16  # rows of a table


@dataclass(frozen=True)
class Part:
    """One part of a model: where it is, and its units' vectors over the stream, (units, d) each."""

    kind: Kind
    at: tuple[str, int, Expert]
    read: list[F32]  # (gate,) up
    written: F32
    moments: Moments

    @property
    def units(self) -> int:
        """How many."""
        return len(self.written)

    @property
    def vectors(self) -> tuple[F32, ...]:
        """Everything that its units read and write."""
        return (*self.read, self.written)

    @property
    def up_gate_down(self) -> tuple[F32, F32 | None, F32]:
        """The same, as signatures want it; None without a gate."""
        *gate, up = self.read
        return up, gate[0] if gate else None, self.written

    @property
    def name(self) -> str:
        """How reports name it."""
        if self.kind in TABLES:
            return self.kind
        stack, block, expert = self.at
        of = " attention" if self.kind == "attention" else "" if expert is None else f".expert.{expert}"
        return f"{stack}.{block}{of}"


@dataclass(frozen=True)
class Source:
    """A part as headers tell of it: kind, place, how many units, and the tensors that are read."""

    kind: Kind
    at: tuple[str, int, Expert]
    units: int
    tensors: tuple[Tensor, ...]
    heads: int = 1
    kv_heads: int = 1
    interleaved: bool = False  # gate and up are one stored tensor, taken as every other row in place of halves


def sources_of_both(models: ModelPair) -> tuple[list[Source], list[Source]]:
    """Parts of A and parts of B; reads headers only."""
    return sources(models.a, models.b), sources(models.b, models.a)


def width(source: Source) -> int:
    """Residual channels."""
    tensor = source.tensors[0]
    return tensor.shape[1]


def sources(side: ModelView, other: ModelView) -> list[Source]:
    """The parts of a model; reads headers only."""
    out = []
    for f in (f for f in ffns(side) if f.down is not None):
        tensors = tuple(t for t in (f.gate, f.up, f.down) if t is not None)
        out.append(Source("ffn", f.key, f.units, tensors))
        if f.gate is not None and _weight(f.gate) == _weight(f.up):
            out.append(Source("ffn", f.key, f.units, tensors, interleaved=True))
    out += _attention(side, other)
    widest = max((s.tensors[0].shape[1] for s in out), default=0)
    for tensor in side.tensors.values():
        role = "" if tensor.place is None else tensor.place.role
        for kind in TABLES:
            if role == kind and tensor.rank2 and tensor.shape[1] == widest and not tensor.constant:
                out.append(Source(kind, ("", 0, None), min(tensor.shape[0], _TOKENS), (tensor,)))
    return out


def _attention(side: ModelView, other: ModelView) -> Iterator[Source]:
    """Attention of every block: of equal heads, as the shapes tell; of grouped ones, where the head size is known."""
    found: dict[tuple[str, int], dict[str, Tensor]] = defaultdict(dict)
    for tensor in side.tensors.values():
        place = tensor.place
        if place is not None and place.block is not None and place.role in _ATTENTION and tensor.rank2:
            found[place.stack, place.block].setdefault(place.role, tensor)
    grouped = {(x.stack, x.block): x for x in attentions(side, other) if x.latent is None}
    for at, parts in found.items():
        if parts.keys() < set(_ATTENTION):
            continue
        q, k, v, o = (parts[role] for role in _ATTENTION)
        if q.shape == k.shape == v.shape == o.shape[::-1]:
            heads = (1, 1)
        elif at in grouped and q.shape[0] == o.shape[1]:
            heads = grouped[at].heads, grouped[at].kv_heads
        else:
            continue
        yield Source("attention", (*at, None), 2 * k.shape[0], (q, k, v, o), *heads)


def not_read(side: ModelView, part: str, sources: Sequence[Source]) -> list[str]:
    """Blocks with matrices of this part that no source reads."""
    read = {t.name for s in sources for t in s.tensors}
    left = [t for t in side.tensors.values() if t.place is not None and t.rank2 and t.name not in read]
    return sorted({t.region for t in left if t.layer is not None and t.place is not None and t.place.part == part})


def _weight(tensor: Tensor) -> str:
    """The stored weight that a canonical tensor is cut out of."""
    return tensor.name.partition("[")[0]


def read_part(models: ModelPair, side: ModelView, source: Source) -> Part:
    """The vectors of a part, gains folded into what reads the stream."""

    def rows(tensor: Tensor, only: Indices | None = None) -> F32:
        x = sampled_rows(side, tensor, np.arange(tensor.shape[0]) if only is None else only)
        gain = side.gain(tensor)
        return finite(x if gain is None else x * gain)

    def columns(tensor: Tensor) -> F32:
        return finite(sampled_columns(side, tensor, np.arange(tensor.shape[1])))

    if source.kind == "ffn":
        *reading, down = source.tensors
        read, written = [rows(t) for t in reading], columns(down)
        if source.interleaved:
            both = np.concatenate(read)
            read = [np.ascontiguousarray(both[i::2]) for i in range(2)]
        sets = dict(zip(("gate", "up")[-len(read) :], read, strict=True)) | {"down": written}
    elif source.kind == "attention":
        q, k, v, o = source.tensors
        sets = {"q": rows(q), "k": rows(k), "v": rows(v), "o": columns(o)}

        def per_group(x: F32) -> F32:
            share = source.heads // source.kv_heads
            out: F32 = x.reshape(source.kv_heads, share, -1, x.shape[1]).sum(axis=1).reshape(-1, x.shape[1])
            return out

        read = [np.concatenate([sets["v"], per_group(sets["q"])])]
        written = np.concatenate([per_group(sets["o"]), sets["k"]])
    else:
        chosen = pick(source.tensors[0].shape[0], _TOKENS, models.seed, "turned tokens", run=8)
        written = rows(source.tensors[0], chosen)
        return Part(source.kind, source.at, [written], written, moments_of_table(written))
    return Part(source.kind, source.at, read, written, {name: _moment(x) for name, x in sets.items()})


def moments_of_table(x: F32) -> Moments:
    """Moments of the rows of a table, a quarter at a time: by length, and by how much they lie along all others."""
    lengths = np.einsum("ij,ij->i", x, x)
    along_all = np.einsum("ij,ij->i", product(x, _moment(x)), x) / np.maximum(lengths, 1e-30)
    quarters = [np.array_split(np.argsort(key, kind="stable"), 4) for key in (lengths, along_all)]
    return {f"{i} {j}": _moment(x[rows]) for i, parts in enumerate(quarters) for j, rows in enumerate(parts)}


def _moment(x: F32) -> F32:
    moment: F32 = product(x.T, x)
    trace = float(np.trace(moment))
    return moment / np.float32(trace) if trace > 0 else moment
