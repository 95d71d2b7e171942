"""Log-odds features for roles that shapes leave open: name hints, file order, values.

Every cue adds log odds to the options of a :class:`~weightprint.anatomy.infer.shapes.Choice` and says so in a few
words; the odds of different cues are added as if independent (naive Bayes) and each is capped, so that no one
statistic makes anything certain. A cue that finds nothing adds nothing: without any, two options stay at one half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightprint.anatomy.infer.blocks import BlockTensor
from weightprint.anatomy.infer.name_hints import FUSED, hint
from weightprint.anatomy.infer.shapes import Choice, Claim, Reading
from weightprint.anatomy.infer.value_probes import Axis, Matrix, Probe, correlation, fold, head_sizes
from weightprint.anatomy.place import Rows

_WORD = 3.0
_CAP = 6.0
_BLOCKS = 6

#: (earlier, later) -> log odds, from how the families of the table write their modules, also in order of the alphabet.
#: Not here because both orders are common: q and k, gate and down, a norm and its matrices.
_BEFORE: dict[tuple[str, str], float] = {
    ("gate", "up"): 2.2,
    ("up", "down"): 1.6,
    ("k", "v"): 2.5,
    ("q", "v"): 2.2,
    ("attn_norm", "ffn_norm"): 2.5,
    ("attn_norm", "cross_norm"): 2.0,
    ("attn_post_norm", "ffn_post_norm"): 2.5,
    ("attn_norm", "attn_post_norm"): 1.0,
    ("ffn_norm", "ffn_post_norm"): 0.5,
    ("q+k+v", "cross_q+cross_k+cross_v"): 2.5,
    ("o", "cross_o"): 2.5,
    ("q", "cross_q"): 2.5,
}


def by_name_hints(choice: Choice) -> None:
    """A word that names one of the roles shared out speaks for it."""
    roles = {role for option in choice.options for role in option}
    spoke = set()
    for i, tensor in enumerate(choice.tensors):
        word = hint(tensor.rest) if tensor.rest else None
        word = "+".join(FUSED[word]) if word in FUSED else word
        if word == "gate" and word not in roles and "up" in roles:
            word = "up"
        if word in roles:
            choice.odds += [_WORD if option[i] == word else -_WORD for option in choice.options]
            spoke.add(word)
    if spoke:
        choice.cues.append(f"words in the name ({', '.join(sorted(spoke))})")


def by_order(choice: Choice) -> None:
    """Pairs of roles that authors nearly always write in one order."""
    places = [tensor.place for tensor in choice.tensors]
    odds = np.zeros(len(choice.options))
    for n, option in enumerate(choice.options):
        for i, first in enumerate(option):
            for j, second in enumerate(option):
                weight = _BEFORE.get((first, second))
                if weight:
                    odds[n] += weight / 2 if places[i] < places[j] else -weight / 2
    if np.ptp(odds) > 0:
        choice.odds += np.clip(odds, -_CAP, _CAP)
        choice.cues.append("order in the file")


def samples(tensors: Sequence[BlockTensor]) -> list[tuple[int, int | None]]:
    """At most six (block, expert), spread evenly, that all the tensors have."""
    common = sorted(set.intersection(*(set(tensor.names) for tensor in tensors)), key=lambda w: (w[0], w[1] or 0))
    if len(common) <= _BLOCKS:
        return common
    return [common[round(i * (len(common) - 1) / (_BLOCKS - 1))] for i in range(_BLOCKS)]


def by_values(reading: Reading, probe: Probe) -> None:
    """Let values speak about every choice that is open, the FFN first: attention is then compared with it."""
    for choice in reading.choices:
        roles = {role for option in choice.options for role in option}
        if roles == {"gate", "up"}:
            odds = _mean_rows(choice, choice.transposed, False, 4, probe)
            _add(choice, odds, "mean row: gate's rows share a direction")
        elif roles == {"up", "down"} and len(choice.options) == 2:
            odds = _mean_rows(choice, (False, False), True, 2, probe)
            _add(choice, odds, "mean row: up's rows share a direction")
    if reading.transposed is None:
        for choice in reading.choices:
            if set(choice.options[0]) == {"up", "down"} and choice.chance_of(0) > 0.75:
                reading.transposed = choice.transposed[choice.best]
    for choice in reading.choices:
        roles = {role for option in choice.options for role in option}
        if "o" in roles and len(choice.tensors) <= 4 and all("+" not in role for role in roles):
            _writer(choice, reading, probe)
    for choice in reading.choices:
        roles = {role for option in choice.options for role in option}
        if "v" in roles and len(choice.tensors) <= 4:
            _value(choice, reading, probe)


def _matrix(tensor: BlockTensor, where: tuple[int, int | None], writes: bool, transposed: bool) -> Matrix:
    """The tensor as (units x channels)."""
    a, b = tensor.shape[-2:]
    columns_are_units = writes != transposed
    return Matrix(tensor.names[where], (b, a) if columns_are_units else (a, b), columns_are_units)


def _mean_rows(choice: Choice, transposed: Sequence[bool | None], writes: bool, weight: float, probe: Probe) -> float:
    """Log odds that the first of two tensors has the larger mean row; `writes`: the second is read by columns."""
    ratios = []
    for where in samples(choice.tensors):
        first, second = (
            probe.mean_row(_matrix(tensor, where, across, bool(stored)))
            for tensor, across, stored in zip(choice.tensors, (False, writes), transposed, strict=True)
        )
        if first and second:
            ratios.append(np.log(first / second))
    return float(weight * np.median(ratios)) if ratios else 0.0


def _add(choice: Choice, odds: float, words: str) -> None:
    """Odds for the first of two options, capped; said only where they amount to something."""
    odds = float(np.clip(odds, -_CAP, _CAP))
    choice.odds += [odds / 2, -odds / 2]
    if abs(odds) > 1:
        choice.cues.append(words)


def _references(reading: Reading, where: tuple[int, int | None]) -> list[tuple[Matrix, Axis]]:
    """Matrices of the block whose residual axis the shapes give away, transposed so that it is their last."""
    out: list[tuple[Matrix, Axis]] = []
    owners: list[Claim | Choice] = [*reading.claims, *reading.choices]
    for owner in owners:
        for tensor in [owner.tensor] if isinstance(owner, Claim) else owner.tensors:
            a, b = tensor.shape[-2:]
            if len(tensor.shape) != 2 or a == b or min(a, b) < 16:
                continue
            name = tensor.names.get(where) or tensor.names.get((where[0], 0))  # one expert stands for all
            if name is not None:
                units = a if b == reading.hidden else b
                out.append((Matrix(name, (units, reading.hidden), a == reading.hidden), 1))
    return out


def _writer(choice: Choice, reading: Reading, probe: Probe) -> None:
    """Which square matrix has the residual stream on its first axis (its last, where all are stored transposed)."""
    found: list[list[float]] = []
    for where in samples(choice.tensors):
        references = _references(reading, where)
        if not references or any(s.shape[0] != s.shape[1] for s in choice.tensors):
            return
        odds = [
            probe.channel_axis(Matrix(tensor.names[where], (tensor.shape[0], tensor.shape[1])), references)
            for tensor in choice.tensors
        ]
        if all(value is not None for value in odds):
            found.append([float(value) for value in odds if value is not None])
    if not found:
        return
    reads = np.clip(np.sum(found, axis=0), -_CAP, _CAP) * (-1 if reading.transposed else 1)
    total = np.array(
        [
            sum(-r if role.endswith("o") else r for r, role in zip(reads, option, strict=True)) / 2
            for option in choice.options
        ]
    )
    choice.odds += np.clip(total, -_CAP, _CAP)
    if np.ptp(total) > 2:
        choice.cues.append("channel axis: which side runs over the residual stream")


def _value(choice: Choice, reading: Reading, probe: Probe) -> None:
    """v's rows and o's columns have like norms; a key's don't."""
    transposed = bool(reading.transposed)
    o_tensor = next((c.tensor for c in reading.claims if c.roles == ("o",)), None)
    for other in reading.choices:
        if o_tensor is None and "o" in other.options[0] and len(other.tensors) == 2 and other is not choice:
            o_tensor = other.tensors[other.options[other.best].index("o")]
    candidates = [o_tensor] if o_tensor is not None else list(choice.tensors)
    if o_tensor is None and "o" not in choice.options[0]:
        return

    def pairing(v: BlockTensor, o: BlockTensor, where: tuple[int, int | None]) -> float:
        values = probe.norms(_matrix(v, where, False, transposed), 0)
        output = probe.norms(_matrix(o, where, True, transposed), 0)
        if values is None or output is None:
            return 0.0
        found = [correlation(values, fold(output, values.size, h)) for h in head_sizes(output.size, values.size)[:8]]
        weight = min(3.0, values.size**0.5 / 8)  # chance gives r of about 1 / sqrt(units)
        return float(weight * max((r for r in found if r is not None), default=0.0))

    tensors = choice.tensors if o_tensor is None or o_tensor in choice.tensors else [*choice.tensors, o_tensor]
    table = np.zeros((len(choice.tensors), len(candidates)))
    wheres = samples(tensors)
    for where in wheres:
        for i, v in enumerate(choice.tensors):
            for j, o in enumerate(candidates):
                if v is not o:
                    table[i, j] += pairing(v, o, where)

    def of_option(option: tuple[str, ...]) -> float:
        j = 0 if o_tensor is not None else option.index("o")
        return float(table[option.index("v"), j])

    total = np.array([of_option(option) for option in choice.options])
    total -= total.max()
    choice.odds += np.clip(total, -_CAP, _CAP)
    if np.ptp(total) > 1:
        choice.cues.append("paired norms: v's rows have the norms of o's columns")


def fused_layout(
    tensor: BlockTensor, o: BlockTensor | None, transposed: bool, reading: Reading, probe: Probe
) -> tuple[tuple[Rows, ...], float, str]:
    """How q, k and v share the rows of one matrix: (rows of each, confidence, why).

    Either one below the other, or head by head (queries of a key head, its key, its value). v's rows have norms like
    o's columns, so the layout that shows more of that is taken, over all usual head sizes.
    """
    total = tensor.shape[-1] if transposed else tensor.shape[-2]
    kv = reading.kv or total // 3
    n_q = total - 2 * kv
    stacked = (Rows(0, n_q), Rows(n_q, kv), Rows(n_q + kv, kv))
    assumed = stacked, 0.7, "that q, k and v lie one below the other is assumed"
    if o is None or len(tensor.shape) != 2:
        return assumed
    sizes = [h for h in head_sizes(n_q * 3, kv) if kv % h == 0 and n_q % h == 0]
    usual = (8, 12, 16, 24, 32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256)
    sizes = sorted({h for h in (*sizes, *usual) if kv % h == 0 and n_q % h == 0 and h < kv})
    scores: dict[int, list[float]] = {0: [], **{h: [] for h in sizes}}
    for where in samples([tensor, o]):
        rows = probe.norms(_matrix(tensor, where, False, transposed), 0)
        out = probe.norms(_matrix(o, where, True, transposed), 0)
        if rows is None or out is None:
            continue
        group = n_q // kv
        for h in sizes:
            value = rows.reshape(-1, group + 2, h)[:, -1].ravel()
            scores[h].append(correlation(value, fold(out, kv, h)) or 0.0)
        best = [correlation(rows[n_q + kv :], fold(out, kv, h)) or 0.0 for h in (sizes if group > 1 else [kv])]
        scores[0].append(max(best, default=0.0))
    mean = {h: float(np.mean(r)) for h, r in scores.items() if r}
    if not mean:
        return assumed
    h = max(mean, key=lambda h: mean[h])
    if h and mean[h] > mean[0] + 0.15:
        group, heads = n_q // kv, kv // h
        lengths = (group * h, h, h)
        by_heads = tuple(Rows(sum(lengths[:i]), n, sum(lengths), heads) for i, n in enumerate(lengths))
        return by_heads, 0.8, f"head by head ({h} rows each), as v's norms go with o's columns so (r {mean[h]:.2f})"
    if mean[0] > 0.15:
        return stacked, 0.95, f"one below the other, as v's norms go with o's columns so (r {mean[0]:.2f})"
    return assumed
