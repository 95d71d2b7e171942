"""Shared weights, or the same data? Agreement in the directions that data does not excite.

A basis that was found by meaning (shared tokens) also aligns strangers that learned from the same data, and a distilled
student with its teacher: units that do the same thing look alike in it. But data shapes weights only where the stream
carries signal. Let V be the eigenvectors of the second moment of what A writes to its stream (token rows, columns of
down), strongest first. Units of an FFN of B are matched to units of A by the *strong* half alone; the *weak* third,
which the matching never looked at, is then compared between matched units. In strangers it is what initialisation and
noise left there: which unit carries which weak part is arbitrary. In a descendant it is inherited with the rest.

Null: given the strong parts, the weak parts of B's matched units are equally likely in any order. So the matched pairs
whose weak parts find each other obey P(hits >= k) <= 1/k! (:mod:`weightprint.evidence._exchange`); the best FFN pays
for their number, which holds however FFNs of B depend on each other.

Measured on trained decoders (4-10 blocks, d 32-64); z is of the mean weak cosine of one FFN. 16 pairs of strangers in
five bases each: 456 z with deviation .99, the largest 2.6, at most 5 units find themselves; a distilled student
alike (2.1; 3). Descendants, rotated with units renumbered, through Procrustes on shared tokens: a fine-tune 64-66 (128
of 128 units), upcycled experts 52-54 (97 of 97), trained on for as long as the first training 41-42 (96 of 96, weak
cosine .84 at a strong one of .86), on other data 39 (.77), for three times as long 30-31 (85 of 94, .60 at .65).

The effect is the mean cosine of matched weak parts above that of other pairs: near 0 for strangers and students, the
correlation of the weights for descendants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weightprint.evidence._base import F32, Basis, Evidence, Models, Region, Side, not_applied, timed
from weightprint.evidence._exchange import choices, finite, hits, log10_p_hits, trace_sd
from weightprint.evidence._ranked import hits_of_copies, joint_orders, rank_p
from weightprint.evidence._sample import BUDGETS, Indices, pick, sampled_rows
from weightprint.evidence._units import Ffn, ffns, unit_inputs, unit_outputs
from weightprint.linear import eigh, product

__all__ = ["convergence"]

_STRONG, _WEAK = 1 / 2, 2 / 3  # matched by directions before the first, compared by those behind the second
_FFNS = {"quick": 2, "standard": 6, "full": 64}
_NEAREST = 3  # FFNs of A by relative depth, for each of B; all of them where that is cheap
_CHEAP = 1e10  # multiplications
_UNITS = {"quick": 256, "standard": 512, "full": 4096}
_TOKENS = 8192
_FEWEST = 12  # matched units

_QUESTION = Evidence(
    test="convergence",
    asked="Do units that do the same thing in both models also agree in the directions that data does not excite?",
    applied=True,
    null="given what matched units have in common in the strong directions, the weak parts of B's units are equally "
    "likely in any order: what training on the same data, or distillation, leaves behind",
    assumes="training shapes weights only where the stream carries signal. A common random initialisation breaks the "
    "null as shared training does",
    blind_to="descendants trained for so long, or noised so much, that the weak directions were rewritten; bases that "
    "were fitted too coarsely to hold in the weak directions",
    statistic_of="hits: matched units whose weak parts find each other, in the best FFN",
    effect_of="mean cosine of the weak parts of matched units, minus that of other pairs",
)


@dataclass(frozen=True, slots=True)
class _Units:
    """The vectors of an FFN's units along V: gate (where there is one), up and down, (units, d) each."""

    ffn: Ffn
    parts: tuple[F32, ...]

    @property
    def gated(self) -> bool:
        return len(self.parts) == 3


@dataclass(frozen=True, slots=True)
class _Found:
    """Matched units of one FFN of B and its counterpart in A, and how alike their weak parts are (A's x B's)."""

    a: Ffn
    b: Ffn
    tested: int
    weak: F32
    strong: float  # mean cosine of matched units in the strong directions

    @property
    def hits(self) -> int:
        return hits(self.weak)

    @property
    def effect(self) -> float:
        n = len(self.weak)
        own = float(np.trace(self.weak))
        return own / n - (float(self.weak.sum()) - own) / max(n * n - n, 1)

    @property
    def z(self) -> float:
        n = len(self.weak)
        sd = trace_sd(self.weak)
        return (float(np.trace(self.weak)) - float(self.weak.sum()) / n) / sd if sd > 0 else 0.0


