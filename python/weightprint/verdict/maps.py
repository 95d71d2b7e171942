"""Maps: which layer, expert and unit of A became which of B, read off unit matches.

Every FFN or expert of B names its best FFN of A (:mod:`weightprint.evidence.unit_agreement`). A block of B is then a
block of A if its FFNs together name that block. Nothing is invented: a block whose units were not found beyond chance
has no counterpart, and one whose units were not looked for says so.

Neighbouring layers of one model resemble each other, so a unit may be found in several FFNs of A: it then speaks for
the one where its likeness is largest. A layer may also stand in A twice, and one that is gone leaves its neighbours. So
a row carries its runner-up, and is *clear* only if units speak for the best by 3 standard errors more, and for the
runner-up at most two thirds as often.

A layer that A lacks still resembles its neighbours there (in SmolLM2 8 to 14 % of the units of dropped layers are
found in them). Copies of one layer are about equally near to it, so a block of B that names the same block of A as
another does, with less than half of the other's share, is an *echo* and has no counterpart.

Where units kept their numbers, or all moved by one offset, the span of A's units that an expert holds is exact; where
their order changed it is the shortest window that holds nine tenths of what was found, if that is no longer than the
expert.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from weightprint.anatomy.place import Expert
from weightprint.evidence.evidence import Evidence, UnitMatch
from weightprint.evidence.pair import ModelPair
from weightprint.evidence.thresholds import BLOCK_LOG10_P, LOG10_P
from weightprint.evidence.unit_agreement import found_share
from weightprint.fingerprint.ffns import Ffn, ffns
from weightprint.verdict.values import ExpertMatch, LayerMatch

Key = tuple[str, int, Expert]
Block = tuple[str, int]
Order = Literal["same", "shifted", "kept", "changed", "unknown"]

_ERRORS, _RATIO = 3.0, 2 / 3
_MOST = 0.8
_FEW = 8
_ECHO = 1 / 2  # of the share of another block that names the same one


@dataclass(frozen=True, slots=True)
class FfnRow:
    """One FFN or expert of B.

    Attributes:
        b, a: where it is and where its units are from; ``a`` is None where they were not found beyond chance.
        share: of its units that were found there, beyond chance, each unit of A counted once.
        found: of its units that were found anywhere in A's FFNs beyond chance: in several experts, or doubled.
        also: further FFNs of A beyond chance, best first, with their shares (copies, neighbours, averaged experts).
        clear: no other comes near the best.
        looked_for: False where there was nothing to look for (no down-projection).
        order: how the units stand: under the same numbers, all shifted by one offset, in A's order with gaps, or not.
        span: first and last + 1 of A's units that it holds; None where they lie scattered over all of A's.
        repeats: how often one unit of A was found in it at most (2 and more: widened by copying).
        units: unit of B → unit of A, as far as looked at; int64 (n, 2).
    """

    b: Key
    a: Key | None
    share: float
    found: float
    also: tuple[tuple[Key, float], ...]
    clear: bool
    looked_for: bool
    order: Order
    span: tuple[int, int] | None
    repeats: int
    units: npt.NDArray[np.int64]

    @property
    def of_experts(self) -> bool:
        """One of the two is an expert."""
        return self.b[2] is not None or (self.a is not None and self.a[2] is not None)


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One block of B: its block of A (None: not found), the share of its units found there, the runner-up."""

    b: Block
    a: Block | None
    share: float
    runner_up: tuple[Block, float] | None
    clear: bool
    looked_for: bool


