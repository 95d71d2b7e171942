"""A basis through unit order: what unit_geometry has found to be the same FFN, unit by unit, gives pairs of rows.

Unit i of an FFN of B and unit i of its counterpart in A are one unit, so their rows of gate and up and their columns of
down are one vector in two bases. All of them in the fit half of B's blocks give a signed permutation (columns of the
stacked matrices correlate) and a rotation (Procrustes). Nothing semantic enters: the pairs are held together by unit
order, which training on the same data cannot produce.
"""

from __future__ import annotations

from weightprint.evidence.alignment.held_out import fit_half
from weightprint.evidence.alignment.solve import Cross, unit_rows
from weightprint.evidence.evidence import Evidence
from weightprint.evidence.lookup.units import unit_inputs, unit_outputs
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.evidence.unit_geometry import unit_geometry
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.fingerprint.sampling import pick
from weightprint.util.arrays import F32

__all__ = ["by_unit_order"]

_SURE = -4.0  # log10 p of a pair of FFNs, corrected for nothing
_FFNS = 16
_UNITS = 2048


def by_unit_order(models: ModelPair, geometry: Evidence | None = None) -> list[Basis]:
    """A signed permutation and a rotation from FFNs whose units kept their order; none where there are none.

    ``geometry``: what `unit_geometry` said of these models, where it was asked.
    """
    ours = {(f.stack, f.block, f.expert): f for f in ffns(models.a)}
    theirs = {(f.stack, f.block, f.expert): f for f in fit_half(ffns(models.b))}
    matches = (geometry or unit_geometry(models)).matches
    found = [m for m in matches if m.log10_p <= _SURE and m.b in theirs and m.a in ours]
    found = sorted(found, key=lambda m: m.log10_p)[:_FFNS]
    if not found:
        return []
    cross = Cross(ours[found[0].a].width, theirs[found[0].b].width)
    used = []
    for match in found:
        a, b = ours[match.a], theirs[match.b]
        for x, y in zip(_rows(models, a, "a"), _rows(models, b, "b"), strict=False):
            cross.add(unit_rows(x), unit_rows(y))
        used.append(b.name)
    words = f"{cross.n} rows and columns of units with equal numbers in {len(used)} FFNs"
    channels, signs = cross.signed_permutation()
    fitted = frozenset(used)
    out = [Basis("signed_permutation", f"columns over {words}", channels, signs, fitted=fitted)]
    if cross.n >= cross.width:
        out.append(Basis("rotation", f"Procrustes over {words}", matrix=cross.rotation(), fitted=fitted))
    return out


def _rows(models: ModelPair, ffn: Ffn, label: str) -> list[F32]:
    """Up, gate and down of the sampled units, down only where the effort allows to read its columns."""
    side = models.a if label == "a" else models.b
    units = pick(ffn.units, _UNITS, models.seed, "basis")
    up, gate = unit_inputs(side, ffn, units, fold=True)
    out = [up] if gate is None else [gate, up]
    if ffn.down is not None and ffn.down.numel <= models.budget.columns_of:
        down = unit_outputs(side, ffn, units)
        assert down is not None
        out.append(down)
    return out