@timed
def convergence(models: Models) -> Evidence:
    """Weak parts of units matched by their strong parts, on FFNs that the basis was not fitted on."""
    basis = models.basis
    ours = [f for f in ffns(models.a) if f.down is not None]
    theirs = [f for f in ffns(models.b) if f.down is not None and not basis.saw(f.name)]
    if not ours or not theirs:
        return not_applied(
            _QUESTION, "no feed-forward block with a down-projection is left that the basis was not fitted on"
        )
    widest = max(f.down.numel for f in (*ours, *theirs) if f.down is not None)
    if widest > BUDGETS[models.effort].streamed:
        return not_applied(_QUESTION, "columns of down are too dear at this effort")
    if basis.kind == "identity" and ours[0].width != theirs[0].width:
        return not_applied(_QUESTION, "the models differ in width and no common basis was found")
    directions = _directions(models, ours)
    depth = [1 + max(f.block for f in fs) for fs in (ours, ffns(models.b))]
    cheap = sum(f.numel for f in ours) * ours[0].width * _FFNS[models.effort] <= _CHEAP
    found = []
    for ffn in _spread(theirs, _FFNS[models.effort]):
        b = _units(
            models, models.b, ffn, basis, directions, pick(ffn.units, _UNITS[models.effort], models.seed, "weak", 8)
        )
        at = ffn.block / depth[1]
        near = sorted(ours, key=lambda other, at=at: abs(other.block / depth[0] - at))  # type: ignore[misc]
        one = _best(models, near[: None if cheap else _NEAREST], b, directions)
        if one is not None:
            found.append(one)
    if not found:
        return not_applied(_QUESTION, f"no feed-forward block has {_FEWEST} units that match by their strong parts")
    return _answer(models, found, directions.shape[1])


def _spread(found: Sequence[Ffn], most: int) -> list[Ffn]:
    """One FFN per block, at most ``most``, evenly over the depth."""
    first: dict[tuple[str, int], Ffn] = {}
    for ffn in found:
        first.setdefault((ffn.stack, ffn.block), ffn)
    one = list(first.values())
    return [one[i] for i in np.unique(np.linspace(0, len(one) - 1, min(len(one), most)).round().astype(int))]


def _directions(models: Models, ours: Sequence[Ffn]) -> F32:
    """Eigenvectors of the second moment of what A writes to the stream, strongest first, as columns (d, d)."""
    d = ours[0].width
    total = np.zeros((d, d))
    for tensor in models.a.tensors.values():
        if tensor.place is not None and tensor.place.role == "embedding" and tensor.shape[-1:] == (d,):
            _add(total, sampled_rows(models.a, tensor, pick(tensor.shape[0], _TOKENS, models.seed, "directions")))
    for ffn in _spread(ours, 8):
        down = unit_outputs(models.a, ffn, pick(ffn.units, 1024, models.seed, "directions"))
        if down is not None:
            _add(total, down)
    values, vectors = eigh(total)
    return np.ascontiguousarray(vectors[:, np.argsort(-values)], dtype=np.float32)


def _add(total: np.ndarray[tuple[int, int], np.dtype[np.float64]], x: F32) -> None:
    moment = product(x.T, x)
    trace = float(np.trace(moment))
    if 0 < trace < math.inf:
        total += moment / trace


def _units(models: Models, side: Side, ffn: Ffn, basis: Basis, v: F32, units: Indices | None) -> _Units:
    up, gate = unit_inputs(side, ffn, units, fold=True)
    down = unit_outputs(side, ffn, units)
    assert down is not None
    return _Units(ffn, tuple(product(finite(basis.to_a(x)), v) for x in (gate, up, down) if x is not None))


