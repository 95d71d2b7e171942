"""The page of a lineage: the sentence, the tree, all pairs, every step with its uncertainty, limits, identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from weightprint.evidence.thresholds import LOG10_P
from weightprint.report.format import powers, seconds
from weightprint.report.html import html_table
from weightprint.report.page.page import Section, bullets, document, figure, fragment, macros, rendered, trusted
from weightprint.report.page.page import facts as listed
from weightprint.report.page.svg import Drawing
from weightprint.report.tree.pairs_drawing import pairs_drawing
from weightprint.report.tree.tree_drawing import tree_drawing
from weightprint.report.tree.words import facts, headline, main_edge, rows, sentence, short_names, step_words
from weightprint.verdict.error_rates import counted

if TYPE_CHECKING:
    from weightprint.results.lineage import Lineage

__all__ = ["drawings", "html", "page"]

_ROWS = 1000
_LIMITS = (
    "A model that moved hardly at all from an ancestor that is not here looks like that ancestor.",
    "A chain of fine-tunes on one kind of data looks like siblings, and is told as siblings.",
    "Copies whose values are equal have an order only where something else stands elsewhere in them.",
    "The support of a step says how much it depends on the choice of layers, and is no error rate: how often a step "
    "leads from the wrong parent is counted by python -m benches.lineage trees, where the truth is known.",
    "From fingerprints alone no merge is told, and no model whose units or channels stand in another order.",
    "Weights do not say who owns a model, under which licence it is, or whether it was distilled.",
)
_TREE = (
    "Each row is a model; its line comes from the model that it was made from. Below a name: how much is new in it "
    "(the squared size of what was added, over that of the weights) with a 95 % interval, and in how many of 40 draws "
    "of the layers it hangs from the same parent. The axis shows the same lengths."
)
_PAIRS = (
    "Mean cosine of the matrices that both models hold, in one order and basis. Blank: no common origin was found. "
    "Numbers are those of the tree."
)


def page(lineage: Lineage) -> str:
    """The whole page."""
    return document("tree of origin", _title(lineage), _lead(lineage), _sections(lineage))


def html(lineage: Lineage) -> str:
    """The sentence, the tree, all pairs and every step, for a notebook."""
    shown = (s for s in (_tree(lineage), _pairs(lineage), _steps(lineage)) if s is not None)
    return fragment(_lead(lineage), *(Markup("<h3>{}</h3>{}").format(s.title, s.body) for s in shown))


def drawings(lineage: Lineage) -> list[Drawing]:
    """Every drawing of the page, for files of their own."""
    return [tree_drawing(lineage), *([_heat(lineage)] if lineage.cosines else [])]


def _title(lineage: Lineage) -> str:
    return f"Where {len(lineage.models):,} models come from"


def _lead(lineage: Lineage) -> Markup:
    tone = "related" if lineage.groups else "none"
    return rendered("told.html", tone=tone, word=headline(lineage).upper(), sentence=sentence(lineage)) + listed(
        facts(lineage)
    )


def _sections(lineage: Lineage) -> list[Section | None]:
    more = [("Who came from whom", "The tree is laid over the findings of compare, and is no test of its own.")]
    level = powers(f"10^{LOG10_P:g}")
    return [
        _tree(lineage),
        _pairs(lineage),
        _steps(lineage),
        _lost(lineage),
        Section("What this can't tell", bullets(_LIMITS)),
        _identity(lineage),
        Section("Ten words", rendered("glossary_tree.html")),
        Section("For a court", rendered("court.html", rates=counted(), level=level, more=more)),
    ]


def _tree(lineage: Lineage) -> Section:
    kinds = {edge.kind for edge in lineage.edges}
    known = (
        ("branch", "made from it", "descent"),
        ("branch mixed", "a merge: one line from each parent", "merge"),
        ("branch unsure", "the same, or which came first is not known", "undirected"),
    )
    shown = [(kind, words) for kind, words, of in known if of in kinds or (of == "undirected" and "copy" in kinds)]
    marks = [("block unseen", "an ancestor that is not among the models")] * bool(lineage.unseen)
    marks += [("mark-against", "a model without a place")] * bool(lineage.unplaced)
    legend = macros().line_legend(shown) + macros().legend(marks)
    return Section("Who was made from whom", figure(tree_drawing(lineage), Markup("{} {}").format(_TREE, legend)))


def _heat(lineage: Lineage) -> Drawing:
    order = [name for name in rows(lineage) if name not in lineage.unseen]
    at, short = [lineage.models.index(name) for name in order], short_names(lineage)
    values = [[lineage.cosines[i][j] for j in at] for i in at]
    return pairs_drawing([short[name] for name in order], values, "likeness")


def _pairs(lineage: Lineage) -> Section | None:
    if not lineage.cosines:
        return None
    drawn = _heat(lineage)
    crossed = any(value is None for row in lineage.cosines for value in row)
    more = " Crossed out: one origin, but they could not be laid on each other." * crossed
    return Section("How alike every two of them are", figure(drawn, f"{drawn.title}. {_PAIRS}{more}"))


def _steps(lineage: Lineage) -> Section | None:
    if not lineage.edges:
        return None
    names = short_names(lineage)
    table = [
        (names[child], ", ".join(names[e.parent] for e in lineage.parents(child)), step_words(lineage, edge, names))
        for child in rows(lineage)
        if lineage.parents(child) and (edge := main_edge(lineage, child))
    ]
    proofs = [
        f"{names[m.child]}: {m.reproduces:.2%} of its values come out of this mix, up to rounding".replace("%", " %")
        for m in lineage.merges
        if m.reproduces is not None
    ]
    body = trusted(html_table("", ("model", "made from", "what is new, and how sure"), table, _ROWS))
    return Section("Step by step", body + (bullets(proofs) if proofs else Markup("")))


def _lost(lineage: Lineage) -> Section | None:
    table = [(gone.model, gone.reason) for gone in lineage.unplaced]
    return (
        Section("What could not be placed", trusted(html_table("", ("model", "why"), table, _ROWS))) if table else None
    )


def _identity(lineage: Lineage) -> Section:
    digests = lineage.digests or (None,) * len(lineage.models)
    table = [(name, digest or "not made") for name, digest in zip(lineage.models, digests, strict=True)]
    told = [("Tool", f"weightprint {lineage.version}"), ("Seed", str(lineage.seed)), ("Took", seconds(lineage.seconds))]
    listing = trusted(html_table("The models", ("source", "digest of all tensors"), table, _ROWS))
    again = Markup("<p>To repeat it, with these sources: <code>weightprint.lineage([…], seed={})</code></p>")
    note = Markup('<p class="note">{}</p>').format(
        "A model's digest is one SHA-256 over type, shape and BLAKE3 of every tensor, whatever the names and shards; "
        "weightprint check --json gives the same."
    )
    return Section("Identity, and how to repeat this", listed(told) + again.format(lineage.seed) + listing + note)
