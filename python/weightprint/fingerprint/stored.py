"""A fingerprint as the tests see a model: for each kind of question a view that is a small model.

A test reads tensors with places through a :class:`~weightprint.fingerprint.model.ModelView` and can't tell where they
come from. Each view holds, under the true names and places, what was kept for one kind of question, in matrices of the
kept size:

======== ============================================================================================================
identity the tensors as they are: shapes, digests, spread; no values
rows     rows and columns by number (units of FFNs among them) on kept channels; gains on these channels
units    units of FFNs, by number and by content, on kept channels
angles   units by number, as rows with the inner products that they have on the whole stream
heads    attention whose heads' products are those between kept channels
vectors  gains and biases, of wide streams on a thousand channels
======== ============================================================================================================

Both models are then seen so, a live one after it was fingerprinted: what a view lacks, neither side has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from weightprint.errors import UsageError
from weightprint.fingerprint.attentions import attentions
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.fingerprint import Fingerprint
from weightprint.fingerprint.model import ModelView, Tensor, no_gain
from weightprint.fingerprint.parts import values
from weightprint.fingerprint.sampling import pick
from weightprint.util.arrays import F32, Array, Indices

View = Literal["identity", "rows", "units", "angles", "heads", "vectors"]
Label = Literal["a", "b"]
_CHANNELS = 1024  # on which vectors are compared
#: Which of latent attention's matrices stands for which in the view of heads.
_PLAIN = {"q_b": "q", "kv_b": "k", "kv_a": "v"}
#: Tensor → its values in a view, and the kept channels of the stream that it runs over.
_Kept = dict[str, tuple[F32, Indices | None]]


def check_plans(a: Fingerprint, b: Fingerprint) -> None:
    """UsageError (code ``other_plan``) where two fingerprints keep different things."""
    if a.plan != b.plan:
        ours, theirs = a.plan.to_dict(), b.plan.to_dict()
        differ = ", ".join(f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key])
        message = f"fingerprints that keep different things ({differ}) can't be compared: make one of them again"
        raise UsageError(message, code="other_plan")


def view(of: Fingerprint, kind: View, label: Label) -> ModelView:
    """One model as tests of this kind see it."""
    if kind == "identity":
        return ModelView(label, of.tensors, partial(_constant, of), geometry=of.geometry)
    kept = VIEWS[kind](of)
    tensors = {name: _sized(of.tensors[name], x) for name, (x, _) in kept.items()}
    if kind == "heads":
        tensors = {name: _as_plain(tensor) for name, tensor in tensors.items()}
    flat = {name: np.ascontiguousarray(x, np.float32).reshape(-1) for name, (x, _) in kept.items()}

    def reader(name: str, start: int, stop: int) -> F32:
        return flat[name][start:stop].copy()

    # A head is as long as the channels it is kept between; folded gains are in angles and heads.
    geometry = of.geometry
    if kind == "heads":
        size = {tensor.stack: tensor.shape[1] for tensor in tensors.values() if tensor.key[1] == "q"}
        geometry = {s: replace(g, head_dim=size[s], value_dim=None) for s, g in geometry.items() if s in size}
    gains = partial(_gain, of, kept) if kind in ("rows", "units") else no_gain
    return ModelView(label, tensors, reader, gains, geometry)


def _constant(of: Fingerprint, name: str, start: int, stop: int) -> F32:
    """The values of a tensor that has one; of others there are none."""
    if of.tensors[name].constant:
        return np.full(stop - start, of.statistics("mean")[name], np.float32)
    raise UsageError("a fingerprint has no values of whole tensors", tensor=name, code="needs_weights")


def _gain(of: Fingerprint, kept: _Kept, tensor: Tensor) -> F32 | None:
    """The gain that acts on a kept matrix, on its channels."""
    channels = kept[tensor.name][1]
    norm = of.norm_before(tensor.name) if channels is not None else None
    found = of.arrays.get(f"vectors/{norm}/values") if norm is not None else None
    if norm is None or found is None or channels is None or channels.max(initial=0) >= found.size:
        return None
    acts: F32 = found[channels].astype(np.float32) + np.float32(of.tensors[norm].offset)
    return acts


def _sized(tensor: Tensor, x: F32) -> Tensor:
    """The tensor in the size of what was kept; its digest would be that of other values."""
    zeros = int(np.count_nonzero(x == 0))
    return replace(tensor, shape=x.shape, numel=x.size, nbytes=4 * x.size, digest=None, sinusoidal=False, zeros=zeros)


def _as_plain(tensor: Tensor) -> Tensor:
    """A part of latent attention in the place of the factor that its view holds."""
    place = tensor.place
    return tensor if place is None else replace(tensor, place=replace(place, role=_PLAIN.get(place.role, place.role)))


# What each kind of view holds


def _units(of: Fingerprint) -> _Kept:
    return {name: x for ffn, kept in _kept_ffns(of, "units") for name, x in _of_ffn(of, ffn, kept, slice(None)).items()}


def _rows(of: Fingerprint) -> _Kept:
    out: _Kept = {}
    for ffn, kept in _kept_ffns(of, "units"):
        out |= _of_ffn(of, ffn, kept, slice(0, int(kept["by_number"][0])))
    for part in ("tokens", "rows"):
        for name, kept in of.part(part).items():
            tensor = of.tensors[name]
            width = tensor.shape[0 if tensor.role is not None and tensor.role.axis == "writes" else 1]
            x = kept["rows"] if part == "tokens" else values(kept["rows"], kept["rows_scale"])
            out[name] = (x, of.plan.stream_channels(width))
    main = of.geometry.get(of.summary["main_stack"])
    for name, (x, _) in _vectors(of).items():
        if main is not None and x.size == main.hidden:
            out[name] = (x[of.plan.stream_channels(x.size)], None)
    return out


def _of_ffn(of: Fingerprint, ffn: Ffn, kept: Mapping[str, Array], units: slice) -> _Kept:
    channels = of.plan.stream_channels(ffn.width)
    out: _Kept = {}
    for role, tensor in (("up", ffn.up), ("gate", ffn.gate), ("down", ffn.down)):
        if tensor is not None and role in kept:
            x = values(kept[role][units], kept[f"{role}_scale"][units])
            out[tensor.name] = (x.T if role == "down" else x, channels)
    return out


def _angles(of: Fingerprint) -> _Kept:
    out: _Kept = {}
    for ffn, kept in _kept_ffns(of, "angles"):
        for role, tensor in (("up", ffn.up), ("gate", ffn.gate)):
            if tensor is not None and role in kept:
                out[tensor.name] = (_rows_of(kept[role]), None)
    return out


def _rows_of(upper: Array) -> F32:
    """Rows of length one with these inner products (above the diagonal, row by row): the root of their matrix."""
    n = (1 + int(np.sqrt(1 + 8 * upper.size))) // 2
    gram = np.eye(n)
    at = np.triu_indices(n, 1)
    gram[at] = upper
    gram.T[at] = upper
    size, turn = np.linalg.eigh(gram)
    root: F32 = ((turn * np.sqrt(np.maximum(size, 0))) @ turn.T).astype(np.float32)
    return root


def _heads(of: Fingerprint) -> _Kept:
    """A product P between n channels as factors: q and o are P, k and v ones of size n."""
    out: _Kept = {}
    found = {x.name: x for x in attentions(view(of, "identity", "a"), view(of, "identity", "a"))}
    for name, kept in of.part("heads").items():
        if name not in found:
            continue
        parts, groups = found[name].parts, int(kept["groups"][0])
        qk, vo = (values(kept[kind], kept[f"{kind}_scale"]) for kind in ("qk", "vo"))
        n = qk.shape[-1]
        ones = np.tile(np.eye(n, dtype=np.float32), (groups, 1))
        # The left factor of a head is L (size x channels) with P = L'R and R = 1, so L = P'.
        parts = {_PLAIN.get(role, role): tensor for role, tensor in parts.items()}
        out[parts["q"].name] = (qk.transpose(0, 2, 1).reshape(-1, n), None)
        out[parts["o"].name] = (np.ascontiguousarray(vo.transpose(0, 2, 1).reshape(-1, n).T), None)
        out[parts["k"].name] = out[parts["v"].name] = (ones, None)
    return out


def _vectors(of: Fingerprint) -> _Kept:
    return {name: (kept["values"].astype(np.float32), None) for name, kept in of.part("vectors").items()}


def _channels_of_vectors(of: Fingerprint) -> _Kept:
    """The vectors, long ones on some of their channels."""
    found = _vectors(of).items()
    return {name: (x[pick(x.size, _CHANNELS, of.plan.seed, f"vector {x.size}")], None) for name, (x, _) in found}


def _kept_ffns(of: Fingerprint, part: str) -> Iterable[tuple[Ffn, dict[str, Array]]]:
    """FFNs of which this part was kept."""
    kept = of.part(part)
    for ffn in ffns(view(of, "identity", "a")):
        if ffn.name in kept:
            yield ffn, kept[ffn.name]


VIEWS: dict[str, Callable[[Fingerprint], _Kept]] = {
    "rows": _rows,
    "units": _units,
    "angles": _angles,
    "heads": _heads,
    "vectors": _channels_of_vectors,
}
