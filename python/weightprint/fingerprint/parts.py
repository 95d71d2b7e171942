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

from collections.abc import Callable, Hashable, Iterable
from functools import partial

import numpy as np

from weightprint.anatomy.roles import TOKEN_TABLES
from weightprint.fingerprint.attentions import Attention, attentions
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.plan import Plan
from weightprint.fingerprint.sampling import Read, on_channels, sampled_columns, sampled_rows
from weightprint.fingerprint.steps import Collector, Round, Step, where
from weightprint.fingerprint.units import kept_units, unit_reads
from weightprint.util.arrays import F32, Array
from weightprint.util.linear_algebra import unit_rows

__all__ = ["Parts", "codes", "values"]

_VECTOR = 1 << 20  # longest vector that is kept
_LONGEST_HEADS = 1 << 26  # values of the largest matrix of an attention block whose heads are kept


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
            taken |= {t.name for t in (ffn.up, ffn.gate, ffn.down) if t is not None}
            channels = plan.stream_channels(ffn.width)
            numbers = plan.numbered(ffn.units, plan.angles)
            reads = [Read(t, numbers, None) for t in (ffn.up, ffn.gate) if t is not None]
            at = (ffn.stack, ffn.block)
            yield Step(at, partial(self._units, ffn, each), unit_reads(ffn, channels))
            yield Step(at, partial(self._angles, ffn), tuple(reads))
        for attention in attentions(side, side):
            if attention.latent is None and attention.largest <= _LONGEST_HEADS:
                at = (attention.stack, attention.block)
                yield Step(at, partial(self._heads, attention), self._head_reads(attention))
        for tensor in side.tensors.values():
            step = self._of_tensor(tensor) if tensor.name not in taken else None
            if step is not None:
                yield Step(where(tensor), step[0], (step[1],) if step[1] is not None else ())

    def _of_tensor(self, tensor: Tensor) -> tuple[Callable[[ModelView], None], Read | None] | None:
        """What is kept of a matrix or vector beyond units and heads, and how it is read."""
        place, role = tensor.place, tensor.role
        if place is None or role is None or role.part == "fixed" or tensor.undecoded:
            return None
        if len(tensor.shape) <= 1 and 1 < tensor.numel <= _VECTOR:
            return partial(self._vector, tensor), None
        if not tensor.rank2 or (place.expert is not None) or role.axis not in ("reads", "writes"):
            return None
        n_rows, width = tensor.shape
        if place.role in TOKEN_TABLES:
            rows, columns = self.plan.token_rows(n_rows), self.plan.stream_channels(width)
            return partial(self._rows, "tokens", tensor), Read(tensor, rows, columns)
        if role.axis == "reads":
            rows, columns = self.plan.numbered(n_rows, self.plan.rows), self.plan.stream_channels(width)
        else:
            rows, columns = self.plan.stream_channels(n_rows), self.plan.numbered(width, self.plan.rows)
        return partial(self._rows, "rows", tensor), Read(tensor, rows, columns)

    # Steps

    def _keep(self, name: str, array: Array) -> None:
        with self._adding:
            self.arrays[name] = np.ascontiguousarray(array)

    def _units(self, ffn: Ffn, each: int, side: ModelView) -> None:
        units, by_number, parts = kept_units(side, ffn, self.plan, each)
        self._keep(f"units/{ffn.name}/units", units.astype(np.int32))
        self._keep(f"units/{ffn.name}/by_number", np.array([by_number], np.int32))
        for role, rows in parts.items():
            code, scale = codes(rows)
            self._keep(f"units/{ffn.name}/{role}", code)
            self._keep(f"units/{ffn.name}/{role}_scale", scale)

    def _angles(self, ffn: Ffn, side: ModelView) -> None:
        numbers = self.plan.numbered(ffn.units, self.plan.angles)
        roles = {tensor.place.role for tensor in side.tensors.values() if tensor.place is not None}
        centred = not roles.isdisjoint(("ffn_norm_bias", "attn_norm_bias"))
        for role, tensor in (("up", ffn.up), ("gate", ffn.gate)):
            if tensor is None:
                continue
            x, gain = sampled_rows(side, tensor, numbers), side.gain(tensor)
            x = x if gain is None else x * gain
            # A LayerNorm takes the stream's mean away, so rows' means over channels mean nothing.
            x = unit_rows(x - x.mean(axis=1, keepdims=True) if centred else x)
            self._keep(f"angles/{ffn.name}/{role}", (x @ x.T)[np.triu_indices(len(x), 1)].astype(np.float16))

    def _head_reads(self, attention: Attention) -> tuple[Read, ...]:
        parts = attention.parts
        channels = self.plan.between(parts["o"].shape[0])
        return *(Read(parts[role], None, channels) for role in ("q", "k", "v")), Read(parts["o"], channels, None)

    def _heads(self, attention: Attention, side: ModelView) -> None:
        parts, heads, groups = attention.parts, attention.heads, attention.kv_heads
        channels = self.plan.between(parts["o"].shape[0])
        q, k, v = (on_channels(side, parts[role], channels) for role in ("q", "k", "v"))
        o = sampled_columns(side, parts["o"], np.arange(parts["o"].shape[1]), channels)
        n = channels.size
        for kind, left, right in (("qk", q, k), ("vo", o, v)):
            left, right = left.reshape(heads, -1, n), right.reshape(groups, -1, n).repeat(heads // groups, axis=0)
            code, scale = codes(np.matmul(left.transpose(0, 2, 1), right))
            self._keep(f"heads/{attention.name}/{kind}", code)
            self._keep(f"heads/{attention.name}/{kind}_scale", scale)
        self._keep(f"heads/{attention.name}/groups", np.array([groups], np.int32))

    def _rows(self, part: str, tensor: Tensor, side: ModelView) -> None:
        step = self._of_tensor(tensor)
        read = step[1] if step is not None else None
        assert read is not None
        assert read.rows is not None
        rows = sampled_rows(side, tensor, read.rows, read.columns)
        if part == "tokens":
            self._keep(f"tokens/{tensor.name}/rows", rows)
            return
        code, scale = codes(rows)
        self._keep(f"rows/{tensor.name}/rows", code)
        self._keep(f"rows/{tensor.name}/rows_scale", scale)

    def _vector(self, tensor: Tensor, side: ModelView) -> None:
        x = side.reader(tensor.name, 0, tensor.numel)
        short = x.astype(np.float16)
        fits = np.abs(x).max() < 6e4 and np.all((x == 0) | (np.abs(x) > 1e-4))
        self._keep(f"vectors/{tensor.name}/values", short if fits else x)
