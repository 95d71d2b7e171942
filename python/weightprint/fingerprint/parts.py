"""What a fingerprint keeps of values, collected while a model's bytes pass (:mod:`weightprint.fingerprint.one_pass`).

Every part is arrays by name, ``<part>/<canonical tensor or block>/<what>``:

======== ============================================================================================================
units    of an FFN: kept unit numbers, and their rows on kept channels, as codes and scales
angles   of an FFN: inner products among the units by number, of gate and of up, on the whole stream
heads    of an attention block: both products of every head between kept channels
tokens   rows of the token tables on kept channels, exact
rows     of every other matrix of the stream: some rows (of one that writes it: columns) on kept channels
vectors  gains and biases, whole
======== ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial

import numpy as np

from weightprint.fingerprint.attentions import Attention, attentions
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.layout import kept_heads, kept_of
from weightprint.fingerprint.model import ModelView
from weightprint.fingerprint.plan import Plan
from weightprint.fingerprint.sampling import Read, on_channels, sampled_columns, sampled_rows
from weightprint.fingerprint.steps import Collector, Round, Step, where
from weightprint.fingerprint.units import kept_units, unit_reads
from weightprint.util.arrays import F32, Array
from weightprint.util.linear_algebra import finite, unit_rows


def codes(x: F32) -> tuple[Array, F32]:
    """Rows as signed bytes and what each is multiplied by: int8 (…, n), float32 (…). Only a zero is 0, so that masks
    stay what they are."""
    top = np.max(np.abs(x), axis=-1, initial=0)
    scale = np.where(top > 0, top / np.float32(127), np.float32(1)).astype(np.float32)
    code = np.rint(x / scale[..., None])
    return np.where(code == 0, np.sign(x), code).astype(np.int8), scale


def values(code: Array, scale: F32) -> F32:
    """The rows that `codes` made these of, to half a step; to one where a value is less than that."""
    return code.astype(np.float32) * scale[..., None]


class Parts(Collector):
    """Collects all parts of one model; ``arrays`` holds them when its bytes have passed."""

    def __init__(self, side: ModelView, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.arrays: dict[str, Array] = {}
        # A LayerNorm takes the stream's mean away, so rows' means over channels mean nothing.
        roles = {tensor.place.role for tensor in side.tensors.values() if tensor.place is not None}
        self._centred = not roles.isdisjoint(("ffn_norm_bias", "attn_norm_bias"))
        self._steps_of = list(self._planned(side))

    @property
    def what(self) -> Hashable:
        """The plan."""
        return self.plan

    def rounds(self) -> list[Round]:
        """One round, of one side."""
        return [((), self._steps_of)]

    def _planned(self, side: ModelView) -> Iterable[Step]:
        plan = self.plan
        found = plan.chosen_ffns(ffns(side))
        each, taken = plan.units_each(found), set()
        for ffn in found:
            taken |= {t.name for t in ffn.matrices.values()}
            channels = plan.stream_channels(ffn.width)
            numbers = plan.numbered(ffn.units, plan.angles)
            reads = [Read(t, numbers, None) for t in (ffn.up, ffn.gate) if t is not None]
            at = (ffn.stack, ffn.block)
            yield Step(at, partial(self._units, ffn, each), unit_reads(ffn, channels))
            yield Step(at, partial(self._angles, ffn), tuple(reads))
        for attention in attentions(side, side):
            if kept_heads(attention):
                at = (attention.stack, attention.block)
                yield Step(at, partial(self._heads, attention), self._head_reads(attention))
        for tensor in side.tensors.values():
            kept = kept_of(tensor, plan) if tensor.name not in taken else None
            if kept is not None:
                part, read = kept
                keep = self._vector if part == "vectors" else partial(self._rows, part)
                yield Step(where(tensor), partial(keep, read), () if part == "vectors" else (read,))

    # Steps

    def _keep(self, name: str, array: Array) -> None:
        with self._adding:
            self.arrays[name] = np.ascontiguousarray(array)

    def _coded(self, name: str, rows: F32) -> None:
        code, scale = codes(finite(rows))
        self._keep(name, code)
        self._keep(f"{name}_scale", scale)

    def _units(self, ffn: Ffn, each: int, side: ModelView) -> None:
        units, by_number, parts = kept_units(side, ffn, self.plan, each)
        self._keep(f"units/{ffn.name}/units", units.astype(np.int32))
        self._keep(f"units/{ffn.name}/by_number", np.array([by_number], np.int32))
        for role, rows in parts.items():
            self._coded(f"units/{ffn.name}/{role}", rows)

    def _angles(self, ffn: Ffn, side: ModelView) -> None:
        numbers = self.plan.numbered(ffn.units, self.plan.angles)
        for role, tensor in (("up", ffn.up), ("gate", ffn.gate)):
            if tensor is None:
                continue
            x, gain = sampled_rows(side, tensor, numbers), side.gain(tensor)
            x = finite(x if gain is None else x * gain)
            x = unit_rows(x - x.mean(axis=1, keepdims=True) if self._centred else x)
            self._keep(f"angles/{ffn.name}/{role}", (x @ x.T)[np.triu_indices(len(x), 1)].astype(np.float16))

    def _head_reads(self, attention: Attention) -> tuple[Read, ...]:
        parts = attention.parts
        channels = self.plan.between(parts["o"].shape[0])
        inputs = ("q", "k", "v") if attention.latent is None else ("q_a" if "q_a" in parts else "q", "kv_a")
        return *(Read(parts[role], None, channels) for role in inputs), Read(parts["o"], channels, None)

    def _heads(self, attention: Attention, side: ModelView) -> None:
        heads, groups = attention.heads, attention.kv_heads
        o = attention.parts["o"]
        channels = self.plan.between(o.shape[0])
        q, k, v = attention.multiplied(side, lambda tensor: on_channels(side, tensor, channels))
        written, n = sampled_columns(side, o, np.arange(o.shape[1]), channels), channels.size
        for kind, left, right in (("qk", q, k), ("vo", written, v)):
            left, right = left.reshape(heads, -1, n), right.reshape(groups, -1, n).repeat(heads // groups, axis=0)
            self._coded(f"heads/{attention.name}/{kind}", np.matmul(left.transpose(0, 2, 1), right))
        self._keep(f"heads/{attention.name}/groups", np.array([groups], np.int32))

    def _rows(self, part: str, read: Read, side: ModelView) -> None:
        assert read.rows is not None
        rows = sampled_rows(side, read.tensor, read.rows, read.columns)
        if part == "tokens":
            self._keep(f"tokens/{read.tensor.name}/rows", finite(rows))
        else:
            self._coded(f"rows/{read.tensor.name}/rows", rows)

    def _vector(self, read: Read, side: ModelView) -> None:
        x = finite(side.reader(read.tensor.name, 0, read.tensor.numel))
        short = x.astype(np.float16)
        fits = np.abs(x).max() < 6e4 and np.all((x == 0) | (np.abs(x) > 1e-4))
        self._keep(f"vectors/{read.tensor.name}/values", short if fits else x)
