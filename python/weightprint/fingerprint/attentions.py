"""The attention blocks of a model whose heads can be told apart, as its headers list them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weightprint.anatomy.place import Geometry
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product

_PLAIN = ("q", "k", "v", "o")
_LATENT = ("q_a", "q_b", "kv_a", "kv_b")


@dataclass(frozen=True)
class Attention:
    """The heads of one block. ``parts``: role → tensor; ``latent``: (nope, rope) sizes for MLA."""

    stack: str
    block: int
    parts: dict[str, Tensor]
    heads: int
    kv_heads: int
    latent: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """``stack.block``."""
        return f"{self.stack}.{self.block}"

    @property
    def largest(self) -> int:
        """Values of its largest matrix."""
        return max(t.numel for t in self.parts.values())

    def multiplied(self, side: ModelView, reading: Callable[[Tensor], F32]) -> tuple[F32, F32, F32]:
        """W_q, W_k and W_v, (heads · size, channels), of latent attention multiplied out (all heads share the rotary
        keys; :mod:`weightprint.anatomy.products` says how). `reading` reads a matrix of the stream on the channels,
        gains folded in."""
        parts = self.parts
        if self.latent is None:
            q, k, v = (reading(parts[role]) for role in ("q", "k", "v"))
            return q, k, v
        nope, rope = self.latent
        q = _times(side, parts["q_b"], reading(parts["q_a"])) if "q_b" in parts else reading(parts["q"])
        inner = reading(parts["kv_a"])
        latent, rotary = inner[:-rope], inner[-rope:]
        outer = _times(side, parts["kv_b"], latent).reshape(self.heads, -1, latent.shape[1])
        keys = np.concatenate([outer[:, :nope], np.broadcast_to(rotary, (self.heads, *rotary.shape))], axis=1)
        return q, keys.reshape(-1, latent.shape[1]), outer[:, nope:].reshape(-1, latent.shape[1])


def _times(side: ModelView, tensor: Tensor, inner: F32) -> F32:
    """A matrix, the gain of its norm folded in, times what feeds it; a slice of its rows at a time."""
    gain = side.gain(tensor)
    return np.concatenate([product(x if gain is None else x * gain, inner) for _, x in side.slices(tensor)])


def attentions(side: ModelView, other: ModelView) -> list[Attention]:
    """Every block whose heads can be told apart, in depth order; reads headers only.

    Where a side doesn't know its head size (no config.json), the other side's is tried: a wrong size costs power only.
    """
    found: dict[tuple[str, int], dict[str, Tensor]] = defaultdict(dict)
    for tensor in side.tensors.values():
        place = tensor.place
        if place is not None and place.block is not None and place.expert is None and tensor.rank2:
            found[place.stack, place.block].setdefault(place.role, tensor)
    sizes = [g for g in other.geometry.values() if g.head_dim]
    out = []
    for (stack, block), parts in found.items():
        own = side.geometry.get(stack)
        for geometry in [*([own] if own is not None else []), *sizes]:
            made = _plain(stack, block, parts, geometry) or _latent(stack, block, parts, geometry)
            if made is not None:
                out.append(made)
                break
    return sorted(out, key=lambda a: (a.stack, a.block))


def _plain(stack: str, block: int, parts: dict[str, Tensor], geometry: Geometry) -> Attention | None:
    if any(role not in parts or parts[role].constant for role in _PLAIN) or not geometry.head_dim:
        return None
    q, k, v, o = (parts[role] for role in _PLAIN)
    heads, left = divmod(q.shape[0], geometry.head_dim)
    groups, left_k = divmod(k.shape[0], geometry.head_dim)
    if left or left_k or not groups or heads % groups or v.shape[0] % groups:
        return None
    value = v.shape[0] // groups
    if o.shape[1] != heads * value or len({q.shape[1], k.shape[1], v.shape[1], o.shape[0]}) != 1:
        return None
    return Attention(stack, block, {role: parts[role] for role in _PLAIN}, heads, groups)


def _latent(stack: str, block: int, parts: dict[str, Tensor], geometry: Geometry) -> Attention | None:
    heads, nope, rope, value = geometry.heads, geometry.nope_dim, geometry.rope_dim, geometry.value_dim
    if not (heads and nope and rope and value) or any(role not in parts for role in ("kv_a", "kv_b", "o")):
        return None
    q = parts.get("q_b") or parts.get("q")
    fits = (
        q is not None
        and q.shape[0] == heads * (nope + rope)
        and parts["kv_b"].shape == (heads * (nope + value), parts["kv_a"].shape[0] - rope)
        and parts["o"].shape[1] == heads * value
        and ("q_b" not in parts or "q_a" in parts)
    )
    kept = {role: parts[role] for role in ("q", *_LATENT, "o") if role in parts}
    return Attention(stack, block, kept, heads, heads, (nope, rope)) if fits else None
