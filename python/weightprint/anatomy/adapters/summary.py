"""What a person is told of the adapters in a file: kind, rank, alpha, what they change, and in whose names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightprint.anatomy.adapters.adapters import alpha_of
from weightprint.anatomy.adapters.dialects import KINDS, Update, updates_of
from weightprint.errors import WeightprintError
from weightprint.quant.weights import Weights
from weightprint.util.escape import escape

_BLOCK = re.compile(r".*(?:blocks?|layers?|blk|h)[._]\d+[._]")


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """One adapter, told.

    Attributes:
        name: where a file holds several.
        kinds: kind → number of modules, the commonest first: ``{"LoRA": 28}``.
        dialects: how it is spelled.
        ranks, alphas: that its modules have, sorted; alphas only where they are known.
        targets: what is adapted, by role or by the end of the module's name → number of modules.
        base: the model that adapter_config.json or the metadata name, or None.
    """

    name: str
    kinds: Mapping[str, int]
    dialects: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    targets: Mapping[str, int]
    base: str | None

    @property
    def words(self) -> str:
        """``"LoRA of rank 8, alpha 16, on 8 modules (q 4, v 4), of someone/base; PEFT's names"``."""
        kinds = " and ".join(f"{kind} ({n:,})" if len(self.kinds) > 1 else kind for kind, n in self.kinds.items())
        rank = f" of rank {_few(self.ranks)}" if self.ranks else ""
        alpha = f", alpha {_few(self.alphas)}" if self.alphas else ""
        n = sum(self.kinds.values())
        shown = [f"{escape(target, 60)} {count}" for target, count in list(self.targets.items())[:8]]
        more = f" and {len(self.targets) - 8} more" if len(self.targets) > 8 else ""
        name = f"{escape(self.name, 60)}: " if self.name else ""
        base = f", of {escape(self.base, 120)}" if self.base else ""
        on = f", on {n:,} module{'s' * (n != 1)} ({', '.join(shown)}{more})"
        return f"{name}{kinds}{rank}{alpha}{on}{base}; {' and '.join(self.dialects)} names"

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        made = {key: getattr(self, key) for key in self.__slots__}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in made.items()}


def summaries(weights: Weights, roles: Mapping[str, str] | None = None) -> tuple[AdapterSummary, ...]:
    """Every adapter in a file. Reads the scalars ``alpha`` and nothing else.

    Args:
        weights: of the checkpoint.
        roles: stored name of a factor → role of what it changes, where that is known.
    """
    by_name: dict[str, list[Update]] = defaultdict(list)
    for update in updates_of(weights.shapes)[0]:
        by_name[update.adapter].append(update)
    config, metadata = weights.checkpoint.config, weights.checkpoint.metadata
    base = config.get("base_model_name_or_path", config.get("model", metadata.get("ss_sd_model_name")))
    found = []
    for name, updates in by_name.items():
        targets = Counter((roles or {}).get(u.first) or _BLOCK.sub("", u.module, count=1) for u in updates)
        alphas = {alpha for u in updates if (alpha := _told_alpha(u, weights)) is not None}
        found.append(
            AdapterSummary(
                name,
                dict(Counter(KINDS[u.kind] for u in updates).most_common()),
                tuple(sorted({u.dialect for u in updates})),
                tuple(sorted({_told_rank(u, config) for u in updates} - {0})),
                tuple(sorted(alphas)),
                dict(targets.most_common()),
                base if isinstance(base, str) else None,
            )
        )
    return tuple(found)


def _few(values: Sequence[float]) -> str:
    text = [f"{value:g}" for value in values]
    return text[0] if len(text) == 1 else f"{text[0]} to {text[-1]}" if len(text) > 3 else ", ".join(text)


def _told_rank(update: Update, config: Mapping[str, Any]) -> int:
    """r; of target_parameters, whose factors hold all experts' ranks one below the other, the config's."""
    rank, said = update.rank or 0, config.get("r")
    stacked = bool(config.get("target_parameters")) and isinstance(said, int) and 0 < said < rank
    return int(said) if stacked and isinstance(said, int) and rank % said == 0 else rank


def _told_alpha(update: Update, weights: Weights) -> float | None:
    try:
        alpha = alpha_of(update, weights, None)
    except WeightprintError:
        return None
    return float(alpha) if isinstance(alpha, int | float) and not isinstance(alpha, bool) else None
