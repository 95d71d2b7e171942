"""From a first guess to a basis: match units by their vectors, solve, repeat (iterative closest points, Besl and McKay
1992).

In each round B's units are written in A's basis and matched within their pair of FFNs: mutual best by the cosine of the
gates plus |cosine of ups + cosine of downs|, whose common sign is free in a gated FFN. All three vectors of the matched
units, signs settled, give the next rotation; the last round gives the signed permutation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from weightprint.evidence.alignment.solve import Cross, cosines, unit_rows
from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.evidence.nulls.exchange import finite
from weightprint.evidence.pair import Basis
from weightprint.fingerprint.ffns import Ffn
from weightprint.fingerprint.model import ModelView
from weightprint.util.arrays import F32, Indices

__all__ = ["Matched", "refine", "unit_vectors"]

_ROUNDS, _ROUNDS_WIDE, _WIDE = 8, 3, 1024
_Kind = Literal["signed_permutation", "rotation"]


@dataclass(frozen=True, slots=True)
class Matched:
    """Units of an FFN of B and of its counterpart in A: rows of (gate,) up, columns of down as rows, and which of them
    are taken as the same: positions ``a``, ``b``."""

    name: str
    read_a: list[F32]
    read_b: list[F32]
    down_a: F32
    down_b: F32
    a: Indices
    b: Indices


def refine(
    matched: Sequence[Matched],
    first: Cross | Basis,
    found_by: str,
    fitted: frozenset[str],
    within: _Kind = "rotation",
    kinds: tuple[_Kind, ...] = ("signed_permutation", "rotation"),
) -> list[Basis]:
    """Bases of these kinds, after rounds of matching and solving from a first set of pairs, or from a first basis.

    ``within``: what the rounds solve for."""
    now = list(matched)
    cross = Cross(*_widths(now)) if isinstance(first, Basis) else first
    for _ in range(_ROUNDS if cross.width <= _WIDE else _ROUNDS_WIDE):
        basis = first if isinstance(first, Basis) and not cross.n else _solve(cross, within)
        now = [_match(m, basis) for m in now]
        following = Cross(*_widths(now))
        for m in now:
            _add(following, m, basis)
        if following.n == 0:
            break
        cross = following
    words = f"{found_by}: {sum(m.a.size for m in now)} of {sum(len(m.down_b) for m in now)} matched"
    return [replace(_solve(cross, kind), found_by=words, fitted=fitted) for kind in kinds]


def _solve(cross: Cross, kind: _Kind) -> Basis:
    if kind == "rotation":
        return Basis(kind, matrix=cross.rotation())
    channels, signs = cross.signed_permutation()
    return Basis(kind, channels=channels, signs=signs)


def _widths(matched: Sequence[Matched]) -> tuple[int, int]:
    return matched[0].down_a.shape[1], matched[0].down_b.shape[1]


def _match(m: Matched, basis: Basis) -> Matched:
    """Units that are each other's best through this basis."""
    *gates, up = (cosines(x, basis.to_a(y)) for x, y in zip(m.read_a, m.read_b, strict=True))
    both = up + cosines(m.down_a, basis.to_a(m.down_b))
    alike = gates[0] + np.abs(both) if gates else both
    best = alike.argmax(axis=0)
    mutual = alike.argmax(axis=1)[best] == np.arange(best.size)
    return replace(m, a=best[mutual], b=np.nonzero(mutual)[0])


def _add(cross: Cross, m: Matched, basis: Basis) -> None:
    """The vectors of the matched units, each of length one, up and down with the sign that makes them agree."""
    signs = np.ones((m.a.size, 1), np.float32)
    x_up, y_up = unit_rows(m.read_a[-1][m.a]), unit_rows(m.read_b[-1][m.b])
    x_down, y_down = unit_rows(m.down_a[m.a]), unit_rows(m.down_b[m.b])
    if len(m.read_a) > 1:
        cross.add(unit_rows(m.read_a[0][m.a]), unit_rows(m.read_b[0][m.b]))
        agree = np.sum(x_up * basis.to_a(y_up) + x_down * basis.to_a(y_down), axis=1, keepdims=True)
        signs = np.where(agree < 0, np.float32(-1), np.float32(1))
    cross.add(x_up, y_up * signs)
    cross.add(x_down, y_down * signs)


def unit_vectors(side: ModelView, ffn: Ffn, units: Indices | None) -> tuple[list[F32], F32]:
    """Rows of (gate,) up with the norm's gain, and columns of down as rows, of these units (None: all)."""
    up, gate = unit_inputs(side, ffn, units, fold=True)
    down = unit_outputs(side, ffn, units)
    assert down is not None
    return [finite(x) for x in ((up,) if gate is None else (gate, up))], finite(down)
