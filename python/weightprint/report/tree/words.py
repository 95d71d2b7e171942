"""A tree of origin in sentences: of all of it, and of each step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.format import percent, powers
from weightprint.verdict.error_rates import error_rate

if TYPE_CHECKING:
    from weightprint.results.lineage import Edge, Lineage

__all__ = ["facts", "headline", "main_edge", "mix_words", "rows", "sentence", "short_names", "step_words"]

_COPY = "nothing new beyond .03 % of the weights, up to order, basis and factors"


def headline(lineage: Lineage) -> str:
    """The finding in two words."""
    n = len(lineage.groups)
    return (
        "no common origin"
        if not n
        else "one common origin"
        if n == 1 and not lineage.unplaced
        else f"{n} " + ("common origin" if n == 1 else "separate origins")
    )


def sentence(lineage: Lineage) -> str:
    """What a person reads first."""
    n, groups = len(lineage.models), sorted((len(group) for group in lineage.groups), reverse=True)
    if not groups:
        said = f"No two of the {n} models share an origin that could be told"
    elif len(groups) == 1:
        said = f"{groups[0]} of {n} models share one origin" if groups[0] < n else f"All {n} models share one origin"
    else:
        sizes = f" ({', '.join(map(str, groups[:-1]))} and {groups[-1]} models)" if len(groups) < 7 else ""
        said = f"{len(groups)} groups{sizes} of these {n} models share an origin each"
    more = [
        f"{count} {word if count == 1 else words}"
        for count, word, words in (
            (len(lineage.merges), "is a merge of others", "are merges of others"),
            (len(lineage.unseen), "ancestor must have been that is not among them", "ancestors must have been that are "
             "not among them"),
            (len(lineage.unplaced), "has no place in a tree", "have no place in a tree"),
        )
        if count
    ]  # fmt: skip
    return f"{'; '.join([said, *more])}."


def facts(lineage: Lineage) -> list[tuple[str, str]]:
    """What stands below the sentence: how sure, how often wrong."""
    rate = error_rate("shared_origin")
    told = [edge.support for edge in lineage.edges if edge.support is not None]
    level = powers(f"10^{LOG10_P:g}")
    joined = f"models are joined where compare finds a shared origin, at p ≤ {level}; likeness alone joins none"
    out = [("How sure", joined)]
    if told and lineage.groups:
        least = f"the least sure of {len(told)} steps" if len(told) > 1 else "the step"
        words = f"with the layers drawn again 40 times, {least} holds in {percent(min(told))} of draws"
        out.append(("Who from whom", words))
    if rate is not None:
        out.append(("How often wrong", f"of joining two models: {rate.sentence}"))
    return out


def short_names(lineage: Lineage) -> dict[str, str]:
    """Model → what it is called: its file's or folder's name, where no other's is the same."""
    last = {name: _last(name) for name in (*lineage.models, *lineage.unseen)}
    counts = Counter(last.values())
    return {name: short if counts[short] == 1 else name for name, short in last.items()}


def _last(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", "model.safetensors")]
    return parts[-1] if parts else name


def main_edge(lineage: Lineage, child: str) -> Edge:
    """The step that a model is shown below: of a merge, the one from the parent with the largest weight."""
    return max(lineage.parents(child), key=lambda e: (e.weight or 0.0, e.parent))


def rows(lineage: Lineage) -> list[str]:
    """Models and unseen ancestors from top to bottom: each below its parent, the largest tree first, what has no place
    last."""
    out: dict[str, None] = {}
    below: dict[str, list[str]] = {}
    for child in dict.fromkeys(edge.child for edge in lineage.edges):
        below.setdefault(main_edge(lineage, child).parent, []).append(child)

    def walk(start: str) -> None:
        left = [start]
        while left:
            name = left.pop()
            if name not in out:
                out[name] = None
                left.extend(reversed(below.get(name, [])))

    grown = sorted(zip(lineage.groups, lineage.roots, strict=True), key=lambda both: -len(both[0]))
    for _, root in grown:
        walk(root)
    for name in below:  # edges that go round in a circle have no root
        walk(name)
    return [*out, *(name for name in lineage.models if name not in out)]


def mix_words(lineage: Lineage, child: str, names: dict[str, str]) -> str:
    """``"0.70 × a + 0.30 × b (linear)"``: the parents of a merge, the largest weight first."""
    edges = sorted(lineage.parents(child), key=lambda e: (-(e.weight or 0.0), e.parent))
    terms = [f"{'' if e.weight is None else f'{e.weight:.2f} × '}{names.get(e.parent, e.parent)}" for e in edges]
    merge = next((m for m in lineage.merges if m.child == child), None)
    return f"{' + '.join(terms)} ({(merge.method if merge else 'merge').replace('_', ' ')})"


def step_words(lineage: Lineage, edge: Edge, names: dict[str, str] | None = None) -> str:
    """How much is new, with its interval, and how sure the step is; of a merge the mix."""
    if edge.kind == "merge":
        return f"merge: {mix_words(lineage, edge.child, names or short_names(lineage))}"
    if edge.kind == "copy":
        return _COPY
    said = [] if edge.length is None else [f"{edge.length:.3g} new"]
    if edge.low is not None and edge.high is not None:
        said = [f"{' '.join(said)} [{edge.low:.3g}, {edge.high:.3g}]"]
    said += [f"in {edge.support:.0%} of draws".replace("%", " %")] * (edge.support is not None)
    return ", ".join([*said, *["or the other way round"] * (edge.kind == "undirected")])