def _best(models: Models, ours: Sequence[Ffn], b: _Units, directions: F32) -> _Found | None:
    """The FFN of A with the most units matched through the strong directions, and its weak parts."""
    strong = slice(0, max(2, round(_STRONG * directions.shape[1])))
    weak = slice(min(directions.shape[1] - 2, round(_WEAK * directions.shape[1])), None)
    best: tuple[int, _Units, F32] | None = None
    for ffn in ours:
        a = _units(models, models.a, ffn, Basis(), directions, None)
        if a.gated != b.gated:
            continue
        parts = [_cosines(x[:, strong], y[:, strong]) for x, y in zip(a.parts, b.parts, strict=True)]
        read, written = sum(np.abs(p) for p in parts[:-1]), np.abs(parts[-1])
        agreed = int(np.count_nonzero(np.asarray(read).argmax(axis=0) == written.argmax(axis=0)))
        alike = parts[0] + np.abs(parts[1] + parts[2]) if a.gated else parts[0] + parts[1]
        if best is None or agreed > best[0]:
            best = (agreed, a, alike)
    if best is None:
        return None
    _, a, alike = best
    to = alike.argmax(axis=0)
    j = np.nonzero(alike.argmax(axis=1)[to] == np.arange(to.size))[0]
    i = to[j]
    if j.size < _FEWEST:
        return None
    signs = np.ones((j.size, 1), np.float32)
    if a.gated:
        both = sum(
            np.sum(x[i][:, strong] * y[j][:, strong], axis=1) for x, y in zip(a.parts[1:], b.parts[1:], strict=True)
        )
        signs = np.where(np.asarray(both) < 0, -1, 1).astype(np.float32)[:, None]
    total = np.zeros((j.size, j.size), np.float32)
    for k, (x, y) in enumerate(zip(a.parts, b.parts, strict=True)):
        flip = signs if a.gated and k > 0 else np.float32(1)
        total += _cosines(x[i][:, weak], y[j][:, weak] * flip)
    return _Found(
        a.ffn, b.ffn, len(b.parts[0]), total / np.float32(len(a.parts)), float(alike[i, j].mean()) / len(a.parts)
    )


def _cosines(x: F32, y: F32) -> F32:
    out: F32 = product(_unit_rows(x - x.mean(axis=0)), _unit_rows(y - y.mean(axis=0)).T)
    return out


def _unit_rows(x: F32) -> F32:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    out: F32 = x / np.where(norms > 0, norms, np.float32(1))
    return out


def _ranked(found: Sequence[_Found], seed: int) -> float:
    """B among copies whose weak parts were dealt out anew: the best FFN's hits, then all hits."""
    named = [choices(f.weak) for f in found]
    copies = np.stack([hits_of_copies(chosen, joint_orders(chosen.size, seed)) for chosen in named])
    return rank_p(copies.max(axis=0), copies.sum(axis=0), salt=[chosen.tolist() for chosen in named])


def _answer(models: Models, found: list[_Found], d: int) -> Evidence:
    best = max(found, key=lambda f: f.hits)
    matched = sum(len(f.weak) for f in found)
    effect = sum(f.effect * len(f.weak) for f in found) / matched
    price = math.log10(len(found) * max(models.basis.candidates, 1))
    strong = sum(f.strong * len(f.weak) for f in found) / matched
    return replace(
        _QUESTION,
        says=f"{matched} of {sum(f.tested for f in found)} units match by the strong directions (cosine {strong:.2f}); "
        f"in the weak ones these have cosine {effect:+.3f}, and {best.hits} of {len(best.weak)} find each other in the "
        f"best block (chance: about 1)",
        statistic=float(best.hits),
        effect=effect,
        n=matched,
        log10_p=min(0.0, log10_p_hits(best.hits) + price),
        rank_p=_ranked(found, models.seed),
        detectable=float(np.mean([5 * trace_sd(f.weak) / len(f.weak) for f in found])),
        regions=tuple(
            Region(f.b.name, f.b.block, len(f.weak), f.effect, 0.0, trace_sd(f.weak) / len(f.weak), f.hits, len(f.weak))
            for f in found
        ),
        details={
            "basis": models.basis.kind,
            "semantic": models.basis.semantic,
            "weak_directions": d - round(_WEAK * d),
            "strong_cosine": strong,
            "weak_cosine": effect,
            "z_of_weak_cosine": {f.b.name: f.z for f in found},
            "matched": {f.b.name: [f.a.name, len(f.weak), f.tested, f.hits] for f in found},
        },
    )
