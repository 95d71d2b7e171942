"""Which arrays a fingerprint of these tensors holds, of which dtype and shape: from headers and the plan alone.

What `weightprint.fingerprint.parts.Parts` collects follows from shapes, so a file that anyone may have written is held
to it before anything reads its values: no test meets an array that is missing, longer or of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from weightprint.anatomy.place import Geometry
from weightprint.anatomy.roles import TOKEN_TABLES
from weightprint.fingerprint.attentions import Attention, attentions
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.plan import Plan
from weightprint.fingerprint.sampling import Read
from weightprint.util.arrays import F32, Array

_LONGEST_VECTOR = 1 << 20  # that is kept
_LONGEST_HEADS = 1 << 26  # values of the largest matrix of an attention block whose heads are kept
_HEADS = ("groups", "qk", "qk_scale", "vo", "vo_scale")

#: The dtypes that an array may have, and its shape.
Slot = tuple[tuple[str, ...], tuple[int, ...]]


def kept_heads(attention: Attention) -> bool:
    """Whether the products of its heads are kept."""
    return attention.largest <= _LONGEST_HEADS or attention.latent is not None


def kept_of(tensor: Tensor, plan: Plan) -> tuple[str, Read] | None:
    """What is kept of a tensor beyond units and heads: the part, and which rows and columns of it."""
    place, role = tensor.place, tensor.role
    if place is None or role is None or role.part == "fixed" or tensor.undecoded:
        return None
    if len(tensor.shape) <= 1 and 1 < tensor.numel <= _LONGEST_VECTOR:
        return "vectors", Read(tensor, None, None)
    if not tensor.rank2 or place.expert is not None or role.axis not in ("reads", "writes"):
        return None
    n_rows, width = tensor.shape
    if place.role in TOKEN_TABLES:
        return "tokens", Read(tensor, plan.token_rows(n_rows), plan.stream_channels(width))
    if role.axis == "reads":
        return "rows", Read(tensor, plan.numbered(n_rows, plan.rows), plan.stream_channels(width))
    return "rows", Read(tensor, plan.stream_channels(n_rows), plan.numbered(width, plan.rows))


def layout(side: ModelView, plan: Plan, statistics: int) -> dict[str, Slot]:
    """Name → dtypes and shape of every array; so many `statistics` are kept of each tensor."""
    n, sketched = len(side.tensors), sum(t.sketched for t in side.tensors.values())
    out: dict[str, Slot] = {
        "sketches": (("f4",), (sketched, plan.buckets(sketched))),
        "gains": (("i4",), (n,)),
        "statistics": (("f8",), (n, statistics)),
    }
    # Plans are made before a value is read: which tensors are constant isn't known then.
    tensors = {name: replace(t, constant=False) for name, t in side.tensors.items()}
    side = replace(side, tensors=tensors)
    found = plan.chosen_ffns(ffns(side))
    for ffn in found:
        out |= _of_ffn(ffn, plan, plan.units_each(found))
    for attention in attentions(side, side):
        if kept_heads(attention):
            out |= _of_heads(attention, plan)
    taken = {t.name for ffn in found for t in ffn.matrices.values()}
    for tensor in tensors.values():
        if tensor.name not in taken:
            out |= _of_tensor(tensor, plan)
    return out


def _of_ffn(ffn: Ffn, plan: Plan, each: int) -> dict[str, Slot]:
    channels = plan.stream_channels(ffn.width).size
    numbered = plan.numbered(ffn.units, (each + 1) // 2).size
    units = numbered + min(max(0, each - numbered), ffn.units - numbered)
    angles = plan.numbered(ffn.units, plan.angles).size
    out: dict[str, Slot] = {
        f"units/{ffn.name}/units": (("i4",), (units,)),
        f"units/{ffn.name}/by_number": (("i4",), (1,)),
    }
    for role in ffn.matrices:
        out |= _coded(f"units/{ffn.name}/{role}", (units, channels))
        if role != "down":
            out[f"angles/{ffn.name}/{role}"] = ("f2",), (angles * (angles - 1) // 2,)
    return out


def _of_heads(attention: Attention, plan: Plan) -> dict[str, Slot]:
    n = plan.between(attention.parts["o"].shape[0]).size
    shapes: dict[str, Slot] = {"groups": (("i4",), (1,))}
    shapes |= _coded("qk", (attention.heads, n, n)) | _coded("vo", (attention.heads, n, n))
    return {f"heads/{attention.name}/{what}": shapes[what] for what in _HEADS}


def _of_tensor(tensor: Tensor, plan: Plan) -> dict[str, Slot]:
    kept = kept_of(tensor, plan)
    if kept is None:
        return {}
    part, read = kept
    if part == "vectors":
        return {f"vectors/{tensor.name}/values": (("f2", "f4"), (tensor.numel,))}
    name = f"{part}/{tensor.name}/rows"
    return {name: (("f4",), read.shape)} if part == "tokens" else _coded(name, read.shape)


def _no_values(name: str, start: int, stop: int) -> F32:
    raise NotImplementedError(f"a layout needs no values, and was asked for those of {name!r}")


def _coded(name: str, shape: tuple[int, ...]) -> dict[str, Slot]:
    return {name: (("i1",), shape), f"{name}_scale": (("f4",), shape[:-1])}


def misfit(
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, Geometry],
    plan: Plan,
    arrays: Mapping[str, Array],
    statistics: int,
) -> str | None:
    """What is wrong with the arrays of a fingerprint of these tensors, None where nothing is."""
    side = ModelView("a", tensors, _no_values, geometry=sizes)
    slots = layout(side, plan, statistics)
    # Early fingerprints of version 1 lack the heads of latent attention: what a file may lack, views do without.
    late = {f"heads/{a.name}/{what}" for a in attentions(side, side) if a.latent for what in _HEADS}
    if wrong := (slots.keys() ^ arrays.keys()) - (late - arrays.keys()):
        name = min(wrong)
        return f"{name!r} {'is missing' if name in slots else 'belongs to none of its tensors'}"
    for name, (dtypes, shape) in slots.items():
        array = arrays[name]
        if array.dtype not in map(np.dtype, dtypes) or array.shape != shape:
            return f"{name!r} is {array.dtype} {array.shape}, not {np.dtype(dtypes[0])} {shape}"
        if array.dtype.kind == "f" and name != "statistics" and not np.isfinite(array).all():
            return f"{name!r} has values that are no numbers"
    for ffn in ffns(side):
        units, by_number = (arrays.get(f"units/{ffn.name}/{what}") for what in ("units", "by_number"))
        if units is None or by_number is None:
            continue
        if not (units.min(initial=0) >= 0 and units.max(initial=0) < ffn.units and 0 <= by_number[0] <= units.size):
            return f"'units/{ffn.name}' counts units that it lacks"
    for attention in attentions(side, side):
        groups = arrays.get(f"heads/{attention.name}/groups")
        if groups is not None and groups[0] != attention.kv_heads:
            return f"'heads/{attention.name}' says {groups[0]} key-value heads; its shapes, {attention.kv_heads}"
    gains = arrays["gains"]
    if gains.min(initial=0) < -1 or gains.max(initial=-1) >= gains.size:
        return "'gains' names tensors that it lacks"
    return None
