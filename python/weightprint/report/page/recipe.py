"""The page of a recipe: the sentence, how much of each parent is in each layer, and the configuration to redo it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from weightprint.report.page.mix_drawing import mix_figure
from weightprint.report.page.page import Section, document, fragment, rendered, trusted
from weightprint.report.page.page import facts as listed
from weightprint.report.recipe import facts, mixes, redo, sentence, text

if TYPE_CHECKING:
    from weightprint.compare.recipe import Recipe

__all__ = ["html", "page", "text"]


def page(recipe: Recipe) -> str:
    """The whole page."""
    again = redo(recipe)
    sections = [
        Section("The mix", _mix(recipe)),
        Section("Layer by layer, role by role", trusted(mixes(recipe))) if recipe.layers or recipe.roles else None,
        Section("To make it again with mergekit", trusted(again)) if again else None,
    ]
    return document("recipe", recipe.child, _lead(recipe), sections)


def html(recipe: Recipe) -> str:
    """The sentence, the mix, and the configuration, as one block of HTML for a notebook."""
    return fragment(_lead(recipe), _mix(recipe), trusted(mixes(recipe)), trusted(redo(recipe)))


def _lead(recipe: Recipe) -> Markup:
    word = (recipe.method or "not explained").replace("_", " ").upper()
    return rendered("told.html", tone="related" if recipe.explained else "none", word=word, sentence=sentence(recipe))


def _mix(recipe: Recipe) -> Markup:
    said = [(label, words) for label, words in facts(recipe) if label not in ("Child", "Recipe")]
    said += [(f"P{k}", name) for k, name in enumerate(recipe.parents, 1)]
    return mix_figure(recipe) + listed(said)
