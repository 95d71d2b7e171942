"""A recipe shown: one sentence, the weights, layer by layer, what is left, and the configuration that would redo it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from weightprint.compare.recipe_parts import Mix
from weightprint.report.format import percent, plain_table
from weightprint.report.html import html_table
from weightprint.report.pen import Pen
from weightprint.report.terminal import plain
from weightprint.util.escape import escape
from weightprint.util.escape import html as safe

if TYPE_CHECKING:
    from weightprint.compare.recipe import Recipe
    from weightprint.compare.recipe_parts import AdapterFit, Weight

__all__ = [
    "facts",
    "folded",
    "is_short",
    "layer_table",
    "lines",
    "mixes",
    "nearest",
    "redo",
    "sentence",
    "shortened",
    "text",
]

_LABEL = 15
_FOLDED = 24  # rows of layers, and lines of the configuration, that are shown unless all are asked for
_LONGEST = 200  # letters of a line of it


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
        rows.append(
            ("How sure", f"{100 * recipe.reproduces:.2f} % of the values looked at come out so, up to rounding")
        )
    if recipe.search is not None:
        rows.append(
            ("Searched", f"{recipe.search.candidates} candidates, {len(recipe.search.skipped)} more not comparable")
        )
        if recipe.search.near:
            near = ", ".join(recipe.search.near)
            rows.append(("Relatives", f"{near}: nearest, and no proof that they are parents"))
    rows += [("Note", note) for note in recipe.notes]
    return rows


def _table(
    mixes: Sequence[Mix], parents: Sequence[str], what: str, room: int | None = None
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows; with `room` for so many characters, only as many parents as fit, those with most weight."""
    with_t = any(mix.t is not None for mix in mixes)
    shown = [*range(len(parents))]
    if room is not None:
        fit = max(1, (room - max(len(mix.where) for mix in mixes) - 13 - 8 * with_t) // 8)
        most = sorted(shown, key=lambda k: -sum(abs(mix.weights[k] or 0.0) for mix in mixes))
        shown = sorted(most[:fit])
    heads = [what, *(f"P{k + 1}" for k in shown), *(["t"] if with_t else []), "unexplained"]
    rows = [
        [
            mix.where,
            *("-" if (w := mix.weights[k]) is None else f"{w:.3f}" for k in shown),
            *([("-" if mix.t is None else f"{mix.t:.3f}")] if with_t else []),
            percent(mix.unexplained),
        ]
        for mix in mixes
    ]
    return heads, rows


def layer_table(mixes: Sequence[Mix], parents: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the mix of each layer, as wide as a page."""
    return _table(mixes, parents, "layer", 100)


def folded(mixes: Sequence[Mix], most: int) -> list[Mix]:
    """At most about `most` rows: layers that follow each other with the same mix are one, and if that is not enough,
    several are, with their mean."""
    runs = [[*some] for _, some in groupby(mixes, lambda m: (m.where.rpartition(".")[0], _rounded(m)))]
    if len(runs) > most:
        size = -(-len(mixes) // most)
        stacks = ([*some] for _, some in groupby(mixes, lambda m: m.where.rpartition(".")[0]))
        runs = [some[k : k + size] for some in stacks for k in range(0, len(some), size)]
    return [_mean(run) for run in runs]


def _rounded(mix: Mix) -> tuple[Any, ...]:
    return (*(None if w is None else round(w, 3) for w in mix.weights), None if mix.t is None else round(mix.t, 3))


def _mean(run: Sequence[Mix]) -> Mix:
    """Several layers as one: mean weights, the most that is unexplained."""
    if len(run) == 1:
        return run[0]
    weights = (_average([mix.weights[k] for mix in run]) for k in range(len(run[0].weights)))
    where = f"{run[0].where}-{run[-1].where.rpartition('.')[2]}"
    return Mix(where, tuple(weights), max(m.unexplained for m in run), None, _average([m.t for m in run]))


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def text(recipe: Recipe, *, verbose: bool = False, pen: Pen | None = None) -> str:
    """The report as plain text of 80 columns, or as a pen writes it; layers in runs unless verbose."""
    return plain(lines(recipe, pen or Pen(80), verbose=verbose))


def lines(recipe: Recipe, pen: Pen, *, verbose: bool = False, most: int = _FOLDED) -> Iterator[Text]:
    """The sentence, the weights, layer by layer, and the configuration to make it again. Names of parents are whole;
    of more parents than fit, the tables show those with most weight."""
    for label, told in facts(recipe):
        yield from pen.wrapped(escape(told, None), label.ljust(_LABEL))
    for what, mixes in (("layer", recipe.layers), ("role", recipe.roles if verbose else ())):
        if not mixes:
            continue
        yield Text()
        if what == "layer":
            yield from (pen.line((f"P{k} is {escape(name)}", "")) for k, name in enumerate(recipe.parents, 1))
            yield from pen.wrapped(f"{nearest(recipe)}:") if nearest(recipe) else ()
        heads, cells = _table(mixes if verbose else folded(mixes, most), recipe.parents, what, pen.width)
        yield from (pen.line((line, "")) for line in plain_table(heads, cells).rstrip("\n").split("\n"))
        if hidden := len(recipe.parents) - sum(head[0] == "P" for head in heads):
            yield from pen.wrapped(f"… and {hidden} more parent{'s' * (hidden > 1)} with less weight: --json has all.")
    if (made := recipe.mergekit()) is not None:
        again = [f"    {line}" for line in made.rstrip("\n").split("\n")]
        yield from (Text(), pen.line(("To make it again with mergekit:", "")), Text())
        if verbose or is_short(again, most):
            yield from (Text(pen.text(line), no_wrap=True) for line in again)
        else:
            yield from pen.wrapped(f"{len(again):,} lines: -o FILE.yaml writes them.", "    ")
    if not verbose:
        folds = len(folded(recipe.layers, most)) < len(recipe.layers)
        yield from (Text(), *pen.wrapped(f"-v also shows {'every layer and ' * folds}the mix of every role."))


def is_short(again: Sequence[str], most: int) -> bool:
    """Whether a configuration may stand in a report: else a file is the place for it."""
    return len(again) <= most and max(map(len, again)) <= _LONGEST


def nearest(recipe: Recipe) -> str:
    """What the weights of layers are where the method mixes entries and not layers."""
    sparse = recipe.method in ("ties", "dare_linear", "dare_ties")
    return "The nearest linear mix of each layer, which is not how it was made" * sparse


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