@dataclass(frozen=True)
class Maps:
    """Where B's layers, experts and units come from, in B's order.

    ``unused``: FFNs of A that no FFN of B names; ``says``: what is unclear, in sentences.
    """

    layers: tuple[LayerRow, ...]
    ffns: tuple[FfnRow, ...]
    unused: tuple[Key, ...]
    says: tuple[str, ...]

    @property
    def stack(self) -> str | None:
        """The stack of B with the most blocks found, else with the most blocks."""
        found = Counter(row.b[0] for row in self.layers if row.a is not None) or Counter(r.b[0] for r in self.layers)
        return found.most_common(1)[0][0] if found else None

    @property
    def experts(self) -> tuple[FfnRow, ...]:
        """Rows in which a side is an expert."""
        return tuple(row for row in self.ffns if row.of_experts)

    @property
    def unmatched(self) -> tuple[Key, ...]:
        """FFNs and experts of B that were looked for and not found."""
        return tuple(row.b for row in self.ffns if row.looked_for and row.a is None)

    @property
    def layer_map(self) -> tuple[LayerMatch, ...]:
        """Every layer of the main stack."""
        return tuple(
            LayerMatch(r.b[1], None if r.a is None else r.a[1], round(r.share, 4))
            for r in self.layers
            if r.b[0] == self.stack
        )

    @property
    def expert_map(self) -> tuple[ExpertMatch, ...]:
        """Every expert that was found, and every dense FFN that was found in one."""
        return tuple(
            ExpertMatch(row.b[1], row.b[2], a[1], round(share, 4), a[2], row.span if a == row.a else None)
            for row in self.experts
            for a, share in _sources(row)
        )


def _sources(row: FfnRow) -> list[tuple[Key, float]]:
    """What a row is made from: its best; for a dense FFN from experts all of that block."""
    if row.a is None:
        return []
    rest = [(a, share) for a, share in row.also if row.b[2] is None and a[2] is not None and a[:2] == row.a[:2]]
    return [(row.a, row.share), *rest]


def maps(evidence: Evidence | Sequence[Evidence], models: ModelPair, limit: float = LOG10_P) -> Maps:
    """The maps that matches (and ``others``) show. Of several tests the first that found an FFN beyond chance tells of
    it: where an FFN's output was zeroed, say, `aligned_units` still sees its inputs. ``limit``: log10 p that a match
    must reach, corrected for all that were compared."""
    tests = [evidence] if isinstance(evidence, Evidence) else list(evidence)
    ours = {f.key: f for f in ffns(models.a)}
    experts = Counter(key[:2] for key in ours if key[2] is not None)
    real: dict[Key, list[UnitMatch]] = {}
    looked_for: set[Key] = set()
    for test in tests:
        multiplicity = math.log10(test.pairs_tried)
        by_b: dict[Key, list[UnitMatch]] = defaultdict(list)
        for match in (*test.matches, *test.others):
            looked_for.add(match.b)
            if match.log10_p + multiplicity <= limit or _mixed_in(match, by_b[match.b], experts):
                by_b[match.b].append(match)
        real = {**{b: found for b, found in by_b.items() if found}, **real}
    rows = tuple(_ffn_row(f, real.get(f.key, []), f.key in looked_for, ours) for f in ffns(models.b))
    layers = _layer_rows(rows, real)
    echoes = _echoes(layers)
    layers = tuple(replace(row, a=None, share=0.0, clear=False) if row.b in echoes else row for row in layers)
    rows = tuple(replace(row, a=None, share=0.0, also=()) if row.b[:2] in echoes else row for row in rows)
    named = {a for row in rows for a, _ in _sources(row)}
    return Maps(layers, rows, tuple(key for key in ours if key not in named), tuple(_says(layers)))


def _mixed_in(match: UnitMatch, found: Sequence[UnitMatch], experts: Mapping[Block, int]) -> bool:
    """A dense FFN was found in one expert; of the others of that block each is asked on its own."""
    if match.b[2] is not None or match.a[2] is None or not any(m.a[:2] == match.a[:2] for m in found):
        return False
    return match.log10_p + math.log10(max(1, experts[match.a[:2]])) <= BLOCK_LOG10_P


# One FFN


def _ffn_row(ffn: Ffn, found: list[UnitMatch], looked_for: bool, ours: Mapping[Key, Ffn]) -> FfnRow:
    real = sorted(found, key=lambda m: (-m.nearest, -m.share, m.log10_p))
    none = np.empty((0, 2), np.int64)
    if not real:
        return FfnRow(ffn.key, None, 0.0, 0.0, (), False, looked_for, "unknown", None, 0, none)
    best, rest = real[0], real[1:]
    units = none if best.units is None else best.units
    order, span = order_of(best, ffn, ours.get(best.a))
    return FfnRow(
        b=ffn.key,
        a=best.a,
        share=best.share,
        found=found_share(real),
        also=tuple((m.a, m.share) for m in rest),
        clear=all(_beats(best.nearest, m.nearest) for m in rest),
        looked_for=True,
        order=order,
        span=span,
        repeats=_repeats(units[:, 1].tolist()),
        units=units,
    )


