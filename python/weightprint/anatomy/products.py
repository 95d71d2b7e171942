"""The q, k and v of multi-head latent attention, multiplied out.

DeepSeek-V2 (arXiv 2405.04434, eq. 9-19) stores, with latent sizes r_q and r_kv,

    q   = W_qb · norm(W_qa · x)            W_qa (r_q x d),          W_qb (heads·(nope + rope) x r_q)
    c   = first r_kv rows of W_kva · x     W_kva ((r_kv + rope) x d)
    k_i = [W_kb,i · norm(c) ; rotary rows of W_kva · x]             W_kvb (heads·(nope + value) x r_kv), per head keys
    v_i = W_vb,i · norm(c)                                          then values

so q, k (heads·(nope + rope) x d) and v (heads·value x d) are those of a plain attention up to the latents' norms, whose
gains stand between the factors. All heads share the rotary rows of k.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from weightprint.anatomy.place import Geometry, Place
from weightprint.errors import UsageError
from weightprint.util.arrays import F32
from weightprint.util.escape import escape

#: (role, rows, columns) → that part of a stored factor of the same block.
Factor = Callable[[str, "slice | None", "slice | None"], F32]


def _query(factor: Factor, geometry: Geometry | None, place: Place, rows: slice | None, columns: slice | None) -> F32:
    outer = factor("q_b", rows, None)
    return outer @ factor("q_a", None, columns)


def _key(factor: Factor, geometry: Geometry | None, place: Place, rows: slice | None, columns: slice | None) -> F32:
    nope, rope, value, heads = _sizes(geometry, place)
    inner = factor("kv_a", None, columns)
    latent, rotary = inner[:-rope], inner[-rope:]
    outer = factor("kv_b", None, None).reshape(heads, nope + value, -1)[:, :nope]
    keys = np.concatenate([outer @ latent, np.broadcast_to(rotary, (heads, *rotary.shape))], axis=1)
    return np.ascontiguousarray(keys.reshape(heads * (nope + rope), -1)[rows or slice(None)])


def _value(factor: Factor, geometry: Geometry | None, place: Place, rows: slice | None, columns: slice | None) -> F32:
    nope, rope, value, heads = _sizes(geometry, place)
    latent = factor("kv_a", None, columns)[:-rope]
    outer = factor("kv_b", None, None).reshape(heads, nope + value, -1)[:, nope:]
    return outer.reshape(heads * value, -1)[rows or slice(None)] @ latent


#: role → its product, asked for as ``anatomy.tensor(block, role, products=True)``.
PRODUCTS = {"q": _query, "k": _key, "v": _value}


def _sizes(geometry: Geometry | None, place: Place) -> tuple[int, int, int, int]:
    if geometry is not None:
        nope, rope, value, heads = geometry.nope_dim, geometry.rope_dim, geometry.value_dim, geometry.heads
        if nope and rope and value and heads:
            return nope, rope, value, heads
    raise UsageError(
        f"{escape(str(place))} is a product whose head sizes (nope, rope, value, heads) are not known: config.json "
        "beside the weights says them",
        code="unknown_geometry",
    )
