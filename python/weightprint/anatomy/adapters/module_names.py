"""How an adapter's names of modules become its base's: one rule for all of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from weightprint.anatomy.adapters.dialects import Factor, module_key
from weightprint.quant.weights import Weight

Rule = Callable[[str], str]
"""How a name that the adapter uses becomes the base's."""


def named(name: str, rule: Rule | None) -> str:
    """The base's name of a tensor; `rule` None: the same."""
    return name if rule is None else rule(name)


def rule_of(modules: list[str], weights: Mapping[str, Weight]) -> Rule | None:
    """The rule that finds most modules in the base; of those that find as many, the one that changes names least."""
    wanted = [module + ".weight" for module in modules]
    if not modules or all(name in weights for name in wanted):
        return None
    if any("." not in module for module in modules):
        return _unflattened(modules, weights)
    words = [module.split(".") for module in modules]
    best: tuple[int, int, int] = (0, 0, 0)
    made: Rule | None = None
    for drop in range(min(map(len, words))):
        if drop and len({tuple(w[:drop]) for w in words}) > 1:
            break  # they differ in what would be left out
        for tail in {".".join(w[drop:]) + ".weight" for w in (words[0], words[-1])}:
            for prefix in {name[: len(name) - len(tail)] for name in weights if name.endswith(tail)}:
                if prefix and not prefix.endswith("."):
                    continue
                rule = partial(_exchanged, drop=drop, prefix=prefix)
                score = (sum(rule(name) in weights for name in wanted), -drop, -len(prefix))
                if score[0] and (made is None or score > best):
                    best, made = score, rule
    return made


def _exchanged(name: str, drop: int, prefix: str) -> str:
    return prefix + ".".join(name.split(".")[drop:])


def _unflattened(modules: list[str], weights: Mapping[str, Weight]) -> Rule:
    """kohya's modules → the base's: the one whose name with underscores for dots ends as the module's does."""
    flat = {name.rpartition(".")[0].replace(".", "_"): name.rpartition(".")[0] for name in weights}
    ends: dict[str, set[str]] = defaultdict(set)
    for stem in (module_key(Factor(m, "", "", ""))[0] for m in modules):
        words = re.sub(r"^te\d?_", "", stem)
        ends[stem] = {name for key, name in flat.items() if key == words or key.endswith("_" + words)}

    def rule(name: str) -> str:
        module, _, kind = name.rpartition(".")
        found = ends.get(module_key(Factor(module, "", "", ""))[0], set())
        return f"{next(iter(found))}.{kind}" if len(found) == 1 else name

    return rule
