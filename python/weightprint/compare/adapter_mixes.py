"""Adapters against adapters: updates compared as what they add, however they are factored.

A LoRA's update s·B·A does not change when B becomes B·M⁻¹ and A becomes M·A, so factors that look unrelated may be one
adapter. Inner products of two updates need no product of their size::

    ⟨s₁B₁A₁, s₂B₂A₂⟩ = s₁s₂ Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ)          (r₁ x r₂)

and go into the same least squares as weights do (:mod:`weightprint.compare.mixing`). The *canonical form* of an update
is its thin singular value decomposition: QR of B and of Aᵀ, then the SVD of the r x r core s·R_B·R_Aᵀ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightprint.anatomy.adapters.adapters import Adapter
from weightprint.anatomy.adapters.deltas import factor
from weightprint.anatomy.adapters.dialects import Update, factors_of, module_key
from weightprint.compare.gram import Gram, real_dtype
from weightprint.errors import UnsupportedFormatError
from weightprint.util.arrays import F64
from weightprint.util.escape import escape
from weightprint.util.floats import MANTISSA, ulp
from weightprint.util.linear_algebra import product, qr, svd

__all__ = ["adapter_grams", "canonical", "ranks"]

_SMALL = 1e-5  # times the largest: singular values below are rounding of the factors
_Factors = tuple[float, F64, F64, float]  # s, B (out x r), A (r x in), what rounding adds to ‖s·B·A‖²


def adapter_grams(child: Adapter, parents: Sequence[Adapter]) -> list[Gram]:
    """One Gram per module that any of them changes; an adapter without the module adds nothing there.

    Raises UnsupportedFormatError (code ``adapter_kind``): an update that is no plain LoRA of a matrix.
    """
    models = [_by_module(adapter) for adapter in (child, *parents)]
    grams = []
    for key in dict.fromkeys(key for model in models for key in model):
        updates = [model.get(key) for model in models]
        there = [u.shape for u, _ in filter(None, updates)]
        factors = [None if u is None or u[0].shape != there[0] else _read(*u) for u in updates]
        gram = np.zeros((len(models), len(models)))
        for i, one in enumerate(factors):
            for j, other in enumerate(factors):
                if one is not None and other is not None and j >= i:
                    (s, b, a, _), (t, y, x, _) = one, other
                    gram[i, j] = gram[j, i] = s * t * float(np.sum(product(b.T, y) * product(a, x.T)))
        rounding = np.array([0.0 if f is None else f[3] for f in factors])
        n = int(np.prod(there[0]))
        grams.append(Gram(key, None, True, n, (True,) * len(parents), _from_first(gram), rounding))
    return grams


def canonical(update: Update, adapter: Adapter) -> tuple[F64, F64, F64]:
    """u (out x r), σ (r,) and vᵀ (r x in) of s·B·A, without the product itself."""
    s, b, a, _ = _read(update, adapter)
    q_b, r_b = qr(b)
    q_a, r_a = qr(a.T)
    u, sigma, vt = svd(s * product(r_b, r_a.T))
    return product(q_b, u), sigma, product(vt, q_a.T)


def ranks(adapter: Adapter) -> tuple[int, int]:
    """(largest rank as stored, largest rank in effect)."""
    stored = effective = 0
    for update in adapter.updates.values():
        sigma = canonical(update, adapter)[1]
        stored = max(stored, len(sigma))
        effective = max(effective, int(np.sum(sigma > _SMALL * sigma.max(initial=0.0))))
    return stored, effective


def _by_module(adapter: Adapter) -> Mapping[str, tuple[Update, Adapter]]:
    names = factors_of(adapter.weights.shapes)
    found = {}
    for module, update in adapter.updates.items():
        if update.kind != "lora" or len(update.shape) != 2 or "magnitude" in update.parts:
            message = f"the update of {escape(module)} is no plain LoRA of a matrix: it is not compared with others"
            raise UnsupportedFormatError(message, tensor=update.first, code="adapter_kind")
        found[module_key(names[update.parts["b"]])[0]] = (update, adapter)
    return found


def _read(update: Update, adapter: Adapter) -> _Factors:
    s = adapter.scales[update.module]
    a, b = (factor(update, part, adapter.weights).astype(np.float64) for part in ("a", "b"))
    dtype = adapter.weights[update.parts["b"]].dtype
    steps = [np.square(ulp(x, real_dtype(x, dtype))).mean() if dtype in MANTISSA else 0.0 for x in (b, a)]
    rounding = s * s * (steps[0] * len(b) * np.sum(a * a) + steps[1] * a.shape[1] * np.sum(b * b)) / 12
    return s, b, a, float(rounding)


def _from_first(gram: F64) -> F64:
    """Products of child, p_0, p_1 … → of p_0, c - p_0, p_1 - p_0 …"""
    turn = np.eye(len(gram))
    turn[[0, 1]] = turn[[1, 0]]
    turn[1:, 1] -= 1
    return np.asarray(turn @ gram @ turn.T)
