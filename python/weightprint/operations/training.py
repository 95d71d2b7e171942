"""Training on: what is neither noise nor low rank nor rounding nor a change of form, by how far it went.

Cosine of all changed matrices, before and after, pooled: above .97 a fine-tune, under .95 continued pre-training
(published cosines of supervised fine-tunes and of continued pre-training leave a gap between); in between the nearer
name with less confidence. A mean of two fine-tunes of A, seen beside A alone, is a difference like that of one: one
pair can't tell a merge from training, so no confidence is above :data:`MERGE_OR_TRAINING`. Nor can the weights tell why
somebody trained: continuing and washing a trace away are one thing done for different lengths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from weightprint.evidence.rounding.block_codes import PUSHED
from weightprint.operations.base import Operation, Row
from weightprint.operations.changes import ZEROED, Change, Changes, pooled
from weightprint.operations.pruning import COARSE
from weightprint.verdict.facts import Facts

__all__ = ["FINE_TUNE", "PRETRAINING", "training"]

FINE_TUNE, PRETRAINING = 0.97, 0.95
#: Highest confidence, since a merge with an unknown sibling leaves the same trace.
MERGE_OR_TRAINING = 0.8
_BETWEEN = 0.5
_LISTED = 200
_ROUNDING = 2.0**-20  # |B - A| / |A| of the same arithmetic in float32, summed in another order: nothing was trained


def training(facts: Facts, changes: Changes) -> Iterable[Operation]:
    """``{"cosine", "relative_change", "layers": [[B's layer, relative change], …], "outside": {role: relative change},
    "frozen": names of tensors left as they were}``."""
    lost = sum(c.b.rank2 and not c.kin for c in changes.all)
    if facts.initialisation_only or not _trained(changes) or lost > len(changes.matrices):
        return  # most matrices that differ have nothing left of A in place: something was moved or mapped, not trained
    whole = pooled(changes.matrices)
    if whole is None or whole.relative <= _ROUNDING:
        return
    cosine = whole.cosine
    fine = cosine > (FINE_TUNE + PRETRAINING) / 2
    confidence = MERGE_OR_TRAINING if cosine > FINE_TUNE or cosine < PRETRAINING else _BETWEEN
    by_layer: dict[int, list[Change]] = defaultdict(list)
    by_role: dict[str, list[Change]] = defaultdict(list)
    for change in (c for c in changes.all if c.equal or c.kin):
        if change.layer is not None:
            by_layer[change.layer].append(change)
        else:
            by_role[change.role].append(change)
    frozen = [c.b.name for c in changes.untouched if not c.b.constant]
    parameters: Row = {
        "cosine": round(cosine, 4),
        "relative_change": _rounded(whole.relative),
        "layers": [[layer, _relative(by_layer[layer])] for layer in sorted(by_layer)],
        "outside": {role: _relative(by_role[role]) for role in sorted(by_role)},
        "frozen": frozen[:_LISTED],
    }
    left = f", {len(frozen)} as they were" if frozen else ""
    where = f"{len(changes.changed)} tensors changed{left}; training or a merge, which one pair can't tell apart"
    yield Operation("fine_tune" if fine else "continued_pretraining", parameters, where, confidence)


def _trained(changes: Changes) -> bool:
    """Most matrices differ in a way that nothing else explains, or by more than the grid that they lie on does."""
    rounded = changes.of_kind("changed, then grid")
    # What was pruned is off the grid by more; where zero is none of its points, values next to it are what is left.
    whole = pooled(c for c, s in rounded if c.zeroed < COARSE and not (s.grid is not None and s.grid.cut >= ZEROED))
    if whole is None:
        return bool(changes.of_kind("other"))
    steps = sorted(s.grid.rounding for _, s in rounded if s.grid is not None)
    return whole.relative**2 > PUSHED * steps[len(steps) // 2] ** 2


def _relative(changes: Sequence[Change]) -> float:
    """|B - A| / |A| over several tensors, those left as they were included."""
    changed = [c for c in changes if not c.equal]
    dd = sum(c.dd * c.b.numel / c.n for c in changed)
    xx = sum(c.xx * c.b.numel / c.n for c in changed) + sum(c.a.std**2 * c.a.numel for c in changes if c.equal)
    return _rounded((dd / xx) ** 0.5) if xx > 0 else 0.0


def _rounded(relative: float) -> float:
    """Four decimals; of less than that two digits, so that a change is never 0."""
    return round(relative, 4) or float(f"{relative:.2g}")
