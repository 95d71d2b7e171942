"""Scales of the key-value cache: they stand beside an attention layer's projections and belong to no weight's values.

vLLM, compressed-tensors and ModelOpt write ``P.k_scale``, ``P.v_scale`` or ``P.kv_scale`` beside ``P.k_proj``. They are
made components of that projection, so that they are accounted for; where the projection is not quantised, they stay
plain tensors.
"""

from __future__ import annotations

from dataclasses import replace

from weightprint.quant.base import Quantised, UnclaimedTensors

#: End of the name → what its projection may be called, in the order of trial.
_HOMES = {
    ".k_scale": (".k_proj.weight", ".qkv_proj.weight"),
    ".v_scale": (".v_proj.weight", ".qkv_proj.weight"),
    ".q_scale": (".q_proj.weight", ".qkv_proj.weight"),
    ".kv_scale": (".k_proj.weight", ".qkv_proj.weight"),
    ".prob_output_scale": (".q_proj.weight", ".qkv_proj.weight"),
}


def with_caches(unclaimed: UnclaimedTensors, found: list[Quantised]) -> list[Quantised]:
    """The weights, with the cache's scales among the components of their projections."""
    ends = tuple(_HOMES)
    loose = [name for name in unclaimed.names if name.endswith(ends) and name in unclaimed]
    if not loose:
        return found
    place = {weight.name: k for k, weight in enumerate(found)}
    for name in loose:
        base, _, last = name.rpartition(".")
        if base.endswith(".attn"):  # vLLM's own module path: P.attn.k_scale
            base = base.removesuffix(".attn")
        home = next((k for end in _HOMES["." + last] if (k := place.get(base + end)) is not None), None)
        if home is not None:
            found[home] = replace(found[home], components=(*found[home].components, name))
            unclaimed.claim(found[home])
    return found
