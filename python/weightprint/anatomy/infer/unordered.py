"""Roles and blocks of tensors whose names and order say nothing, as in a file sorted by random names.

What is left is how often each shape occurs, and values. With L the greatest common divisor of the counts of the block's
shapes, a shape that occurs m L times stands m times in a block, and :mod:`.shapes` reads such a block. Then

* roles: each choice is made per tensor, by sorting the tensors of the shape by the cue's statistic
  (:mod:`.value_probes`) and giving the upper part one role and the lower the other, L each;
* block membership: which tensors stand in one block, and the order of blocks (:mod:`.block_membership`).

Both are said apart in ``because`` ("role .97, block .60"), and ``confidence`` is their product. The chance of a block
number is what was measured for the join that gives it, not a claim for every model. In weights that were never trained
the joins find nothing, and blocks are numbered in file order within their role, with confidence 1/L and the word
"arbitrary"; so are experts, which nothing joins to their router. Vectors: :mod:`.unordered_vectors`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.infer.block_membership import BlockMembership, Unordered, as_units, ffn_cosines
from weightprint.anatomy.infer.blocks import BlockTensor
from weightprint.anatomy.infer.key_value_split import Rotation, paired, split
from weightprint.anatomy.infer.outside_blocks import find_outside
from weightprint.anatomy.infer.pairing import assign, correlations, likeness
from weightprint.anatomy.infer.shapes import Choice, Reading, hidden_size, read_matrices
from weightprint.anatomy.infer.unordered_vectors import place_residual, place_vectors, rows_of
from weightprint.anatomy.infer.value_probes import Axis, Matrix, Probe, logistic
from weightprint.anatomy.place import Place, View
from weightprint.util.arrays import F64, Array

Shape = tuple[int, ...]
Placed = tuple[Place, View, float, str]

_MOST = 2048  # with more unordered tensors than that no value is read
_PAIRED = 256  # downs that readers are paired with, each with each


def read_unordered(names: Sequence[str], shapes: Mapping[str, Shape], values: Probe) -> list[Placed]:
    """Places for the tensors of one stack without usable names or order; what can't be placed is left out."""
    by_shape: dict[Shape, list[str]] = defaultdict(list)
    for name in names:
        by_shape[shapes[name]].append(name)
    tensors = [BlockTensor("", i, shapes[name]) for i, name in enumerate(names)]
    d = hidden_size(tensors)
    if d is None:
        return []
    counts: dict[Shape, int] = {s: len(n) for s, n in by_shape.items() if len(s) == 2 and d in s and min(s) > 1}
    unit = _unit(counts, d)
    if unit is None:
        return []
    blocks, experts, reading = unit
    inside: dict[Shape, list[str]] = {
        s: _typical(by_shape[s], c // blocks * blocks, values) for s, c in counts.items() if c >= blocks
    }
    pool = Unordered(d, blocks, bool(reading.transposed), experts)
    few = len(names) <= _MOST
    probe = values if few else Probe(None, shapes)
    _ffn_roles(reading, inside, pool, probe)
    _attention_roles(reading, inside, pool, probe)
    block_like = {n for members in inside.values() for n in members}
    tables = [n for n in names if len(shapes[n]) == 2 and n not in block_like]
    outer = find_outside(tables, shapes, d, values, ordered=False, readable=False)
    both = {f.role for f in outer} >= {"embedding", "head"}
    first = [f.name for f in outer if not f.transposed and f.role in ("position", *(("embedding",) if both else ()))]
    if few:
        _join(pool, shapes, first, probe)
    else:
        _number(pool)
    out = _matrices(pool, shapes, reading)
    out += place_vectors(pool, by_shape, shapes, reading, probe)
    used = {view.weight for _, view, _, _ in out}
    rest = [name for name in names if name not in used]
    block_like |= {n for s, members in by_shape.items() if len(members) >= blocks and s not in inside for n in members}
    left = [n for n in rest if len(shapes[n]) == 2 and n not in block_like] + [n for n in rest if shapes[n] == (d,)]
    for found in find_outside(left, shapes, d, values, ordered=False, readable=False):
        out.append((Place("decoder", None, found.role), found.view(shapes), 0.9 * found.confidence, found.because))
    return out + place_residual(pool, out, names, shapes, probe)


def _unit(counts: Mapping[Shape, int], d: int) -> tuple[int, int, Reading] | None:
    """(blocks, experts, reading of one block): the number of blocks under which most matrices get a role.

    Counts need not be whole multiples: two may be over (a pooler, a table of the blocks' shape). Among equals the
    larger number: blocks in pairs could be read too.
    """
    best: tuple[int, int, int, Reading] | None = None
    for n in range(2, max(counts.values(), default=0) + 1):
        inside = {s: c // n for s, c in counts.items() if c >= n}
        if sum(c % n for c in counts.values() if c >= n) > 2:
            continue
        experts = _experts(inside, d)
        each = {shape: experts if experts and many % experts == 0 else 0 for shape, many in inside.items()}
        tensors: list[BlockTensor] = []
        if all(many // (each[shape] or 1) <= 8 for shape, many in inside.items()):
            for shape, many in inside.items():
                for _ in range(many // (each[shape] or 1)):
                    tensors.append(BlockTensor("", len(tensors), shape, {(0, e): "" for e in range(each[shape])}))
            reading = read_matrices(tensors, d)
            read = n * sum(len(s.names) or 1 for s in tensors if s not in reading.rest)
            if read and (best is None or (read, n) > best[:2]):
                best = (read, n, experts, reading)
    return best and best[1:]


def _experts(inside: Mapping[Shape, int], d: int) -> int:
    """e where every block has one matrix (e, d), and 3e or more matrices of two opposite shapes; else 0."""
    for shape, each in inside.items():
        e = shape[0] if shape[1] == d else shape[1]
        if each == 1 and 2 <= e < d:
            many = [s for s, n in inside.items() if s[0] != s[1] and n % e == 0]
            if any(s[::-1] in many for s in many):
                return e
    return 0


def _typical(names: Sequence[str], n: int, probe: Probe) -> list[str]:
    """The n tensors nearest to the median in size and mean row: what else has the blocks' shape by chance is not."""
    if len(names) == n:
        return list(names)
    features = []
    for name in names:
        m = Matrix(name, (probe.shapes[name][0], probe.shapes[name][1]))
        norms, mean = probe.norms(m, 1), probe.mean_row(m)
        features.append((float(norms.mean()), float(np.log(mean))) if norms is not None and mean else (0.0, 0.0))
    table = np.array(features)
    odd = np.abs(table - np.median(table, 0)).sum(1)
    return [names[i] for i in np.sort(np.argsort(odd, kind="stable")[:n])]


def _split(pool: Unordered, roles: tuple[str, str], names: Sequence[str], score: F64, gain: float, cue: str) -> None:
    """The lower scores get the first role; chances from how far a score lies from the middle of the gap."""
    order = np.argsort(score, kind="stable")
    half = len(names) // 2
    middle = (score[order[half - 1]] + score[order[half]]) / 2
    for role, picked in zip(roles, (order[:half], order[half:]), strict=True):
        picked = np.sort(picked)
        chances = [logistic(gain * abs(score[i] - middle)) for i in picked]
        pool.give(role, [names[i] for i in picked], chances, cue)


def _ffn_roles(reading: Reading, inside: Mapping[Shape, list[str]], pool: Unordered, probe: Probe) -> None:
    for claim in reading.claims:
        if claim.tensor.shape in inside:
            role = "+".join(claim.roles)
            names = inside[claim.tensor.shape]
            pool.give(role, names, [0.95] * len(names), "shape")
    for choice in reading.choices:
        roles = {role for option in choice.options for role in option}
        names = inside[choice.tensors[0].shape]
        if roles == {"gate", "up"}:
            _gated(names, bool(choice.transposed[0]), pool, probe)
        elif roles == {"q+k+v", "up"}:
            _fused_or_up(names, pool, probe)
        elif roles == {"up", "down"}:
            _plain(choice, inside, pool, reading, probe)


def _gated(names: Sequence[str], transposed: bool, pool: Unordered, probe: Probe) -> None:
    """Gate and up: gates have the larger mean rows, and up's units have norms like those of its down's."""
    means = [probe.mean_row(as_units(n, probe.shapes[n], "up", transposed)) for n in names]
    score = np.array([np.log(m) if m else 0.0 for m in means])
    downs = pool.roles.get("down", [])
    rows, columns = _units(names, "up", transposed, probe), _units(downs, "down", transposed, probe)
    gain = 0.7 / np.sqrt(2 / pool.hidden)
    if rows is None or columns is None or len(downs) > _PAIRED or len(names) != 2 * len(downs):
        _split(pool, ("up", "gate"), names, score, gain, "mean row")
        return
    picked, sure = split(likeness(columns, rows), [], score)
    away = gain * (score - np.sort(score)[len(downs) - 1 : len(downs) + 1].mean())  # from the middle of the gap
    away[picked] *= -1
    sure = np.minimum(sure, [max(0.5, logistic(a)) for a in away])  # sure where the mean row alone says so too
    _halves(("up", "gate"), names, picked, sure, "mean row, paired norms", pool)


def _halves(
    roles: tuple[str, str], names: Sequence[str], first: npt.NDArray[np.intp], sure: F64, cue: str, pool: Unordered
) -> None:
    """Give the first role to what was picked and the second to the others."""
    rest = np.setdiff1d(np.arange(len(names)), first)
    for role, members in zip(roles, (np.sort(first), rest), strict=True):
        pool.give(role, [names[i] for i in members], sure[members].tolist(), cue)


def _fused_or_up(names: Sequence[str], pool: Unordered, probe: Probe) -> None:
    """q|k|v and up of one shape, where the FFN is three times as wide as the stream: up goes with down, v with o."""
    n, d = pool.blocks, pool.hidden
    picked, sure = np.arange(n), np.full(2 * n, 0.5)
    rows, columns = (_units(m, role, pool.transposed, probe) for m, role in ((names, "up"), (pool.roles["o"], "o")))
    if rows is not None and columns is not None:
        readers, downs = (
            [as_units(m, probe.shapes[m], role, pool.transposed) for m in members]
            for role, members in (("up", names), ("down", pool.roles["down"]))
        )
        cosines = ffn_cosines(probe, readers, downs)
        written = _units(pool.roles["down"], "down", pool.transposed, probe)
        if cosines is not None and written is not None:
            values = likeness(columns, rows[:, 2 * d :])
            picked, sure = split(values, [cosines.T + correlations(written, rows)])
    _halves(("q+k+v", "up"), names, picked, sure, "paired norms with o and down", pool)


def _plain(choice: Choice, inside: Mapping[Shape, list[str]], pool: Unordered, reading: Reading, probe: Probe) -> None:
    """Up and down of a plain FFN differ in shape: only which is which, the same for all blocks."""
    first, second = (inside[tensor.shape] for tensor in choice.tensors)
    odds = 0.0 if reading.transposed is None else (-5.0 if reading.transposed else 5.0)
    a = [probe.mean_row(as_units(n, choice.tensors[0].shape, "up", False)) for n in first]
    b = [probe.mean_row(as_units(n, choice.tensors[1].shape, "down", False)) for n in second]
    ratios = [np.log(x / y) for x, y in zip(a, b, strict=False) if x and y]
    odds += float(np.clip(2 * np.median(ratios), -6, 6)) if ratios else 0.0
    cue = "stored like the other projections" + (", mean row" if probe.read is not None else "")
    sure = logistic(abs(odds))
    up, down = (first, second) if odds >= 0 else (second, first)
    pool.transposed = odds < 0
    reading.transposed = pool.transposed
    pool.give("up", up, [sure] * len(up), cue)
    pool.give("down", down, [sure] * len(down), cue)


def _attention_roles(reading: Reading, inside: Mapping[Shape, list[str]], pool: Unordered, probe: Probe) -> None:
    choices = [c for c in reading.choices if c.tensors[0].shape in inside]
    for choice in sorted(choices, key=lambda c: "o" not in c.options[0]):
        roles = {role for option in choice.options for role in option}
        names = inside[choice.tensors[0].shape]
        if "o" in roles and roles <= {"q", "k", "v", "o"}:
            axis = _axes(names, pool, reading, inside, probe)
            order = np.argsort(axis, kind="stable")
            n = pool.blocks
            middle = (axis[order[n - 1]] + axis[order[n]]) / 2
            picked = sorted(order[:n].tolist())
            taken = set(picked)
            chances = [logistic(abs(odds - middle)) for odds in axis]
            pool.give("o", [names[i] for i in picked], [chances[i] for i in picked], "channel axis")
            rest = [i for i in range(len(names)) if i not in taken]
            left = [names[i] for i in rest]
            if roles == {"q", "o"}:
                pool.give("q", left, [chances[i] for i in rest], "channel axis")
            else:
                _either(_take_values(left, pool, probe), pool)
        elif roles <= {"q", "k", "v"} and "v" in roles:
            left = _take_values(names, pool, probe)
            if "q" in roles:
                _either(left, pool)
            else:
                pool.give("k", left, [pool.chance[name][0] for name in left], pool.chance[left[0]][1])


def _either(names: Sequence[str], pool: Unordered) -> None:
    half = len(names) // 2
    for role, members in (("q", names[:half]), ("k", names[half:])):
        pool.give(role, members, [0.5] * pool.blocks, "q and k can't be told apart")


def _axes(
    names: Sequence[str], pool: Unordered, reading: Reading, inside: Mapping[Shape, list[str]], probe: Probe
) -> F64:
    """Log odds that a square matrix reads rather than writes the residual stream."""
    references: list[tuple[Matrix, Axis]] = []
    for shape, members in inside.items():
        if shape[0] != shape[1]:
            step = max(1, len(members) // 6)
            units = shape[0] if shape[1] == pool.hidden else shape[1]
            transposed = shape[1] != pool.hidden
            references += [(Matrix(n, (units, pool.hidden), transposed), 1) for n in members[::step]]
    sign = -1.0 if reading.transposed else 1.0
    odds = [probe.channel_axis(Matrix(n, (pool.hidden, pool.hidden)), references) for n in names]
    return np.array([sign * (o or 0.0) for o in odds])


def _take_values(names: Sequence[str], pool: Unordered, probe: Probe) -> list[str]:
    """Give v to the tensors whose rows go with o's columns; gives the others back, with their chances.

    Beside as many keys every q, too, takes one: what is k already can't be v (:mod:`.key_value_split`).
    """
    outputs, queries, n = pool.roles.get("o", []), pool.roles.get("q", []), pool.blocks
    rows, columns = (_units(m, role, pool.transposed, probe) for m, role in ((names, "v"), (outputs, "o")))
    moments = _asked(queries, names, pool.transposed, probe) if len(names) == 2 * n and len(queries) == n else None
    table = None if rows is None or columns is None else paired(columns, rows)
    if moments is not None and rows is not None:
        asking, zero = _units(queries, "q", pool.transposed, probe), np.zeros((n, len(names)))
        rotation = None if asking is None else Rotation.of(asking, rows.shape[1])
        if asking is None or rotation is None:
            picked, sure = split(zero if table is None else table, [moments])
        else:
            keys = [moments, rotation.pairs(asking, rows)]
            picked, sure = split(zero if table is None else table, keys, rotation.profile(asking, rows))
        cue = "paired norms, rotation"
    elif table is None:  # of many tensors no value is read
        picked, sure, cue = np.arange(n), np.full(len(names), 0.5), "paired norms"
    else:
        picked = assign(table)
        apart = float(np.median(table[np.arange(n), picked]) - np.median(np.delete(table, picked, 1).max(0)))
        sure = np.full(len(names), 0.5 + 0.45 * float(np.tanh(3 * max(0.0, apart))))
        cue = "paired norms"
    chosen = np.sort(picked)
    pool.give("v", [names[i] for i in chosen], sure[chosen].tolist(), cue)
    taken = set(picked.tolist())
    rest = [i for i in range(len(names)) if i not in taken]
    pool.chance.update({names[i]: (float(sure[i]), cue) for i in rest})
    return [names[i] for i in rest]


def _known(rows: Sequence[Array | None]) -> Array | None:
    """One row per tensor; None where one can't be read."""
    known = [row for row in rows if row is not None]
    return np.array(known) if known and len(known) == len(rows) else None


def _units(names: Sequence[str], role: str, transposed: bool, probe: Probe) -> F64 | None:
    """Log norms of units, one row per tensor; None where one can't be read."""
    return _known([probe.norms(as_units(name, probe.shapes[name], role, transposed), 0) for name in names])


def _asked(queries: Sequence[str], names: Sequence[str], transposed: bool, probe: Probe) -> F64 | None:
    """(queries x candidates): likeness of second moments over channels."""
    asked, asking = (
        _known([probe.moment(as_units(name, probe.shapes[name], role, transposed), 1) for name in members])
        for role, members in (("q", queries), ("k", names))
    )
    return None if asked is None or asking is None else likeness(asked, asking)


def _number(pool: Unordered) -> None:
    """Give every matrix a block in file order."""
    for names in pool.roles.values():
        for i, name in enumerate(names):
            pool.block[name] = (i % pool.blocks, 1.0 / pool.blocks)


def _join(pool: Unordered, shapes: Mapping[str, Shape], first: Sequence[str], probe: Probe) -> None:
    """Give every matrix its block, by values as far as they say."""
    _number(pool)
    n = pool.blocks
    hub = next((role for role in ("down", "o") if len(pool.roles.get(role, ())) == n), None)
    if n < 3 or hub is None or pool.experts:
        return
    membership = BlockMembership(pool, shapes, probe, first=first)
    order = membership.order()
    number = {i: b for b, i in enumerate(order)} if order else {i: i for i in range(n)}
    pool.blocks_known = bool(order) and membership.trained > 0.5
    sure = 0.7 if order else 1.0 / n
    for role, (row, trust) in membership.rows(hub).items():
        for i, name in enumerate(pool.roles[role]):
            pool.block[name] = (number[int(row[i])], sure * trust)


def _matrices(pool: Unordered, shapes: Mapping[str, Shape], reading: Reading) -> list[Placed]:
    out: list[Placed] = []
    for role, names in pool.roles.items():
        roles = role.split("+")
        many = len(names) > pool.blocks
        for number, name in enumerate(names):
            sure, cue = pool.chance[name]
            block, trust = pool.block[name]
            expert = number // pool.blocks if many else None
            arbitrary = trust <= 1.0 / pool.blocks + 1e-9
            trust = trust / pool.experts if many else trust
            what = "block and expert" if many else "block"
            why = f"counts of shapes ({pool.blocks} blocks), {cue}; role {sure:.2f}, {what} {trust:.2f}"
            why += " (arbitrary: in file order)" if arbitrary else " (from values)"
            shape = shapes[name][::-1] if pool.transposed else shapes[name]
            for i, one in enumerate(roles):
                rows = rows_of(roles, i, shape[0], reading)
                view = View(name, (rows.n, shape[1]) if rows else shape, transposed=pool.transposed, rows=rows)
                fused = 0.7 if rows and len(roles) == 3 else 1.0
                out.append((Place("decoder", block, one, expert), view, 0.95 * sure * trust * fused, why))
    return out
