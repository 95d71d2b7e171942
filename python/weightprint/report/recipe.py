"""A recipe shown: one sentence, the weights, layer by layer, what is left, and the configuration that would redo it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightprint.report.format import percent, plain_table
from weightprint.report.html import html_table
from weightprint.util.escape import escape
from weightprint.util.escape import html as safe

if TYPE_CHECKING:
    from weightprint.compare.recipe import Recipe
    from weightprint.compare.recipe_parts import AdapterFit, Mix, Weight

__all__ = ["facts", "markdown", "mixes", "nearest", "redo", "sentence", "shortened", "text"]

_WIDTH, _LABEL = 100, 15


def sentence(recipe: Recipe) -> str:
    """What a person reads first; models by the last part of their paths where that tells them apart."""
    short = shortened(recipe)
    return _sentence(replace(recipe, **_renamed(recipe, short)))


def shortened(recipe: Recipe) -> dict[str, str]:
    """Parent → what it is called in sentences: the last part of its path, if no other's is the same."""
    last = {name: name.rstrip("/").rpartition("/")[2] or name for name in recipe.parents}
    counts = Counter(last.values())
    return {name: short if counts[short] == 1 else name for name, short in last.items()}


def _renamed(recipe: Recipe, short: Mapping[str, str]) -> dict[str, Any]:
    def of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {short.get(k, k): of(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [of(v) for v in value]
        return short.get(value, value) if isinstance(value, str) else value

    sources = ((mix, mix.source) for mix in recipe.layers)
    return {
        "parameters": of(recipe.parameters),
        "base": of(recipe.base),
        "weights": tuple(replace(w, parent=of(w.parent)) for w in recipe.weights),
        "layers": tuple(replace(m, source=None if s is None else (of(s[0]), s[1])) for m, s in sources),
    }


def _sentence(recipe: Recipe) -> str:
    told = _METHODS.get(recipe.method)
    if told is not None:
        return f"{told(recipe)} What is left is rounding."
    if recipe.search is not None and not recipe.weights:
        return "None of the candidates is in it."
    if not recipe.weights:
        return "No parent has a tensor that the child has."
    names = " + ".join(_term(w) for w in sorted(recipe.weights, key=lambda w: -abs(w.value))[:6])
    if recipe.compared == "fingerprints":
        missing = f"From sketches, nearest is {names}, which leaves {left(recipe)}."
        if recipe.unknown_origin == 0:
            return f"{missing} By which method, and whether value for value, needs the weights."
    else:
        missing = f"No known merge of the given parents makes it; nearest is {names}, which leaves {left(recipe)}."
    if recipe.unknown_origin > 0:
        return f"{missing} {percent(recipe.unknown_origin)} of the weights are of unknown origin: a parent is missing."
    return f"{missing} A parent is missing, or it was changed after the merge."


def left(recipe: Recipe) -> str:
    """``"3.1 % of its squared values unexplained"``."""
    of = "its squared change from the base" if recipe.base is not None else "its squared values"
    return f"{percent(recipe.unexplained)} of {of} unexplained"


def _term(weight: Weight) -> str:
    return f"{weight.value:.3f} {weight.parent}"


def _linear(recipe: Recipe) -> str:
    if recipe.parameters.get("by_layer"):
        return "A linear mix whose weights differ from layer to layer."
    total = "" if recipe.sum_to_one else f" (the weights sum to {sum(w.value for w in recipe.weights):.3f})"
    return f"A linear mix: {' + '.join(map(_term, recipe.weights))}{total}."


def _slerp(recipe: Recipe) -> str:
    first, second = recipe.parameters["of"]
    t, rows = recipe.parameters["t"], recipe.parameters["t_by_layer"]
    course = (
        f"t = {t:.3f}"
        if t is not None
        else f"t from {rows[0][2]:.3f} in the first layer to {rows[-1][2]:.3f} in the last"
    )
    return f"SLERP from {first} to {second}, {course}."


def _scales(recipe: Recipe) -> str:
    return ", ".join(f"{scale:.3f} × {name}" for name, scale in recipe.parameters["scales"].items())


def _densities(recipe: Recipe) -> str:
    return ", ".join(f"{q:.3g}" for q in recipe.parameters["density"].values())


def _dare(recipe: Recipe) -> str:
    elected = " with an election of signs (DARE-TIES)" if recipe.method == "dare_ties" else ""
    factors = ", ".join(f"{a:.3g}" for a in recipe.parameters["factors"].values())
    return (
        f"DARE{elected} over {recipe.base}: {_scales(recipe)}; entries of the differences were kept with density "
        f"{_densities(recipe)} and multiplied by {factors}."
    )


def _passthrough(recipe: Recipe) -> str:
    count = len(recipe.layers)
    return f"Passthrough: each of its {count} layers is a layer of one parent, {layer_words(recipe.layers)}."


_METHODS: dict[str | None, Callable[[Any], str]] = {
    "copy": lambda r: f"The same weights as {r.parameters['parent']}.",
    "passthrough": _passthrough,
    "linear": _linear,
    "task_arithmetic": lambda r: f"Task arithmetic over {r.base}: {_scales(r)} (λ of the differences).",
    "slerp": _slerp,
    "ties": lambda r: f"TIES over {r.base}: density {_densities(r)}, λ {_scales(r)}.",
    "dare_linear": _dare,
    "dare_ties": _dare,
}


def layer_words(layers: Sequence[Mix]) -> str:
    """``"0-3 = A 0-3, 4-7 = B 2-5"``: runs of layers that follow each other in one parent."""
    runs: list[list[Any]] = []
    for mix in layers:
        if mix.source is None:
            continue
        here, (name, there) = int(mix.where.rpartition(".")[2]), mix.source
        number = int(there.rpartition(".")[2])
        if runs and runs[-1][0] == name and (here, number) == (runs[-1][2] + 1, runs[-1][4] + 1):
            runs[-1][2], runs[-1][4] = here, number
        else:
            runs.append([name, here, here, number, number])
    return ", ".join(f"{_run(a, b)} = {name} {_run(c, d)}" for name, a, b, c, d in runs)


def _run(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def adapter_words(fit: AdapterFit) -> str:
    """One line per adapter."""
    explains = f"it explains {percent(fit.explains)} of the change in its modules"
    if not fit.present:
        return f"{fit.adapter} is not folded into it ({explains})"
    return f"{fit.adapter} is folded into it at scale {fit.scale:.3f} [{fit.low:.3f}, {fit.high:.3f}]; {explains}"


def facts(recipe: Recipe) -> list[tuple[str, str]]:
    """The head of the report as (label, text), not yet escaped."""
    rows = [("Child", recipe.child), ("Recipe", sentence(recipe))]
    short = shortened(recipe)
    rows += [("Adapter", adapter_words(replace(fit, adapter=short[fit.adapter]))) for fit in recipe.adapters]
    for weight in recipe.weights:
        span = "" if weight.low is None or weight.high is None else f"  [{weight.low:.3f}, {weight.high:.3f}]"
        rows.append(("Weight", f"{weight.value:+.3f}{span}  {weight.parent}"))
    if recipe.reproduces is not None:
        rows.append(("How sure", f"{recipe.reproduces:.2%} of the values looked at come out so, up to rounding"))
    if recipe.search is not None:
        rows.append(
            ("Searched", f"{recipe.search.candidates} candidates, {len(recipe.search.skipped)} more not comparable")
        )
        if recipe.search.near:
            near = ", ".join(recipe.search.near)
            rows.append(("Relatives", f"{near}: nearest, and no proof that they are parents"))
    rows += [("Note", note) for note in recipe.notes]
    return rows


def _table(mixes: Sequence[Mix], parents: Sequence[str], what: str) -> tuple[list[str], list[list[str]]]:
    with_t = any(mix.t is not None for mix in mixes)
    heads = [what, *(f"P{k}" for k in range(1, len(parents) + 1)), *(["t"] if with_t else []), "unexplained"]
    rows = [
        [
            mix.where,
            *("-" if w is None else f"{w:.3f}" for w in mix.weights),
            *([("-" if mix.t is None else f"{mix.t:.3f}")] if with_t else []),
            percent(mix.unexplained),
        ]
        for mix in mixes
    ]
    return heads, rows


def text(recipe: Recipe, *, verbose: bool = False) -> str:
    """The report as plain text, wrapped at 100 columns."""
    lines: list[str] = []
    for label, told in facts(recipe):
        lines += textwrap.wrap(
            escape(told, None),
            _WIDTH,
            initial_indent=label.ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
            break_on_hyphens=False,
            break_long_words=False,
        )
    legend = [f"P{k} is {escape(name)}" for k, name in enumerate(recipe.parents, 1)]
    for what, mixes in (("layer", recipe.layers), ("role", recipe.roles if verbose else ())):
        if mixes:
            lines += ["", *([*legend, *[f"{nearest(recipe)}:"] * bool(nearest(recipe))] if what == "layer" else ())]
            lines += plain_table(*_table(mixes, recipe.parents, what)).rstrip("\n").split("\n")
    if (made := recipe.mergekit()) is not None:
        lines += ["", "To make it again with mergekit:", "", *("    " + line for line in made.rstrip("\n").split("\n"))]
    if not verbose:
        lines += ["", "-v also shows the mix of every role."]
    return "\n".join(lines) + "\n"


def nearest(recipe: Recipe) -> str:
    """What the weights of layers are where the method mixes entries and not layers."""
    sparse = recipe.method in ("ties", "dare_linear", "dare_ties")
    return "The nearest linear mix of each layer, which is not how it was made" * sparse


def markdown(recipe: Recipe) -> str:
    """The sentence, and the report below it as it is printed."""
    fence = "~" * 8
    return f"## {escape(sentence(recipe), None)}\n\n{fence}\n{text(recipe, verbose=True)}{fence}\n"


def mixes(recipe: Recipe) -> str:
    """The weights of every layer and role as HTML tables."""
    told = (("Layers", "layer", recipe.layers), ("Roles", "role", recipe.roles))
    return "".join(
        html_table(caption, *_table(rows, recipe.parents, what), None) for caption, what, rows in told if rows
    )


def redo(recipe: Recipe) -> str:
    """The configuration of mergekit that would make it again, as HTML; empty where there is none."""
    made = recipe.mergekit()
    if made is None:
        return ""
    shown = "\n".join(safe(line, None) for line in made.rstrip("\n").split("\n"))
    return f"<pre>{shown}</pre>"
