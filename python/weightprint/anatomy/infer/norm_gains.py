"""Norm gains among unordered vectors: which stands before attention, before the FFN, or last, and in which block.

A gain g multiplies channels of the residual stream and matrices read the product, so both learn from one gradient
(g_j dL/dg_j = sum over readers of W_ij dL/dW_ij), and what a gain says of a channel its readers say too. For channel j
of each matrix that reads in a block (q, k, v; gate, up; router)

* size: log rms of W_.j;
* unevenness: log rms - log mean |W_.j|, large where few units read the channel. Weight decay under Adam makes the
  sizes alike in long training; this stays (found on SmolLM2: q|k|v's goes with the gain before attention, r .34, not
  with the block's other, -.02; gate|up's with the one before the FFN, .19 against .05);
* leading size: log rms of the part of W_.j within the first eighth of W's singular directions, which training made.
  The best of eleven on the fit side: r .6 with the block's gain, none with its other.

The score of a gain for a place is the sum of the correlations of log |g| with the three, averaged over the readers.
Beside it stands depth: gains of one kind drift from block to block, so those of near blocks are alike (r of log |g|,
over twice the distance). :func:`~weightprint.anatomy.infer.pairing.settle` looks for the assignment of the greatest
total. Where no join says which matrices stand together, any place of its kind is as good: the score is then the mean
over the kind's roles of the best of all their matrices.

The final norm has a row of its own: its size, z |z| with z the distance of log mean g^2 from the median of all gains in
sd (by the median, which one odd gain doesn't move; at most three). The head reads it, but the head's channels don't
show that: *measured* r -.27 to .27 with its gain, no higher than with other gains (22 tiny models, head or embedding;
SmolLM2, tied: -.01). Its size does: the largest in 13 of these 23, above the mean in all.

*Measured*: on the fit side (eleven tiny Llamas, two with experts; cues and weights were chosen there) 4 gains have a
wrong role, where pooled readers without v and without the leading size had 8; on the test side (seven) 2, where it was
13. What is wrong in SmolLM2, and before: docs/anatomy.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightprint.anatomy.infer.block_membership import Unordered, as_units
from weightprint.anatomy.infer.pairing import likeness, settle
from weightprint.anatomy.infer.value_probes import Matrix, Probe, is_positive, logistic
from weightprint.anatomy.place import Place, View
from weightprint.util.arrays import F64

Shape = tuple[int, ...]
Placed = tuple[Place, View, float, str]
_Member = tuple[str, str]  # role, name

#: A norm's role -> the roles that read what it gives, fused or not.
_READERS = {"attn_norm": ("q", "k", "v", "q+k+v"), "ffn_norm": ("router", "gate", "up", "gate+up")}
_SIZE = 0.05  # of the final norm's row, per squared spread: log odds of a normal are quadratic
_OUTLYING = 3.0  # sd beyond which a size says no more: tails are longer than a normal's
_NEAR = 0.25  # half the weight of likeness between neighbouring blocks; each pair counts twice
#: Log odds of a role on the fit side: at no margin over the best place of another kind, and per sd of chance.
_EVEN, _STEEP = 1.2, 1.5


def place_gains(pool: Unordered, names: Sequence[str], shapes: Mapping[str, Shape], probe: Probe) -> list[Placed]:
    """Places for the gains among the vectors of hidden size; nothing unless they are two per block, or one more."""
    n, roles = pool.blocks, list(_READERS)
    values = {name: v for name in names if (v := probe.vector(name)) is not None}
    if len(names) not in (2 * n, 2 * n + 1):  # not gains alone
        values = {name: v for name, v in values.items() if is_positive(v)}
    if len(values) not in (2 * n, 2 * n + 1):
        return []
    gains = list(values)
    table = np.array(list(values.values()))
    logs = np.log(np.abs(table) + 1e-3)
    members = {role: _members(pool, role) for role in roles}
    score = np.concatenate([_read_by(pool, members[role], logs, shapes, probe) for role in roles])
    if len(gains) > 2 * n:
        size = np.log((table * table).mean(1) + 1e-12)
        spread = 1.48 * np.median(np.abs(size - np.median(size)))  # a normal's sd; one odd gain doesn't change it
        odd = np.clip((size - np.median(size)) / (spread + 1e-12), -_OUTLYING, _OUTLYING)
        score = np.concatenate([score, _SIZE * (odd * np.abs(odd))[None]])
    picked, total = settle(score, _beside(n, len(gains)) if pool.blocks_known else None, likeness(logs, logs))
    out: list[Placed] = []
    kind = np.arange(len(gains)) // n
    told = bool(np.ptp(table) > 0)  # untrained gains are all one
    chance = np.sqrt(3 / pool.hidden)  # sd of a sum of three correlations of what has nothing in common
    for row, j in enumerate(picked):
        mine = kind == kind[row]
        margin = (total[row, j] - total[~mine, j].max()) / chance
        sure = min(0.95, logistic(_EVEN * pool.blocks_known + _STEEP * margin)) if told else 0.0
        sure = max(sure, float(mine.mean()))  # as by chance, at the least
        view = View(gains[j], (pool.hidden,))
        if row == 2 * n:
            out.append(
                (Place("decoder", None, "final_norm"), view, sure, "a gain, by its size and by what reads others")
            )
            continue
        role, block = roles[kind[row]], row % n
        lead = (score[row, j] - np.delete(score[mine, j], block).max()) / chance
        trust = float(np.mean([pool.block[name][1] for _, name in members[role][block]] or [1 / n]))
        trust = max(1 / n, trust * logistic(lead)) if pool.blocks_known else 1 / n
        why = f"a gain, by the channels of what reads it (r {score[row, j] / 2:.2f}) and by depth"
        why += f"; role {sure:.2f}, block {trust:.2f}"
        out.append((Place("decoder", block, role), view, sure * trust, why))
    return out


def _members(pool: Unordered, role: str) -> list[list[_Member]]:
    """What reads a norm of this role in every block, as far as the joins say."""
    blocks: list[list[_Member]] = [[] for _ in range(pool.blocks)]
    for reader in _READERS[role]:
        for name in pool.roles.get(reader, ()):
            blocks[pool.block[name][0]].append((reader, name))
    return blocks


def _read_by(
    pool: Unordered, members: Sequence[Sequence[_Member]], logs: F64, shapes: Mapping[str, Shape], probe: Probe
) -> F64:
    """(blocks x gains): how each gain goes with what reads a norm of one role in every block: the mean over readers."""
    n = len(members)
    goes = {
        name: _goes_with(as_units(name, shapes[name], role.split("+")[0], pool.transposed), logs, probe)
        for role, name in {member for block in members for member in block}
    }
    if pool.blocks_known:
        none = np.zeros((1, len(logs)))
        return np.array([np.mean([goes[name] for _, name in block] or none, axis=0) for block in members])
    score: list[F64] = []
    for reader in dict.fromkeys(role for block in members for role, _ in block):
        table = np.array([goes[m] for m in pool.roles[reader]])
        score.append(np.sort(table, 0)[-(len(table) // n) :].mean(0))
    return np.tile(np.mean(score, 0) if score else np.zeros(len(logs)), (n, 1))


def _goes_with(m: Matrix, logs: F64, probe: Probe) -> F64:
    """Every gain's correlations with the sizes, the unevenness and the leading sizes of a matrix' channels, summed."""
    cues = probe.channels(m)
    return np.zeros(len(logs)) if cues is None else np.asarray(likeness(cues, logs).sum(0))


def _beside(n: int, rows: int) -> F64:
    """(rows x rows): how much likeness counts between two places of one kind, falling with their distance in blocks."""
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) + np.diag(np.full(n, np.inf))
    out = np.zeros((rows, rows))
    out[:n, :n] = out[n : 2 * n, n : 2 * n] = _NEAR / distance
    return out