def _repeats(units: list[int]) -> int:
    """How often the commonest of A's units stands in B; nearly always once."""
    return min(len(units), 1) if len(set(units)) == len(units) else max(Counter(units).values())


def _beats(best: int, other: int) -> bool:
    return best - other > _ERRORS * math.sqrt(best + other) and other <= _RATIO * best


def order_of(match: UnitMatch, b: Ffn, a: Ffn | None) -> tuple[Order, tuple[int, int] | None]:
    """How units stand, and the span of A's that they cover; of units that were not kept the span alone."""
    units, of_b, of_a = match.units, b.units, 0 if a is None else a.units
    if units is None:
        return "unknown", match.span
    if len(units) < _FEW:
        return "unknown", None
    ours, theirs = units[:, 1], units[:, 0]
    (offset, n), *_ = Counter((ours - theirs).tolist()).most_common(1)
    if n >= _MOST * len(units):
        return ("same" if offset == 0 else "shifted"), (max(0, offset), min(of_a, offset + of_b))
    by_b = ours[np.argsort(theirs, kind="stable")]
    order: Order = "kept" if np.mean(by_b[1:] > by_b[:-1]) > _MOST else "changed"
    ranked = np.sort(ours)
    inside = math.ceil(0.9 * len(ranked))
    widths = ranked[inside - 1 :] - ranked[: len(ranked) - inside + 1] + 1
    start = int(widths.argmin())
    if of_b < of_a and widths[start] <= of_b:
        return order, (int(ranked[start]), int(ranked[start + inside - 1]) + 1)
    return order, None


# Blocks


def _layer_rows(rows: Iterable[FfnRow], real: Mapping[Key, list[UnitMatch]]) -> tuple[LayerRow, ...]:
    """FFNs of one block of B together: for each block of A the units that speak for it, and the share
    that its best-agreeing FFNs hold."""
    blocks: dict[Block, list[FfnRow]] = defaultdict(list)
    for row in rows:
        blocks[row.b[0], row.b[1]].append(row)
    out = []
    for block, members in blocks.items():
        votes: Counter[Block] = Counter()
        share: dict[Block, float] = defaultdict(float)
        for row in members:
            best: dict[Block, UnitMatch] = {}
            for match in real.get(row.b, ()):
                at = match.a[:2]
                votes[at] += match.nearest
                if at not in best or match.share > best[at].share:
                    best[at] = match
            for at, match in best.items():
                share[at] += match.share / len(members)
        ranked = sorted(share, key=lambda at: (-votes[at], -share[at]))
        looked_for = any(row.looked_for for row in members)
        if not ranked:
            out.append(LayerRow(block, None, 0.0, None, False, looked_for))
            continue
        second = ranked[1] if len(ranked) > 1 else None
        clear = second is None or _beats(votes[ranked[0]], votes[second])
        runner_up = None if second is None else (second, share[second])
        out.append(LayerRow(block, ranked[0], share[ranked[0]], runner_up, clear, looked_for))
    return tuple(out)


def _echoes(layers: Iterable[LayerRow]) -> set[Block]:
    """Blocks of B that are only like the neighbour of a block that is not in A."""
    layers = list(layers)
    best: dict[Block, float] = defaultdict(float)
    for row in layers:
        if row.a is not None:
            best[row.a] = max(best[row.a], row.share)
    return {row.b for row in layers if row.a is not None and row.share < _ECHO * best[row.a]}


def _says(layers: Iterable[LayerRow]) -> Iterable[str]:
    for row in layers:
        where = f"{row.b[0]}.{row.b[1]} of B"
        if not row.looked_for:
            yield f"{where}: its hidden units could not be looked for"
        elif row.a is not None and not row.clear and row.runner_up is not None:
            (stack, block), share = row.runner_up
            yield (
                f"{where} is nearest to {row.a[0]}.{row.a[1]} of A ({row.share:.0%} of its units), but {stack}.{block} "
                f"holds {share:.0%}"
            )
