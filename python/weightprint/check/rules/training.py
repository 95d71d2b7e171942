"""Was this ever trained? The marks of a fresh initialisation.

Of independent draws, m x n with root mean square σ, the largest singular value is σ(√m + √n), and seldom more than
1 + min(m, n)^(-2/3) times that (Tracy and Widom); so it is with normal, uniform and truncated draws, and less of
orthogonal ones. Training adds directions that stand out: of real models' matrices 1.3 to 5 times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from weightprint.anatomy.adapters.adapters import is_adapter
from weightprint.check.context import CheckContext, listed, pattern_of
from weightprint.errors import WeightprintError
from weightprint.results.finding import Finding
from weightprint.util.ranges import spans

_LEARNED = frozenset({"attention", "ffn", "ssm", "projector"})
_LEAST, _LARGEST = 16, 512  # sides of the part that is decomposed
_MATRICES = 4  # that must agree
_BLOCK_LEAST = 64  # side of matrices that speak for a block alone, or without any gain
_SAMPLED, _SIGMAS = 48, 6.0


@dataclass(slots=True)
class _Signs:
    """What a model or a block has: gains, those exactly as initialised, and its matrices."""

    gains: int = 0
    fresh_gains: int = 0
    matrices: list[str] = field(default_factory=list)


def never_trained(context: CheckContext) -> Iterator[Finding]:
    """All norm gains as initialised, exactly 1 or 0, and matrices whose spectrum is that of independent draws.

    Gains alone are 1 where they were folded into the matrices behind them. Where a model has no gains, the matrices of
    one role must have one standard deviation in every block, too: of n draws it scatters by less than 1/√(2n).
    """
    if is_adapter(context.checkpoint.names()):
        return
    whole, blocks = _Signs(), defaultdict[tuple[str, int], _Signs](_Signs)
    for name in context.anatomy.weights:
        found = [place for a in context.anatomy.of(name) if (place := a.place).block is not None]
        signs = [whole, blocks[found[0].stack, int(found[0].block or 0)]] if found else [whole]
        _look(context, name, signs)
    gains = whole.gains
    as_made = gains > 1 and whole.fresh_gains == gains
    if as_made or (not gains and _alike(context, whole.matrices)):
        if _independent(context, whole.matrices, _LEAST if as_made else _BLOCK_LEAST):
            first = f"all {gains:,} norm gains are exactly as initialised" if gains else "no norm has a gain"
            message = f"never trained, by all signs: {first}, and the matrices have the spectrum of independent draws"
            yield Finding("never_trained", "warning", message)
        return
    fresh = defaultdict[str, list[int]](list)
    for (stack, block), signs_here in blocks.items():
        gains_fresh = signs_here.gains and signs_here.fresh_gains == signs_here.gains
        if gains_fresh and _independent(context, signs_here.matrices, _BLOCK_LEAST):
            fresh[stack].append(block)
    for stack, numbers in fresh.items():
        names = blocks[stack, numbers[0]].matrices
        message = (
            f"{stack}: block{'s' * (len(numbers) > 1)} {spans(sorted(numbers))} never trained, by all signs: gains "
        )
        message += f"exactly as initialised, and the spectrum of independent draws: {listed(names)}"
        yield Finding("never_trained", "warning", message, tensor=names[0])


def _look(context: CheckContext, name: str, signs: list[_Signs]) -> None:
    """Count a weight among the gains or matrices that it belongs to."""
    weight, parts = context.anatomy.weights[name], context.parts(name)
    if len(weight.shape) == 1 and (("norm" in parts and "bias" not in parts) or (not parts and _is_gain(name))):
        k, table = context.row_of.get(name), context.scan.table
        fresh = k is not None and table["min"][k] == table["max"][k] and table["min"][k] in (0, 1)
        for sign in signs:
            sign.gains, sign.fresh_gains = sign.gains + 1, sign.fresh_gains + fresh
    elif len(weight.shape) >= 2 and weight.readable and (parts & _LEARNED or not parts):
        large = min(weight.shape[0], weight.numel // max(1, weight.shape[0])) >= _LEAST
        for sign in signs if large else ():
            sign.matrices.append(name)


def _is_gain(name: str) -> bool:
    return name.endswith((".weight", ".gamma", ".scale"))


def _independent(context: CheckContext, names: list[str], least: int = _LEAST) -> bool:
    """Whether the largest singular value of every matrix that is looked at is no larger than of independent draws."""
    chosen = names[:: max(1, len(names) // _SAMPLED)]
    if len(chosen) < _MATRICES:
        return False
    for name in chosen:
        try:
            values = context.anatomy.weights.read(name, slice(0, _LARGEST)).astype(np.float64)
        except WeightprintError:
            return False
        part = values.reshape(len(values), -1)[:, :_LARGEST]
        rms = float(np.sqrt(np.mean(part**2))) if np.isfinite(part).all() else 0.0
        if min(part.shape) < least or not 0 < rms < np.inf:
            return False
        edge = rms * (np.sqrt(part.shape[0]) + np.sqrt(part.shape[1]))
        if np.linalg.norm(part, 2) > edge * (1 + min(part.shape) ** (-2 / 3)):
            return False
    return True


def _alike(context: CheckContext, names: list[str]) -> bool:
    """Whether the plain matrices of each role have one standard deviation in every block, as far as chance allows."""
    deviations: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for name in names:
        if name in context.row_of and name not in context.components:
            k, table = context.row_of[name], context.scan.table
            deviations[pattern_of(name)].append((float(table["std"][k]), int(table["n"][k])))
    several = [found for found in deviations.values() if len(found) >= _MATRICES]
    for found in several:
        sd, n = (np.array(column, np.float64) for column in zip(*found, strict=True))
        if np.any(np.abs(sd - np.mean(sd)) > _SIGMAS * float(np.mean(sd)) / np.sqrt(2 * n)):
            return False
    return bool(several)
