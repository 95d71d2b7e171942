"""A basis through shared tokens: rows of two embeddings that stand for the same token.

Columns of the embeddings over shared rows give the signed permutation, the rows give the rotation (Procrustes). Rows
are taken as shared where they have the same number; where one table is longer, its first rows. Half of the rows are
held out: the share of channels whose partner is the best one there too, and the mean centred cosine of held-out rows.

*Looked at first.* Neither a rotation nor a permutation changes the angles between rows. So the cosines of all pairs of
1,024 rows of A are held against those of B's rows of the same numbers, a matter of a second where a rotation of a wide
stream takes half a minute: where they know nothing of each other no basis is to be found, and none is looked for. A
copy in which a share s of the rows keeps a cosine of c has them correlated by s^2 c^2, which shows from s c = .09 on.

*Semantic.* Models that learned from the same data with the same tokenizer give their tokens similar geometry, so a
rotation found here aligns strangers too. A signed permutation has next to no freedom to follow meaning, but pays the
same label.
"""

from __future__ import annotations

import math

import numpy as np

from weightprint.evidence.alignment.solve import Cross, unit_rows
from weightprint.evidence.nulls.exchange import double_centre, in_range
from weightprint.evidence.pair import Basis, ModelPair
from weightprint.fingerprint.model import ModelView, Tensor
from weightprint.fingerprint.sampling import pick, sampled_rows
from weightprint.util.arrays import F32
from weightprint.util.linear_algebra import product

__all__ = ["by_tokens", "same_angles", "token_table"]

_FEWEST = 64
_CHANCE = 3  # deviations
_ANGLES = 1024  # rows whose angles are compared
_TABLES = ("embedding", "head")


def token_table(side: ModelView) -> Tensor | None:
    """The token embedding, else the output head: (vocabulary x channels); None where neither is known."""
    for role in _TABLES:
        for tensor in side.tensors.values():
            if tensor.place is not None and tensor.place.role == role and tensor.rank2:
                return tensor
    return None


def by_tokens(models: ModelPair) -> list[Basis]:
    """A signed permutation and a rotation from rows of the same number; none without two tables."""
    a, b = token_table(models.a), token_table(models.b)
    if a is None or b is None or a.place is None or b.place is None or a.place.role != b.place.role:
        return []
    shared = min(a.shape[0], b.shape[0])
    if shared < _FEWEST:
        return []
    rows = pick(shared, models.budget.token_rows, models.seed, "tokens", run=8)
    tables = (models.a, a), (models.b, b)
    some = pick(shared, _ANGLES, models.seed, "angles", run=8)
    if not same_angles(*(_table(side, tensor, some) for side, tensor in tables)):
        return []
    held = np.random.default_rng([models.seed, 46]).random(rows.size) < 0.5
    x, y = (_table(side, tensor, rows) for side, tensor in tables)
    cross, other = (Cross(a.shape[1], b.shape[1]) for _ in range(2))
    cross.add(x[~held], y[~held])
    x, y = x[held], y[held]  # of what is no longer needed nothing is held while a rotation is computed
    other.add(x, y)
    once, twice = (c.signed_permutation()[0] for c in (cross, other))
    turn = cross.rotation()
    held_out = _row_cosine(x, product(y, turn))
    cross.join(other)
    del other
    # Turned rows of strangers have mean cosine 0 with deviation 1/sqrt(rows x channels): then more rows say no more.
    by_chance = held_out <= _CHANCE / math.sqrt(x.size)
    del x, y
    fitted = frozenset({a.place.role, *(() if _has_head(models) else _TABLES)})
    channels, signs = cross.signed_permutation()
    stable = float(np.mean((once == twice) & (once >= 0)))
    permuted = Basis(
        kind="signed_permutation",
        found_by=f"columns of the {a.role.words if a.role else 'table'} over {rows.size} rows of the same number",
        channels=channels,
        signs=signs,
        fitted=fitted,
        semantic=True,
        scores={"rows": float(rows.size), "channels_found_twice": stable},
    )
    out = [permuted]
    if rows.size >= min(a.shape[1], b.shape[1]):
        turned = Basis(
            kind="rotation",
            found_by=f"Procrustes over {rows.size} rows of the same number",
            matrix=turn if by_chance else cross.rotation(),
            fitted=fitted,
            semantic=True,
            scores={"rows": float(rows.size), "held_out_cosine": held_out},
        )
        out.append(turned)
    return out


def _has_head(models: ModelPair) -> bool:
    """Both models have a head of their own besides the embedding."""
    return all(
        {"embedding", "head"} <= {t.place.role for t in side.tensors.values() if t.place is not None}
        for side in (models.a, models.b)
    )


def _table(side: ModelView, tensor: Tensor, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> F32:
    x = sampled_rows(side, tensor, rows)
    gain = side.gain(tensor)
    return in_range(x if gain is None else x * gain)  # products of extreme values would leave float32


def same_angles(x: F32, y: F32) -> bool:
    """Whether rows of the same number lie to each other alike, by more than orders of the rows do by chance (Mantel
    1967)."""
    one, two = (double_centre(product(z, z.T)) for z in (unit_rows(x - x.mean(axis=0)), unit_rows(y - y.mean(axis=0))))
    for gram in (one, two):  # a row's cosine with itself says nothing
        np.fill_diagonal(gram, 0)
    sd = math.sqrt(2 * float(np.vdot(one, one)) * float(np.vdot(two, two))) / max(len(x), 1)
    return float(np.vdot(one, two)) > _CHANCE * sd


def _row_cosine(x: F32, y: F32) -> float:
    """Mean cosine of rows of the same number, each set centred."""
    return float(np.mean(np.sum(unit_rows(x - x.mean(axis=0)) * unit_rows(y - y.mean(axis=0)), axis=1)))
