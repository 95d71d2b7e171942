"""Roles and blocks of unordered vectors: biases by their length, offsets by what training tied them to.

A vector as long as only one role's output is that role's bias; in which block, the energy |W^T b|^2 says: gradient
descent moves a bias along with its matrix, so b lies along directions that W puts out (for q|k|v the sum over the
three). *Measured*: right for all blocks of six tiny GPT-2s and Whisper's encoders, for q|k|v and for up. Gains:
:mod:`weightprint.anatomy.infer.norm_gains`. What is left of the residual length:
:mod:`weightprint.anatomy.infer.bias_offsets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightprint.anatomy.infer.bias_offsets import BlockMatrices, FinalNorm, place_offsets
from weightprint.anatomy.infer.block_membership import Unordered, as_units
from weightprint.anatomy.infer.norm_gains import place_gains
from weightprint.anatomy.infer.pairing import assign
from weightprint.anatomy.infer.shapes import Reading
from weightprint.anatomy.infer.value_probes import Matrix, Probe, is_positive
from weightprint.anatomy.place import Place, Rows, View
from weightprint.anatomy.roles import bias_of
from weightprint.util.arrays import F64

Shape = tuple[int, ...]
Placed = tuple[Place, View, float, str]

_CHANNELS = 512  # of the residual stream that offsets are judged by
_ELEMENTS = 1 << 27  # read for that, in all


def rows_of(roles: Sequence[str], i: int, total: int, reading: Reading) -> Rows | None:
    """Which rows of a fused tensor of `total` rows are the i-th of its roles; None: it has only one."""
    if len(roles) == 1:
        return None
    if len(roles) == 2:
        return Rows(i * (total // 2), total // 2)
    kv = reading.kv or total // 3
    starts = (0, total - 2 * kv, total - kv)
    return Rows(starts[i], total - 2 * kv if i == 0 else kv)


def place_vectors(
    pool: Unordered,
    by_shape: Mapping[Shape, list[str]],
    shapes: Mapping[str, Shape],
    reading: Reading,
    probe: Probe,
) -> list[Placed]:
    """Gains by what reads them, biases by a length that only one role puts out."""
    out: list[Placed] = []
    n, d = pool.blocks, pool.hidden
    for shape, names in by_shape.items():
        if len(shape) == 1 and shape[0] != d:
            lengths = {r: shapes[m[0]][pool.transposed] for r, m in pool.roles.items()}
            fits = [r for r, length in lengths.items() if length == shape[0]]
            if fits and len(names) == n * len(fits):
                out += _biases(pool, names, fits, shapes, reading, probe)
    return out + place_gains(pool, by_shape.get((d,), []), shapes, probe)


def _biases(
    pool: Unordered,
    names: Sequence[str],
    fits: Sequence[str],
    shapes: Mapping[str, Shape],
    reading: Reading,
    probe: Probe,
) -> list[Placed]:
    """Biases of the roles with outputs of their length, each with the matrix that puts out most of it."""
    n = pool.blocks
    owners = [(role, owner) for role in fits for owner in pool.roles[role]]
    energy = _energies(pool, names, owners, shapes, probe) if pool.blocks_known else None
    if energy is None and len(fits) > 1:
        return []
    out: list[Placed] = []
    for i, (name, j) in enumerate(zip(names, range(n) if energy is None else assign(energy), strict=True)):
        role, owner = owners[int(j)]
        block, trust = pool.block[owner] if energy is not None else (i, 1 / n)
        how = "from values: |W^T b|" if energy is not None else "arbitrary: in file order"
        sure = 0.8 if len(fits) == 1 else 0.8 * pool.chance[owner][0]
        roles = role.split("+")
        for k, one in enumerate(roles):
            rows = rows_of(roles, k, shapes[name][0], reading)
            view = View(name, (rows.n,) if rows else shapes[name], rows=rows)
            why = f"length of {role}'s output; role {sure:.2f}, block {trust:.2f} ({how})"
            out.append((Place("decoder", block, bias_of(one)), view, sure * trust, why))
    return out


def _energies(
    pool: Unordered, names: Sequence[str], owners: Sequence[tuple[str, str]], shapes: Mapping[str, Shape], probe: Probe
) -> F64 | None:
    """(biases x matrices): log of |W^T b|^2, summed over the parts of a fused W, double_centred."""
    biases = [probe.vector(name) for name in names]
    table = np.zeros((len(names), len(names)))
    for j, (role, owner) in enumerate(owners):
        parts = len(role.split("+"))
        m = as_units(owner, shapes[owner], role.split("+")[0], pool.transposed)
        w = _read(probe, m, pool)
        if w is None:
            return None
        cut = np.split(w, parts) if len(w) % parts == 0 else [w]
        for i, b in enumerate(biases):
            if b is None or len(b) != len(w):
                return None
            moved = [x.T @ y for x, y in zip(cut, np.split(b, len(cut)), strict=True)]
            table[i, j] = np.log(sum(float(x @ x) for x in moved) + 1e-30)
    return np.asarray(table - table.mean(0) - table.mean(1, keepdims=True))


def _read(probe: Probe, m: Matrix, pool: Unordered) -> F64 | None:
    """All units of a matrix by its first channels, as many as the budget has for every matrix."""
    each = max(1, _ELEMENTS // (4 * pool.blocks * m.shape[0]))
    return probe.rectangle(m, m.shape[0], min(m.shape[1], _CHANNELS, each))


def place_residual(
    pool: Unordered, placed: Sequence[Placed], names: Sequence[str], shapes: Mapping[str, Shape], probe: Probe
) -> list[Placed]:
    """Norms' offsets and the biases of o and down, where every block is GPT-2's and values tell them apart.

    `placed`: everything else. Nothing where a matrix or a bias is missing, or the joins are not from values.
    """
    d, n = pool.hidden, pool.blocks
    used = {view.weight for _, view, _, _ in placed}
    free = [name for name in names if shapes[name] == (d,) and name not in used]
    values = [probe.vector(name) for name in free]
    vectors = [v for v in values if v is not None and not is_positive(v)]
    at = {(p.role, p.block): (view, sure) for p, view, sure, _ in placed if p.expert is None}
    if not pool.blocks_known or pool.experts or len(vectors) != len(free) or len(free) not in (4 * n, 4 * n + 1):
        return []
    blocks = [_block_matrices(pool, {r: view for (r, b), (view, _) in at.items() if b == block}, shapes, probe)
              for block in range(n)]  # fmt: skip
    known = [b for b in blocks if b is not None]
    if len(known) != n:
        return []
    width = known[0].up.shape[1]
    end = _final_norm({r: view for (r, b), (view, _) in at.items() if b is None}, width, shapes, probe)
    trust = {b: min(sure for (r, c), (_, sure) in at.items() if c == b and r in ("o", "up", "down")) for b in range(n)}
    out: list[Placed] = []
    for vote in place_offsets([v[:width] for v in vectors], known, end):
        sure = vote.sure * (1.0 if vote.block is None else trust[vote.block])
        why = "what training ties it to: matrices, biases and gradients beside it"
        why += f"; role {vote.role_sure:.2f}, block {sure / vote.role_sure:.2f}"
        view = View(free[vote.vector], (d,))
        out.append((Place("decoder", vote.block, vote.role), view, sure, why))
    return out


def _block_matrices(
    pool: Unordered, at: Mapping[str, View], shapes: Mapping[str, Shape], probe: Probe
) -> BlockMatrices | None:
    """The matrices and biases that stand in a block, by the same channels; None where one is missing."""
    needed = ("q", "k", "v", "o", "up", "down", "q_bias", "v_bias", "up_bias")
    if any(role not in at for role in needed):
        return None
    widest = max(shapes[at[role].weight][pool.transposed] for role in ("q", "up"))
    width = min(pool.hidden, _CHANNELS, max(1, _ELEMENTS // (4 * pool.blocks * widest)))
    found: dict[str, F64] = {}
    for role in needed:
        view = at[role]
        if role.endswith("_bias"):
            value = probe.vector(view.weight)
        else:
            m = as_units(view.weight, shapes[view.weight], role, pool.transposed)
            value = probe.rectangle(m, m.shape[0], width)
        if value is None:
            return None
        found[role] = value if view.rows is None else value[view.rows.indices()]
    return BlockMatrices(*(found[role] for role in needed))


def _final_norm(at: Mapping[str, View], width: int, shapes: Mapping[str, Shape], probe: Probe) -> FinalNorm:
    """Of the final norm.

    In an encoder nothing reads it, and its positions stand in for the head, with no reason but that it was so measured:
    of Whisper's two encoders' offsets and biases 34 are said, all right; without, 40, of which 35 are right.
    """
    gain = probe.vector(at["final_norm"].weight) if "final_norm" in at else None
    table = next((at[role] for role in ("head", "embedding", "position") if role in at), None)
    head = None
    if table is not None and not table.transposed:
        rows = min(shapes[table.weight][0], 2048)
        head = probe.rectangle(Matrix(table.weight, (rows, width)), rows, width)
    return FinalNorm(None if gain is None else gain[:width], head)
